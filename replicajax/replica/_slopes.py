"""Exact derivatives of a batch of solutions, first and second, by the implicit function theorem on (1) of `_equations`."""

from collections.abc import Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from replicajax.codebooks import Codebook
from replicajax.models import Fields, LinearRegression
from replicajax.replica._equations import (
    Points,
    State,
    Traits,
    cold_averages,
    equations,
    newton_step,
    problems,
    traits_of,
    weight_averages_of,
)
from replicajax.replica._pool import Device, Pool
from replicajax.replica._solution import Solution

Direction = tuple[LinearRegression, Codebook, Points]
"""A tangent in the space of problems: what `jax.jvp` would be given with (tasks, books, betas)."""


def slopes_many(
    found: Solution,
    direction: Direction,
    second: Direction | None = None,
    *,
    of: str = "generalization_error",
    devices: Sequence[Device] = (),
) -> np.ndarray:
    """Derivative along `direction` at every point of a batch, or the second derivative along `direction` and `second`.

    `of` is "generalization_error" or (at finite beta) "replicon".  Both are functions of the problem and the state; the
    state follows the problem by the implicit function theorem on (1),  d(log L, log t) = −J^(-1) d residual.
    """
    traits = traits_of(found.task, found.codebook)
    pool = Pool(traits.work, devices)
    inputs = (found.task, found.codebook, found.beta), found.interpolates, found.fields, direction, second
    cold = np.isinf(found.beta) & ~found.interpolates
    result = np.zeros(found.beta.shape, found.beta.dtype)
    for frozen in (True, False):
        if (cold == frozen).any():
            pool.run(eqx.Partial(_slope_block, traits, frozen, of), inputs, cold == frozen, into=result)
    return result


def _slope_block(
    traits: Traits, cold: bool, of: str, problem, interpolates, fields: Fields, direction, second
) -> Points:
    tasks, books, betas = problem
    problem = tasks, books, jnp.where(jnp.isinf(betas), 1.0, betas)
    averages = cold_averages if cold else traits.slopes(fine=True)
    state = State(jnp.log(fields.L), jnp.log(fields.chi_hat / fields.L**2))

    def drift(problem: tuple, state, direction) -> State:
        def residual(tasks, books, betas):
            return equations(problems(tasks, books, betas, interpolates), state, averages)

        _, slope, jacobian = jax.jvp(residual, problem, direction, has_aux=True)
        return newton_step(slope, jacobian)[0]

    def observable(problem, state) -> Points:
        tasks, books, betas = problem
        if of == "generalization_error":
            return tasks.alpha * jnp.exp(state.log_t) - tasks.noise
        p = problems(tasks, books, betas, interpolates)
        square = weight_averages_of(p, state, traits, cold=False).rounding.response_square
        return 1 - jnp.exp(2 * state.log_L) / tasks.alpha * square  # 1 + chi = alpha/L

    def first(problem, state) -> Points:
        return jax.jvp(observable, (problem, state), (direction, drift(problem, state, direction)))[1]

    if second is None:
        return first(problem, state)
    return jax.jvp(first, (problem, state), (second, drift(problem, state, second)))[1]
