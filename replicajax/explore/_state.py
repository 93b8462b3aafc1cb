"""What the page shows, as a value: every control in one frozen record, and its link.

No JAX here, nor anything of the page: a link is read and checked before either is imported.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, NamedTuple
from urllib.parse import urlencode


class Span(NamedTuple):
    """A number from `low` to `high`."""

    low: float
    high: float
    title: str
    unit: str = ""
    log: bool = False
    endless: bool = False
    """Whether inf is allowed too."""
    whole: bool = False

    def read(self, text: str) -> float:
        """Raises ValueError for what is no such number."""
        value = float(text)
        if self.endless and value == math.inf:
            return value
        if not self.low <= value <= self.high or (self.whole and value != round(value)):
            raise ValueError
        return int(value) if self.whole else value

    @property
    def wanted(self) -> str:
        kind = "a whole number" if self.whole else "a number"
        return f"{kind} from {self.low:g} to {self.high:g}" + ", or inf" * self.endless


class Choice(NamedTuple):
    """One of some names."""

    options: tuple[str, ...]
    title: str

    def read(self, text: str) -> str:
        """Raises ValueError for another name."""
        if text not in self.options:
            raise ValueError
        return text

    @property
    def wanted(self) -> str:
        return f"one of {', '.join(self.options)}"


class Switch(NamedTuple):
    """Yes or no."""

    title: str

    def read(self, text: str) -> bool:
        """Raises ValueError for what is neither."""
        if text not in ("yes", "no"):
            raise ValueError
        return text == "yes"

    @property
    def wanted(self) -> str:
        return "yes or no"


TABS = ("learning", "formats", "budget")
LOSSES = ("square", "absolute", "huber", "logistic", "hinge")
OF_CLASSES = ("logistic", "hinge")
WIDEST = 6.0

CONTROLS: dict[str, Span | Choice | Switch] = {
    "tab": Choice(TABS, "tab"),
    "alpha": Span(0.2, 8.0, "α", "rows per weight", log=True),
    "noise": Span(0.0, 1.0, "label noise", "variance"),
    "bits": Span(1, 6, "bits", "per weight", whole=True),
    "width": Span(0.1, WIDEST, "width", "largest level", log=True),
    "beta": Span(0.3, 100.0, "β", "inverse temperature", log=True, endless=True),
    "loss": Choice(LOSSES, "loss"),
    "breaking": Switch("one step of replica symmetry breaking"),
    "law": Choice(("normal", "laplace", "student-t", "generalized-normal"), "law of the weights"),
    "df": Span(2.5, 30.0, "degrees of freedom", log=True),
    "shape": Span(0.4, 3.0, "shape", "2 is normal, 1 Laplace"),
    "element": Choice(("int", "lloyd-max", "cube-root", "nf4", "sf4", "e2m1", "e2m3", "e3m2", "e4m3"), "element"),
    "element_bits": Span(2, 8, "element bits", whole=True),
    "block": Choice(("none", "16", "32", "64", "128", "256"), "weights that share a scale"),
    "scaling": Choice(("absmax", "signmax", "rms"), "scaling"),
    "scale": Choice(("none", "bf16", "fp16", "e4m3", "e8m0"), "scale format"),
    "exponent": Span(1.1, 2.5, "exponent a", "of variances i^-a"),
    "label_noise": Span(0.01, 1.0, "label noise", "variance", log=True),
    "error": Choice(("additive", "multiplicative"), "rounding error"),
    "budget": Span(8.0, 14.0, "log10 budget"),
}
"""What each control may be; a link has these names."""


@dataclass(frozen=True)
class State:
    """Where every control stands."""

    tab: str = "learning"
    alpha: float = 2.0
    noise: float = 0.1
    bits: int = 2
    width: float = 1.5
    beta: float = 10.0
    loss: str = "square"
    breaking: bool = False
    law: str = "normal"
    df: float = 5.0
    shape: float = 0.7
    element: str = "int"
    element_bits: int = 4
    block: str = "64"
    scaling: str = "absmax"
    scale: str = "bf16"
    exponent: float = 1.5
    label_noise: float = 0.1
    error: str = "additive"
    budget: float = 11.0

    @property
    def breaks(self) -> int | str:
        """`breaking` of `solve`: asked for only where replica symmetry is always wrong."""
        return "auto" if self.breaking and math.isinf(self.beta) else 0

    def moved(self, **values: Any) -> "State":
        """With other values, numbers to the digits that a link has."""
        return replace(self, **{name: _tidy(name, value) for name, value in values.items()})


_USUAL = State()


def _tidy(name: str, value: Any) -> Any:
    control = CONTROLS[name]
    if not isinstance(control, Span) or math.isinf(value):
        return value
    inside = min(max(value, control.low), control.high)
    return int(round(inside)) if control.whole else float(f"{inside:.4g}")


def to_query(state: State) -> str:
    """The link's part after '?': what is not as usual."""
    shown = {each.name: getattr(state, each.name) for each in fields(State)}
    return urlencode({k: _text(v) for k, v in shown.items() if v != getattr(_USUAL, k)})


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def from_query(given: Mapping[str, str]) -> tuple[State, Sequence[str]]:
    """The state of a link, and a message for each value in it that cannot be: those are as usual instead."""
    values: dict[str, Any] = {}
    messages = []
    for name, text in given.items():
        control = CONTROLS.get(name)
        if control is None:
            messages.append(f"the link's {name[:30]!r} is not known here")
            continue
        try:
            values[name] = control.read(text)
        except ValueError:
            messages.append(f"the link's {name} must be {control.wanted}, got {text[:30]!r}: it is as usual instead")
    return _USUAL.moved(**values), messages
