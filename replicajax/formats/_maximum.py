"""Averages over the largest magnitude Mx of B independent weights.

    E g(Mx) = int dMx B f(Mx) F(Mx)^(B−1) g(Mx),    f, F density and cdf of |x|        (theory 4.2)

in y = log Mx, by Gauss-Legendre panels between quantiles of Mx.  The panels are equal in the Gumbel variable
−log(−B log F), in which the law of Mx hardly depends on B.  B may be any real number from 1 on.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float

from replicajax import _checks
from replicajax.distributions import Symmetric, as_data
from replicajax.distributions._symmetric import TABLE

_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(12)
_INNER = np.array([-3.7, -2.6, -1.3, 0.0, 1.4, 3.0])
_OUTER = np.array([0.07, 0.18, 0.36, 0.65, 1.0])
_NEGLIGIBLE = 42.0
"""exp(−42) = 6e-19."""
_FURTHEST = 600.0
"""What float64 can hold."""


class MaximumNodes(NamedTuple):
    value: Float[Array, " nodes"]
    log_measure: Float[Array, " nodes"]


def maximum_edges(law: Symmetric, block_size: Float[Any, ""]) -> Float[Array, " edges"]:
    """Log of the quantiles of Mx, to some percent, between which `maximum_nodes` has its panels: they have no derivative."""
    of = law.log_tails(), law.tail_index, law.scale, law._log_peak(), law.zeroed, block_size
    dtype = law.dtype
    if _checks.is_traced(of):
        return _edges(jnp, *jax.lax.stop_gradient(jax.tree.map(lambda x: jnp.asarray(x, dtype), of)))
    return _edges(np, *(np.asarray(x, dtype) for x in of))


def _edges(xp, log_tails, tail_index, scale, log_peak, zeroed, size):
    # E Mx² of a density falling like x^(−v−1) converges like exp{−(1 − 2/v) g}.
    reach = xp.minimum(_NEGLIGIBLE / (1 - 2 / tail_index), _FURTHEST)
    gumbel = xp.concatenate([_INNER, _INNER[-1] + (reach - _INNER[-1]) * _OUTER]).astype(size.dtype)
    log_F = -xp.exp(-gumbel) / size
    near_zero = log_F - np.log(2) - log_peak  # where 1 − F is 1 in floating point
    # Zeros fill the middle: less than they does no magnitude stay below.
    tail = xp.minimum(-xp.expm1(xp.maximum(log_F, -15.0)) / 2 + zeroed / 2, 0.5)
    far = xp.interp(-xp.log(tail), -log_tails[1:], np.log(TABLE[1:]))
    return xp.log(scale) + xp.where(log_F < -15, near_zero, far)


def maximum_nodes(block_size: Array, edges: Float[Array, " edges"], largest: ArrayLike) -> MaximumNodes:
    """Nodes with sum_j exp(log_measure_j) f(x_j) F(x_j)^(B−1) g(x_j) = E g(Mx), to 1e-12 for smooth g of at most Mx².

    f is the density of the law and not of |x|; beyond `largest` there is none.
    """
    # The end of the law, where it has one, moves with its parameters.
    edges = jnp.minimum(edges, jnp.log(largest)).at[-1].set(jnp.where(jnp.isinf(largest), edges[-1], jnp.log(largest)))
    half, nodes, weights = jnp.diff(edges)[:, None] / 2, *(x.astype(edges.dtype) for x in (_NODES, _WEIGHTS))
    y = (edges[:-1, None] + half * (1 + nodes)).ravel()
    return MaximumNodes(jnp.exp(y), jnp.log((half * weights).ravel() * 2 * block_size) + y)


def expected_maximum(law: Symmetric, block_size: ArrayLike) -> Float[Array, ""]:
    """E Mx of a block, in the units of the law."""
    size = _checks.real("block_size", block_size)
    if size.ndim or (not _checks.is_traced(size) and not 1 <= float(size) < np.inf):
        raise ValueError(f"block_size must be a number from 1 on, got {block_size!r}")
    law = as_data(law, size)
    size = _checks.known(size).astype(law.dtype)
    return _mean(law, size, maximum_edges(law, size))


@eqx.filter_jit
def _mean(law: Symmetric, size: Array, edges: Array) -> Array:
    M, log_measure = maximum_nodes(size, edges, law.largest)
    return jnp.exp(log_measure + law.log_pdf(M) + (size - 1) * law.magnitude_log_cdf(M)) @ M
