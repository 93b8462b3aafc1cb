"""Averages over the largest magnitude Mx of B independent weights.

    E g(Mx) = int dMx B f(Mx) F(Mx)^(B−1) g(Mx),    f, F density and cdf of |x|        (theory 4.2)

in y = log Mx, by Gauss-Legendre panels between quantiles of Mx.  The panels are equal in the Gumbel variable
−log(−B log F), in which the law of Mx hardly depends on B.  B may be any real number from 1 on.
"""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float

from replicajax import _checks
from replicajax.distributions import Symmetric

_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(12)
_INNER = np.array([-3.7, -2.6, -1.3, 0.0, 1.4, 3.0])
_OUTER = np.array([0.07, 0.18, 0.36, 0.65, 1.0])
_NEGLIGIBLE = 42.0
"""exp(−42) = 6e-19."""


class MaximumNodes(NamedTuple):
    value: Float[Array, " nodes"]
    weight: Float[Array, " nodes"]


def maximum_nodes(law: Symmetric, block_size: ArrayLike, above: ArrayLike = 0.0) -> MaximumNodes:
    """Nodes and weights with sum_j weight_j g(value_j) = E[g(Mx); Mx > above], to 1e-12 for smooth g of at most Mx²."""
    B = jnp.asarray(block_size, law.dtype)
    frozen, size = jax.lax.stop_gradient((law, B))
    # E Mx² of a density falling like x^(−v−1) converges like exp{−(1 − 2/v) g}.
    reach = _NEGLIGIBLE / (1 - 2 / jnp.asarray(frozen.tail_index, law.dtype))
    gumbel = jnp.concatenate([jnp.asarray(_INNER), _INNER[-1] + (reach - _INNER[-1]) * _OUTER])
    log_F = -jnp.exp(-gumbel) / size
    near_zero = jnp.exp(log_F) / (2 * frozen.pdf(0.0))  # where 1 − F is 1 in floating point
    far = frozen.upper_quantile(-jnp.expm1(jnp.maximum(log_F, -15.0)) / 2)
    edges = jnp.log(jnp.where(log_F < -15, near_zero, far))
    if law.largest is not jnp.inf:
        edges = edges.at[-1].set(jnp.log(law.largest))  # which moves with the law's parameters
    edges = jnp.maximum(edges, jnp.log(above))
    half = jnp.diff(edges)[:, None] / 2
    y = (edges[:-1, None] + half * (1 + _NODES)).ravel()
    M = jnp.exp(y)
    log_density = jnp.log(2 * B) + law.log_pdf(M) + (B - 1) * law.magnitude_log_cdf(M)
    return MaximumNodes(M, (half * _WEIGHTS).ravel() * jnp.exp(log_density + y))


def expected_maximum(law: Symmetric, block_size: ArrayLike) -> Float[Array, ""]:
    """E Mx of a block, in the units of the law."""
    size = _checks.real("block_size", block_size)
    if size.ndim or (not _checks.is_traced(size) and not bool((size >= 1) & jnp.isfinite(size))):
        raise ValueError(f"block_size must be a number from 1 on, got {block_size!r}")
    return _mean(law, size)


@eqx.filter_jit
def _mean(law: Symmetric, size: Array) -> Array:
    M, weight = maximum_nodes(law, size)
    return weight @ M
