"""Roots of many increasing-or-decreasing functions at once, in brackets, by Newton's method."""

from collections.abc import Callable

import numpy as np


def bracketed_roots(
    function: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]],
    low: np.ndarray,
    high: np.ndarray,
    at_low: np.ndarray,
    tolerance: float,
    max_steps: int = 60,
) -> tuple[np.ndarray, np.ndarray]:
    """Roots in [low, high] where function(low) has the sign of `at_low` and function(high) the other.

    Args:
      function: x -> (values, derivatives), each the shape of x.
      tolerance: of x, relative.

    Returns:
      The roots, and whether each was found.
    """
    low, high = low.copy(), high.copy()
    x = (low + high) / 2
    settled = np.zeros(x.shape, bool)
    for _ in range(max_steps):
        value, slope = function(x)
        left = np.sign(value) == np.sign(at_low)
        low, high = np.where(left, x, low), np.where(left, high, x)
        with np.errstate(all="ignore"):
            newton = x - value / slope
        inside = (newton > np.minimum(low, high)) & (newton < np.maximum(low, high))
        new = np.where(inside, newton, (low + high) / 2)
        new = np.where(value == 0, x, new)
        settled = np.abs(new - x) <= tolerance * np.abs(x)
        x = new
        if settled.all():
            break
    return x, settled
