"""A claim: what is said, by whom, in which sense it is true, what would falsify it, and the numbers that do not.

The page of a claim and its test call the same function: if the physics changes, the page cannot be built and the test
fails.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

Kind = Literal["exact", "asymptotic", "heuristic"]
KINDS: dict[Kind, str] = {
    "exact": "follows from the theory's equations at any parameters, to the accuracy of the numbers",
    "asymptotic": "true in a limit (large size, high rate, many rows); the numbers say how near the limit is",
    "heuristic": "a rule that holds at the points shown, and need not elsewhere",
}
PARTS = {
    "learning": "Quantized learning [Q]",
    "formats": "Weight formats [F]",
    "scaling": "Scaling laws [S]",
    "findings": "Found here",
}
"""By module."""


@dataclass(frozen=True)
class Check:
    """One line of evidence: what was computed, what the claim asks of it, and whether it is so."""

    what: str
    found: str
    asked: str
    holds: bool


@dataclass(frozen=True)
class Evidence:
    checks: list[Check]
    draw: Callable[[Any], None] | None = None  # of matplotlib axes
    remarks: list[str] = field(default_factory=list)

    @property
    def holds(self) -> bool:
        return all(check.holds for check in self.checks)


@dataclass(frozen=True)
class Claim:
    name: str
    title: str
    source: str
    kind: Kind
    falsified_by: str
    compute: Callable[[], Evidence]

    @property
    def text(self) -> str:
        return self.compute.__doc__ or ""

    @property
    def badge(self) -> str:
        return f"[{self.kind}]{{.badge .{self.kind}}}"


CLAIMS: dict[str, Claim] = {}


def claim(title: str, *, source: str, kind: Kind, falsified_by: str) -> Callable:
    """Puts a function that computes evidence among the claims, under its name; its docstring (Markdown) is the page's text."""

    def entered(compute: Callable[[], Evidence]) -> Callable[[], Evidence]:
        name = compute.__name__.replace("_", "-")
        CLAIMS[name] = Claim(name, title, source, kind, falsified_by, compute)
        return compute

    return entered


def listed(claims: Iterable[Claim]) -> Iterable[str]:
    """Lines of a table for each part."""
    for part, title in PARTS.items():
        yield f"\n**{title}**\n\n| claim | source | |\n| --- | --- | --- |"
        for claim in claims:
            if claim.compute.__module__.endswith(part):
                yield f"| [{claim.title}](/claims/pages/{claim.name}.md) | {claim.source} | {claim.badge} |"


def mean_and_error(values: Sequence[float] | np.ndarray) -> tuple[float, float]:
    """Of independent values: their mean and its standard error."""
    return float(np.mean(values)), float(np.std(values, ddof=1) / len(values) ** 0.5)


def near(what: str, found: float, expected: float, within: float) -> Check:
    """|found - expected| <= within."""
    return Check(what, _shown(found), f"{expected:.8g} ± {within:.2g}", bool(abs(found - expected) <= within))


def agrees(what: str, found: float, error: float, expected: float, deviations: float = 3.0) -> Check:
    """A measured number with its standard error, within so many of them."""
    z = (found - expected) / error
    shown = f"{found:.5g} ± {error:.2g} (z = {z:+.1f})"
    return Check(what, shown, f"{expected:.6g}, within {deviations:g} standard errors", bool(abs(z) <= deviations))


def differs(what: str, found: float, error: float, expected: float, deviations: float = 5.0) -> Check:
    """A measured number that a prediction must miss by so many standard errors at least."""
    z = (found - expected) / error
    shown = f"{found:.5g} ± {error:.2g} (z = {z:+.1f})"
    return Check(what, shown, f"not {expected:.6g}: {deviations:g} standard errors off", bool(abs(z) >= deviations))


def below(what: str, found: float, bound: float) -> Check:
    return Check(what, _shown(found), f"< {bound:.6g}", bool(found < bound))


def above(what: str, found: float, bound: float) -> Check:
    return Check(what, _shown(found), f"> {bound:.6g}", bool(found > bound))


def true(what: str, found: bool) -> Check:
    return Check(what, "yes" if found else "no", "yes", bool(found))


def _shown(x: float) -> str:
    return f"{float(x):.8g}"
