"""The best value of one parameter for every slice of a sweep: the least grid point, then the root of d eg beside it."""

from collections.abc import Sequence

import numpy as np

from replicajax.numerics import bracketed_roots
from replicajax.replica import Device
from replicajax.sweep._grid import Grid
from replicajax.sweep._slices import Slices

_TOLERANCE = 1e-9


def optimum_along(sweep: Grid, name: str, eg: np.ndarray, devices: Sequence[Device] = ()) -> dict[str, np.ndarray]:
    """optimal_<name>, optimal_generalization_error and optimum_inside, from eg on the grid (inf where unsolved)."""
    slices = Slices(sweep, name, devices)
    curves = np.moveaxis(eg, slices.axis, -1).reshape(-1, sweep.axes[name].size)
    best, error, inside = turning_points(slices, curves)
    missing = ~np.isfinite(error)
    best[missing] = error[missing] = np.nan
    return {
        f"optimal_{name}": best.reshape(slices.shape).astype(sweep.dtype),
        "optimal_generalization_error": error.reshape(slices.shape).astype(sweep.dtype),
        "optimum_inside": inside.reshape(slices.shape),
    }


def turning_points(slices: Slices, curves: np.ndarray, sign: int = 1) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Where sign * eg is least, given eg on the grid: position, eg there, and whether it is a root of d eg."""
    grid = slices.sweep.axes[slices.name].astype(float)
    everyone = slices.everyone
    least = (sign * curves).argmin(1)
    best, error = grid[least], curves[everyone, least]
    slope = sign * slices.slope(best, everyone)
    # A descent towards a neighbour, which is no lower, brackets a root on that side.
    other = least + np.where(slope * np.sign(grid[-1] - grid[0]) > 0, -1, 1)
    inside = (other >= 0) & (other < grid.size) & np.isfinite(error)
    which = everyone[inside]
    if which.size:
        low, high = best[which], grid[other[which]]

        def function(x, where):
            return sign * slices.slope(x, which[where])

        at_high = function(high, np.arange(which.size))
        root, found = bracketed_roots(function, low, high, slope[which], at_high, _TOLERANCE)
        found &= slope[which] * at_high < 0
        value = slices.solve(root, which, "generalization_error")[0]
        found &= sign * value <= sign * error[which] + 1e-12
        inside[which] = found
        best[which], error[which] = np.where(found, root, low), np.where(found, value, error[which])
    return best, error, inside
