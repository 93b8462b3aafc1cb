"""The least error of any code of a given rate, by the algorithm of Blahut and Arimoto.

At slope −beta of rate (nats) against mean squared error D, the law q of what weights are decoded to is the fixed point of

    q(y) <- q(y) c(y),    c(y) = int dx p(x) K(x − y) / (q * K)(x),    K(d) = exp(−beta d²).

On a grid of equal steps q * K is a convolution.  Every q gives a rate above the infimum (Blahut 1972).
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from replicajax import _checks
from replicajax.distributions import Symmetric
from replicajax.formats._rate import shannon_lower_bound


@eqx.filter_jit
def _improve(q: Float[Array, " n"], p: Float[Array, " n"], x: Float[Array, " n"], beta: Array, steps: Array):
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
    unit = float(jnp.sqrt(law.second_moment()))
    D = (float(shannon_lower_bound(law)) * unit * 2.0**-rate) ** 2
    step, reach = np.sqrt(D) / 12, 8 * unit
    while reach < 2**12 * step and float(law.partial_moments(reach, jnp.inf)[2]) > 1e-4 * D:
        reach *= 1.25
    count = 2 ** int(np.ceil(np.log2(2 * reach / step)))
    edges = step * (jnp.arange(count + 1) - count / 2)
    p = law.cell_moments(edges)[0]
    q = p = p / p.sum()
    beta = 1 / (2 * D)
    for _ in range(8):
        q, found, D = _improve(q, p, (edges[1:] + edges[:-1]) / 2, jnp.asarray(beta), jnp.asarray(400))
        excess = float(found) - rate
        beta *= 4.0**-excess
    return float(jnp.sqrt(D + excess * np.log(2) / beta)) / unit  # the rest along the tangent
