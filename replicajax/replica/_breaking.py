"""One step of replica symmetry breaking, for every task.  theory 3, 8

The Gibbs measure falls apart into states, of overlap q1 within and q0 < q1 between; y is the Parisi parameter, d = q1 − q0 and
G = chi + y d the response of a weight to a field that all states feel.  A square loss is Gaussian in the weights, so that
its share of the free energy is A(chi)/beta + B(m, q, chi) in replica symmetry and here

    A(chi)/beta + [A(G) − A(chi)]/y + B(m, q0, G):

the fields are those of `Task.channel` itself, asked once with chi, and once with q0, and G for chi,

    L = L(chi),     m_hat = L(G),     c0 = chi_hat(m, q0, G),     c1 = (L − m_hat)/y.                               (1)

Any other loss is a channel within a channel: what states are tilted by is phi of replica symmetry, at their own chi, so that
the outer channel is that of `losses.States`, at temperature 1/y, and says L(G) and c0; within it phi' spreads over states,

    c1 = alpha E Var(phi'),                          L = L(G) + y c1,                                               (2)

and m_hat is no longer L(G) where labels are classes.  In turned axes (7.2) that is what rows feel, of their own overlaps, and
L_x = L_x(G) + y c1_x is one more equation: the spectrum between rows and weights is Gaussian again, once with chi and L_x, once
with G and L_x(G).

With Z of `numerics.tilted_rounding` at H = m_hat w0 + sqrt(c0) z0 and inner variance c1,

    f = share + m_hat m − ½ L (q1 + chi/beta) + ½ [(c0 + c1)(chi + y q1) − y c0 q0] − E log Z/y,                    (3)

stationary in all and largest in y, where the complexity y² df/dy vanishes.  At q1 = q0 it is replica-symmetric.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from replicajax import _checks, _fusion
from replicajax.codebooks import Codebook
from replicajax.models import Channel, Fields, Rounded, Task, Taught, Weights
from replicajax.models._turned import spectrum, swept
from replicajax.numerics import JAX, NUMPY, Backend, TiltedRounding, implicit_root, slope_of_root, tilted_rounding
from replicajax.replica._pool import CACHED, Device, Pool
from replicajax.replica._solution import Solution
from replicajax.replica._teacher import mixtures, traits_of

Problem = tuple[Task, Codebook, Float[Any, ""]]
Direction = Problem
"""A tangent in the space of problems."""


BREAKING = 0, 1, "auto"


def allowed_steps(breaking: int | str) -> None:
    """Raises ValueError for what is no number of steps."""
    if breaking not in BREAKING:
        raise ValueError(f'breaking must be 0, 1 or "auto", got {breaking!r}')


class Broken(NamedTuple):
    """A point in the space of (1) and (2): log L, log(L/L(G) − 1), log c0, log y; m_hat/L(G), of the rows, where that is not
    1; and log L_x of rows that are not Gaussian, in turned axes."""

    log_L: Array
    log_split: Array
    log_c0: Array
    log_y: Array
    gain: Array | None = None
    log_rows: Array | None = None


def placed(task: Task, v: Any) -> Broken:
    """A point from its numbers."""
    known, rest = Broken(*v[:4]), list(v[4:])
    if task.in_closed_form:
        return known
    gain = None if task.matched else rest.pop(0)
    return known._replace(gain=gain, log_rows=rest.pop(0) if task.turned else None)


class Seen(NamedTuple):
    """What labels make of states."""

    potential: Array
    """Their share of f."""
    complexity: Array
    """And of y² df/dy."""
    entropy: Array
    """Of the weights within a state."""
    L: Array
    outer: Channel
    """At (m, q0, G) and beta = y."""
    inner: Channel | None
    """At (m, q0, chi) and beta = y, where that is all there is to a state."""
    replicon: tuple[Array, Array]
    """Within a state."""
    rows: Array | None = None
    """L_x, where it is an unknown."""
    label: tuple[Array, Array, Array, Array] | None = None
    """And then m, q0, q1 and chi of the predictions."""


def seen(
    xp: Any,
    task: Task,
    m: Array,
    q0: Array,
    q1: Array,
    chi: Array,
    y: Array,
    beta: Array | None,
    at: Broken | None = None,
) -> Seen:
    """Of these order parameters; `at` what the weights feel, where a loss in turned axes asks for that."""
    d = q1 - q0
    G = chi + y * d
    cooling = 0.0 if beta is None else 1 / beta
    if task.in_closed_form:
        inner, outer = task.channel(m, q0, chi, y), task.channel(m, q0, G, y)
        # A = ½ chi L(chi) − entropy of the channel.
        A_chi, A_G = chi * inner.L / 2 - inner.entropy, G * outer.L / 2 - outer.entropy
        potential = (cooling - 1 / y) * A_chi + outer.potential
        return Seen(potential, A_chi - A_G + y * d * outer.L / 2, inner.entropy, inner.L, outer, inner, inner.replicon)
    assert isinstance(task, Taught)
    G = chi + y * xp.maximum(d, _ALIKE**2 * q1)
    if task.turned:
        assert at is not None
        return _seen_turned(task, q0, q1, chi, G, y, beta, at)
    outer = task.among_states(chi, beta).channel(m, q0, G, y)
    among = outer.among
    assert among is not None
    complexity = y * (among.potential - outer.potential) + y**2 * outer.chi_hat * d / 2
    L = outer.L + y * among.spread
    return Seen(outer.potential, complexity, outer.entropy, L, outer, None, (xp.ones_like(L), among.square))


def _seen_turned(
    task: Taught, q0: Array, q1: Array, chi: Array, G: Array, y: Array, beta: Array | None, at: Broken
) -> Seen:
    """In turned axes, of any loss.  At fixed order parameters y enters rows, their coupling, spectrum and Gaussian by turns."""
    assert task.features is not None
    assert at.log_rows is not None
    L_x, log_M = jnp.exp(at.log_rows), at.log_L - jnp.log1p(jnp.exp(at.log_split))
    state = spectrum(task.features, L_x, chi)
    felt = jnp.stack([log_M, at.log_c0 - 2 * log_M, jnp.ones_like(chi) if at.gain is None else at.gain])
    outer = swept(task.among_states(state.chi, beta), q0, G, y, felt, slopes=False).channel
    assert outer.seen_through is not None
    assert outer.label is not None
    (row, log_E), label = outer.seen_through, outer.label
    assert row.among is not None
    d_x, c1_x = (label.chi - state.chi) / y, row.among.spread
    c1 = (state.L - outer.L) / y
    k1 = (1 / chi - 1 / G) / y - c1
    complexity = (
        y * (row.among.potential - row.potential)
        + y**2 * (row.chi_hat * d_x + c1_x * (label.q + d_x)) / 2
        + (state.mean_log - log_E) / 2
        - y * (c1_x * label.chi + k1 * G) / 2
        - y**2 * (c1_x * label.q + k1 * q0) / 2
        + (G / chi - 1) / 2
        + y * q0 * (1 / chi - 1 / G) / 2
        - y**2 * c1 * q1 / 2
    )
    cooling = 0.0 if beta is None else 1 / beta
    # A = ½ [mean log D + log chi + L chi − L_x chi_x].
    A_chi = (state.mean_log + state.L * chi - L_x * state.chi) / 2
    return Seen(
        potential=outer.potential + (cooling - 1 / y) * A_chi,
        complexity=complexity,
        entropy=row.entropy - state.mean_log / 2,
        L=state.L,
        outer=outer,
        inner=None,
        replicon=state.replicon(row.among.square, chi),
        rows=row.L + y * c1_x,
        label=(label.m, label.q, label.q + d_x, state.chi),
    )


class Within(NamedTuple):
    """What (1) is made of at a point; order parameters are those of the predictions (7.3), but for `own`."""

    y: Array
    m: Array
    q0: Array
    q1: Array
    chi: Array
    G: Array
    own: tuple[Array, Array, Array, Array]
    """m, q0, q1 and chi of the weights."""
    seen: Seen
    complexity: Array
    free_energy: Array
    entropy: Array
    tilted: TiltedRounding
    """Averaged over components; `bend` and `inner_bend` weighted by the squares of their eigenvalues."""


def within(
    on: Backend,
    task: Task,
    law: Weights,
    levels: Float[Any, " levels"],
    beta: Array,
    at: Broken,
    cold: bool,
) -> tuple[Within, tuple[Array, ...]]:
    """Averages at a point, and the residual of (1) there with the complexity."""
    xp = on.xp
    L, M, c0, y = xp.exp(at.log_L), xp.exp(at.log_L) / (1 + xp.exp(at.log_split)), xp.exp(at.log_c0), xp.exp(at.log_y)
    c1 = L / (1 + xp.exp(-at.log_split)) / y
    weight, w, v, scale = law
    scale = xp.ones_like(weight) if scale is None else scale
    gain = 0.0 if task.turned else M if at.gain is None else M * at.gain
    deviation = xp.sqrt((gain * scale) ** 2 * v + c0 * scale)
    curvature, field = L * scale + task.ridge, gain * scale * w
    tilted = tilted_rounding(on, levels, curvature, beta, y, field, deviation, c1 * scale, cold)
    felt = tilted.response + y * (tilted.inner - tilted.outer)  # of [<a>] to H
    overlap = w * tilted.first + v * gain * scale * felt

    def own(x: Array) -> Array:
        return (weight * x).sum()

    def label(x: Array) -> Array:
        return (weight * scale * x).sum()

    each = overlap, tilted.outer, tilted.inner, tilted.response
    m, q0, q1, chi = (label(x) for x in each)
    labels = seen(xp, task, m, q0, q1, chi, y, None if cold else beta, at)
    outer = labels.outer
    log_Z, phi = own(tilted.log_partition), own(tilted.potential)
    complexity = labels.complexity + y**2 * c1 * q1 / 2 + log_Z - y * phi
    cooling = 0.0 if cold else 1 / beta
    coupling = gain * m - L * (q1 + cooling * chi) / 2 + ((c0 + c1) * (chi + y * q1) - y * c0 * q0) / 2
    free_energy = labels.potential + coupling - log_Z / y
    residual = (
        at.log_L - xp.log(labels.L),
        xp.log(M) - xp.log(outer.L),
        at.log_c0 - xp.log(outer.chi_hat),
        complexity,
    )
    if at.gain is not None:
        residual += (at.gain - outer.m_hat / outer.L,)
    if at.log_rows is not None:
        residual += (at.log_rows - xp.log(labels.rows),)
    squares = (weight * scale**2 * x for x in (tilted.bend, tilted.inner_bend))
    bend, inner_bend = (x.sum() for x in squares)
    summed = jax.tree.map(lambda x: xp.tensordot(weight, x, 1), tilted)._replace(bend=bend, inner_bend=inner_bend)
    found = Within(
        y, m, q0, q1, chi, chi + y * (q1 - q0),
        (own(overlap), own(tilted.outer), own(tilted.inner), own(tilted.response)), labels,
        complexity, free_energy, labels.entropy + own(tilted.entropy), summed,
    )  # fmt: skip
    return found, residual


_EVOLUTIONS, _NEWTON = 10, 24
"""Steps of state evolution at fixed y, and of Newton's method after them."""
_FEW = 150
"""Evaluations of MINPACK: where they do not do, another start will."""
_STRIDE = 0.7
_FACTORS = 0.7, 1.5, 3.0, 0.35, 0.15, 6.0
"""Of the first y, tried one after the other."""
_SHARPER = 15.0, 40.0, 100.0, 250.0
"""Where weights hardly feel each other; of one point at a time, since of many the slowest decides."""
_LEAST = 1e-4
"""Of log L/m_hat while states are sought."""
_ALIKE = 1e-7
"""Relative difference of q1 and q0 below which there is but one state."""


