"""`replicajax allocate` and `replicajax recommend`: which format for which tensor."""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from fnmatch import fnmatch, translate
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from replicajax._writing import whole
from replicajax.cli._budget import Budget
from replicajax.cli._request import ProblemError
from replicajax.cli._show import plain, save, unbeaten
from replicajax.formats import Measured, Plan, StandardFormat, choose, recipe, served
from replicajax.formats._quantized_file import stamps
from replicajax.formats._standard import MENUS
from replicajax.formats._statistics import read_moments
from replicajax.formats._tensor import Rounding, rounded_to_nearest

_ASIDE = 0.25
"""Bits by which a budget is varied to show what that buys."""
_BUDGETS = (2.5, 3.0, 3.5, 4.25, 4.5, 5.0, 6.0, 8.0, 8.5)
_NAMES = {
    "squared error": "squared error",
    "output error": "sum of relative output errors",
    "measured": "sum of scores",
}
_SECOND_ORDER = 0.1
"""Nats: beyond, no transformer tried was quadratic in the errors of its weights."""
_APART = 0.3
"""Bits between names in the picture."""
_GOOD, _LOSSLESS = 0.1, 0.01
"""RMS error over RMS: of what is usually served, and of what is hardly told from the original."""


def of_runtime(options: Sequence[StandardFormat], runtime: str, menu: str | None) -> Sequence[StandardFormat]:
    """What of a menu a runtime has; formats asked for by name must be among it."""
    try:
        found = served(options, runtime)
    except ValueError as error:
        raise ProblemError(f"--recipe-for: {error}") from None
    if len(found) < len(options) and (not found or menu not in (None, *MENUS)):
        lacking = ", ".join(each.name for each in options if each not in found)
        raise ProblemError(f"--menu must be of formats that {runtime} has, got {lacking}")
    return found


@contextmanager
def rounding(moments: Path | None) -> Iterator[Rounding]:
    """To nearest, or GPTQ where the file has moments."""
    if moments is None:
        yield rounded_to_nearest
        return
    from replicajax.layers import gptq_rounding

    with read_moments(moments) as moment:
        yield gptq_rounding(moment)


def made_by(moments: Path | None) -> str:
    """What codes depend on besides the weights and their formats."""
    return "nearest" if moments is None else f"gptq {stamps(moments)}"


class Request(NamedTuple):
    """A budget, and what is not free."""

    measured: Measured
    budget: Budget
    groups: Sequence[int]
    pins: dict[str, str]

    @property
    def mean_bits(self) -> float:
        """Of the budget."""
        if self.budget.size is None:
            assert self.budget.mean_bits is not None
            return self.budget.mean_bits
        return 8 * (self.budget.size - self.measured.kept_bytes) / float(self.measured.counts.sum())

    def plan(self, mean_bits: float | None = None) -> Plan:
        budget = self.budget if mean_bits is None else Budget(mean_bits, None)
        return choose(self.measured, *budget, groups=self.groups, pinned=self.pins)


def request(measured: Measured, budget: Budget, pins: Sequence[tuple[str, str]], ties: Sequence[str]) -> Request:
    names = [tensor.name for tensor in measured.tensors]
    pinned: dict[str, str] = {}
    for pattern, fmt in pins:
        meant = [name for name in names if fnmatch(name, pattern)]
        if not meant:
            raise ProblemError(f"--pin {pattern}={fmt} matches none of {len(names)} tensors, the first {names[0]}")
        pinned |= dict.fromkeys(meant, fmt)
    return Request(measured, budget, _groups(names, ties), pinned)


