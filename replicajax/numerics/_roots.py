"""Roots of many functions at once: of any, each in its bracket, by the Illinois secant method; of sums of simple poles."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from jaxtyping import Float

from replicajax.numerics._backend import JAX, Backend


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


_NEWTON = 100
"""Steps at most; some five will do, a few dozen where poles span many decades."""
_POLISH = 2
"""Steps that carry derivatives: so many of them are exact."""


def harmonic_root(
    on: Backend, share: Float[Any, "... poles"], poles: Float[Any, "... poles"], target: Float[Any, "..."]
) -> Float[Any, "..."]:
    """u > −min(poles) of sum share/(poles + u) = target, where shares are >= 0 (a pole without share is none).

    Newton's method on one over the sum, which is concave: from the left it never overshoots.  Differentiable.
    """
    xp, constant = on.xp, on.constant

    def step(share, poles, target, u):
        inverse = 1 / (poles + u[..., None])
        each = share * inverse
        first, second = each.sum(-1), (each * inverse).sum(-1)
        return u + first * (first / target - 1) / second

    held, at, sought = (constant(x) for x in (share, poles, target))
    least = xp.where(held > 0, at, xp.inf).min(-1)
    at_least = xp.where((held > 0) & (at <= least[..., None]), held, 0.0).sum(-1)
    whole = held.sum(-1)
    start = xp.maximum(whole / sought - (held * at).sum(-1) / whole, at_least / sought - least)

    def body(carry):
        u, _, left = carry
        new = step(held, at, sought, u)
        return xp.maximum(new, u), new - u, left - 1

    tolerance = 1e-9  # a step later the error is of its square

    def going(carry):
        u, change, left = carry
        return (left > 0) & (change > tolerance * (u + least)).any()

    u, *_ = on.repeat(going, body, (start, xp.full_like(start, xp.inf), _NEWTON))
    u = constant(u)
    for _ in range(_POLISH if on is JAX else 0):
        u = step(share, poles, target, u)
    return u