def first(xp: Any, task: Task, levels: Float[Any, " levels"], beta: Array, factor: Any) -> Broken:
    """From states that are single words, with the fields of Gaussian weights at temperature 1/y between them.

    Where the measure falls apart y is near 20/(L gap²) if levels are fine, 4/(sqrt(chi_hat) gap) if they are far apart.
    """
    gap, power = (levels[-1] - levels[0]) / (levels.shape[0] - 1), (levels**2).mean()
    soft, _ = task.start(task.ridge + 1 / power)
    L, t = task.start(task.ridge + 1e3 * soft)  # as chi goes to 0
    y = xp.minimum(factor * (20 / (L * gap**2) + 4 / (xp.sqrt(L**2 * t + L * power) * gap)), 0.9 * beta)
    M, t = task.start(task.ridge + 1 / (y * power))
    at = Broken(xp.log(L), xp.log(xp.expm1(xp.maximum(xp.log(L / M), 0.01))), xp.log(t * M**2), xp.log(y))
    if task.in_closed_form:
        return at
    if not task.matched:
        at = at._replace(gain=xp.ones_like(L))
    if not task.turned:
        return at
    assert isinstance(task, Taught)
    assert task.features is not None
    return at._replace(log_rows=at.log_L - xp.log(task.features.mean(task.features.eigenvalues)))


