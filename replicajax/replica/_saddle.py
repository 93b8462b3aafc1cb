"""One saddle point inside a JAX transformation, and its derivatives.

The search is that of `_search`, compiled; where the values are at hand it is the batch's own, and nothing is compiled.  It
is not differentiated: with y = (log L, log t) and F(y, problem) the residual of (1) in `_equations`, the implicit function
theorem gives

    dy = −(dF/dy)^(-1) (dF/dproblem) dproblem,

and everything a solution says follows from y and the problem.
"""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int

from replicajax import _checks
from replicajax.codebooks import Codebook
from replicajax.models import Fields, Rounded, Task, at_heat, rounded_averages, weight_averages
from replicajax.numerics import JAX, NUMPY, Nearby, crossed_rounding, gauss_legendre, slope_of_root
from replicajax.replica._batch import outcomes
from replicajax.replica._equations import Numbers, Problems, Rule, Shared, Sloped, State, heard, problems
from replicajax.replica._search import (
    HASTY,
    PATIENT,
    Found,
    Outcome,
    Patience,
    constrained,
    freeze,
    report,
    ridge_start,
    search,
    with_gain,
)
from replicajax.replica._solution import Solution, observe
from replicajax.replica._teacher import mixtures

_PATIENCE = HASTY, PATIENT, Patience(800, 0, 80, 0.5)
"""Inside `jax.vmap` all wait for the slowest."""

Problem = tuple[Task, Codebook, Float[Any, ""]]


class Place(NamedTuple):
    """Where a search ended; carries no derivative."""

    y: Float[Any, " unknowns"]
    """log L, log t and, if the channel is not matched, the gain; in units of the signal."""
    interpolates: Bool[Any, ""]
    converged: Bool[Any, ""]
    steps: Int[Any, ""]


class FittedPlace(Place):
    """Of codewords that fit every row: that of `Task.fitted`, of a loss other than the square one, at beta = inf."""


@eqx.filter_custom_jvp
def solution(problem: Problem, cold: bool | None, place: Place | None) -> Solution:
    """`cold` says whether beta = inf, if that is known; `place` where the saddle point is."""
    return _describe(problem, _root(problem, cold, place), cold)


@solution.def_jvp
def _solution_jvp(primals, tangents):
    problem, cold, place = primals
    place = _root(problem, cold, place)
    found, slopes = _move(problem, tangents[0], place, cold, _nearby(problem, place))
    real = jax.tree.map(lambda x: jnp.issubdtype(x.dtype, jnp.floating), found)
    return found, eqx.filter(slopes, real)


@eqx.filter_custom_jvp
def _root(problem: Problem, cold: bool | None, place: Place | None) -> Place:
    return _find(problem, cold) if place is None else place


@_root.def_jvp
def _root_jvp(primals, tangents):
    problem, cold, place = primals
    place = _root(problem, cold, place)
    return place, type(place)(_follow(problem, tangents[0], place, cold), None, None, None)


def _nearby(problem: Problem, place: Place) -> Nearby | None:
    """Where numbers are at hand the quadrature is done here, and not compiled."""
    task, book, beta = problem
    if _checks.is_traced((problem, place)) or not task.closed or (np.isinf(beta) and not place.interpolates):
        return None
    many = jax.tree.map(lambda x: np.asarray(x)[None], problem)
    numbers = Numbers(*(getattr(many[0], name) for name in Numbers._fields))
    each = many[1].levels, len(book), many[2], np.asarray(place.interpolates)[None]
    p = problems(NUMPY, numbers, mixtures(many[0]), *each)
    L, t = np.exp(np.asarray(place.y))
    mean, deviation = L * p.mean[:, 0], L * np.sqrt(p.variance[:, 0] + t)
    return Nearby.of(p.levels[:, 0], L + p.ridge[0], p.beta[0], mean, deviation)


@eqx.filter_jit
def _move(
    problem: Problem, change, place: Place, cold: bool | None, nearby: Nearby | None
) -> tuple[Solution, Solution]:
    """The solution and its slope."""

    def at(y, problem):
        return _at(problem, place._replace(y=y), cold, nearby)

    _, found, slopes = slope_of_root(at, place.y, problem, change)
    return found, slopes


@eqx.filter_jit
def _follow(problem: Problem, change, place: Place, cold: bool | None) -> Float[Any, " unknowns"]:
    """The slope of y."""
    return slope_of_root(lambda y, problem: _at(problem, place._replace(y=y), cold), place.y, problem, change)[0]


@eqx.filter_jit
def _describe(problem: Problem, place: Place, cold: bool | None) -> Solution:
    return _at(problem, place, cold)[1]


