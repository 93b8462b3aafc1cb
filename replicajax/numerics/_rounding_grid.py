"""Soft rounding and its derivatives on an even grid of fields: for many levels closer than the thermal width.

Where levels blur into one another no threshold stands out, and the trapezoidal rule over the whole Gaussian is the better
quadrature: its error is exp(−2 pi d / step), with d the distance from the real axis to the nearest zero of the partition
sum.  Two neighbouring levels alone have theirs at d = pi/(beta gap); the end of a dense codebook, an error function of
(h − curvature a_K) sqrt(beta / (2 curvature)), at d = 1.99 sqrt(2 curvature / beta).  The smaller of the two is used, and
the number of nodes follows from it: large where beta is, and then `rounding_slopes` is the better choice.

Points are the last axis of every array; a block of points takes as many nodes as its most demanding one.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from replicajax.numerics._rounding_slopes import RoundingSlopes, Slope
from replicajax.numerics._soft_rounding import SoftRounding

Error = Float[Array, ""] | float

_REACH = 8.5
"""Standard deviations kept on either side."""
_MOST = 2**14
"""Nodes at most, on each side."""


def grid_nodes(levels, curvature, beta, deviation, error: Error):
    """Nodes on each side of the mean at which the trapezoidal rule errs by `error`, relative to the Gaussian's weight."""
    gap = jnp.diff(levels, axis=0).max(0)
    zero = jnp.minimum(jnp.pi / (beta * gap), 1.99 * jnp.sqrt(2 * curvature / beta))
    needed = _REACH * deviation * -jnp.log(error) / (2 * jnp.pi * zero)
    return jnp.clip(jnp.ceil(jax.lax.stop_gradient(needed).max()), 12, _MOST).astype(int)


def grid_slopes(levels, curvature, beta, mean, deviation, *, error: Error, symmetric: bool = False) -> RoundingSlopes:
    """As `rounding_slopes`; `error` is that of the quadrature."""

    def integrands(z, p, energy, partition):
        del energy, partition
        a = (p * levels).sum(0)
        u = levels - a
        variance, mu3, mu4 = ((p * u**n).sum(0) for n in (2, 3, 4))
        lean = 2 * a * variance + mu3
        return (
            (a, variance, z * variance, lean),
            (a**2, a * variance, z * a * variance, a * lean),
            (variance, mu3, z * mu3, mu4 - variance**2 + 2 * a * mu3),
        )

    sums = _integrate(integrands, levels, curvature, beta, mean, deviation, error, symmetric)
    (m, m_h, m_z, m_c), (q, q_h, q_z, q_c), (v, v_h, v_z, v_c) = sums
    if symmetric:
        m, m_z, m_c, q_h, v_h = (jnp.zeros_like(m),) * 5
    return RoundingSlopes(
        mean=Slope(m, beta * m_h, beta * m_z, -beta / 2 * m_c),
        square=Slope(q, 2 * beta * q_h, 2 * beta * q_z, -beta * q_c),
        response=Slope(beta * v, beta**2 * v_h, beta**2 * v_z, -(beta**2) / 2 * v_c),
    )


def grid_averages(levels, curvature, beta, mean, deviation, *, error: Error, symmetric: bool = False) -> SoftRounding:
    """Everything `soft_rounding` gives; arguments as in `grid_slopes`."""

    def integrands(z, p, energy, log_partition):
        del z
        a = (p * levels).sum(0)
        response = beta * (p * (levels - a) ** 2).sum(0)
        entropy = log_partition - (p * energy).sum(0)
        return log_partition / beta, a, a**2, response, response**2, entropy, p

    result = SoftRounding(*_integrate(integrands, levels, curvature, beta, mean, deviation, error, symmetric))
    if not symmetric:
        return result
    return result._replace(mean=jnp.zeros_like(result.mean), usage=(result.usage + result.usage[::-1]) / 2)


def _integrate(integrands, levels, curvature, beta, mean, deviation, error: Error, symmetric: bool):
    """E integrands(z, p, log weights, log of their sum); only the right half, doubled, if `symmetric`."""
    count = grid_nodes(levels, curvature, beta, deviation, error)
    step = _REACH / count

    def at(z):
        h = mean + deviation * z
        energy = beta * (h * levels - curvature * levels**2 / 2)
        log_partition = jax.nn.logsumexp(energy, axis=0)
        return integrands(z, jnp.exp(energy - log_partition), energy, log_partition)

    def add(i, sums):
        z = i * step
        weight = step * jnp.exp(-(z**2) / 2) / np.sqrt(2 * np.pi)
        weight = jnp.where((i == 0) & symmetric, 1.0, 2.0 if symmetric else 1.0).astype(step.dtype) * weight
        return jax.tree.map(lambda total, value: total + weight * value, sums, at(z.astype(levels.dtype)))

    shapes = jax.eval_shape(at, jnp.zeros((), levels.dtype))
    zeros = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)
    return jax.lax.fori_loop(0 if symmetric else -count, count + 1, add, zeros)
