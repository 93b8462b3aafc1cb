"""From weights without levels to the saddle point: Newton's method on (1) of `_equations`, guarded by state evolution.

Newton's steps go first on few quadrature nodes and end on many.  What they leave over, and what met a negative determinant
of the Jacobian on its way (a change of branch, or an end that state evolution would leave), starts again from the end of many
steps of state evolution, then of very many.

At beta = inf the averages are closed forms; without ridge L drops out of the second equation, which then has a bracketed
root.  If the first has none chi is infinite: the codebook **interpolates**.  chi = beta (Q − q) runs off because Q − q stays
positive: the Gibbs measure is uniform over the interpolating codewords (those of least |a| if ridge > 0).  Its theory is the
hard constraint y = x·w: (1) with log(chi) in the place of log(1 + chi), at beta 1 and with v = Q − q for chi.  Other losses
leave a constraint too, `Task.fitted`, and its theory is looked for where that of the loss itself has no saddle point.
"""

from __future__ import annotations

from functools import partial, reduce
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from replicajax.models import Channel, Rounded, Task
from replicajax.numerics import SoftRounding, backend_of
from replicajax.replica._equations import (
    FINEST,
    Equations,
    Heard,
    Points,
    Problems,
    Rule,
    Sloped,
    State,
    equations,
    heat_of,
    newton_step,
)

_AITKEN = 6
"""Every so many steps of state evolution the slow direction, alone by then, is extrapolated to its limit."""
_TOLERANCE = 0.7
"""Power of the rounding error that the residuals of (1) must be below: 1e-11 in float64, 1e-5 in float32."""


_CHANNEL = 10.0
"""So many times larger a residual is rounding, where a channel is a sum over nodes."""


class Patience(NamedTuple):
    """How long a block is worked on; traced, so that trying again is the same program."""

    evolutions: int
    """Steps of state evolution before Newton's."""
    scouting: int
    """Steps on few nodes at most."""
    settling: int
    """Steps on all nodes at most."""
    stride: float
    """Longest step in log L or log t."""


HASTY, PATIENT, STUBBORN = Patience(0, 14, 4, 2.0), Patience(200, 0, 40, 0.5), Patience(5000, 0, 80, 0.5)
_EVOLVING, _SCOUTING, _REFINING, _SETTLING, _REPORTING = range(5)
_REFINEMENTS = 2
"""Steps on more nodes at most: mostly one, so that on all nodes one step will do."""
_REPORTS = 4
"""Evaluations for the report at most: one, unless the residual is still too large."""


class Found(NamedTuple):
    state: State
    converged: Bool[Any, " points"]
    """It settled, without crossing to another branch, where (1) holds."""
    steps: Int[Any, " points"]
    at: Equations


class _Search(NamedTuple):
    state: State
    size: Points
    """Largest change of log L or log t in the last step, before it was shortened."""
    lost: Bool[Any, " points"]
    """It did not settle in the steps of a phase, and waits for nobody and nobody for it."""
    upright: Bool[Any, " points"]
    """det > 0 all along Newton's way: it crossed to no other branch, and state evolution does not leave where it ended."""
    steps: Int[Any, " points"]
    phase: Int[Any, ""]
    """State evolution, Newton on few nodes, on more, on all, report, done."""
    left: Int[Any, ""]
    """Steps left in this phase."""
    at: Equations


def search(p: Problems, start: State, rule: Rule, patience: Patience) -> Found:
    """From start to solution in one loop, so that the averages are compiled once.  A point that settles stays put."""
    on, xp, dtype = rule.on, rule.on.xp, p.alpha.dtype
    eps = float(np.finfo(dtype).eps)
    settled = eps ** (0.45 if rule.cold else 0.36)  # a step later the residual is of its square
    evolutions, scouting, settling, _ = patience
    refining = xp.where(scouting > 0, 0 if rule.exact else _REFINEMENTS, 0)
    budget = xp.stack([xp.asarray(n) for n in (evolutions, scouting, refining, settling, _REPORTS, 1)])
    goal = xp.array([1e-7, 1e-2, 1e-2, settled, settled, xp.inf], dtype)
    never = xp.full_like(start.log_L, xp.inf)

    def evaluate(state: State, phase) -> Equations:
        fineness = xp.clip(phase - _SCOUTING, 0, FINEST)
        return equations(p, state, rule._replace(fineness=fineness, everything=phase == _REPORTING))

    def next_phase(phase):
        return xp.argmax((budget > 0) & (xp.arange(budget.size) > phase))

    def step(s: _Search) -> _Search:
        evolving, reporting = s.phase == _EVOLVING, s.phase == _REPORTING
        at = evaluate(s.state, s.phase)
        newton, determinant = newton_step(at.residual, at.jacobian)
        change = jax.tree.map(partial(xp.where, evolving), State(*(-x for x in at.residual)), newton)
        size = reduce(xp.maximum, map(xp.abs, jax.tree.leaves(change)))
        size = xp.where(xp.isfinite(size), size, xp.inf)
        scale = xp.where(evolving & (s.left % _AITKEN == 0), _extrapolation(xp, size / s.size), 1.0)
        scale = xp.minimum(scale, patience.stride / size)  # 0 where the step is not finite
        # A Jacobian that is not exact leaves a residual: such points go on while they are reported.
        solved = _solved(xp, p, s.state, at.residual)
        lost = s.lost | (scale == 0)
        moves = xp.where(reporting, ~solved & (s.left > 1), s.size > goal[s.phase]) & ~lost
        state = jax.tree.map(lambda x, d: xp.where(moves, x + scale * d, x), s.state, change)
        size = xp.where(moves, size, s.size)
        left, done = s.left - 1, lost | xp.where(reporting, ~moves, size <= goal[s.phase])
        over = (left <= 0) | done.all()
        phase = xp.where(over, next_phase(s.phase), s.phase)
        return _Search(
            state,
            xp.where(over & (phase < _REPORTING), never, size),
            lost | (over & ~evolving & ~done),
            s.upright & (evolving | ~moves | (determinant > 0)),
            s.steps + moves,
            phase,
            xp.where(over, budget[phase], left),
            at,
        )

    none = xp.zeros(start.log_L.shape, int)
    first = next_phase(-1)
    evaluate, blank = on.once(evaluate, start, first)
    begun = _Search(start, never, none > 0, none == 0, none, first, budget[first], blank)
    end = on.repeat(lambda s: s.phase <= _REPORTING, step, begun)
    solved = _solved(xp, p, end.state, end.at.residual)
    return Found(end.state, (end.size < 10 * settled) & ~end.lost & end.upright & solved, end.steps, end.at)