def _groups(names: Sequence[str], ties: Sequence[str]) -> list[int]:
    """Tensors that a pattern takes for the same: what its alternatives {q,k,v} differ in, and nothing else."""
    groups = list(range(len(names)))
    for pattern in ties:
        found = re.fullmatch(r"([^{}]*)\{([^{}]+)\}([^{}]*)", pattern)
        if not found or "," not in found[2]:
            raise ProblemError(f"--tie must name alternatives in braces, as in '*.{{q,k,v}}_proj.*', got {pattern!r}")
        before, after = (translate(part).removesuffix(r"\Z").removesuffix(r"\z") for part in (found[1], found[3]))
        options = "|".join(map(re.escape, found[2].split(",")))
        match = re.compile(f"({before})({options})({after})")
        seen: dict[tuple[str, str], int] = {}
        for i, name in enumerate(names):
            at = match.fullmatch(name)
            if at is not None:
                first = seen.setdefault((name[: at.end(1)], name[at.start(3) :]), groups[i])
                groups = [first if group == groups[i] else group for group in groups]
        if not seen:
            raise ProblemError(f"--tie {pattern} matches none of {len(names)} tensors, the first {names[0]}")
    return groups


class Single(NamedTuple):
    """One format for all tensors."""

    name: str
    bits: float
    score: float


def singles(measured: Measured) -> list[Single]:
    found = [Single(fmt.name, *measured.single(j)) for j, fmt in enumerate(measured.formats)]
    return sorted((each for each in found if np.isfinite(each.score)), key=lambda each: each.bits)


def best_single(measured: Measured, mean_bits: float) -> Single | None:
    within = [each for each in singles(measured) if each.bits <= mean_bits * (1 + 1e-9)]
    return min(within, key=lambda each: each.score, default=None)


def rows(plan: Plan) -> list[dict[str, Any]]:
    total = plan.score.sum()
    return [
        {
            "tensor": tensor.name,
            "shape": list(tensor.shape),
            "rms": tensor.rms,
            "fisher": tensor.fisher,
            "format": fmt.name,
            "bits": float(bits),
            "relative_error": float(error),
            "share": float(score / total) if total > 0 else 0.0,
        }
        for tensor, fmt, bits, error, score in zip(
            plan.tensors, plan.formats, plan.bits, plan.error, plan.score, strict=True
        )
    ]


def as_record(measured: Measured, plan: Plan, asked: Request | None = None) -> dict[str, Any]:
    bits, score = measured.curve() if asked is None else measured.pinned(asked.pins).curve(asked.groups)
    single = best_single(measured, plan.mean_bits if asked is None else asked.mean_bits)
    return {
        "tensors": rows(plan),
        "kept": [t.name for t in plan.kept],
        "mean_bits": plan.mean_bits,
        "divergence": float(plan.score.sum()),
        "unit": plan.unit,
        "gap": plan.gap,
        "verdict": _verdict(plan),
        "bytes": plan.bytes,
        "single": None if single is None else single._asdict(),
        "curve": [[float(b), float(s)] for b, s in zip(bits, score, strict=True)],
    }


def _verdict(plan: Plan) -> dict[str, Any] | None:
    """By size alone: no model is at hand."""
    if plan.unit != "nats":
        return None
    inside = float(plan.score.sum()) <= _SECOND_ORDER
    regime = "quadratic by its size, not measured" if inside else "outside the quadratic regime"
    return {"regime": regime, "measured": False}


