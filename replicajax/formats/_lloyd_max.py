"""The codebook of least squared error: every level the mean of its cell (Lloyd; Max 1960).

    a_k M0_k − M1_k = 0,        M the partial moments of cell k        (stationarity of theory 4.1 in the levels)

The laws are symmetric, so the unknowns are the positive levels.  (Without that the Jacobian is singular for Laplace weights,
whose cells to one side of 0 stay stationary when they all move.)
"""

from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array

from replicajax.codebooks import Codebook
from replicajax.distributions import Symmetric, cell_edges
from replicajax.formats._elements import cube_root
from replicajax.numerics import implicit_root


def lloyd_max(law: Symmetric, bits: float, *, max_steps: int = 100) -> Codebook:
    """The stationary point of E(x − Q(x))² in the levels that is reached from `cube_root(law, bits)`.

    For a density whose logarithm is concave it is the global minimum.  Levels are in the units of the law, to 1e-13, and
    differentiable in its parameters by the implicit function theorem; NaN where `max_steps` of Newton's method were not
    enough.

    Raises:
      TypeError, ValueError: not a law, or bits outside [1, 16].
    """
    start = cube_root(law, bits).levels
    unit = jnp.sqrt(law.second_moment())
    first = jnp.log(start[(start.size + 1) // 2 :] / unit)
    half = jnp.exp(_solve(law, first, jnp.asarray(max_steps), start.size % 2)) * unit
    return Codebook(jnp.concatenate([-half[::-1], jnp.zeros(start.size % 2, half.dtype), half]))


def _off_centre(log_levels: Array, law: Symmetric, odd: int) -> Array:
    """Log of a positive level, in units of the RMS, over the mean of its cell.  An odd number of levels has one at 0."""
    levels = jnp.exp(log_levels) * jnp.sqrt(law.second_moment())
    zeroth, first, _ = law.cell_moments(cell_edges(levels, low=levels[0] / 2 * odd))
    return jnp.log(levels * zeroth / first)


@eqx.filter_jit
def _solve(law: Symmetric, start: Array, max_steps: Array, odd: int) -> Array:
    def condition(levels, _, inputs):
        return _off_centre(levels, inputs[0], odd)

    return implicit_root(partial(_search, odd), condition, (law, start, max_steps))[0]


def _search(odd: int, inputs) -> tuple[Array, Array]:
    """Newton's method; a step goes at most half of the way to where two levels would meet, and one in any logarithm."""
    law, start, max_steps = inputs
    eps = jnp.finfo(start.dtype).eps

    def step(carry):
        levels, size, left = carry
        residual = _off_centre(levels, law, odd)
        newton = -jnp.linalg.solve(_jacobian(levels, law, odd), residual)
        newton = jnp.where(jnp.isfinite(newton).all(), newton, -residual)  # or Lloyd's step
        closing = -jnp.diff(newton) / jnp.diff(levels)
        new = levels + newton / jnp.maximum(1.0, jnp.maximum(jnp.abs(newton).max(), 2 * closing.max(initial=0.0)))
        return new, jnp.abs(new - levels).max(), left - 1

    goal = 1e3 * eps
    levels, size, _ = jax.lax.while_loop(
        lambda c: (c[1] > goal) & (c[2] > 0), step, (start, jnp.full((), jnp.inf, start.dtype), max_steps)
    )
    return jnp.where(size <= 1e6 * eps, levels, jnp.nan), max_steps


def _jacobian(levels: Array, law: Symmetric, odd: int) -> Array:
    """Every level's cell hangs on its neighbours alone: three tangents give all columns."""
    count = levels.size
    index = jnp.arange(count)
    tangents = jnp.stack([(index % 3 == k).astype(levels.dtype) for k in range(3)])
    columns = jax.vmap(lambda t: jax.jvp(lambda x: _off_centre(x, law, odd), (levels,), (t,))[1])(tangents)
    neighbour = index[:, None] + jnp.arange(-1, 2)
    inside = (neighbour >= 0) & (neighbour < count)
    value = jnp.where(inside, columns[neighbour % 3, index[:, None]], 0.0)
    return jnp.zeros((count, count), levels.dtype).at[index[:, None], neighbour % count].add(value)