def evolved(xp: Any, at: Broken, residual: tuple[Array, ...]) -> Broken:
    """A step of state evolution at fixed y."""
    of_L, of_M, of_c0, _, *rest = residual
    log_ratio = xp.log1p(xp.exp(at.log_split)) - of_L + of_M
    return Broken(
        at.log_L - of_L,
        xp.log(xp.expm1(xp.maximum(log_ratio, _LEAST))),
        at.log_c0 - of_c0,
        at.log_y,
        None if at.gain is None else at.gain - rest[0],
        None if at.log_rows is None else at.log_rows - rest[-1],
    )


class Found(NamedTuple):
    at: Broken
    converged: Any
    steps: Any


def sound(xp: Any, at: Within, residual: tuple[Array, ...], beta: Array) -> Array:
    """It holds to rounding, there are states, and y is in its range."""
    worst = xp.abs(xp.stack(list(residual))).max(0)
    tolerance = float(np.finfo(worst.dtype).eps) ** 0.6
    return (worst < tolerance) & (at.q1 - at.q0 > _ALIKE * at.q1) & (at.y <= beta * (1 + 1e-9))


def find_here(task: Task, law: Weights, levels: Any, beta: Any) -> Found:
    """In NumPy, where nothing is compiled: MINPACK's hybrid method."""
    from scipy.optimize import root

    cold, steps = bool(np.isinf(beta)), 0

    def residual_at(v: np.ndarray) -> np.ndarray:
        with np.errstate(all="ignore"):
            residual = np.array(within(NUMPY, task, law, levels, beta, placed(task, v), cold)[1])
        return np.where(np.isfinite(residual), residual, 1e3)

    at = first(np, task, levels, beta, _FACTORS[0])
    for factor in _FACTORS + _SHARPER:
        at = first(np, task, levels, beta, factor)
        with np.errstate(all="ignore"):
            for _ in range(_EVOLUTIONS):
                at = evolved(np, at, within(NUMPY, task, law, levels, beta, at, cold)[1])
            if not np.isfinite(jax.tree.leaves(at)).all():
                continue
            ended = root(residual_at, np.array(jax.tree.leaves(at)), options={"xtol": 1e-13, "maxfev": _FEW})
            at = placed(task, ended.x)
            here, residual = within(NUMPY, task, law, levels, beta, at, cold)
        steps += _EVOLUTIONS + int(ended.nfev)
        if sound(np, here, residual, beta):
            return Found(at, np.True_, np.int64(steps))
    return Found(at, np.False_, np.int64(steps))


