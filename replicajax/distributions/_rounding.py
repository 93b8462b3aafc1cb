"""Mean squared error of rounding to the nearest level: one integral a cell.

    D = sum_k int_{cell k} (x − a_k)² p(x) dx = sum_k [M2_k − 2 a_k M1_k + a_k² M0_k]        (theory 4.1)

The partial moments M are closed forms, but in a narrow cell their combination cancels: D of b bits would carry an error
of 4^b rounding errors.  Beyond 8 bits narrow cells use a Gauss-Legendre rule instead, of positive terms only.

Rounded stochastically, up or down with a mean of x, a weight between two levels a < b errs by (x − a)(b − x) in square.
"""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float

from replicajax.distributions._symmetric import Moments, Symmetric

_NODES, _WEIGHTS = (x for x in np.polynomial.legendre.leggauss(12))
_MANY = 256
"""Levels up to which moments alone are good to 1e-10 of D."""
_SMOOTH = 4.0
"""Largest change of log p across a cell for the rule (whose error is then 1e-16)."""


def thresholds(levels: Float[Array, "... levels"]) -> Float[Array, "... levels-1"]:
    """Where the nearest level changes."""
    return (levels[..., :-1] + levels[..., 1:]) / 2


def cell_edges(levels, low: ArrayLike = -jnp.inf, high: ArrayLike = jnp.inf) -> Float[Array, "... levels+1"]:
    """Of the cells of nearest rounding within [low, high]; a cell outside has no width."""
    low, high = (jnp.broadcast_to(x, levels.shape[:-1])[..., None].astype(levels.dtype) for x in (low, high))
    return jnp.concatenate([low, jnp.clip(thresholds(levels), low, high), high], -1)


def distortion(
    law: Symmetric, levels: Float[Array, "... levels"], low: ArrayLike = -jnp.inf, high: ArrayLike = jnp.inf
) -> Float[Array, "..."]:
    """E[(x − Q(x))²; low < x < high], not divided by the probability; absolute error about 1e-16 E x²."""
    edges = cell_edges(levels, low, high)
    return distortion_of_cells(law, levels, edges, law.tails(edges))


def distortion_of_cells(law: Symmetric, levels: Float[Array, "... levels"], edges: Array, tails: Moments) -> Array:
    """The same, of cells whose moments are known."""
    zeroth, first, second = law.cell_moments(edges, tails)
    by_moments = second - 2 * levels * first + levels**2 * zeroth

    if levels.shape[-1] <= _MANY:
        return by_moments.sum(-1)

    a, b = edges[..., :-1], edges[..., 1:]
    width = b - a
    # Away from 0, where p may have a cusp, by a cell's width at least.
    apart = jnp.isfinite(width) & (jnp.minimum(jnp.abs(a), jnp.abs(b)) >= width) & (a * b > 0)
    a, b = (jnp.where(apart, x, safe) for x, safe in ((a, 1.0), (b, 1.5)))
    apart &= jnp.abs(law.log_pdf(a) - law.log_pdf(b)) < _SMOOTH
    half, nodes, weights = (b - a)[..., None] / 2, *(x.astype(levels.dtype) for x in (_NODES, _WEIGHTS))
    x = (a + b)[..., None] / 2 + half * nodes
    by_rule = (half * weights * (x - levels[..., None]) ** 2 * law.pdf(x)).sum(-1)
    return jnp.where(apart, by_rule, by_moments).sum(-1)


def stochastic_distortion(law: Symmetric, levels: Float[Array, " levels"]) -> Float[Array, ""]:
    """E(x − Q(x))² of unbiased rounding to a neighbouring level; what lies beyond the ends goes to them, as if to nearest."""
    low, high = levels[:-1], levels[1:]
    zeroth, first, second = law.cell_moments(jnp.concatenate([jnp.full(1, -jnp.inf), levels, jnp.full(1, jnp.inf)]))
    between = (low + high) * first[1:-1] - second[1:-1] - low * high * zeroth[1:-1]
    ends, beyond = levels[jnp.array([0, -1])], jnp.array([0, -1])
    return between.sum() + (second[beyond] - 2 * ends * first[beyond] + ends**2 * zeroth[beyond]).sum()
