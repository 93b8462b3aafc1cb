"""Many saddle points at once: every point pays for itself and none waits for the slowest.

The fields of theory 1.1 hang on two numbers.  With L = m_hat and t = chi_hat/L² a weight feels h = L (w0 + sqrt(t) z):
it sees the teacher through Gaussian noise of variance t.  Stationarity of f is then

    log L + log(1 + chi(L, t)) − log alpha = 0,        log t − log(R(L, t)/alpha) = 0,        (1)

two equations in (log L, log t) whose Jacobian comes with the averages (`numerics.rounding_slopes`).  Newton's method
starts from weights without levels (`ridge_start`), goes first on few quadrature nodes and ends on many.  Blocks small
enough for the processor's cache run one after the other, each until its own points have settled.  What is left over, and
what settled where state evolution would leave (det of the Jacobian of (1) negative), starts again from the end of many
steps of state evolution, and if that fails too goes to `find_saddle` one point at a time.

At beta = inf the averages are closed forms; without ridge L drops out of the second equation, which then has a bracketed
root, and chi is infinite where the first has none (`_saddle`: interpolation).
"""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from threading import Lock
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, PartitionSpec
from jaxtyping import Array, Float

from replicajax.codebooks import Codebook
from replicajax.models import Fields, LinearRegression, Order, WeightAverages, order_from_averages
from replicajax.numerics import (
    RoundingSlopes,
    Slope,
    SoftRounding,
    default_nodes,
    gauss_legendre,
    grid_averages,
    grid_slopes,
    hard_rounding,
    hard_rounding_slopes,
    negligible_beyond,
    rounding_averages,
    rounding_slopes,
)
from replicajax.replica._saddle import Saddle, find_saddle, regime_of, ridge_start
from replicajax.replica._solution import Solution, describe

Points = Float[Array, " points"]

_TOLERANCE = 5e4
"""Of the residuals of (1), in units of the rounding error: 1e-11 in float64."""


class Traits(NamedTuple):
    """What is common to a batch and known before compiling; it chooses the quadrature."""

    even: bool
    """Levels evenly spaced."""
    symmetric: bool
    """Levels and teacher symmetric about 0."""
    levels: int

    def slopes(self, fine: Array | bool) -> Callable[..., RoundingSlopes]:
        """The quadrature of the result or, many times cheaper, of the first steps; the choice may be traced."""
        few, many = (gauss_legendre(n, self.nodes) for n in (_FEW, self.nodes))
        nodes = jax.tree.map(lambda few, many: jnp.where(fine, many, few), few, many)
        return self._choose(
            partial(rounding_slopes, nodes=nodes, even=self.even, symmetric=self.symmetric),
            partial(grid_slopes, error=jnp.where(fine, 1e-13, 1e-5), symmetric=self.symmetric),
        )

    def averages(self) -> Callable[..., SoftRounding]:
        nodes = gauss_legendre(self.nodes)
        return self._choose(
            partial(rounding_averages, nodes=nodes, even=self.even, symmetric=self.symmetric),
            partial(grid_averages, error=1e-13, symmetric=self.symmetric),
        )

    @property
    def nodes(self) -> int:
        """On each side of a threshold, for 1e-10 of every average (tests/numerics/test_rounding_slopes.py)."""
        if not (self.even and self.symmetric):
            return default_nodes(self.levels)
        return 20 if self.levels <= 8 else 28

    def _choose(self, thresholds, grid):
        """Thresholds one by one while they are few or their neighbours negligible, a grid otherwise."""
        if self.levels <= 16:
            return thresholds
        if not self.even:
            return grid

        def whichever(levels, curvature, beta, mean, deviation):
            gap = (levels[-1] - levels[0]) / (levels.shape[0] - 1)
            sharp = negligible_beyond(levels.shape[0], gap, curvature, beta).all()
            return jax.lax.cond(sharp, thresholds, grid, levels, curvature, beta, mean, deviation)

        return whichever