def _solved(xp: Any, p: Problems, state: State, residual: tuple[Points, ...]) -> Bool[Any, " points"]:
    f, g, *_ = residual
    tolerance = float(np.finfo(p.alpha.dtype).eps) ** _TOLERANCE
    if p.tasks is not None:
        return reduce(xp.maximum, map(xp.abs, residual)) < _CHANNEL * tolerance
    return (xp.abs(f) < tolerance) & (xp.abs(g) * p.alpha * xp.exp(state.log_t) < tolerance * (1 + p.noise))


def _extrapolation(xp: Any, ratio: Points) -> Points:
    """1 + r + r² + ..., for a step r times the last one (Aitken); at most 100, and 1 while steps grow."""
    return xp.where(ratio < 1, 1 / xp.maximum(1 - ratio, 0.01), 1.0)


def ridge_start(xp: Any, p: Problems) -> State:
    """The saddle point if the weights were Gaussian with the variance of the codebook: 1/chi = alpha/(1+chi) + kappa."""
    if p.tasks is not None:
        L, t = p.tasks.start(p.ridge + 1 / (p.beta * p.power))
        return State(xp.log(L), xp.log(t / p.signal))
    kappa = xp.maximum(p.ridge + 1 / (p.beta * p.power), 1e-4)
    b = 1 - p.alpha - kappa
    root = xp.sqrt(b**2 + 4 * kappa)
    chi = xp.where(b > 0, (b + root) / (2 * kappa), 2 / (root - b))
    u = chi / (1 + chi)
    m = xp.minimum(p.alpha * u, 0.99)
    gain = xp.minimum(p.alpha * u**2, 0.9)
    c = xp.maximum(gain * ((1 - m) ** 2 + p.noise) / (1 - gain), 1e-6)
    R = (1 - m) ** 2 + c + p.noise
    return State(xp.log(p.alpha / (1 + chi)), xp.log(R / p.alpha))


def with_gain(state: State, matched: bool) -> State:
    """With the third unknown, where the channel needs it."""
    return state if matched else state._replace(gain=1 + 0 * state.log_L)


def constrained(xp: Any, p: Problems, state: State) -> State:
    """Where the constraint is hard, a start with v = Q − q that of the free codebook."""
    free = p.power * xp.clip(1 - p.alpha, 0.1, 1.0)
    return state._replace(log_L=xp.where(p.unit > 0, state.log_L, xp.log(p.alpha / free)))


class Frozen(NamedTuple):
    """What beta = inf comes to."""

    state: State
    sound: Bool[Any, " points"]
    interpolates: Bool[Any, " points"]
    steps: Int[Any, " points"]


_REACH, _HALVINGS = 60.0, 80


