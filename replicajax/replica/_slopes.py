"""Exact derivatives of a batch of solutions.

The generalisation error is alpha t − noise at the saddle point ((1) of `_equations`, R = alpha t), so its slopes are those
of log t, by the implicit function theorem from derivatives that the search had to compute anyway: nothing more is compiled
for the parameters of `Slopes`.  Other directions (single levels, the teacher's law), the replicon and second derivatives
go through `solution`, differentiated at the saddle points that were found.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from replicajax.codebooks import Codebook
from replicajax.models import Task, Taught
from replicajax.models._turned import gain_of_rows
from replicajax.replica._batch import observed, outcomes
from replicajax.replica._equations import Points, newton_step
from replicajax.replica._pool import CACHED, QUADRATURE, Device, Pool, put
from replicajax.replica._saddle import FittedPlace, Place, solution
from replicajax.replica._search import Outcome
from replicajax.replica._solution import Solution

Direction = tuple[Task, Codebook, Points]
"""A tangent in the space of problems: what `jax.jvp` would be given with (tasks, books, betas)."""


class Slopes(NamedTuple):
    """Derivatives of the generalisation error; None where they do not come with the solution."""

    log_width: Points
    """In log of the scale of all levels."""
    ridge: Points
    alpha: Points | None = None
    signal: Points | None = None
    noise: Points | None = None
    beta: Points | None = None


def first_slopes(tasks: Task, betas: Points, at: Outcome) -> Slopes:
    """What `at` implies; NumPy arrays."""
    if at.report is not None:
        found = _channel_slopes(at)
        if at.fit is not None:
            jax.tree.map(partial(put, at.fit.which), found, _channel_slopes(at.fit.at))
        return found
    alpha, signal, noise = (np.asarray(x, float) for x in (tasks.alpha, tasks.signal, tasks.noise))
    free = np.where(at.interpolates, 0.0, 1.0)  # of ridge and beta, which then play no part
    R = alpha * np.exp(at.state.log_t)
    spread = free + at.chi.value

    def along(name: str, in_alpha: float = 0.0, in_noise: float = 0.0):
        """Of R less noise, in units of the signal; directly and through (log L, log t)."""
        f, R_slope = -in_alpha, in_noise
        if name:
            m, q, chi = (getattr(x, name) for x in (at.m, at.q, at.chi))
            f, R_slope = f + chi / spread, q - 2 * m
        with np.errstate(all="ignore"):
            change, _ = newton_step((f, in_alpha - R_slope / R), at.jacobian)
        return R * (in_alpha + change.log_t) - in_noise

    by_noise, by_beta, by_scale = along("", in_noise=1.0), free * along("log_beta"), along("log_scale")
    with np.errstate(all="ignore"):
        by_log_beta = np.where(np.isinf(betas), 0.0, by_beta)
    eg = R - noise / signal
    return Slopes(
        alpha=signal * along("", in_alpha=1.0) / alpha,
        signal=eg - noise / signal * by_noise + by_log_beta - by_scale / 2,
        noise=by_noise,
        ridge=signal * free * along("ridge"),
        beta=np.where(np.isinf(betas), 0.0, signal * by_log_beta / np.where(np.isinf(betas), 1.0, betas)),
        log_width=signal * by_scale,
    )


def _channel_slopes(at: Outcome) -> Slopes:
    """Of any channel, in what only the weights know of."""
    assert at.report is not None
    by_order, by, felt = at.report.by_order, at.report.error_by_order, at.report.error_by_felt
    assert by_order is not None

    def along(name: str) -> Points:
        each = [getattr(x, name) for x in (at.m, at.q, at.chi)]
        moved = tuple(-sum(by_order[:, row, k] * x for k, x in enumerate(each)) for row in range(by_order.shape[1]))
        with np.errstate(all="ignore"):
            change, _ = newton_step(moved, at.jacobian)

        def total(x):
            return getattr(x, name) + sum(getattr(x, y) * d for y, d in change._asdict().items() if d is not None)

        directly = sum(slope * d for slope, d in zip(felt, change, strict=False))
        return directly + sum(slope * total(x) for slope, x in zip(by, (at.m, at.q, at.chi), strict=True))

    free = np.where(at.interpolates, 0.0, 1.0)  # of ridge, which then plays no part
    return Slopes(log_width=along("log_scale"), ridge=free * along("ridge"))


def solve_with_slopes(
    tasks: Task,
    books: Codebook,
    betas: Points,
    devices: Sequence[Device] = (),
    compiled: bool | None = None,
) -> tuple[Solution, Slopes]:
    """`solve_many`, and the slopes of its generalisation errors."""
    tasks, books, betas = jax.tree.map(np.asarray, (tasks, books, betas))
    at = outcomes(tasks, books, betas, devices, compiled)
    return observed(tasks, books, betas, at), first_slopes(tasks, betas, at)


def slopes_many(
    found: Solution,
    direction: Direction,
    second: Direction | None = None,
    *,
    of: str = "generalization_error",
    devices: Sequence[Device] = (),
    few: bool = False,
) -> np.ndarray:
    """Derivative along `direction` at every point of a batch, or the second derivative along `direction` and `second`.

    `of` is any observable of a Solution.  With `few` points, as a search has, at most four are taken at a time.
    """
    fields = max(found.codebook.levels.shape[-1], 1 if found.task.closed else QUADRATURE)
    pool = Pool(max(fields, CACHED // 4) if few else fields, devices, older_fusion=not found.task.closed)
    problem = found.task, found.codebook, found.beta
    interpolates = np.asarray(found.interpolates)
    signal = np.asarray(found.task.signal)
    unit = np.where(interpolates, signal, 1.0)  # fields of interpolation are in units of 1/signal
    L, t = found.fields.L * unit, found.fields.chi_hat / found.fields.L**2 / signal
    unknowns = np.log(np.stack([L, t], -1))
    if not (found.task.closed or found.task.matched):
        unknowns = np.concatenate([unknowns, _gain(found, L)[:, None]], 1)
    place = Place(unknowns, interpolates, np.asarray(found.converged), np.asarray(found.steps))
    cold, fits = np.isinf(found.beta), interpolates & (not found.task.closed)
    result = np.zeros(found.beta.shape, found.beta.dtype)
    for frozen, fit in (True, True), (True, False), (False, False):
        which = (cold == frozen) & (fits == fit)
        if which.any():
            kernel = eqx.Partial(_slope_block, frozen, of)
            there = FittedPlace(*place) if fit else place
            pool.run(kernel, (problem, there, direction, second), which, into=result)
    return result


def _gain(found: Solution, L: Points) -> Points:
    """m_hat/L of a batch, L in units of the signal where it interpolates; in turned axes of the rows."""
    task = found.task
    if not task.turned:
        return found.fields.m_hat / found.fields.L
    assert isinstance(task, Taught)
    assert task.features is not None
    spread = (found.self_overlap - found.replica_overlap) / task.signal
    chi: Any = np.where(found.interpolates, spread, found.susceptibility)
    return gain_of_rows(task.features, task.signal, L, chi, found.overlap)


def _slope_block(cold: bool, of: str, problem, place, direction, second) -> Points:
    def one(problem, place, direction, second):
        def observable(problem):
            return getattr(solution(problem, cold, place), of)

        def first(problem):
            return jax.jvp(observable, (problem,), (direction,))[1]

        return first(problem) if second is None else jax.jvp(first, (problem,), (second,))[1]

    return jax.vmap(one)(jax.tree.map(jnp.asarray, problem), place, direction, second)