class State(NamedTuple):
    """The unknowns of (1)."""

    log_L: Points
    log_t: Points


class Problems(NamedTuple):
    """A batch in the form the kernel wants it: points last, components of the teacher and levels first."""

    alpha: Points
    signal: Points
    noise: Points
    ridge: Points
    weight: Float[Array, "components points"]
    mean: Float[Array, "components points"]
    variance: Float[Array, "components points"]
    levels: Float[Array, "levels points"]
    beta: Points
    unit: Points
    """1, or 0 under the hard constraint of interpolation, where beta is 1."""


def _problems(tasks: LinearRegression, books: Codebook, betas: Points, interpolates: Array) -> Problems:
    mixture = (x.T for x in jax.vmap(lambda task: task.weights())(tasks))
    hard = interpolates.astype(betas.dtype)
    betas = jnp.where(interpolates, 1.0, betas)
    return Problems(tasks.alpha, tasks.signal, tasks.noise, tasks.ridge, *mixture, books.levels.T, betas, 1 - hard)


class _Equations(NamedTuple):
    residual: tuple[Points, Points]
    """Of (1)."""
    jacobian: tuple[tuple[Points, Points], tuple[Points, Points]]
    """By row: derivatives in log L and log t."""


def _equations(p: Problems, state: State, averages: Callable[..., RoundingSlopes]) -> _Equations:
    """Residual of (1) and its Jacobian."""
    L, t = jnp.exp(state.log_L), jnp.exp(state.log_t)
    shape = p.mean.shape
    root = jnp.sqrt(p.variance + t)
    slopes = averages(*_flat(p, L + p.ridge, p.beta, L * p.mean, L * root))

    def along(slope: Slope):
        """Value and derivatives in log L and log t of one average, each (components, points)."""
        value, mean, deviation, curvature = (jnp.reshape(x, shape) if jnp.ndim(x) else x for x in slope)
        return value, L * (p.mean * mean + root * deviation + curvature), L * t / (2 * root) * deviation

    def mix(values):
        return tuple((p.weight * value).sum(0) for value in values)

    first, square, response = along(slopes.mean), along(slopes.square), along(slopes.response)
    # E w0 <a> = w E<a> + v L chi, by Stein's lemma on each component N(w, v).
    stein = L * response[0], L * (response[0] + response[1]), L * response[2]
    m = mix(p.mean * a + p.variance * b for a, b in zip(first, stein, strict=True))
    q, chi = mix(square), mix(response)
    R = p.signal - 2 * m[0] + q[0] + p.noise
    R_L, R_t = (q[i] - 2 * m[i] for i in (1, 2))
    spread = p.unit + chi[0]
    return _Equations(
        residual=(state.log_L + jnp.log(spread) - jnp.log(p.alpha), state.log_t - jnp.log(R / p.alpha)),
        jacobian=((1 + chi[1] / spread, chi[2] / spread), (-R_L / R, 1 - R_t / R)),
    )


def _flat(p: Problems, *arguments: Array) -> list[Array]:
    """Levels and arguments of the quadrature, components of the teacher side by side: (..., components * points)."""
    components, points = p.mean.shape
    return [
        jnp.broadcast_to(x[..., None, :] if x.ndim == 1 or x is p.levels else x, (*lead, components, points)).reshape(
            *lead, components * points
        )
        for x, lead in ((p.levels, p.levels.shape[:1]), *((a, ()) for a in arguments))
    ]


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


HASTY, PATIENT = Patience(0, 10, 4, 1.0), Patience(300, 0, 60, 0.5)


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
    """det > 0: state evolution does not leave along one direction."""
    steps: Array
    phase: Array
    """0 state evolution, 1 Newton on few nodes, 2 Newton on all, 3 done."""
    left: Array
    """Steps left in this phase."""


