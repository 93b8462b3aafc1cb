"""Test error against quantization width: theory as lines, measurement as points."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import ScalarFormatter

if TYPE_CHECKING:
    from replicajax.trials import HeldOut


@dataclass(frozen=True)
class WidthCurve:
    """One bit width: theory's test error on a grid of widths, and the minimum found by gradients."""

    bits: int
    widths: Sequence[float]
    test_error: Sequence[float]
    stable: Sequence[bool]
    best_width: float
    best_test_error: float


def plot_widths(
    axes: Axes,
    curves: Sequence[WidthCurve],
    *,
    unit: float = 1.0,
    baseline: float | None = None,
    measured: Mapping[int, "HeldOut"] | None = None,
    error: str = "test error (mean square, label units²)",
) -> None:
    """Draw test error over width/unit; thin dotted where replica symmetry is unstable, a diamond at each optimum.

    Args:
      curves: one a bit width.
      unit: what widths are divided by, the teacher's standard deviation as a rule.
      baseline: test error of unquantized weights.
      measured: held-out errors by bits, drawn with one standard error.
      error: what the errors are.
    """
    measured = measured or {}
    colors = {c.bits: f"C{i}" for i, c in enumerate(curves)}
    for curve in curves:
        x, missed = np.asarray(curve.widths) / unit, np.asarray(curve.test_error)
        stable = np.asarray(curve.stable, bool)
        color = colors[curve.bits]
        axes.plot(x, missed, ":", color=color, lw=1)
        axes.plot(
            x, np.where(stable, missed, np.nan), color=color, lw=2, label=f"{curve.bits} bit{'s' * (curve.bits > 1)}"
        )
        axes.plot(curve.best_width / unit, curve.best_test_error, "D", color=color, mec="k", ms=7, zorder=4)
    for bits, held_out in measured.items():
        mixed = np.asarray(held_out.mixed).all(0)
        for chosen, fill in (mixed, colors[bits]), (~mixed, "w"):
            axes.errorbar(
                np.asarray(held_out.widths)[chosen] / unit,
                held_out.error[chosen],
                held_out.standard_error[chosen],
                fmt="o",
                color=colors[bits],
                mfc=fill,
                ms=4,
                capsize=2,
                alpha=0.8,
            )
    if baseline is not None:
        axes.axhline(baseline, color="0.5", ls="--", lw=1)
    solved = [[error for error in c.test_error if error == error] or [c.best_test_error] for c in curves]
    low = min([min(errors) for errors in solved] + ([] if baseline is None else [baseline]))
    high = max([errors[0] for errors in solved] + [float(h.error[0]) for h in measured.values()])
    axes.set(xscale="log", ylim=(low - 0.1 * (high - low), high + 0.6 * (high - low)))
    axes.xaxis.set_major_formatter(ScalarFormatter())
    axes.set_xticks([t for t in (0.1, 0.2, 0.5, 1, 2, 5, 10) if x[0] <= t <= x[-1]], minor=False)
    axes.xaxis.set_minor_formatter("")
    axes.set_xlabel(r"width / $\sqrt{\mathrm{signal}}$" if unit != 1 else "width")
    axes.set_ylabel(error)
    handles, labels = axes.get_legend_handles_labels()
    keys: list[Any] = [
        axes.plot([], [], "D", color="w", mec="k", ms=7, label="optimal width (theory)")[0],
        axes.plot([], [], "k:", lw=1, label="replica symmetry unstable")[0],
    ]
    if measured:
        keys.append(axes.errorbar([], [], [], fmt="ko", ms=4, capsize=2, label="measured, held-out rows (±1 s.e.)"))
        if not all(np.all(h.mixed) for h in measured.values()):
            keys.append(axes.plot([], [], "o", color="k", mfc="w", ms=4, label="chains trapped: not the average")[0])
    if baseline is not None:
        keys.append(axes.plot([], [], color="0.5", ls="--", lw=1, label="unquantized (ridge)")[0])
    axes.legend(
        handles + keys,
        labels + [k.get_label() for k in keys],
        fontsize=8,
        frameon=False,
        loc="center left",
        bbox_to_anchor=(1, 0.5),
    )