def show(asked: Request, plan: Plan, console: Console) -> None:
    measured = asked.measured
    table = Table(
        title="format of every tensor", title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0)
    )
    table.add_column("tensor", overflow="fold", min_width=18)  # whole names: cut ones look all the same
    table.add_column("shape", overflow="fold")
    fisher = ["Fisher"] if plan.unit == "nats" else []
    for heading in ("RMS", *fisher, "format", "bits", "Rel", "KL share" if plan.unit == "nats" else "share"):
        table.add_column(heading, justify="left" if heading == "format" else "right", overflow="fold", no_wrap=True)
    for row in rows(plan):
        table.add_row(
            Text(row["tensor"]),
            "x".join(map(str, row["shape"])),
            f"{row['rms']:.4g}",
            *([f"{row['fisher']:.3g}"] if plan.unit == "nats" else []),
            row["format"],
            f"{row['bits']:.4g}",
            f"{row['relative_error']:.4f}",
            f"{row['share']:.1%}",
        )
    console.print(table)
    what, unit = _named(plan)
    total = plan.score.sum()
    proof = "proven least" if plan.gap == 0 else f"within {plan.gap:.1e} of the least"
    say = plain(console)
    say(
        f"{int(measured.counts.sum()):,} weights in {len(plan.tensors)} tensors, {plan.mean_bits:.4f} bits each on average, "
        f"{plan.bytes / 1e6:,.2f} MB with all that is kept"
    )
    say(f"{what} {total:.4g}{unit}, {proof}" + _against(best_single(measured, asked.mean_bits), total, unit))
    say(_aside(asked, total))
    if plan.kept:
        names = ", ".join(t.name for t in plan.kept[:4]) + (", …" if len(plan.kept) > 4 else "")
        say(f"left as they are: {len(plan.kept)} tensors ({names})")
    if plan.unit == "nats" and total > _SECOND_ORDER:
        console.print(
            f"[bold]verdict[/]: outside the quadratic regime by its size (above {_SECOND_ORDER} nats): what Fisher information "
            "predicts may be off by a factor; `formats.verdict` measures it where the model can be run"
        )
    elif plan.unit == "nats":
        console.print(
            "[bold]verdict[/]: small enough for second order to hold, not measured; overlap of tensors' errors is left out "
            "(`formats.verdict` has it, where the model can be run)"
        )
    if plan.unit == "squared error":
        console.print(
            "[bold]remark[/]: without --fisher or --moments every weight counts the same; how much the model's outputs mind "
            "is not known"
        )


def _named(plan: Plan | Measured) -> tuple[str, str]:
    return ("predicted KL", " nats") if plan.unit == "nats" else (_NAMES[plan.unit], "")


def _times(single: Single, total: float) -> str:
    """What one format loses, of the choice's."""
    return f"{single.score / total:.3g}" if total > 0 else "1" if single.score == 0 else "inf"


def _against(single: Single | None, total: float, unit: str) -> str:
    if single is None:
        return "; no single format fits the budget"
    at = f"{single.score:.4g}{unit} at {single.bits:.4f} bits"
    return f"; best single format {single.name} {at}, {_times(single, total)} times"


def _aside(asked: Request, total: float) -> str:
    said = []
    for bits in (asked.mean_bits - _ASIDE, asked.mean_bits + _ASIDE):
        try:
            other = asked.plan(bits)
        except ValueError:  # below the least possible
            continue
        if total > 0 and abs(other.score.sum() / total - 1) > 1e-9:
            said.append(f"{bits:.2f} bits {other.score.sum() / total:.3g} times")
    return (
        f"what a little more or less would do: {', '.join(said)} that"
        if said
        else "a little more or less changes nothing"
    )


def show_actual(plan: Plan, errors: dict[str, float], console: Console) -> None:
    """Beside what was predicted."""
    actual = np.array([errors[tensor.name] for tensor in plan.tensors])
    off = np.abs(actual - plan.error) / np.where(plan.error > 0, plan.error, 1.0)
    worst = int(np.argmax(off))
    plain(console)(
        f"actual Rel against predicted: {off.mean():.2%} off on average, at most {off[worst]:.2%} ({plan.tensors[worst].name})"
    )