def _search(p: Problems, start: State, slopes: Callable[[Array], Callable], patience: Patience, tolerance: float) -> _Search:
    """From start to solution in one loop, so that the averages are compiled once.  A point that settles stays put."""
    budget = jnp.stack([jnp.asarray(n, int) for n in (*patience[:3], 0)])
    goal = jnp.array([-1.0, 1e-2, tolerance, jnp.inf], p.alpha.dtype)
    never = jnp.full_like(start.log_L, jnp.inf)

    def step(s: _Search) -> _Search:
        evolving = s.phase == 0
        (f, g), ((f_L, f_t), (g_L, g_t)) = _equations(p, s.state, slopes(s.phase == 2))
        determinant = f_L * g_t - f_t * g_L
        newton = State((f_t * g - g_t * f) / determinant, (g_L * f - f_L * g) / determinant)
        change = jax.tree.map(partial(jnp.where, evolving), State(-f / 2, -g / 2), newton)
        size = jnp.maximum(jnp.abs(change.log_L), jnp.abs(change.log_t))
        size = jnp.where(jnp.isfinite(size), size, jnp.inf)
        shorten = jnp.minimum(1.0, patience.stride / size)  # 0 where the step is not finite
        moves = (s.size > goal[s.phase]) & (shorten > 0)
        state = jax.tree.map(lambda x, d: jnp.where(moves, x + shorten * d, x), s.state, change)
        size = jnp.where(moves | (shorten == 0), size, s.size)
        left = s.left - 1
        over = (left <= 0) | (size <= goal[s.phase]).all()
        phase = s.phase + over
        return _Search(
            state,
            jnp.where(over & (phase < 3), never, size),
            jnp.where(moves, determinant > 0, s.upright),
            s.steps + moves,
            phase,
            jnp.where(over, budget[phase], left),
        )

    none = jnp.zeros(start.log_L.shape, int)
    first = jnp.where(budget[0] > 0, 0, 1)
    search = _Search(start, never, none > 0, none, first, budget[first])
    return jax.lax.while_loop(lambda s: s.phase < 3, step, search)


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

    def mismatch(log_t):
        """The second of (1), and g = L chi."""
        one = p._replace(ridge=jnp.zeros_like(p.ridge), unit=jnp.zeros_like(p.unit), alpha=p.alpha)
        (log_g, f), (_, (_, slope)) = _equations(one, State(jnp.zeros_like(log_t), log_t), _cold_averages)
        return f, slope, p.alpha * jnp.exp(log_g)

    def step(carry):
        log_t, low, high, size, g, steps, left = carry
        moves = size > 1e-3
        f, slope, new_g = mismatch(log_t)
        low, high = jnp.where(moves & (f < 0), log_t, low), jnp.where(moves & (f >= 0), log_t, high)
        newton = log_t - f / slope
        inside = (newton > low) & (newton < high) & (jnp.abs(newton - log_t) < 2.0)
        new = jnp.where(inside, newton, (low + high) / 2)
        stay = partial(jnp.where, moves)
        return stay(new, log_t), low, high, stay(jnp.abs(f), size), stay(new_g, g), steps + moves, left - 1

    reach, never, none = 60.0, jnp.full_like(p.alpha, jnp.inf), jnp.zeros(p.alpha.shape, int)
    first = start.log_t, start.log_t - reach, start.log_t + reach, never, p.alpha, none, 80
    log_t, _, _, size, g, steps, _ = jax.lax.while_loop(lambda c: (c[-1] > 0) & (c[3] > 1e-3).any(), step, first)
    interpolates = (p.ridge == 0) & (g >= p.alpha)
    b = p.alpha - p.ridge - g  # L + g L/(L + ridge) = alpha
    L = (b + jnp.sqrt(b**2 + 4 * p.alpha * p.ridge)) / 2
    state = State(jnp.log(jnp.where(interpolates, p.alpha / _free_variance(p), L)), log_t)
    polished = _search(p, state, lambda fine: _cold_averages, Patience(0, 0, 12, 1.0), eps**0.45)
    state = jax.tree.map(partial(jnp.where, interpolates), state, polished.state)
    settled = interpolates | ((polished.size < eps**0.4) & polished.upright)
    return Settled(state, settled & (size < 1e-3), interpolates, steps + polished.steps)


