"""Curves in a phase diagram, traced to rounding: where replica symmetry breaks or freezes, and where double descent peaks.

None is read off a grid.  A scan finds a bracket on every slice, a secant method in it the root of

    replicon(x) = 0          or          entropy(x) = 0          or          d eg/dx = 0,

and the implicit function theorem its slope in every other axis y:  dx/dy = −(d replicon/dy)/(d replicon/dx), and with
second derivatives likewise for the peak.  All derivatives are those of the theory (`replica.slopes_many`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr
from jaxtyping import ArrayLike

from replicajax.codebooks import Codebook
from replicajax.models import Task
from replicajax.numerics import bracketed_roots
from replicajax.replica import Device
from replicajax.sweep._grid import Grid, described, grid
from replicajax.sweep._optimum import turning_points
from replicajax.sweep._slices import Slices

_SCAN = 33
_TOLERANCE = 1e-10


def stability_line(
    task: Task,
    bits: int | None = None,
    beta: ArrayLike | None = None,
    *,
    unknown: str,
    between: tuple[float, float],
    axes: Mapping[str, ArrayLike],
    width: ArrayLike | None = None,
    exponent: ArrayLike | None = None,
    codebook: Codebook | None = None,
    devices: Sequence[Device] = (),
) -> xr.Dataset:
    """The line replicon = 0: the value of `unknown` at which replica symmetry breaks, for every point of `axes`.

    Args:
      task, bits, beta, width, exponent, codebook, axes, devices: as in `phase_diagram`; `unknown` must be free.
      unknown: the parameter solved for, any that may be an axis except bits.
      between: where to look; of several roots the first from between[0] on is given.

    Returns:
      Dataset over `axes` with variables <unknown> (NaN where the replicon keeps its sign, or jumps past 0 between two
      branches), d_<unknown>_d_<axis> (the slope of the line), generalization_error and replicon there, and `found`.

    Raises:
      TypeError, ValueError: bad arguments; beta = inf, where no finite codebook is stable.

    Source: theory 1.3, [Q].
    """
    sweep = _sweep(task, bits, beta, unknown, between, axes, width, exponent, codebook)
    return _crossing(sweep, unknown, between, "replicon", "replica symmetry breaks (replicon = 0)", devices)


def freezing_line(
    task: Task,
    bits: int | None = None,
    beta: ArrayLike | None = None,
    *,
    unknown: str,
    between: tuple[float, float],
    axes: Mapping[str, ArrayLike],
    width: ArrayLike | None = None,
    exponent: ArrayLike | None = None,
    codebook: Codebook | None = None,
    devices: Sequence[Device] = (),
) -> xr.Dataset:
    """The line entropy = 0: the value of `unknown` at which replica symmetry runs out of words, for every point of `axes`.

    Beyond it the replica-symmetric entropy (nats per weight) is negative, of a finite codebook an impossibility, also where
    the replicon is positive: the measure has frozen (`solve` with breaking=1).  Where the line lies beyond `stability_line`
    symmetry is lost before.

    Arguments, errors and the dataset are those of `stability_line`, with `entropy` in the place of its replicon.

    Source: theory 3, 8.
    """
    sweep = _sweep(task, bits, beta, unknown, between, axes, width, exponent, codebook)
    return _crossing(sweep, unknown, between, "entropy", "the measure freezes (entropy = 0)", devices)


def _crossing(sweep: Grid, unknown: str, between, of: str, where: str, devices: Sequence[Device]) -> xr.Dataset:
    """Where the observable `of` changes its sign first."""
    if np.isinf(sweep.axes.get("beta", sweep.fixed.get("beta", 1.0))).any():
        raise ValueError(
            "beta must be finite (at beta = inf no finite codebook is stable that has a training error), got inf"
        )
    slices = Slices(sweep, unknown, devices)
    scan = np.geomspace(between[0], between[1], _SCAN)
    every = np.tile(scan, slices.everyone.size)
    value, converged = slices.solve(every, np.repeat(slices.everyone, _SCAN), of)
    value = np.where(converged, value, np.nan).reshape(-1, _SCAN)
    change = value[:, 1:] * value[:, :-1] < 0
    which = np.flatnonzero(change.any(1))
    first = change[which].argmax(1)

    def function(x, where):
        return slices.solve(x, which[where], of)[0]

    names = [name for name in sweep.axes if name not in ("bits", unknown)]
    root, at_root, rows = np.zeros(0), np.zeros(0), np.zeros((1 + len(names), 0))
    found = np.zeros(slices.everyone.size, bool)
    if which.size:
        ends = value[which, first], value[which, first + 1]
        root, ok = bracketed_roots(function, scan[first], scan[first + 1], *ends, _TOLERANCE)
        at_root = function(root, np.arange(which.size))
        found[which] = ok & (np.abs(at_root) < 1e-6)  # else it jumps past 0, from one branch to another
        rows = slices.differentiate(root, which, of, names) if names else rows
    columns = {unknown: root, **{name: -row / rows[0] for name, row in zip(names, rows[1:], strict=True)}}
    error = slices.solve(root, which, "generalization_error")[0] if which.size else root
    columns |= {"generalization_error": error, of: at_root}
    return _dataset(sweep, slices, unknown, where, which, columns, found)


def error_peak(
    task: Task,
    bits: int | None = None,
    beta: ArrayLike | None = None,
    *,
    unknown: str = "alpha",
    between: tuple[float, float] = (0.1, 4.0),
    axes: Mapping[str, ArrayLike],
    width: ArrayLike | None = None,
    exponent: ArrayLike | None = None,
    codebook: Codebook | None = None,
    devices: Sequence[Device] = (),
) -> xr.Dataset:
    """The peak of double descent: the value of `unknown` at the highest local maximum of eg, for every point of `axes`.

    Arguments as in `stability_line`; beta may be inf.  `found` is False where eg has no maximum inside `between`: then
    the other variables, <unknown>, d_<unknown>_d_<axis> and generalization_error, are NaN.
    """
    sweep = _sweep(task, bits, beta, unknown, between, axes, width, exponent, codebook)
    slices = Slices(sweep, unknown, devices)
    scan = sweep.axes[unknown]
    every = np.tile(scan, slices.everyone.size)
    eg, converged = slices.solve(every, np.repeat(slices.everyone, scan.size), "generalization_error")
    curves = np.where(converged, eg, -np.inf).reshape(-1, scan.size)
    local = (curves[:, 1:-1] > curves[:, :-2]) & (curves[:, 1:-1] >= curves[:, 2:])
    curves = np.where(np.pad(local, ((0, 0), (1, 1))), curves, -np.inf)
    peak, error, found = turning_points(slices, curves, sign=-1)
    which = np.flatnonzero(found)
    names = [name for name in sweep.axes if name not in ("bits", unknown)]
    rows = slices.bend(peak[which], which, names) if which.size and names else np.zeros((1 + len(names), which.size))
    columns = {unknown: peak[which], **{name: -row / rows[0] for name, row in zip(names, rows[1:], strict=True)}}
    columns["generalization_error"] = error[which]
    return _dataset(sweep, slices, unknown, "the generalization error peaks", which, columns, found)


def _sweep(task, bits, beta, unknown: str, between, axes, width, exponent, codebook) -> Grid:
    if unknown == "bits" or (isinstance(axes, Mapping) and unknown in axes):
        raise ValueError(f"unknown must be a parameter other than bits and the axes, got {unknown!r}")
    ends = np.asarray(between, float)
    if ends.shape != (2,) or not (0 < ends[0] < ends[1] < np.inf):
        raise ValueError(f"between must be two positive numbers, the smaller first, got {between!r}")
    return grid(
        task,
        bits,
        beta,
        axes={**axes, unknown: np.geomspace(ends[0], ends[1], 2 * _SCAN)},
        width=width,
        exponent=exponent,
        codebook=codebook,
    )


def _dataset(sweep: Grid, slices: Slices, unknown: str, where: str, which, columns: dict, found) -> xr.Dataset:
    dims = [name for name in sweep.axes if name != unknown]

    def spread(column: np.ndarray) -> np.ndarray:
        whole = np.full(slices.everyone.size, np.nan)
        whole[which] = column
        return np.where(found, whole, np.nan).reshape(slices.shape)

    variables: dict[str, Any] = {}
    for name, column in columns.items():
        if name == unknown:
            attrs = {"long_name": f"{described(name)[0]} at which {where}", "units": described(name)[1]}
        elif name in sweep.axes:
            attrs = {"long_name": f"slope of the line {unknown}({name})"}
        else:
            attrs = {"long_name": f"{name.replace('_', ' ')} on the line"}
        label = f"d_{unknown}_d_{name}" if name in sweep.axes and name != unknown else name
        variables[label] = (dims, spread(column), attrs)
    variables["found"] = (dims, found.reshape(slices.shape), {"long_name": "there is such a point, and it converged"})
    coords = {name: (name, sweep.axes[name], dict(long_name=described(name)[0])) for name in dims}
    return xr.Dataset(variables, coords, {"title": where, **sweep.constants()})
