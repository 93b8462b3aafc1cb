"""Quadrature over a Gamma law, for Gaussians of random variance."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

_NODES = 64
"""Components that stand for a continuum of variances: averages within 1e-10 where chi_hat > 0.01 m_hat² (tests)."""
_NEGLIGIBLE = 37.0
"""exp(−37) = 1e-16."""


@partial(jax.jit, static_argnames="count")
def gamma_nodes(shape: Float[Array, ""], growth: float = 0.5, count: int = _NODES):
    """Nodes g_c and weights with sum_c weight_c F(g_c) = E F(g) for g ~ Gamma(shape, 1), shape >= 1 and > growth.

    F may grow like g^(−growth) near zero.  With g = shape e^v the density is exp{−shape (e^v − 1 − v)} up to a constant, and
    v = t − e^(−t) + 1 makes both tails fall double-exponentially, so that the trapezoidal rule in t converges geometrically.
    """
    k = shape
    # e^v − 1 − v >= max(v²/2, e^v/2 − 1) right of 0 and >= v²/(2 − v) left of it: where the integrand is negligible.
    right = jnp.minimum(jnp.sqrt(2 * _NEGLIGIBLE / k), jnp.log(2 + 2 * _NEGLIGIBLE / k))
    c = _NEGLIGIBLE / (k - growth)
    left = -(c + jnp.sqrt(c**2 + 8 * c)) / 2
    start, stop = (jax.lax.stop_gradient(_inverse(v)) for v in (left, right))
    step = (stop - start) / (count - 1)
    t = start + step * jnp.arange(count)
    v = t - jnp.exp(-t) + 1
    weight = jnp.exp(-k * (jnp.expm1(v) - v)) * (1 + jnp.exp(-t))
    return k * jnp.exp(v), weight / weight.sum()


def _inverse(v):
    """t with t − e^(−t) + 1 = v, by Newton's method."""
    t = jnp.where(v < 0, -jnp.log1p(-v), v)
    for _ in range(6):
        t = t - (t - jnp.exp(-t) + 1 - v) / (1 + jnp.exp(-t))
    return t