def _cold_averages(levels, curvature, beta, mean, deviation) -> RoundingSlopes:
    del beta
    return hard_rounding_slopes(levels, curvature, mean, deviation)


def _averages(p: Problems, state: State, traits: Traits, cold: bool) -> WeightAverages:
    """`weight_averages` for many points; usage comes points first."""
    L = jnp.exp(state.log_L)
    root = jnp.sqrt(p.variance + jnp.exp(state.log_t))
    levels, curvature, beta, mean, deviation = _flat(p, L + p.ridge, p.beta, L * p.mean, L * root)
    if cold:
        each = jax.vmap(hard_rounding, in_axes=-1, out_axes=-1)(levels, curvature, mean, deviation)
    else:
        each = traits.averages()(levels, curvature, beta, mean, deviation)
    each = jax.tree.map(lambda x: x.reshape(*x.shape[:-1], *p.mean.shape), each)
    alignment = (p.weight * (p.mean * each.mean + p.variance * L * each.response)).sum(-2)
    each = jax.tree.map(lambda x: (p.weight * x).sum(-2), each)
    return WeightAverages(each._replace(usage=each.usage.T), alignment)


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


def _block(traits: Traits, cold: bool, patience: Patience | None, tasks, books, betas, interpolates) -> Solution:
    """One block of points, from the start to the observables."""
    order = jax.vmap(ridge_start)(tasks, books, betas)
    R = tasks.residual_variance(order.m, order.q)
    start = State(jnp.log(tasks.alpha / (1 + order.chi)), jnp.log(R / tasks.alpha))
    p = _problems(tasks, books, betas, interpolates)
    found = _settle_cold(p, start) if patience is None else _settle_warm(p, start, traits, patience)
    averages = _averages(p, found.state, traits, cold)
    return _report(tasks, books, betas, found, averages, cold)


