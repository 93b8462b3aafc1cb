"""The codebook of least squared error: every level the mean of its cell (Lloyd; Max 1960).

    a_k M0_k − M1_k = 0,        M the partial moments of cell k        (stationarity of theory 4.1 in the levels)

The laws are symmetric, so the unknowns are the positive levels.  (Without that the Jacobian is singular for Laplace weights,
whose cells to one side of 0 stay stationary when they all move.)
"""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from replicajax import _checks
from replicajax.codebooks import Codebook
from replicajax.distributions import Symmetric, as_data
from replicajax.formats._elements import cube_root, padded_size
from replicajax.numerics import implicit_root


def lloyd_max(law: Symmetric, bits: float, *, max_steps: int = 100) -> Codebook:
    """The stationary point of E(x − Q(x))² in the levels that is reached from `cube_root(law, bits)`.

    For a density whose logarithm is concave it is the global minimum.  Levels are in the units of the law, to 1e-13, and
    differentiable in its parameters by the implicit function theorem; NaN where `max_steps` of Newton's method were not
    enough.

    Raises:
      TypeError, ValueError: not a law, or bits outside [1, 16].
    """
    start = _checks.known(cube_root(law, bits).levels)
    count, odd = start.size // 2, start.size % 2
    size = padded_size(count)
    first = start[-count:][np.minimum(np.arange(size), count - 1)]
    family = as_data(law, first)
    levels = _checks.known(
        _solve(family, first, np.asarray(count), np.asarray(odd, family.dtype), np.asarray(max_steps))
    )
    return Codebook(levels[np.r_[size - count : size, np.arange(size, size + odd), size + 1 : size + 1 + count]])


def _cells(law: Symmetric, log_levels: Array, count: Array, odd: Array):
    """Positive levels in units of the RMS, of which `count` are meant, and the ends of their cells.

    An odd number of levels has one at 0.
    """
    levels = jnp.exp(log_levels)
    edges = jnp.where(jnp.arange(levels.size - 1) < count - 1, (levels[1:] + levels[:-1]) / 2, jnp.inf)
    return levels, jnp.concatenate([levels[:1] / 2 * odd, edges, jnp.full(1, jnp.inf, levels.dtype)])


def _off_centre(law: Symmetric, log_levels: Array, start: Array, count: Array, odd: Array):
    """Log of a level over the mean of its cell (of those not meant: over what they are), zeroth and first moments."""
    levels, edges = _cells(law, log_levels, count, odd)
    unit, meant = jnp.sqrt(law.second_moment()), jnp.arange(levels.size) < count
    zeroth, first, _ = law.cell_moments(edges * unit)
    zeroth, first = jnp.where(meant, zeroth, 1.0), jnp.where(meant, first / unit, 1.0)
    return jnp.where(meant, jnp.log(levels * zeroth / first), log_levels - start), zeroth, first


@eqx.filter_jit
def _solve(
    law: Symmetric, first: Float[Any, " half"], count: Int[Any, ""], odd: Float[Any, ""], max_steps: Int[Any, ""]
) -> Float[Array, " 2*half+1"]:
    """The levels of both signs with 0 between them."""
    unit = jnp.sqrt(law.second_moment())

    def condition(levels, _, inputs):
        law, start, count, odd, _ = inputs
        return _off_centre(law, levels, start, count, odd)[0]

    levels = implicit_root(_search, condition, (law, jnp.log(first / unit), count, odd, max_steps))[0]
    half = jnp.exp(levels) * unit
    return jnp.concatenate([-half[::-1], jnp.zeros(1, half.dtype), half])


def _search(inputs) -> tuple[Array, Array]:
    """Newton's method; a step goes at most half of the way to where two levels would meet, and one in any logarithm."""
    law, start, count, odd, max_steps = inputs
    eps = jnp.finfo(start.dtype).eps

    def step(carry):
        log_levels, _, left = carry
        residual, zeroth, first = _off_centre(law, log_levels, start, count, odd)
        newton = -_solve_jacobian(law, log_levels, count, odd, zeroth, first, residual)
        newton = jnp.where(jnp.isfinite(newton).all(), newton, -residual)  # or Lloyd's step
        gaps = jnp.diff(log_levels)
        closing = jnp.where(gaps > 0, -jnp.diff(newton) / jnp.where(gaps > 0, gaps, 1.0), 0.0)
        new = log_levels + newton / jnp.maximum(1.0, jnp.maximum(jnp.abs(newton).max(), 2 * closing.max(initial=0.0)))
        return new, jnp.abs(new - log_levels).max(), left - 1

    goal = 1e3 * eps
    levels, size, _ = jax.lax.while_loop(
        lambda c: (c[1] > goal) & (c[2] > 0), step, (start, jnp.full((), jnp.inf, start.dtype), max_steps)
    )
    return jnp.where(size <= 1e6 * eps, levels, jnp.nan), max_steps


def _solve_jacobian(law, log_levels, count, odd, zeroth, first, residual):
    """Every level's cell hangs on its neighbours alone.

    With Z, M1 the moments of a cell that ends at e = (a + a')/2:  d log(Z/M1)/de = p(e) (1/Z − e/M1), the other end minus it.
    """
    levels, edges = _cells(law, log_levels, count, odd)
    unit = jnp.sqrt(law.second_moment())
    edge = jnp.where(jnp.isfinite(edges), edges, 0.0)
    density = jnp.where(jnp.isfinite(edges), law.pdf(edge * unit) * unit, 0.0)
    density = density.at[0].multiply(odd)
    right = density[1:] * (1 / zeroth - edge[1:] / first) / 2
    left = -density[:-1] * (1 / zeroth - edge[:-1] / first) / 2
    zero = jnp.zeros(1, levels.dtype)
    below, above = jnp.concatenate([zero, left[1:] * levels[:-1]]), jnp.concatenate([right[:-1] * levels[1:], zero])
    diagonal = 1 + (left + right) * levels
    return jax.lax.linalg.tridiagonal_solve(below, diagonal, above, residual[:, None])[:, 0]
