"""`solve` for many points: every point pays for itself and none waits for the slowest.

Newton's method on the two equations (1) of `_equations` starts from weights without levels (`ridge_start`), goes first on
few quadrature nodes and ends on many.  Blocks small enough for the processor's cache run one after the other, each until
its own points have settled.  What is left over, and what met a negative determinant of the Jacobian on its way (a change
of branch, or an end that state evolution would leave), starts again from the end of many steps of state evolution, then of
very many.

At beta = inf the averages are closed forms; without ridge L drops out of the second equation, which then has a bracketed
root, and chi is infinite where the first has none (`_saddle`: interpolation).
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from replicajax.codebooks import Codebook
from replicajax.models import Fields, LinearRegression, Order, WeightAverages, order_from_averages
from replicajax.replica._equations import (
    Points,
    Problems,
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
from replicajax.replica._saddle import Saddle, find_saddle, regime_of, ridge_start
from replicajax.replica._solution import Solution, describe

_RUNAWAY = 1e-8
"""1/(1 + chi) at beta = inf below which a finite susceptibility is not believed."""
_TOLERANCE = 5e4
"""Of the residuals of (1), in units of the rounding error: 1e-11 in float64."""


_AITKEN = 12
"""Every so many steps of state evolution the slow direction, alone by then, is extrapolated to its limit."""


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


HASTY, PATIENT, STUBBORN = Patience(0, 10, 4, 1.0), Patience(200, 0, 40, 0.5), Patience(5000, 0, 80, 0.5)


def solve_many(
    tasks: LinearRegression, books: Codebook, betas: Points | np.ndarray, devices: Sequence[Device] = ()
) -> Solution:
    """`solve` for a batch, without waiting for its slowest point; not itself a JAX transformation.

    Args:
      tasks, books: with a leading axis of points on every leaf (as `jax.vmap` makes them).
      betas: (points,) inverse temperatures, inf among them if need be.
      devices: to spread the points over; all local ones if empty.

    Where several saddle points exist that one is given which state evolution, or Newton's method without crossing a fold,
    reaches from weights without levels (`ridge_start`).

    Returns:
      A Solution whose fields are NumPy arrays with a leading axis of points.
    """
    traits = traits_of(tasks, books)
    pool = Pool(traits.work, devices)
    tasks, books, betas = jax.tree.map(np.asarray, (tasks, books, betas))
    cold, interpolates = np.isinf(betas), np.zeros(betas.shape, bool)
    found = None

    def run(which: np.ndarray, patience: Patience, cold: bool = False) -> Solution | None:
        kernel = eqx.Partial(_block, traits, cold, jax.tree.map(jnp.asarray, patience))
        return pool.run(kernel, (tasks, books, betas, interpolates), which, into=found)

    found = run(~cold, HASTY)
    found = run(cold, HASTY, cold=True)
    assert found is not None
    interpolates = cold & np.asarray(found.interpolates)
    run(interpolates, HASTY)
    for patience in PATIENT, STUBBORN:
        left = ~np.asarray(found.converged)
        run(left & (~cold | interpolates), patience)
    # With ridge a codebook with a threshold at 0 can interpolate too: a hard case of its own (`_saddle`).
    frozen = ~np.asarray(found.converged) & cold
    pool.run(eqx.Partial(_robust_block), (tasks, books, betas), frozen, into=found)
    return found


def _robust_block(tasks, books, betas) -> Solution:
    def one(task, book, beta):
        return describe(task, book, beta, find_saddle(task, book, beta, 512))

    return jax.vmap(one)(tasks, books, betas)


def _block(traits: Traits, cold: bool, patience: Patience, tasks, books, betas, interpolates) -> Solution:
    """One block of points, from the start to the observables."""
    order = jax.vmap(ridge_start)(tasks, books, betas)
    R = tasks.residual_variance(order.m, order.q)
    start = State(jnp.log(tasks.alpha / (1 + order.chi)), jnp.log(R / tasks.alpha))
    p = problems(tasks, books, betas, interpolates)
    found = _settle_cold(p, start) if cold else _settle_warm(p, start, traits, patience)
    averages = weight_averages_of(p, found.state, traits, cold)
    return _report(tasks, books, betas, found, averages, cold)


class Settled(NamedTuple):
    state: State
    settled: Array
    interpolates: Array
    steps: Array


class _Search(NamedTuple):
    state: State
    size: Points
    """Largest change of log L or log t in the last step, before it was shortened."""
    upright: Array
    """det > 0 all along Newton's way: it crossed to no other branch, and state evolution does not leave where it ended."""
    steps: Array
    phase: Array
    """0 state evolution, 1 Newton on few nodes, 2 Newton on all, 3 done."""
    left: Array
    """Steps left in this phase."""


