"""What `replicajax codebook` and `replicajax train` show and draw."""

from pathlib import Path
from typing import Any

import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table

from replicajax.cli._show import plain, save
from replicajax.dynamics import OptimalTraining, StraightThrough
from replicajax.search import OptimalCodebook, OptimalWidth


def show_codebook(best: OptimalCodebook, uniform: OptimalWidth | None, weight: float, console: Console) -> None:
    say, table = plain(console), Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for heading in ("codebook", "generalization error", "bits after coding", "levels"):
        table.add_column(heading, justify="left" if heading in ("codebook", "levels") else "right")
    known: list[tuple[str, Any, np.ndarray]] = [("learned", best.solution, np.asarray(best.levels))]
    if uniform is not None:
        known.append(("uniform, best width", uniform.solution, np.asarray(uniform.solution.codebook.levels)))
    for name, solution, levels in known:
        shown = ", ".join(f"{x:.4g}" for x in levels)
        table.add_row(name, f"{solution.generalization_error:.8g}", f"{solution.rate:.4f}", shown)
    console.print(table)
    if weight:
        say(f"least eg + {weight:g} bits, {float(best.objective):.8g}")
    if int(best.spare):
        used = best.levels.size - int(best.spare)
        say(f"remark: {int(best.spare)} levels are not needed: a codebook of {used} does as well")
    if not best.converged:
        say("remark: not converged")
    if not bool(best.solution.stable):
        say("remark: replica symmetry is unstable here; its levels and errors are approximate")


def codebook_record(best: OptimalCodebook, uniform: OptimalWidth | None) -> dict[str, Any]:
    return {
        "levels": best.levels,
        "generalization_error": best.generalization_error,
        "rate": best.rate,
        "objective": best.objective,
        "spare": best.spare,
        "minima": best.minima,
        "curvature": best.curvature,
        "converged": best.converged,
        "stable": best.solution.stable,
        "usage": best.solution.usage,
        "uniform": None
        if uniform is None
        else {"width": uniform.width, "generalization_error": uniform.generalization_error},
    }


def draw_codebook(best: OptimalCodebook, uniform: OptimalWidth | None, path: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 3.4), layout="constrained")
    panel = figure.subplots()
    panel.vlines(np.asarray(best.levels), 0, np.asarray(best.solution.usage), color="C0", lw=3, label="learned")
    if uniform is not None:
        levels, usage = np.asarray(uniform.solution.codebook.levels), np.asarray(uniform.solution.usage)
        panel.plot(levels, usage, "o", color="C1", mfc="none", label="uniform, best width")
    panel.set(xlabel="level", ylabel="share of the weights", ylim=(0, None))
    panel.legend(frameon=False)
    save(figure, path, 160)


def show_training(course: StraightThrough, best: OptimalTraining | None, console: Console) -> None:
    say = plain(console)
    if best is not None:
        say(str(best))
        if len(best.of_bits) > 1:
            say("errors: " + ", ".join(f"{b} bits {e:.6g}" for b, e in best.of_bits.items()))
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("time", justify="right")
    table.add_column("generalization error", justify="right")
    table.add_column("usage of levels")
    for t, error, usage in zip(
        np.asarray(course.times),
        np.asarray(course.generalization_error),
        np.asarray(course.level_probabilities()),
        strict=True,
    ):
        table.add_row(f"{t:g}", f"{error:.6f}", " ".join(f"{max(p, 0):.3f}" for p in usage))
    console.print(table)
    ends = course.stationary
    if np.isfinite(ends.generalization_error):
        say(f"training ends at {ends.generalization_error:.6f}")
    else:
        say("remark: the levels do not hold the weights back: they drift away, and no law is stationary")
    if not bool(course.converged.all()):
        say("remark: not resolved at the latest times")


def training_record(course: StraightThrough, best: OptimalTraining | None) -> dict[str, Any]:
    chosen = None
    if best is not None:
        chosen = {"bits": best.bits, "width": best.width, "step": best.step, "converged": best.converged}
    return {
        "times": course.times,
        "generalization_error": course.generalization_error,
        "level_probabilities": course.level_probabilities(),
        "stationary_error": course.stationary.generalization_error,
        "confined": course.confined,
        "converged": course.converged,
        "best": chosen,
    }


def draw_training(course: StraightThrough, levels: np.ndarray, path: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.0, 3.6), layout="constrained")
    error, density = figure.subplots(1, 2)
    times = np.asarray(course.times)
    error.plot(times, np.asarray(course.generalization_error), "o-", ms=4)
    ends = course.stationary.generalization_error
    if np.isfinite(ends):
        error.axhline(ends, color="0.5", ls="--", lw=1, label="where training ends")
        error.legend(frameon=False)
    error.set(xlabel="time, iterations / dimension", ylabel="generalization error", ylim=(0, None))
    reach = 1.6 * float(np.abs(levels).max())
    w = np.linspace(-reach, reach, 801)
    shown = np.unique(np.linspace(0, times.size - 1, min(times.size, 4)).round().astype(int))
    for k, p in zip(shown, np.asarray(course.density(w))[shown], strict=True):
        density.plot(w, p, label=f"time {times[k]:g}")
    for cut in (levels[1:] + levels[:-1]) / 2:
        density.axvline(cut, color="0.8", lw=0.8, zorder=0)
    density.set(xlabel="weight before rounding (lines: thresholds)", ylabel="density", ylim=(0, None))
    density.legend(frameon=False, fontsize=8)
    save(figure, path, 160)