def _at(
    problem: Problem, place: Place, cold: bool | None, nearby: Nearby | None = None
) -> tuple[Float[Any, " unknowns"], Solution]:
    """Residual of (1) in `_equations`, and the solution if that is 0."""
    given, book, beta = problem
    fit = isinstance(place, FittedPlace)
    task = given.fitted if fit else given
    assert task is not None  # such a task has fitted points
    cold = cold and not fit  # then beta is 1
    hot = cold is False  # then nothing else interpolates
    state = State(*place.y)
    L, t, gain = jnp.exp(state.log_L), jnp.exp(state.log_t), 1.0 if state.gain is None else state.gain
    p = _problems((task, book, beta), place.interpolates)
    scaled = task.rescaled(p.noise[0], p.ridge[0])
    levels = eqx.tree_at(lambda book: book.levels, book, p.levels[:, 0])
    fields = Fields(L * gain, L**2 * t, L)
    averages = weight_averages(scaled, levels, fields, p.beta[0], cold=False if hot else None, nearby=nearby)
    soft, (m, q, chi), own = averages.rounding, averages.label, averages.own
    hard = rounded_averages(scaled, levels, fields, nearby).label
    crossed = hard.q
    if task.turned:
        infinite = jnp.isinf(p.beta[0])  # where both are one
        warm = jnp.where(infinite, 1.0, p.beta[0])
        soft_crossed = crossed_rounding(levels.levels, L + p.ridge[0], warm, 0 * L, L * jnp.sqrt(t))
        crossed = jnp.where(infinite, hard.q, soft_crossed)
    rounded = Rounded(*hard, crossed)
    said = None
    if task.closed:
        R = 1 - 2 * m + q + scaled.noise
        reached = jnp.stack([jnp.log(task.alpha / (p.unit[0] + chi)), jnp.log(R / task.alpha)])
    else:
        of_channel = heard(task, task.signal, (m, q, chi), at_heat(task, p.beta[0], cold), state)
        reached = of_channel.unknowns
        said = report(task, task.signal, p.beta[0], m, q, chi, rounded, of_channel.channel, None)
    residual = place.y - reached
    nothing = (jnp.zeros_like(m),) * 5
    found = Outcome(
        state=state,
        converged=place.converged,
        interpolates=place.interpolates,
        steps=place.steps,
        m=Sloped(m, *nothing),
        q=Sloped(q, *nothing),
        chi=Sloped(chi, *nothing),
        own=own,
        jacobian=((m, m), (m, m)),  # which nobody asks for
        rounded=rounded,
        potential=soft.potential,
        response_square=soft.response_square,
        entropy=soft.entropy,
        usage=soft.usage,
        report=said,
    )
    return residual, observe(jnp, given, book, beta, found)


def _problems(problem: Problem, interpolates) -> Problems:
    """A batch of one."""
    task, book, beta = problem
    dtype = jnp.result_type(*jax.tree.leaves((task, book, beta)))
    numbers = Numbers(*(getattr(task, name).astype(dtype)[None] for name in Numbers._fields))
    teacher = jax.tree.map(lambda x: x.astype(dtype)[None], task.weights())
    count = book.levels.shape[0]
    each = book.levels.astype(dtype)[None], count, beta.astype(dtype)[None], jnp.asarray(interpolates)[None]
    channels = None if task.closed else jax.tree.map(lambda x: jnp.asarray(x, dtype)[None], task)
    return problems(JAX, numbers, teacher, *each, channels)


def _find(problem: Problem, cold: bool | None) -> Place:
    if _checks.is_traced(problem):
        return _search(jax.lax.stop_gradient(problem), cold)
    found = outcomes(*jax.tree.map(lambda x: np.asarray(x)[None], problem), alone=True)
    kind, found = (Place, found) if found.fit is None else (FittedPlace, found.fit.at)
    dtype = np.result_type(*(x.dtype for x in jax.tree.leaves(problem)))
    y = jnp.asarray(np.concatenate(jax.tree.leaves(found.state)), dtype)
    return kind(y, *(jnp.asarray(x[0]) for x in (found.interpolates, found.converged, found.steps)))


@eqx.filter_jit
def _search(problem: Problem, cold: bool | None) -> Place:
    never = jnp.zeros((), bool)
    count = problem[1].levels.shape[0]
    rule = Rule(JAX, Shared(count, False, gauss_legendre(1)), centred=False, at_once=True)

    def tried(beta, interpolates, needed, rule) -> Place:
        """With more and more patience, until it settles."""
        p = _problems((*problem[:2], beta), interpolates)
        start = with_gain(constrained(jnp, p, ridge_start(jnp, p)), problem[0].closed or problem[0].matched)
        patience = jax.tree.map(lambda *x: jnp.asarray(x), *_PATIENCE)

        def attempt(carry):
            _, number = carry
            found = search(p, start, rule, jax.tree.map(lambda x: x[number], patience))
            return _place(found, interpolates), number + 1

        def going(carry):
            place, number = carry
            return needed & ~place.converged & (number < len(_PATIENCE))

        nothing = Place(jnp.concatenate(jax.tree.leaves(start)), interpolates, never, jnp.zeros((), int))
        return jax.lax.while_loop(going, attempt, (nothing, 0))[0]

    infinite = jnp.isinf(problem[2])
    finite = jnp.where(infinite, 1.0, problem[2])
    if cold is False:
        return tried(finite, never, ~never, rule)
    if not (cold or problem[0].in_closed_form):  # inf has to be known, and does not converge here
        return tried(finite, never, ~infinite, rule)
    if not problem[0].closed:
        frozen = tried(jnp.full_like(finite, jnp.inf), never, infinite, rule._replace(cold=True))
        if cold:
            return frozen
        return jax.tree.map(partial(jnp.where, infinite), frozen, tried(finite, never, ~infinite, rule))

    p = _problems((*problem[:2], jnp.full_like(problem[2], jnp.inf)), never)
    ice = freeze(p, ridge_start(jnp, p), rule)
    frozen = _place(search(p, ice.state, rule._replace(cold=True), Patience(0, 0, 12, 1.0)), ice.interpolates[0])
    frozen = frozen._replace(converged=frozen.converged & ice.sound[0])
    # With ridge a codebook with a threshold at 0 can interpolate too (`outcomes`).
    interpolates = frozen.interpolates | (~frozen.converged & (problem[0].ridge > 0))
    hot = tried(finite, infinite & interpolates, ~infinite | interpolates, rule)
    return jax.tree.map(partial(jnp.where, infinite & ~interpolates), frozen, hot)


def _place(found: Found, interpolates) -> Place:
    return Place(jnp.concatenate(jax.tree.leaves(found.state)), interpolates, found.converged[0], found.steps[0])
