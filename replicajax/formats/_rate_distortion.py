"""The least error of any code of a given rate, by the algorithm of Blahut and Arimoto.

At slope −beta of rate (nats) against mean squared error D, the law q of what weights are decoded to is the fixed point of

    q(y) <- q(y) c(y),    c(y) = int dx p(x) K(x − y) / (q * K)(x),    K(d) = exp(−beta d²).

On a grid of equal steps q * K is a convolution.  Every q gives a rate above the infimum (Blahut 1972).
"""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from replicajax import _checks
from replicajax.distributions import Symmetric, as_data
from replicajax.formats._rate import shannon_lower_bound

_FEW, _MANY = 2**10, 2**13
"""Cells of the grid."""


@eqx.filter_jit
def _improve(
    q: Float[Array, " n"], p: Float[Array, " n"], x: Float[Any, " n"], beta: Float[Any, ""], steps: Int[Any, ""]
):
    """q after so many steps; its rate in bits and D."""
    distance = x - x[0]
    around = jnp.concatenate(
        [distance, jnp.full(1, jnp.inf), -distance[1:][::-1]]
    )  # a circle that no weight goes round
    kernel = jnp.exp(-beta * around**2)
    smooth, spread = jnp.fft.rfft(kernel), jnp.fft.rfft(kernel * jnp.where(kernel > 0, around, 0) ** 2)

    def convolve(q, transform):
        return jnp.maximum(jnp.fft.irfft(jnp.fft.rfft(q, around.size) * transform, around.size)[: q.size], 0)

    def ratio(q):
        mixed = convolve(q, smooth)
        return p / jnp.where(mixed > 1e-300, mixed, jnp.inf)

    def step(_, q):
        new = q * convolve(ratio(q), smooth)
        return new / new.sum()

    q = jax.lax.fori_loop(0, steps, step, q)
    D = (q * convolve(ratio(q), spread)).sum()
    mixed = convolve(q, smooth)
    rate = -beta * D - (p * jnp.log(jnp.where(mixed > 1e-300, mixed, 1.0))).sum()
    return q, rate / jnp.log(2.0), D


def rate_distortion(law: Symmetric, bits: float) -> float:
    """Rel below which no code of `bits` per weight goes, however long the blocks it codes; 2^-bits for normal weights.

    To 3e-4 of Rel, from above; not differentiable; a second or two.  From 4 bits on `shannon_lower_bound` says the same.

    Raises:
      TypeError, ValueError: not a law, bits outside [0.1, 4].
    """
    _checks.instance("law", law, Symmetric, "formats.Normal()")
    rate = float(_checks.scalar("bits", bits))
    if not 0.1 <= rate <= 4:
        raise ValueError(f"bits must be a number from 0.1 to 4, got {bits!r}")
    family = as_data(law)
    unit, reaches, beyond = (np.asarray(x) for x in _reaches(family))
    D = (float(shannon_lower_bound(law)) * float(unit) * 2.0**-rate) ** 2
    step = np.sqrt(D) / 12
    far_enough = (beyond <= 1e-4 * D) | (reaches >= 2**12 * step)
    reach = reaches[np.append(np.flatnonzero(far_enough), -1)[0]]
    count = _FEW if 2 * reach / step <= _FEW else _MANY
    edges = (step * (np.arange(count + 1) - count / 2)).astype(family.dtype)
    p = q = _cell_probabilities(family, edges)
    beta = 1 / (2 * D)
    for _ in range(8):
        q, found, D = _improve(q, p, (edges[1:] + edges[:-1]) / 2, np.asarray(beta, family.dtype), np.asarray(400))
        excess = float(found) - rate
        beta *= 4.0**-excess
    return float(np.sqrt(float(D) + excess * np.log(2) / beta) / unit)  # the rest along the tangent


@eqx.filter_jit
def _reaches(law: Symmetric) -> tuple[Array, Array, Array]:
    """RMS, how far a grid may reach, and E[x²; x beyond it]."""
    unit = jnp.sqrt(law.second_moment())
    reaches = unit * 8 * 1.25 ** np.arange(64)
    return unit, reaches, law.tails(reaches)[2] * law.scale**2


@eqx.filter_jit
def _cell_probabilities(law: Symmetric, edges: Float[Any, " n+1"]) -> Float[Array, " n"]:
    p = law.cell_moments(edges)[0]
    return p / p.sum()
