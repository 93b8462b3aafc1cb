"""The tab "Learning" in numbers: error against width, the phase diagram, the codebook.  All of it is the library's own."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import numpy as np

from replicajax import optimal_width, phase_diagram, solve, uniform
from replicajax.cli._loss import read_loss
from replicajax.cli._problem import task_of
from replicajax.explore._state import CONTROLS, WIDEST, Span, State
from replicajax.models import Task
from replicajax.replica import Solution, unquantized

WIDTHS = np.geomspace(0.1, WIDEST, 49)
_AT_ONCE = [np.arange(49)]
_IN_PARTS = [np.arange(0, 49, 4), np.arange(2, 49, 4), np.arange(1, 49, 4), np.arange(3, 49, 4)]
"""Of many levels or another loss, which take longer: the whole range first, at few widths."""
_alpha = CONTROLS["alpha"]
assert isinstance(_alpha, Span)
MAP_ALPHAS, MAP_WIDTHS = np.geomspace(_alpha.low, _alpha.high, 40), np.geomspace(0.1, WIDEST, 51)
_ROWS = 20
"""Of the map at a time: two blocks of a compiled program, one for each core."""
COARSE_ALPHAS, COARSE_WIDTHS = np.geomspace(_alpha.low, _alpha.high, 12), np.geomspace(0.1, WIDEST, 17)
"""Of losses whose averages are quadratures."""


class Curve(NamedTuple):
    """Error against width; what did not converge, or is not computed yet, is NaN."""

    width: np.ndarray
    error: np.ndarray
    stable: np.ndarray
    """Bool."""
    whole: bool


class Map(NamedTuple):
    """(alphas, widths); likewise."""

    alpha: np.ndarray
    width: np.ndarray
    error: np.ndarray
    replicon: np.ndarray


def task_at(state: State) -> Task:
    """The task of the sliders."""
    return task_of({"alpha": state.alpha, "noise": state.noise, "loss": read_loss(state.loss)})


def curve(task: Task, state: State) -> Iterator[Curve]:
    """Growing curves, the last one whole."""
    error, stable = np.full(WIDTHS.size, np.nan), np.zeros(WIDTHS.size, bool)
    known = np.zeros(WIDTHS.size, bool)
    slow = not task.in_closed_form or state.bits > 4
    for which in _IN_PARTS if slow else _AT_ONCE:
        found = phase_diagram(
            task,
            state.bits,
            state.beta,
            axes={"width": WIDTHS[which]},
            observables=["generalization_error"],
            breaking=state.breaks,
            progress=False,
        )
        error[which] = np.where(found.converged, found.generalization_error, np.nan)
        stable[which], known[which] = found.stable, True
        yield Curve(WIDTHS[known], error[known], stable[known], bool(known.all()))


def split(found: Curve) -> dict[str, np.ndarray]:
    """Columns to draw: lines of what is stable and of what is not, which meet where they change."""
    unstable = ~found.stable
    beside = unstable.copy()
    beside[1:] |= unstable[:-1]
    beside[:-1] |= unstable[1:]
    return {
        "width": found.width,
        "error": found.error,
        "stable": np.where(found.stable, found.error, np.nan),
        "unstable": np.where(beside, found.error, np.nan),
    }


def point(task: Task, state: State) -> Solution:
    """Every observable at the current width."""
    return solve(task, uniform(state.bits, state.width), state.beta, breaking=state.breaks)


def best_width(task: Task, state: State) -> tuple[float, float] | None:
    """Width and error; None where none was found."""
    best = optimal_width(task, state.bits, state.beta, breaking=state.breaks)
    return (float(best.width), float(best.generalization_error)) if best.converged else None


def ridge_error(task: Task) -> float | None:
    """Of the best ridge regression; None where its theory is not known."""
    found = unquantized(task)
    return None if found is None else float(found.generalization_error)


def phase_map(task: Task, state: State) -> Iterator[Map]:
    """Growing maps, replica-symmetric: rows not known yet are NaN."""
    fine = task.closed
    alphas, widths = (MAP_ALPHAS, MAP_WIDTHS) if fine else (COARSE_ALPHAS, COARSE_WIDTHS)
    error, replicon = (np.full((alphas.size, widths.size), np.nan) for _ in range(2))
    rows = _ROWS if fine else 2
    for first in range(0, alphas.size, rows):
        part = slice(first, first + rows)
        found: Any = phase_diagram(
            task,
            state.bits,
            state.beta,
            axes={"alpha": alphas[part], "width": widths},
            observables=["generalization_error", "replicon"],
            progress=False,
            devices=jax.local_devices()[:1],  # compiled: the interpreter is left to the curve meanwhile
        )
        error[part] = np.where(found.converged, found.generalization_error, np.nan)
        replicon[part] = np.where(found.converged, found.replicon, np.nan)
        yield Map(alphas, widths, error.copy(), replicon.copy())


def stability_contour(found: Map) -> list[np.ndarray]:
    """Lines (points, 2) of width and alpha where the replicon changes sign, read off the map."""
    from contourpy import contour_generator

    # Beyond sign it is clipped, since far below 0 it is steep, and -inf at beta = inf.
    height = np.clip(found.replicon, -1.0, 1.0)
    lines: Any = contour_generator(np.log(found.width), np.log(found.alpha), np.ma.masked_invalid(height)).lines(0.0)
    return [np.exp(line) for line in lines]