def _search(
    p: Problems, start: State, slopes: Callable[[Array], Callable], patience: Patience, tolerance: float
) -> _Search:
    """From start to solution in one loop, so that the averages are compiled once.  A point that settles stays put."""
    budget = jnp.stack([jnp.asarray(n, int) for n in (*patience[:3], 0)])
    goal = jnp.array([1e-7, 1e-2, tolerance, jnp.inf], p.alpha.dtype)
    never = jnp.full_like(start.log_L, jnp.inf)

    def step(s: _Search) -> _Search:
        evolving = s.phase == 0
        (f, g), jacobian = equations(p, s.state, slopes(s.phase == 2))
        newton, determinant = newton_step((f, g), jacobian)
        change = jax.tree.map(partial(jnp.where, evolving), State(-f, -g), newton)
        size = jnp.maximum(jnp.abs(change.log_L), jnp.abs(change.log_t))
        size = jnp.where(jnp.isfinite(size), size, jnp.inf)
        scale = jnp.where(evolving & (s.left % _AITKEN == 0), _extrapolation(size / s.size), 1.0)
        scale = jnp.minimum(scale, patience.stride / size)  # 0 where the step is not finite
        moves = (s.size > goal[s.phase]) & (scale > 0)
        state = jax.tree.map(lambda x, d: jnp.where(moves, x + scale * d, x), s.state, change)
        size = jnp.where(moves | (scale == 0), size, s.size)
        left = s.left - 1
        over = (left <= 0) | (size <= goal[s.phase]).all()
        phase = s.phase + over
        return _Search(
            state,
            jnp.where(over & (phase < 3), never, size),
            s.upright & (evolving | ~moves | (determinant > 0)),
            s.steps + moves,
            phase,
            jnp.where(over, budget[phase], left),
        )

    none = jnp.zeros(start.log_L.shape, int)
    first = jnp.where(budget[0] > 0, 0, 1)
    search = _Search(start, never, none == 0, none, first, budget[first])
    return jax.lax.while_loop(lambda s: s.phase < 3, step, search)


def _extrapolation(ratio: Points) -> Points:
    """1 + r + r² + ..., for a step r times the last one (Aitken); at most 100, and 1 while steps grow."""
    return jnp.where(ratio < 1, 1 / jnp.maximum(1 - ratio, 0.01), 1.0)


def _settle_warm(p: Problems, start: State, traits: Traits, patience: Patience) -> Settled:
    """Finite beta, or the hard constraint."""
    eps = float(jnp.finfo(p.alpha.dtype).eps)
    # v = Q − q of the free codebook, where the constraint is hard.
    start = start._replace(log_L=jnp.where(p.unit > 0, start.log_L, jnp.log(p.alpha / _free_variance(p))))
    found = _search(p, start, traits.slopes, patience, eps**0.4)
    return Settled(found.state, (found.size < 10 * eps**0.4) & found.upright, p.unit == 0, found.steps)


def _free_variance(p: Problems) -> Points:
    return jnp.mean(p.levels**2, axis=0) * jnp.clip(1 - p.alpha, 0.1, 1.0)


