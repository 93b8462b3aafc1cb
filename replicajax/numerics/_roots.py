"""Roots of many functions at once, each in its bracket: the Illinois secant method."""

from collections.abc import Callable

import numpy as np


def bracketed_roots(
    function: Callable[[np.ndarray, np.ndarray], np.ndarray],
    low: np.ndarray,
    high: np.ndarray,
    at_low: np.ndarray,
    at_high: np.ndarray,
    tolerance: float,
    max_steps: int = 60,
) -> tuple[np.ndarray, np.ndarray]:
    """Roots between low and high, where the function has values of opposite signs.

    Args:
      function: x, positions -> values of the functions at these positions.
      tolerance: of x, relative.

    Returns:
      The roots, and whether each was found.
    """
    a, f_a, b, f_b = (np.array(x, float) for x in (low, at_low, high, at_high))
    settled = (f_a == 0) | (f_b == 0)
    x = np.where(f_a == 0, a, b)
    for _ in range(max_steps):
        at = np.flatnonzero(~settled)
        if not at.size:
            break
        with np.errstate(all="ignore"):
            secant = (a[at] * f_b[at] - b[at] * f_a[at]) / (f_b[at] - f_a[at])
        inside = (secant - a[at]) * (secant - b[at]) < 0
        new = np.where(inside, secant, (a[at] + b[at]) / 2)
        f = function(new, at)
        same = f * f_b[at] > 0
        # The end that stays put has its value halved, so that it cannot stay for ever.
        a[at], f_a[at] = np.where(same, a[at], b[at]), np.where(same, f_a[at] / 2, f_b[at])
        settled[at] = (f == 0) | (np.abs(new - x[at]) <= tolerance * np.abs(new)) | ~np.isfinite(f)
        b[at], f_b[at], x[at] = new, f, new
    return x, settled & np.isfinite(f_b)
