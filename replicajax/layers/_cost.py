"""What rounding costs a number that is known up to Gaussian noise: everything a layer is charged for is a sum of this.

With u_k = x − t_k, t_k the threshold between levels k and k + 1, Delta_k the gap between them, x ~ N(u, v) and Q(u) nearest,

    E (x − Q(x))² = v + (u − Q(u))² − 2 sum_k Delta_k sqrt(v) h(|u − t_k|/sqrt(v)),      h(z) = phi(z) − z Phi(−z):

staying with Q(u) costs the first two terms, and where x crosses t_k the next level saves 2 Delta_k |x − t_k|.
"""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from replicajax.distributions import thresholds
from replicajax.numerics import ndtr

SHARPEST = 1e-20
"""Variance that is none: its square root still has a reciprocal square in float32."""
_BLUNT = 6
"""Points of a law stand closer than a gap over this."""


class Cost(NamedTuple):
    square: Float[Array, "..."]
    """E (x − Q(x))²."""
    clipped: Float[Array, "..."]
    """Probability of x beyond the outer levels by more than half their gap."""
    overload: Float[Array, "..."]
    """E (x − Q(x)) of those: an error that is no noise, but known once x is."""
    gain: Float[Array, "..."]
    """E d(x − Q(x))/dx: how much of a change of x is a change of its error; of points, no sharper than gaps allow."""


def rounding_cost(levels: Float[Array, " levels"], u: Float[Array, "..."], v: Float[Array, "..."]) -> Cost:
    """Of x ~ N(u, v), v >= 0."""
    return cost_and_bias(levels, u, v)[0]


def cost_and_bias(
    levels: Float[Array, " levels"], u: Float[Array, "..."], v: Float[Array, "..."]
) -> tuple[Cost, Float[Array, "..."]]:
    """And E (x − Q(x))."""
    cuts, gaps = thresholds(levels), jnp.diff(levels)
    s = jnp.sqrt(jnp.maximum(v, SHARPEST))
    beyond = u[..., None] - cuts
    # Not abs: of u on a threshold it has another derivative than Q, which has chosen a side.
    side = jnp.where(beyond > 0, 1.0, -1.0)
    z = side * beyond / s[..., None]
    crossing, error = ndtr(-z), u - levels[jnp.searchsorted(cuts, u)]
    saved = (gaps * (density(z) - z * crossing)).sum(-1)
    square = v + error**2 - 2 * s * saved
    high, low = (u - levels[-1] - gaps[-1] / 2) / s, (levels[0] - gaps[0] / 2 - u) / s
    above, below = ndtr(high), ndtr(low)
    excess = s * (density(high) + high * above - density(low) - low * below)
    overload = excess + gaps[-1] / 2 * above - gaps[0] / 2 * below
    blunt = jnp.maximum(s[..., None], gaps / _BLUNT)
    gain = 1 - (gaps * density(beyond / blunt) / blunt).sum(-1)
    return Cost(square, above + below, overload, gain), error + (side * gaps * crossing).sum(-1)


def density(z: Array) -> Array:
    return jnp.exp(-(z**2) / 2) / np.sqrt(2 * np.pi)