def freeze(p: Problems, start: State, rule: Rule) -> Frozen:
    """beta = inf: a bracketed root of the second of (1) at ridge 0, where L drops out of it, and what L is then."""
    on, xp = rule.on, rule.on.xp
    eps = float(np.finfo(p.alpha.dtype).eps)
    goal = 1e6 * eps  # tight, because the sign of g − alpha hangs on it
    zero = xp.zeros_like(p.alpha)
    free = p._replace(ridge=zero, unit=zero)

    def step(carry):
        log_t, low, high, size, g, steps, left = carry
        moves = size > goal
        (log_g, f), (_, (_, slope)), *_ = equations(free, State(zero, log_t), rule._replace(cold=True))
        low, high = xp.where(moves & (f < 0), log_t, low), xp.where(moves & (f >= 0), log_t, high)
        newton = log_t - f / slope
        inside = (newton >= low) & (newton <= high) & (xp.abs(newton - log_t) < 2.0)
        new = xp.where(inside, newton, (low + high) / 2)
        stay = partial(xp.where, moves)
        g = stay(p.alpha * xp.exp(log_g), g)  # L chi
        return stay(new, log_t), low, high, stay(xp.abs(f), size), g, steps + moves, left - 1

    never, none = zero + xp.inf, xp.zeros(p.alpha.shape, int)
    first = start.log_t, start.log_t - _REACH, start.log_t + _REACH, never, p.alpha, none, _HALVINGS
    log_t, _, _, size, g, steps, _ = on.repeat(lambda c: (c[-1] > 0) & (c[3] > goal).any(), step, first)
    b = p.alpha - p.ridge - g  # L + g L/(L + ridge) = alpha
    root = xp.sqrt(b**2 + 4 * p.alpha * p.ridge)
    L = xp.where(b > 0, (b + root) / 2, 2 * p.alpha * p.ridge / xp.where(b > 0, 1.0, root - b))
    interpolates = (p.ridge == 0) & (g >= p.alpha)
    unclear = (p.ridge == 0) & (xp.abs(b) < 100 * eps * p.alpha)  # which side of it, rounding hides
    L = xp.where(interpolates, p.alpha, L)
    return Frozen(State(xp.log(L), log_t), (size <= goal) & ~unclear, interpolates, steps)


class Outcome(NamedTuple):
    """A saddle point in units of the signal, and all that observables are made of; points first."""

    state: State
    converged: Bool[Any, " points"]
    interpolates: Bool[Any, " points"]
    steps: Int[Any, " points"]
    m: Sloped
    q: Sloped
    chi: Sloped
    own: tuple[Points, Points, Points]
    jacobian: tuple[tuple[Points, ...], ...]
    rounded: Rounded
    potential: Points
    response_square: Points
    entropy: Points
    usage: Float[Any, "points levels"]
    report: Report | None
    """What the channel says; None for the square loss of a regression."""
    fit: Fit | None = None
    """Of points that have no such saddle point."""


class Fit(NamedTuple):
    """Points at beta = inf whose codewords fit every row: of their loss a constraint is left (`Task.fitted`)."""

    which: Int[Any, " some"]
    tasks: Task
    """So constrained."""
    at: Outcome


class Report(NamedTuple):
    """In units of the weights."""

    channel: Channel
    error: Points
    """Of the mean predictor, as `Task.error` defines it."""
    gibbs_error: Points
    rounded_error: Points
    loss: Points
    """Of the mean predictor on fresh labels."""
    by_order: Float[Any, "points unknowns 3"] | None
    """What the unknowns of the channel change with: m, q and chi, in units of the signal; None where JAX says it."""
    error_by_order: tuple[Points, Points, Points]
    """`error` in m, q and chi, in units of the signal."""
    error_by_felt: tuple[Points, ...]
    """And in the unknowns, where turned axes ask them."""


def report(task: Task, signal, heat, m, q, chi, rounded: Rounded, channel: Channel, by_order) -> Report:
    """For one point, or for many if the task takes many; order parameters and beta in units of the signal."""
    of_m, of_q, response, crossed = rounded
    hard = Rounded(signal * of_m, signal * of_q, response, signal * crossed)
    warm = heat_of(backend_of(m).xp, heat, 1 / signal)
    said = task.judge(channel, signal * m, signal * q, chi, warm, hard)
    by_m, by_q, by_chi = said.by_order
    slopes = signal * by_m, signal * by_q, by_chi
    each = said.error, said.gibbs_error, said.rounded_error, said.loss
    return Report(channel, *each, by_order, slopes, said.by_felt)


def reports(tasks: Task, signal, heat, found: Outcome | Equations, said: Heard | Report) -> Report:
    """Of many points; also of what was reported before, by bare tasks."""
    by_order = said.slopes if isinstance(said, Heard) else said.by_order
    of = report if tasks.elementwise else jax.vmap(report)
    order = found.m.value, found.q.value, found.chi.value
    return of(tasks, signal, heat, *order, found.rounded, said.channel, by_order)


def outcome(xp: Any, p: Problems, found: Found, interpolates, usage: Array | None = None) -> Outcome:
    """`usage` at beta = inf."""
    at, zero = found.at, xp.zeros_like(p.alpha)
    soft = at.soft
    if soft is None:
        assert usage is not None
        soft = SoftRounding(zero, zero, zero, zero, zero, zero, usage)
    return Outcome(
        state=found.state,
        converged=found.converged,
        interpolates=interpolates,
        steps=found.steps,
        m=at.m,
        q=at.q,
        chi=at.chi,
        own=at.own,
        jacobian=at.jacobian,
        rounded=at.rounded,
        potential=soft.potential,
        response_square=soft.response_square,
        entropy=soft.entropy,
        usage=soft.usage.T,
        report=None if at.heard is None or p.tasks is None else reports(p.tasks, p.signal, p.beta, at, at.heard),
    )
