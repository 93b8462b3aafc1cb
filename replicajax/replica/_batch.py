"""`solve` for many points: every point pays for itself and none waits for the slowest.

Blocks small enough for the processor's cache run one after the other, each until its own points have settled; what a block
leaves over starts again in blocks of its like, with more patience (`_search`).
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import equinox as eqx
import jax
import numpy as np

from replicajax.codebooks import Codebook
from replicajax.models import Task, Weights
from replicajax.numerics import JAX, NUMPY, Backend
from replicajax.replica._equations import Numbers, Points, Rule, Shared, hard_usage, padded, problems
from replicajax.replica._pool import QUADRATURE, Device, Here, Pool, put
from replicajax.replica._search import (
    HASTY,
    PATIENT,
    STUBBORN,
    Fit,
    Outcome,
    Patience,
    constrained,
    freeze,
    outcome,
    reports,
    ridge_start,
    search,
    with_gain,
)
from replicajax.replica._solution import Solution, observe
from replicajax.replica._teacher import mixtures, traits_of

_FIELDS, _THRESHOLDS = 512, 2**14
"""Fields, or thresholds of all fields of the square loss, up to which NumPy answers before JAX would have compiled."""
_NUMBERS = 64
"""Of a given spectrum, that are worth a field."""


def solve_many(
    tasks: Task,
    books: Codebook,
    betas: Points,
    devices: Sequence[Device] = (),
    compiled: bool | None = None,
    alone: bool = False,
) -> Solution:
    """`solve` for a batch, without waiting for its slowest point; not itself a JAX transformation.

    Args:
      tasks, books: with a leading axis of points on every leaf (as `jax.vmap` makes them).
      betas: (points,) inverse temperatures, inf among them if need be.
      devices: to spread the points over; all local ones if empty.
      compiled: by JAX rather than NumPy; if None where there are many points.  The two differ in the last digit.
      alone: one point that is no part of a larger batch; found in fewer steps, and other in the last digit.

    Where several saddle points exist that one is given which state evolution, or Newton's method without crossing a fold,
    reaches from weights without levels (`ridge_start`).

    Returns:
      A Solution whose fields are NumPy arrays with a leading axis of points, in the dtype of the problem; computed in float64
      whatever that is.
    """
    tasks, books, betas = jax.tree.map(np.asarray, (tasks, books, betas))
    return observed(tasks, books, betas, outcomes(tasks, books, betas, devices, compiled, alone))


def observed(tasks: Task, books: Codebook, betas: Points, at: Outcome) -> Solution:
    """Every observable of a batch, in NumPy."""
    found = observe(np, tasks, books, betas, at)
    if at.fit is None:
        return found
    which = at.fit.which
    books_there = jax.tree.map(lambda x: x[which], books)
    part = observe(np, at.fit.tasks, books_there, betas[which], at.fit.at)
    found = jax.tree.map(np.array, replace(found, task=None, codebook=None))  # a copy, to be written into
    jax.tree.map(partial(put, which), found, replace(part, task=None, codebook=None))
    return replace(found, task=tasks, codebook=books)


def at_once(tasks: Task, points: int, levels: int) -> bool:
    """Whether NumPy answers for so many points like these before JAX would have compiled."""
    fields = points * traits_of(tasks).components
    return fields <= _FIELDS or (tasks.closed and fields * (levels - 1) <= _THRESHOLDS)


def outcomes(
    tasks: Task,
    books: Codebook,
    betas: Points,
    devices: Sequence[Device] = (),
    compiled: bool | None = None,
    alone: bool = False,
    fitted: bool = False,
) -> Outcome:
    """What `solve_many` makes its solutions of; in float64 whatever the dtype of the problem.  `fitted` tasks are those of
    codewords that fit every row, at beta = inf."""
    law = traits_of(tasks)
    levels, betas = np.asarray(books.levels, np.float64), np.asarray(betas, np.float64)
    numbers = Numbers(*(np.asarray(getattr(tasks, name), np.float64) for name in Numbers._fields))
    shared = Shared.of(levels, centred=law.centred)
    if shared.symmetric:  # to the last digit, since half of the thresholds stand for all
        levels = (levels - levels[:, ::-1]) / 2
    channels = None if tasks.closed else jax.tree.map(lambda x: np.asarray(x, np.float64), tasks)
    if compiled is None:
        compiled = not at_once(tasks, betas.size, levels.shape[-1]) or bool(devices)
    compiled = compiled or not (tasks.closed or tasks.elementwise)
    work, quadrature = law.components, channels is not None and not channels.elementwise
    if channels is not None:
        channels = channels.bare() if compiled else channels
        numbers_each = sum(x.size for x in jax.tree.leaves(channels)) // betas.size
        work = max(work, QUADRATURE if quadrature else numbers_each // _NUMBERS)
    on, pool = (
        (JAX, Pool(work, devices, older_fusion=quadrature)) if compiled else (NUMPY, Here(work, levels.shape[-1] - 1))
    )
    interpolates = np.full(betas.shape, fitted)
    cold = np.isinf(betas) & ~interpolates
    inputs = numbers, mixtures(tasks), padded(levels), betas, interpolates, channels
    found: Any = None

    def run(which: np.ndarray, patience: Patience, frozen: bool = False) -> Any:
        if not which.any():
            return found
        kernel = eqx.Partial(_block, on, law.centred, frozen, alone, shared, jax.tree.map(np.asarray, patience))
        return pool.run(kernel, inputs, which, into=found)

    with jax.enable_x64(True), np.errstate(all="ignore"):
        found = run(~cold, HASTY)
        if channels is not None:
            fit = None
            for patience in (HASTY, PATIENT, STUBBORN) if cold.any() else (PATIENT, STUBBORN):
                missing = cold if found is None else ~found.converged
                if patience is STUBBORN:
                    fit = _fit(tasks, books, betas, missing & cold, devices)
                    missing &= ~np.isin(np.arange(betas.size), [] if fit is None else fit.which)
                run(missing & ~cold, patience)
                found = run(missing & cold, patience, frozen=True) if (missing & cold).any() else found
            if jax.tree.structure(channels) != jax.tree.structure(tasks):
                report = reports(tasks, numbers.signal, betas * numbers.signal, found, found.report)
                found = found._replace(report=report)
            return found._replace(fit=fit)
        found = run(cold, HASTY, frozen=True)
        interpolates |= cold & found.interpolates
        run(interpolates, HASTY)
        for patience in PATIENT, STUBBORN:
            run(~found.converged & (~cold | interpolates), patience)
        # With ridge a codebook with a threshold at 0 can interpolate too, among codewords of least |a|.
        doubtful = ~found.converged & cold & ~interpolates & (numbers.ridge > 0)
        interpolates |= doubtful
        for patience in HASTY, PATIENT:
            run(~found.converged & doubtful, patience)
    return found


def _fit(tasks: Task, books: Codebook, betas: Points, which: np.ndarray, devices: Sequence[Device]) -> Fit | None:
    """Those of the points `which` whose codewords fit every row."""
    if not which.any() or tasks.fitted is None:
        return None
    tasks, books, betas = jax.tree.map(lambda x: x[which], (tasks, books, betas))
    tasks = jax.tree.map(np.asarray, jax.vmap(lambda t: t.fitted)(tasks))
    at = outcomes(tasks, books, betas, devices, fitted=True)
    some = np.flatnonzero(at.converged)
    return Fit(np.flatnonzero(which)[some], *jax.tree.map(lambda x: x[some], (tasks, at))) if some.size else None


def _block(
    on: Backend,
    centred: bool,
    frozen: bool,
    alone: bool,
    shared: Shared,
    patience: Patience,
    tasks: Numbers,
    teacher: Weights,
    levels,
    betas,
    interpolates,
    channels: Task | None,
) -> Outcome:
    """One block of points, from the start to the averages there."""
    xp = on.xp
    p = problems(on, tasks, teacher, levels, shared.count, betas, interpolates, channels)
    rule = Rule(on, shared, centred, channels is not None and channels.turned, cold=frozen, fine=alone and on is NUMPY)
    start = with_gain(ridge_start(xp, p), channels is None or channels.matched)
    if not frozen:
        return outcome(xp, p, search(p, constrained(xp, p, start), rule, patience), interpolates)
    if channels is not None:
        found = search(p, start, rule, patience)
        return outcome(xp, p, found, interpolates, hard_usage(on, p, found.state, shared.count))
    ice = freeze(p, start, rule)
    found = search(p, ice.state, rule, Patience(0, 0, 24, 1.0))
    found = found._replace(converged=found.converged & ice.sound, steps=found.steps + ice.steps)
    return outcome(xp, p, found, ice.interpolates, hard_usage(on, p, found.state, shared.count))