def find(task: Task, law: Weights, levels: Array, beta: Array, cold: bool) -> Found:
    """In JAX: state evolution, then Newton's method; from one y after the other."""
    factors = _FACTORS if task.in_closed_form else _FACTORS + _SHARPER

    def residual_at(v: Array) -> tuple[Array, tuple[Array, Array]]:
        here, residual = within(JAX, task, law, levels, beta, placed(task, v), cold)
        stacked = jnp.stack(residual)
        return stacked, (stacked, sound(jnp, here, residual, beta))

    def evolve(_, v):
        return _stacked(evolved(jnp, placed(task, v), tuple(residual_at(v)[0])))

    def newton(carry):
        v, _, left, _ = carry
        jacobian, (residual, good) = jax.jacfwd(residual_at, has_aux=True)(v)
        change = -jnp.linalg.solve(jacobian, residual)
        size = jnp.abs(change).max()
        lost = ~jnp.isfinite(size)
        change = jnp.where(lost, 0.0, change * jnp.minimum(1.0, _STRIDE / size))
        return v + change, lost | good, left - 1, good & ~lost

    def attempt(carry):
        _, _, number, steps = carry
        v = _stacked(first(jnp, task, levels, beta, jnp.asarray(factors, levels.dtype)[number]))
        v = jax.lax.fori_loop(0, _EVOLUTIONS, evolve, v)
        begun = v, jnp.zeros((), bool), jnp.asarray(_NEWTON), jnp.zeros((), bool)
        v, _, left, good = jax.lax.while_loop(lambda c: ~c[1] & (c[2] > 0), newton, begun)
        return v, good, number + 1, steps + _EVOLUTIONS + _NEWTON - left

    nothing = jnp.zeros_like(_stacked(first(jnp, task, levels, beta, 1.0))), jnp.zeros((), bool), 0, 0
    v, good, _, steps = jax.lax.while_loop(lambda c: ~c[1] & (c[2] < len(factors)), attempt, nothing)
    return Found(placed(task, v), good, steps)