def show_advice(measured: Measured, advice: "Advice", console: Console) -> None:
    say = plain(console)
    for line in advice.lines:
        say(line)
    table = Table(title="best choices", title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    what, unit = _named(measured)
    for heading in ("bits", "MB", what + unit, "best single format", "bits of it", "times as much"):
        table.add_column(heading, justify="left" if heading == "best single format" else "right")
    bits, _ = measured.curve()
    for budget in [budget for budget in _BUDGETS if bits[0] <= budget] or [float(bits[-1])]:
        plan, single = choose(measured, budget), best_single(measured, budget)
        total = plan.score.sum()
        alone = ("-", "", "") if single is None else (single.name, f"{single.bits:.4g}", _times(single, total))
        table.add_row(f"{plan.mean_bits:.3f}", f"{plan.bytes / 1e6:,.1f}", f"{total:.4g}", *alone)
    console.print(table)


def draw(measured: Measured, plans: Sequence[Plan], path: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.2, 4.6), layout="constrained")
    panel = figure.subplots()
    bits, score = measured.curve()
    some = score > 0
    panel.semilogy(bits[some], score[some], "-", lw=1.5, label="best choice for every budget")
    alone = singles(measured)
    panel.plot(
        [x.bits for x in alone], [x.score for x in alone], "s", color="C1", ms=4, label="one format for all tensors"
    )
    for x, y, name in unbeaten([(x.bits, x.score, x.name) for x in alone], _APART):
        panel.annotate(name, (x, y), (5, 3), textcoords="offset points", fontsize=7)
    if plans:
        panel.plot([x.mean_bits for x in plans], [x.score.sum() for x in plans], "o", color="C0", ms=7, label="chosen")
    what, unit = _named(measured)
    panel.set(xlabel="bits per weight, scales included", ylabel=what + (f" ({unit.strip()})" if unit else ""))
    panel.legend(frameon=False, fontsize=8)
    panel.set_xlim(right=min(bits[-1], 10.0) + 0.5)
    shown = [s for b, s in zip(bits[some], score[some], strict=True) if b <= 10.5]
    panel.set_ylim(min(shown) / 2, max([*shown, *(x.score for x in alone if x.bits < 10.5)]) * 2)
    save(figure, path, 160)


def write_recipe(plan: Plan, path: Path, runtime: str) -> None:
    text = recipe(plan, runtime)
    with whole(path) as file:
        file.write(text.encode())


class Advice(NamedTuple):
    """Of `recommend`: plans of increasing bits, and a line about each."""

    plans: list[Plan]
    lines: list[str]


def advise(measured: Measured) -> Advice:
    """The fewest bits at which the whole of the weights is off by so much, and where the next bit buys least."""
    square = float(sum(t.count * t.rms**2 for t in measured.tensors))
    bits, _ = measured.curve()
    plans, lines = [], []
    for goal, what in ((_GOOD, "small"), (_LOSSLESS, "safe")):
        plan = _cheapest(measured, bits, square * goal**2)
        if plan is None:
            lines.append(f"{what}: no choice of the menu brings the error of the weights below {goal:.0%} of their RMS")
            continue
        single = best_single(measured, plan.mean_bits)
        rel = np.sqrt(_squares(plan) / square)
        size = f"{plan.bytes / 1e6:,.1f} MB, {plan.mean_bits:.2f} bits a weight: {_most_used(plan)}"
        gain = ""
        if single is not None:
            gain = f"; {single.name} for all would cost {_times(single, plan.score.sum())} times as much"
        lines.append(f"{what}: {size}; weights are off by {rel:.2g} of their RMS{gain}")
        plans.append(plan)
    if plans and plans[0].score.any():
        worst = int(np.argmax(plans[0].score))
        tensor, fmt = plans[0].tensors[worst], plans[0].formats[worst]
        share = plans[0].score[worst] / plans[0].score.sum()
        lines.append(f"watch: {tensor.name} ({fmt.name}) makes {share:.0%} of what is lost at the smaller size")
    return Advice(plans, lines)


def _squares(plan: Plan) -> float:
    return float(sum(t.count * (t.rms * e) ** 2 for t, e in zip(plan.tensors, plan.error, strict=True)))


def _cheapest(measured: Measured, bits: np.ndarray, most: float) -> Plan | None:
    """Of the corners of the curve, by bisection: what is lost falls with the bits."""
    low, high = 0, bits.size - 1
    if _squares(choose(measured, float(bits[high]))) > most:
        return None
    while low < high:
        middle = (low + high) // 2
        if _squares(choose(measured, float(bits[middle]))) <= most:
            high = middle
        else:
            low = middle + 1
    return choose(measured, float(bits[high]))


def _most_used(plan: Plan) -> str:
    weights: dict[str, int] = {}
    for tensor, fmt in zip(plan.tensors, plan.formats, strict=True):
        weights[fmt.name] = weights.get(fmt.name, 0) + tensor.count
    total = sum(weights.values())
    first = sorted(weights.items(), key=lambda item: -item[1])[:3]
    return ", ".join(f"{name} {count / total:.0%}" for name, count in first) + (
        " and others" if len(weights) > 3 else ""
    )
