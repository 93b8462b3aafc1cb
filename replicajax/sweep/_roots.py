"""Roots of many increasing-or-decreasing functions at once, in brackets, by Newton's method."""

from collections.abc import Callable

import numpy as np


def bracketed_roots(
    function: Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]],
    low: np.ndarray,
    high: np.ndarray,
    at_low: np.ndarray,
    tolerance: float,
    max_steps: int = 60,
) -> tuple[np.ndarray, np.ndarray]:
    """Roots in [low, high] where function(low) has the sign of `at_low` and function(high) the other.

    Args:
      function: x, positions -> (values, derivatives) of the functions at these positions, each the shape of x.
      tolerance: of x, relative.

    Returns:
      The roots, and whether each was found.
    """
    low, high = low.copy(), high.copy()
    x = (low + high) / 2
    settled = np.zeros(x.shape, bool)
    for _ in range(max_steps):
        at = np.flatnonzero(~settled)
        value, slope = function(x[at], at)
        left = np.sign(value) == np.sign(at_low[at])
        low[at], high[at] = np.where(left, x[at], low[at]), np.where(left, high[at], x[at])
        with np.errstate(all="ignore"):
            newton = x[at] - value / slope
        inside = (newton >= np.minimum(low[at], high[at])) & (newton <= np.maximum(low[at], high[at]))
        new = np.where(value == 0, x[at], np.where(inside, newton, (low[at] + high[at]) / 2))
        settled[at] = np.abs(new - x[at]) <= tolerance * np.abs(x[at])
        x[at] = new
        if settled.all():
            break
    return x, settled