def _stacked(at: Broken) -> Array:
    return jnp.stack(jax.tree.leaves(at))


def break_many(
    tasks: Task,
    books: Codebook,
    betas: np.ndarray,
    directions: Mapping[Any, Direction] = MappingProxyType({}),
    devices: Sequence[Device] = (),
) -> tuple[Solution, dict[Any, np.ndarray]]:
    """One step of breaking for a batch, compiled: `solve_many`'s like.  Not converged where the measure holds together.

    Also derivatives of the generalisation error along `directions`.
    """
    problem, directions = jax.tree.map(lambda x: np.asarray(x, np.float64), ((tasks, books, betas), dict(directions)))
    fields = traits_of(tasks).components * books.levels.shape[-1]
    work = max(16, 4 * fields * books.levels.shape[-1]) if tasks.in_closed_form else CACHED
    pool, cold = Pool(work, devices, older_fusion=True), np.isinf(problem[2])
    slopes = {name: np.zeros(cold.shape) for name in directions}
    found: Any = None
    with jax.enable_x64(True):
        for frozen in (True, False):
            here = cold == frozen
            if not here.any():
                continue
            found = pool.run(eqx.Partial(_block, frozen), problem, here, into=found)
            for name, direction in directions.items():
                pool.run(eqx.Partial(_slope_block, frozen), (problem, found[0], direction), here, into=slopes[name])
    return found[1], slopes


def _block(cold: bool, *problems: Any) -> tuple[Found, Solution]:
    def one(task: Task, book: Codebook, beta: Array) -> tuple[Found, Solution]:
        law = task.weights()
        found = find(task, law, book.levels, beta, cold)
        return found, observed(JAX, task, law, book, beta, found, cold)

    return jax.vmap(one)(*jax.tree.map(jnp.asarray, problems))


def _slope_block(cold: bool, problems: Problem, found: Found, directions: Direction) -> Array:
    def one(problem: Problem, found: Found, direction: Direction) -> Any:
        def moved(v: Array, problem: Problem) -> tuple[Array, Array]:
            task, book, beta = problem
            at = Found(placed(task, v), found.converged, found.steps)
            here = observed(JAX, task, task.weights(), book, beta, at, cold)
            return _condition(cold, v, None, problem), here.generalization_error

        return slope_of_root(moved, _stacked(found.at), problem, direction)[2]

    return jax.vmap(one)(jax.tree.map(jnp.asarray, problems), found, directions)