def _settle_cold(p: Problems, start: State) -> Settled:
    """beta = inf: a bracketed root of the second of (1) at ridge 0, where L drops out of it; then Newton if ridge > 0."""
    eps = float(jnp.finfo(p.alpha.dtype).eps)
    goal = 1e6 * eps  # tight, because the sign of g − alpha hangs on it

    def mismatch(log_t):
        """The second of (1), and g = L chi."""
        one = p._replace(ridge=jnp.zeros_like(p.ridge), unit=jnp.zeros_like(p.unit))
        (log_g, f), (_, (_, slope)) = equations(one, State(jnp.zeros_like(log_t), log_t), cold_averages)
        return f, slope, p.alpha * jnp.exp(log_g)

    def step(carry):
        log_t, low, high, size, g, steps, left = carry
        moves = size > goal
        f, slope, new_g = mismatch(log_t)
        low, high = jnp.where(moves & (f < 0), log_t, low), jnp.where(moves & (f >= 0), log_t, high)
        newton = log_t - f / slope
        inside = (newton >= low) & (newton <= high) & (jnp.abs(newton - log_t) < 2.0)
        new = jnp.where(inside, newton, (low + high) / 2)
        stay = partial(jnp.where, moves)
        return stay(new, log_t), low, high, stay(jnp.abs(f), size), stay(new_g, g), steps + moves, left - 1

    reach, never, none = 60.0, jnp.full_like(p.alpha, jnp.inf), jnp.zeros(p.alpha.shape, int)
    first = start.log_t, start.log_t - reach, start.log_t + reach, never, p.alpha, none, 80
    log_t, _, _, size, g, steps, _ = jax.lax.while_loop(lambda c: (c[-1] > 0) & (c[3] > goal).any(), step, first)
    interpolates = (p.ridge == 0) & (g >= p.alpha)
    b = p.alpha - p.ridge - g  # L + g L/(L + ridge) = alpha
    root = jnp.sqrt(b**2 + 4 * p.alpha * p.ridge)
    L = jnp.where(b > 0, (b + root) / 2, 2 * p.alpha * p.ridge / jnp.where(b > 0, 1.0, root - b))
    state = State(jnp.log(jnp.where(interpolates, p.alpha / _free_variance(p), L)), log_t)
    polished = _search(p, state, lambda fine: cold_averages, Patience(0, 0, 12, 1.0), eps**0.45)
    state = jax.tree.map(partial(jnp.where, interpolates), state, polished.state)
    finite = polished.state.log_L > jnp.log(p.alpha * _RUNAWAY)
    settled = interpolates | ((polished.size < eps**0.4) & polished.upright & finite)
    return Settled(state, settled & (size <= goal), interpolates, steps + polished.steps)


def _report(tasks, books, betas, found: Settled, averages: WeightAverages, cold: bool) -> Solution:
    """The solution of every point; converged only where the averages at the state satisfy (1)."""

    def one(task, book, beta, state, interpolates, settled, steps, averages):
        regime = regime_of(task, book, beta, interpolates)
        L, t = jnp.exp(state.log_L), jnp.exp(state.log_t)
        m, q, chi = order_from_averages(averages)
        R = task.residual_variance(m, q)
        tolerance = _TOLERANCE * jnp.finfo(L.dtype).eps
        solved = jnp.abs(state.log_L + jnp.log(regime.unit + chi) - jnp.log(task.alpha)) < tolerance
        solved &= jnp.abs(task.alpha * t - R) < tolerance * (task.signal + task.noise)
        order, fields = Order(m, q, task.alpha / L - regime.unit), Fields(L, L**2 * t, L)
        saddle = Saddle(order, fields, regime, interpolates, settled & solved, steps)
        return describe(task, book, beta, saddle, averages, averages if cold else None)

    return jax.vmap(one)(tasks, books, betas, found.state, found.interpolates, found.settled, found.steps, averages)