@eqx.filter_jit
def _blocks(kernel: Callable, inputs, live: Array, block: int, mesh: Mesh | None):
    """kernel on block after block of the first `live` points, each device its share of them; the rest is zeros."""

    def share(kernel, inputs, live):
        split = jax.tree.map(lambda x: x.reshape(-1, block, *x.shape[1:]), inputs)
        size = jax.tree.leaves(inputs)[0].shape[0]
        if mesh is not None:
            live = live - size * jax.lax.axis_index("points")
        shapes = jax.eval_shape(lambda each: kernel(*each), jax.tree.map(lambda x: x[0], split))
        found = jax.tree.map(lambda s: jnp.zeros((size // block, *s.shape), s.dtype), shapes)

        def add(i, found):
            each = kernel(*jax.tree.map(lambda x: x[i], split))
            return jax.tree.map(lambda whole, part: whole.at[i].set(part), found, each)

        found = jax.lax.fori_loop(0, jnp.clip(-(-live // block), 0, size // block), add, found)
        return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), found)

    if mesh is None:
        return share(kernel, inputs, live)
    everywhere = PartitionSpec()
    dynamic, static = eqx.partition(kernel, eqx.is_array)
    return jax.shard_map(
        lambda dynamic, *rest: share(eqx.combine(dynamic, static), *rest),
        mesh=mesh,
        in_specs=(everywhere, _BY_POINT, everywhere),
        out_specs=_BY_POINT,
        check_vma=False,
    )(dynamic, inputs, live)


_BY_POINT = PartitionSpec("points")


def solve_many(
    tasks: LinearRegression, books: Codebook, betas: Float[Array, " points"], devices: Sequence[jax.Device] = ()
) -> Solution:
    """`solve` for a batch, without waiting for its slowest point; not itself a JAX transformation.

    Args:
      tasks, books: with a leading axis of points on every leaf (as `jax.vmap` makes them).
      betas: (points,) inverse temperatures, inf among them if need be.
      devices: to spread the points over; the default device if empty.

    Returns:
      A Solution whose fields are NumPy arrays with a leading axis of points.
    """
    pool = _Pool(tasks, books, devices)
    tasks, books, betas = jax.tree.map(np.asarray, (tasks, books, betas))
    cold, interpolates = np.isinf(betas), np.zeros(betas.shape, bool)
    found = None

    def run(which: np.ndarray, patience: Patience | None) -> Solution | None:
        kernel = eqx.Partial(_block, pool.traits, patience is None, jax.tree.map(jnp.asarray, patience))
        return pool.run(kernel, (tasks, books, betas, interpolates), which, into=found)

    found = run(~cold, HASTY)
    found = run(cold, None)
    assert found is not None
    interpolates = cold & found.interpolates
    run(interpolates, HASTY)
    run(~found.converged & (~cold | interpolates), PATIENT)
    for i in np.flatnonzero(~found.converged):
        each = jax.tree.map(lambda x, i=i: x[i : i + 1], (tasks, books, betas))
        jax.tree.map(partial(_put, np.array([i])), found, _one_by_one(*each))
    return found


Direction = tuple[LinearRegression, Codebook, Points]
"""A tangent in the space of problems: what `jax.jvp` would be given with (tasks, books, betas)."""


def slopes_many(
    found: Solution,
    direction: Direction,
    second: Direction | None = None,
    *,
    of: str = "generalization_error",
    devices: Sequence[jax.Device] = (),
) -> np.ndarray:
    """Derivative along `direction` at every point of a batch, or the second derivative along `direction` and `second`.

    `of` is "generalization_error" or (at finite beta) "replicon".  Both are functions of the problem and the state; the
    state follows the problem by the implicit function theorem on (1),  d(log L, log t) = −J^(-1) d residual.
    """
    pool = _Pool(found.task, found.codebook, devices)
    inputs = (found.task, found.codebook, found.beta), found.interpolates, found.fields, direction, second
    cold = np.isinf(found.beta) & ~found.interpolates
    result = np.zeros(found.beta.shape, found.beta.dtype)
    for frozen in (True, False):
        if (cold == frozen).any():
            pool.run(eqx.Partial(_slope_block, pool.traits, frozen, of), inputs, cold == frozen, into=result)
    return result


def _slope_block(traits: Traits, cold: bool, of: str, problem, interpolates, fields: Fields, direction, second) -> Points:
    tasks, books, betas = problem
    problem = tasks, books, jnp.where(jnp.isinf(betas), 1.0, betas)
    averages = _cold_averages if cold else traits.slopes(fine=True)
    state = State(jnp.log(fields.L), jnp.log(fields.chi_hat / fields.L**2))

    def drift(problem, state, direction) -> State:
        def residual(*problem):
            return _equations(_problems(*problem, interpolates), state, averages)

        _, (f, g), ((f_L, f_t), (g_L, g_t)) = jax.jvp(residual, problem, direction, has_aux=True)
        determinant = f_L * g_t - f_t * g_L
        return State((f_t * g - g_t * f) / determinant, (g_L * f - f_L * g) / determinant)

    def observable(problem, state) -> Points:
        task = problem[0]
        if of == "generalization_error":
            return task.alpha * jnp.exp(state.log_t) - task.noise
        p = _problems(*problem, interpolates)
        square = _averages(p, state, traits, cold=False).rounding.response_square
        return 1 - jnp.exp(2 * state.log_L) / task.alpha * square  # 1 + chi = alpha/L

    def first(problem, state) -> Points:
        return jax.jvp(observable, (problem, state), (direction, drift(problem, state, direction)))[1]

    if second is None:
        return first(problem, state)
    return jax.jvp(first, (problem, state), (second, drift(problem, state, second)))[1]


class _Pool:
    """Devices, and the size of what they are handed: blocks that stay in cache, batches that hide the call."""

    def __init__(self, tasks: LinearRegression, books: Codebook, devices: Sequence[jax.Device]):
        self.devices = tuple(devices) or tuple(jax.local_devices())
        self.mesh = Mesh(np.array(self.devices), ("points",)) if len(self.devices) > 1 else None
        self.traits = _traits(tasks, books)
        work = (self.traits.levels - 1) * _components(tasks)
        on_cpu = self.devices[0].platform == "cpu"
        self.block = max(1, min(_CACHED // work, 64)) if on_cpu else max(1, _RESIDENT // work)
        self.batch = len(self.devices) * self.block * (max(1, _BATCH // self.block) if on_cpu else 1)
        self.threads = (os.cpu_count() or 1) if on_cpu and self.mesh is None else 1

    def run(self, kernel: Callable, inputs, which: np.ndarray, into=None):
        """kernel on the points where `which`, written into the arrays `into` (new ones if None), which are returned."""
        chosen = np.flatnonzero(which)
        out = [] if into is None else [into]
        writing = Lock()

        def one(part: np.ndarray) -> None:
            padded = np.concatenate([part, np.full(self.batch - part.size, part[0])])
            batch = jax.tree.map(lambda x: x[padded], inputs)
            if self.mesh is None:
                batch = jax.device_put(batch, self.devices[0])
            found = jax.tree.map(np.asarray, _blocks(kernel, batch, np.int64(part.size), self.block, self.mesh))
            with writing:
                if not out:
                    out.append(jax.tree.map(lambda x: np.zeros((which.size, *x.shape[1:]), x.dtype), found))
                jax.tree.map(partial(_put, part), out[0], found)

        parts = np.split(chosen, range(self.batch, chosen.size, self.batch)) if chosen.size else []
        precision = (jax.config.jax_enable_x64,)  # it may be set for the calling thread alone
        with ThreadPoolExecutor(self.threads, initializer=_set_precision, initargs=precision) as pool:
            for _ in pool.map(one, parts):
                pass
        return out[0] if out else None


_FEW = 8
_CACHED = 448
"""Thresholds times points of a block that keeps its working set in a core's cache."""
_RESIDENT = 2**21
"""The same for an accelerator, which wants many at once."""
_BATCH = 2048
"""Points of one call on a CPU: enough to hide the call, few enough that threads share the work evenly."""


def _set_precision(x64: bool) -> None:
    jax.config.update("jax_enable_x64", x64)


def _put(where: np.ndarray, whole: np.ndarray, part) -> None:
    whole[where] = part[: where.size]


def _components(tasks: LinearRegression) -> int:
    return jax.eval_shape(jax.vmap(lambda task: task.weights().mean), tasks).shape[1]


def _traits(tasks: LinearRegression, books: Codebook) -> Traits:
    levels = np.asarray(books.levels)
    gaps = np.diff(levels, axis=1)
    close = partial(np.allclose, rtol=0, atol=8 * np.finfo(levels.dtype).eps * np.abs(levels).max(1, keepdims=True))
    centred = bool((np.asarray(jax.vmap(lambda task: task.weights().mean)(tasks)) == 0).all())
    return Traits(
        even=close(gaps, gaps.mean(1, keepdims=True)),
        symmetric=centred and close(levels, -levels[:, ::-1]),
        levels=levels.shape[1],
    )


@eqx.filter_jit
def _one_by_one(tasks, books, betas) -> Solution:
    """The most patient solver there is."""
    return jax.vmap(lambda task, book, beta: describe(task, book, beta, find_saddle(task, book, beta, 4096)))(
        tasks, books, betas
    )