def broken_where_needed(
    found: Solution,
    slopes: Mapping[Any, np.ndarray],
    breaking: int | str,
    direction: Callable[[Any], Direction],
    devices: Sequence[Device] = (),
) -> tuple[Solution, dict[Any, np.ndarray]]:
    """Replica-symmetric solutions and slopes of a batch, with one step of breaking in their place where they are wrong.

    Everywhere if `breaking` is 1; if "auto" not where it leads nowhere.
    """
    wrong = ~found.stable | (found.entropy < 0) if breaking == "auto" else np.ones(found.stable.shape, bool)
    slopes = {name: np.array(slope) for name, slope in slopes.items()}
    if not wrong.any():
        return found, slopes
    which = np.flatnonzero(wrong)

    def chosen(x: Any) -> Any:
        return jax.tree.map(lambda x: np.asarray(x)[which], x)

    directions = {name: chosen(direction(name)) for name in slopes}
    problem = chosen(found.task), chosen(found.codebook), chosen(found.beta)
    broken, moved = break_many(*problem, directions, devices)
    real = broken.converged if breaking == "auto" else np.ones(which.shape, bool)
    whole = jax.tree.map(np.array, found)
    jax.tree.map(lambda whole, part: whole.__setitem__(which[real], part[real]), whole, broken)
    for name, slope in slopes.items():
        slope[which[real]] = moved[name][real]
    return whole, slopes


def observed(on: Backend, task: Task, law: Weights, book: Codebook, beta: Array, found: Found, cold: bool) -> Solution:
    """All that one step of breaking says."""
    xp = on.xp
    w, _ = within(on, task, law, book.levels, beta, found.at, cold)
    cooling = 0.0 if cold else 1 / beta
    x, y = w.y * cooling, w.y
    m, q0, q1, chi = w.own
    outer, inner = w.seen.outer, w.seen.inner
    label = w.m, w.q0, w.q1, w.chi
    if w.seen.label is not None and outer.label is not None:
        m, label = outer.label.overlap, w.seen.label
    taught = isinstance(task, Taught)
    if taught and (not task.turned or w.seen.label is not None):
        m_x, q0_x, q1_x, chi_x = label
        mean_q = x * q0_x + (1 - x) * q1_x
        state_error, error, gibbs_error = (task.error(m_x, q) for q in (q1_x, mean_q, q1_x + cooling * chi_x))
        test_loss = task.fresh_loss(m_x, mean_q)
    else:
        assert inner is not None
        nothing = Rounded(0 * m, 0 * m, 0 * m, 0 * m)
        of_all = task.judge(outer, w.m, w.q0, w.G, y, nothing)
        of_one = task.judge(inner, w.m, w.q0, w.chi, y, nothing)
        # What a field that all weights of a state, or of all states, feel makes of the predictions.
        thermal, among = (y * (judged.gibbs_error - judged.error) for judged in (of_one, of_all))
        between = (among - thermal) / y
        state_error = of_all.error + between
        error, gibbs_error = state_error - x * between, state_error + cooling * thermal
        test_loss = (error + task.noise if taught else error) / 2
        if outer.label is not None and inner.label is not None:
            m, chi_x = outer.label.overlap, inner.label.chi
            spread = (outer.label.chi - chi_x) / y
            label = outer.label.m, outer.label.q, outer.label.q + spread, chi_x
    label_m, label_q0, label_q1, label_chi = label
    L, split = xp.exp(found.at.log_L), xp.exp(found.at.log_split)
    level, stiffness = outer.replicon
    outer_replicon = level - stiffness * w.tilted.bend
    level, stiffness = w.seen.replicon
    replicon = xp.minimum(outer_replicon, -xp.inf if cold else level - stiffness * w.tilted.inner_bend)
    usage = xp.clip(w.tilted.usage, 0.0, 1.0)
    test_error = error + task.noise if taught and task.adds_noise else error
    gain = 0.0 if task.turned else 1.0 if found.at.gain is None else found.at.gain
    return Solution(
        task=task,
        codebook=book,
        beta=beta,
        overlap=m if taught else xp.nan * m,
        self_overlap=q1 + cooling * chi,
        replica_overlap=x * q0 + (1 - x) * q1,
        susceptibility=chi,
        label_overlap=label_m if taught else xp.nan * m,
        label_self_overlap=label_q1 + cooling * label_chi,
        label_replica_overlap=x * label_q0 + (1 - x) * label_q1,
        label_susceptibility=label_chi,
        fields=Fields(gain * L / (1 + split), xp.exp(found.at.log_c0) + L / (1 + 1 / split) / y, L),
        generalization_error=error,
        gibbs_error=gibbs_error,
        rounded_error=state_error if cold else xp.nan * error,
        test_error=test_error,
        test_loss=test_loss,
        training_error=w.free_energy if cold else w.free_energy + cooling * w.entropy,
        free_energy=w.free_energy,
        entropy=w.entropy,
        usage=usage,
        rate=-(usage * xp.log2(xp.where(usage > 0, usage, 1.0))).sum(-1),
        breaking=xp.ones((), int),
        parisi=y,
        inner_overlap=q1,
        outer_overlap=q0,
        complexity=w.complexity,
        state_error=state_error,
        outer_replicon=outer_replicon,
        replicon=replicon,
        stable=replicon > 0,
        interpolates=xp.zeros((), bool),
        converged=found.converged,
        steps=found.steps,
    )


def broken_solution(problem: Problem, cold: bool) -> Solution:
    """One step of breaking wherever it leads; differentiable by the implicit function theorem.  `cold`: beta = inf."""
    v, (converged, steps) = implicit_root(eqx.Partial(_search, cold), eqx.Partial(_condition, cold), problem)
    found = Found(placed(problem[0], v), converged, steps)
    if not _checks.is_traced(problem) and problem[0].elementwise:
        task, book, beta = jax.tree.map(np.asarray, problem)
        with np.errstate(all="ignore"):  # where it did not converge
            here = observed(NUMPY, task, _law(task), book, beta, jax.tree.map(np.asarray, found), cold)
        return jax.device_put(
            jax.tree.map(lambda x: np.asarray(x, v.dtype if np.asarray(x).dtype.kind == "f" else None), here)
        )
    return _observed(problem, found, cold)


@eqx.filter_jit
def _observed(problem: Problem, found: Found, cold: bool) -> Solution:
    task, book, beta = problem
    return observed(JAX, task, task.weights(), book, beta, found, cold)


def _search(cold: bool, problem: Problem) -> tuple[Float[Array, "4"], tuple[Array, Array]]:
    if _checks.is_traced(problem):
        found = _found_inside(jax.lax.stop_gradient(problem), cold)
    elif not problem[0].elementwise:
        with jax.enable_x64(True):
            exact = jax.tree.map(lambda x: np.asarray(x, np.float64), problem)
            found = jax.tree.map(np.asarray, _found_alone(exact, cold))
    else:
        task, book, beta = jax.tree.map(lambda x: np.asarray(x, np.float64), problem)
        found = find_here(task, _law(task), book.levels, beta)
    dtype = jnp.result_type(*jax.tree.leaves(problem))
    return jnp.asarray(_stacked(found.at), dtype), (jnp.asarray(found.converged), jnp.asarray(found.steps))


def _found(problem: Problem, cold: bool) -> Found:
    task, book, beta = problem
    return find(task, task.weights(), book.levels, beta, cold)


_found_inside, _found_alone = eqx.filter_jit(_found), eqx.filter_jit(_found, **_fusion.OLDER)


def _condition(cold: bool, v: Float[Array, "4"], info: Any, problem: Problem) -> Float[Array, "4"]:
    del info
    task, book, beta = problem
    return jnp.stack(within(JAX, task, task.weights(), book.levels, beta, placed(task, v), cold)[1])


def _law(task: Task) -> Weights:
    return jax.tree.map(lambda x: x[0], mixtures(jax.tree.map(lambda x: np.asarray(x)[None], task)))
