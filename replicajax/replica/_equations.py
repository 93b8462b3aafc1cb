"""The saddle point as two equations, for many points at once.

The fields of theory 1.1 hang on two numbers.  With L = m_hat and t = chi_hat/L² a weight feels h = L (w0 + sqrt(t) z):
it sees the teacher through Gaussian noise of variance t.  Stationarity of f is then

    log L + log(1 + chi(L, t)) − log alpha = 0,        log t − log(R(L, t)/alpha) = 0,        (1)

two equations in (log L, log t) whose Jacobian comes with the averages (`numerics.staircase_averages`).  Everything here is
in units of the signal: levels over sqrt(signal), noise and t over signal, beta times signal.

That is the square loss of a regression.  Any other channel (theory 7.1) says what L and chi_hat, and what `gain` = m_hat/L,
follow from m, q and chi; a weight then feels h = L (gain w0 + sqrt(t) z), and gain is a third unknown unless the channel
is matched, when it is 1.

Where features have eigenvalues of their own for each weight (theory 7.3) it feels h = L (gain lambda w0 + sqrt(t lambda) z) and
the curvature L lambda, and the channel is asked with means weighted by lambda.
"""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from replicajax.models import Channel, Rounded, Task, Taught, Weights, at_heat
from replicajax.models._turned import swept
from replicajax.numerics import (
    JAX,
    Averages,
    Backend,
    Levels,
    Nodes,
    Slope,
    SoftRounding,
    backend_of,
    default_nodes,
    gauss_legendre,
    hard_staircase_slopes,
    rounding_averages,
    soft_averages,
)

Points = Float[Any, " points"]

_COARSE = (8, 1e-5), (12, 1e-8)
"""Quadrature nodes of the first steps, and of those that follow, and the errors of averages that they are about as good as."""
FINEST = len(_COARSE)
_MOST = 40
_FEWEST_LEVELS = 16
"""Of a program."""


class State(NamedTuple):
    """The unknowns of (1)."""

    log_L: Points
    log_t: Points
    gain: Points | None = None
    """m_hat/L; None where it is 1 throughout."""


class Numbers(NamedTuple):
    """Of a task, apart from its teacher's law."""

    alpha: Points
    signal: Points
    noise: Points
    ridge: Points


class Shared(NamedTuple):
    """What the points of a batch have in common; data, so that another number of levels is no other program."""

    count: Int[Any, ""] | int
    """Levels; more rows than that are padding."""
    symmetric: Bool[Any, ""] | bool
    """Levels and teacher, about 0."""
    nodes: Nodes
    """On each side of a threshold, for 1e-10 of every average (tests/numerics)."""

    @classmethod
    def of(cls, levels: Float[Any, "points levels"], *, centred: bool) -> Shared:
        """By inspection; `centred` says that the teacher's components have mean 0."""
        gaps, size = np.diff(levels, axis=1), np.abs(levels).max(1, keepdims=True)
        rounding = 8 * np.finfo(levels.dtype).eps * size

        def close(x, y) -> bool:
            return bool((np.abs(x - y) <= rounding).all())

        count = levels.shape[1]
        even, symmetric = close(gaps, gaps.mean(1, keepdims=True)), centred and close(levels, -levels[:, ::-1])
        nodes = default_nodes(count) if not (even and symmetric) else 20 if count <= 8 else 28
        return jax.tree.map(np.asarray, cls(count, symmetric, gauss_legendre(nodes, _MOST)))


def padded(levels: Float[Any, "points levels"]) -> Float[Any, "points padded"]:
    """16 levels, 256, or the next power of 2: programs are made for these numbers alone."""
    count = levels.shape[1]
    size = _FEWEST_LEVELS if count <= _FEWEST_LEVELS else 256 if count <= 256 else 1 << (count - 1).bit_length()
    return np.pad(levels, ((0, 0), (0, size - count)), mode="edge")


class Problems(NamedTuple):
    """A batch in the form the kernel wants it, in units of the signal: points last, components and levels first."""

    alpha: Points
    noise: Points
    ridge: Points
    weight: Float[Any, "components points"]
    mean: Float[Any, "components points"]
    variance: Float[Any, "components points"]
    scale: Float[Any, "components points"] | None
    """Eigenvalue of the features; None where all are 1."""
    levels: Float[Any, "levels points"]
    beta: Points
    unit: Points
    """1, or 0 under the hard constraint of interpolation, where beta is 1."""
    power: Points
    """Mean square of the levels."""
    tasks: Task | None
    """For their channels, in units of the weights, points first; None for the square loss of a regression."""
    signal: Points


def heat_of(xp: Any, betas: Points, signal: Points) -> Points:
    """beta in units of the signal; infinity does not change with it."""
    cold = xp.isinf(betas)
    return xp.where(cold, xp.inf, xp.where(cold, 1.0, betas) * signal)


_HARD_RIDGE = 1e6
"""Ridge times beta, in units of 1/gap², that stands for infinity among interpolating codewords."""


def problems(
    on: Backend,
    tasks: Numbers,
    teacher: Weights,
    levels: Float[Any, "points levels"],
    count: Int[Any, ""] | int,
    betas: Points,
    interpolates: Bool[Any, " points"],
    channels: Task | None = None,
) -> Problems:
    """`teacher`: (points, components).

    In the hard constraint y = x·w of interpolation a ridge, however small, leaves only codewords of least |a|.
    """
    xp, signal = on.xp, tasks.signal
    weight, mean, variance, scale = (x if x is None else x.T for x in teacher)
    levels = levels.T / xp.sqrt(signal)
    gaps = xp.diff(levels, axis=0)
    gap = on.constant(xp.where(gaps > 0, gaps, xp.inf).min(0))
    ridge = xp.where(interpolates & (tasks.ridge > 0), _HARD_RIDGE / gap**2, tasks.ridge)
    return Problems(
        alpha=tasks.alpha,
        noise=tasks.noise / signal,
        ridge=ridge,
        weight=weight,
        mean=mean / xp.sqrt(signal),
        variance=variance / signal,
        scale=scale,
        levels=levels,
        beta=xp.where(interpolates, 1.0, heat_of(xp, betas, signal)),
        unit=xp.asarray(xp.where(interpolates, 0.0, 1.0), levels.dtype),
        power=xp.where(xp.arange(levels.shape[0])[:, None] < count, levels**2, 0.0).sum(0) / count,
        tasks=channels,
        signal=signal,
    )


class Rule(NamedTuple):
    """How averages are taken; `fineness` and `everything` may be traced."""

    on: Backend
    shared: Shared
    centred: bool
    """All components of the teacher have mean 0."""
    crossed: bool = False
    """`Averages.crossed` is asked for."""
    cold: bool = False
    """beta = inf: closed forms."""
    at_once: bool = False
    """All sides, nodes and levels together: for one point inside a transformation."""
    fine: bool = False
    """All nodes from the first step on: for a point alone, to whom they cost nothing."""
    fineness: Array | int = FINEST
    """Of the quadrature: 0 for the first steps, many times cheaper, to `FINEST` for the result."""
    everything: Array | bool = True
    """The usage of the levels too."""

    @property
    def exact(self) -> bool:
        """At every step, whatever the fineness."""
        return self.cold or self.at_once or self.fine

    def __call__(self, book: Levels, curvature, beta, mean, deviation) -> Averages:
        arguments, flags = (book, curvature, beta, mean, deviation), {"centred": self.centred, "on": self.on}
        if self.cold:
            return Averages(hard_staircase_slopes(*arguments, **flags), None, None)
        if self.at_once:
            return soft_averages(*arguments)
        rules = *((gauss_legendre(n, _MOST), error) for n, error in _COARSE), (self.shared.nodes, 1e-16)
        nodes, error = self.on.pick(rules, FINEST if self.fine else self.fineness)
        flags |= {"everything": self.everything, "crossed": self.crossed, "nodes": nodes, "error": error}
        found = rounding_averages(*arguments, **flags)
        return found if self.on is JAX or self.everything else Averages(found.slopes, None, None)


class Sloped(NamedTuple):
    """m, q or chi that the fields lead to, and its derivatives."""

    value: Points
    log_L: Points
    log_t: Points
    ridge: Points
    log_beta: Points
    log_scale: Points
    """Of all levels."""
    gain: Points | None = None


class Equations(NamedTuple):
    residual: tuple[Points, ...]
    """Of (1), or of its like for another channel: an unknown less what the others make of it."""
    jacobian: tuple[tuple[Points, ...], ...]
    """By row: derivatives in the unknowns."""
    m: Sloped
    q: Sloped
    chi: Sloped
    own: tuple[Points, Points, Points]
    """m, q and chi of the weights themselves, where those above are of their predictions."""
    soft: SoftRounding | None
    rounded: Rounded
    heard: Heard | None
    """From the channel; None for the square loss of a regression."""


class Felt(NamedTuple):
    """What weights feel: the curvature, and a field of that mean and deviation."""

    L: Points
    gain: Points | float
    scale: Points | float
    power: Points
    """Of w0 in h/L."""
    noise: Points
    """Of z in h/L."""
    root: Points
    curvature: Points
    mean: Points
    deviation: Points


def fields_of(xp: Any, p: Problems, state: State) -> Felt:
    """By component; h = L (gain lambda w0 + sqrt(t lambda) z)."""
    L, t = xp.exp(state.log_L), xp.exp(state.log_t)
    gain, scale = 1.0 if state.gain is None else state.gain, 1.0 if p.scale is None else p.scale
    power, noise = scale**2 * p.variance, scale * t
    root = xp.sqrt(gain**2 * power + noise)
    return Felt(L, gain, scale, power, noise, root, L * scale + p.ridge, L * gain * scale * p.mean, L * root)


def equations(p: Problems, state: State, rule: Rule) -> Equations:
    """Residual of (1), its Jacobian, and the averages it is made of."""
    xp, total = rule.on.xp, rule.on.total
    L, gain, scale, power, noise, root, curvature, mean, deviation = fields_of(xp, p, state)
    shape, levels = p.mean.shape, p.levels.shape[0]
    arguments = [xp.broadcast_to(x, shape).reshape(-1) for x in (curvature, p.beta, mean, deviation)]
    columns = xp.broadcast_to(p.levels[:, None], (levels, *shape)).reshape(levels, -1)
    slopes, soft, hard, crossed = rule(Levels(columns, rule.shared.count, rule.shared.symmetric), *arguments)

    def along(slope: Slope, degree: int, of_beta: int = 0) -> Sloped:
        """Scaling the levels by s is scaling (h, curvature) by (s, s²) but for a factor s^degree; beta by s, by (s, s)."""
        value, by_mean, by_deviation, by_curvature = (x.reshape(shape) for x in slope)
        field, curve = mean * by_mean + deviation * by_deviation, curvature * by_curvature
        return Sloped(
            value,
            log_L=field + L * scale * by_curvature,
            log_t=L * noise / (2 * root) * by_deviation,
            ridge=by_curvature,
            log_beta=of_beta * value + field + curve,
            log_scale=degree * value + field + 2 * curve,
            gain=None if state.gain is None else L * (scale * p.mean * by_mean + gain * power / root * by_deviation),
        )

    response = along(slopes.response, degree=2, of_beta=1)
    # E w0 <a> = w E<a> + v m_hat chi, by Stein's lemma on each component N(w, v).
    felt = p.variance * L * scale
    overlap = jax.tree.map(lambda x: felt * gain * x, response)
    overlap = overlap._replace(log_L=overlap.log_L + overlap.value)
    if overlap.gain is not None:
        overlap = overlap._replace(gain=overlap.gain + felt * response.value)
    if slopes.mean is not None:
        overlap = jax.tree.map(lambda o, x: o + p.mean * x, overlap, along(slopes.mean, degree=1))
    each = overlap, along(slopes.square, degree=2), response
    seen = p.weight * scale
    m, q, chi = total(seen, each)
    own = m.value, q.value, chi.value
    if p.scale is not None:
        own = total(p.weight, tuple(x.value for x in each))

    if soft is None or hard is None:
        rounded = Rounded(m.value, q.value, chi.value, q.value)
    else:
        bend, usage = soft.response_square, soft.usage
        soft = SoftRounding._make([*total(p.weight, soft[:-1]), _mixed(p.weight, usage)])
        if p.scale is not None:
            soft = soft._replace(response_square=_mixed(seen * scale, bend))  # the only one its replicon asks for
        stein = p.mean * hard.mean.reshape(shape) + felt * gain * hard.response.reshape(shape)
        rounded = Rounded(stein, hard.square, hard.response, hard.square if crossed is None else crossed)
        rounded = total(seen, rounded)
    of_channel = partial(_square, xp) if p.tasks is None else partial(_channel, rule.cold)
    residual, jacobian, said = of_channel(p, state, m, q, chi)
    return Equations(
        residual=residual,
        jacobian=jacobian,
        m=m,
        q=q,
        chi=chi,
        own=own,
        soft=soft,
        rounded=rounded,
        heard=said,
    )


def _square(xp: Any, p: Problems, state: State, m: Sloped, q: Sloped, chi: Sloped):
    """(1), its Jacobian, and nothing."""
    R, spread = 1 - 2 * m.value + q.value + p.noise, p.unit + chi.value
    R_L, R_t = q.log_L - 2 * m.log_L, q.log_t - 2 * m.log_t
    residual = state.log_L + xp.log(spread / p.alpha), state.log_t - xp.log(R / p.alpha)
    return residual, ((1 + chi.log_L / spread, chi.log_t / spread), (-R_L / R, 1 - R_t / R)), None


class Heard(NamedTuple):
    """What a channel makes of m, q and chi; all but the channel itself in units of the signal."""

    channel: Channel
    unknowns: Float[Any, " unknowns"]
    """log L, log t and, unless the channel is matched, gain."""
    slopes: Float[Any, "unknowns 3"] | None
    """Of the unknowns in m, q and chi, if asked for."""
    felt: Float[Any, "unknowns unknowns"] | None = None
    """And in the state itself, where turned axes ask for that."""


Order = tuple[Array, Array, Array]


def heard(task: Task, signal: Array, order: Order, beta: Array | None, state: State, slopes: bool = False) -> Heard:
    """For one point, or for many of a task whose channel takes many; m, q, chi, beta (as of `at_heat`) and the state in units
    of the signal."""
    m, q, chi = order
    raw = None if beta is None else heat_of(backend_of(m).xp, beta, 1 / signal)
    if task.turned and not task.elementwise:
        return _heard_in_turn(task, signal, order, raw, state, slopes)
    # Not bound to the task, which would make a module each time.
    c = type(task).channel(task, signal * m, signal * q, chi, raw)
    count = 2 if task.matched else 3
    found = Heard(c, c.unknowns(signal)[..., :count], None)
    if not slopes:
        return found
    if c.slopes is not None:
        return found._replace(slopes=c.unknown_slopes(signal)[..., :count, :])

    by_order = jax.jacfwd(lambda order: heard(task, signal, order, beta, state).unknowns)(order)
    return found._replace(slopes=jnp.stack(by_order, -1))


def _heard_in_turn(task: Task, signal: Array, order: Order, beta: Array | None, state: State, slopes: bool) -> Heard:
    """For one point; beta in units of the weights."""
    assert isinstance(task, Taught)
    _, q, chi = order
    count = 2 if state.gain is None else 3
    gain = jnp.ones_like(chi) if state.gain is None else state.gain
    c, by = swept(task, signal * q, chi, beta, jnp.stack([state.log_L, state.log_t + jnp.log(signal), gain]), slopes)
    found = Heard(c, c.unknowns(signal)[:count], None)
    if by is None:
        return found
    by_order = jnp.stack([0 * by[:count, 0], signal * by[:count, 0], by[:count, 1]], -1)
    assert c.label is not None
    assert c.label.m_by is not None
    assert c.label.q_by is not None
    label = c.label._replace(m_by=c.label.m_by[: 2 + count], q_by=c.label.q_by[: 2 + count])
    return Heard(c._replace(label=label), found.unknowns, by_order, by[:count, 2 : 2 + count])


def _channel(cold: bool, p: Problems, state: State, m: Sloped, q: Sloped, chi: Sloped):
    """The like of (1) for any channel, its Jacobian by the chain rule, and what the channel said."""
    assert p.tasks is not None
    hear = partial(heard, slopes=True)
    hear = hear if p.tasks.elementwise else jax.vmap(hear)
    said = hear(p.tasks, p.signal, (m.value, q.value, chi.value), at_heat(p.tasks, p.beta, cold), state)
    reached, slopes = said.unknowns, said.slopes
    assert slopes is not None
    names = State._fields[: reached.shape[-1]]

    def entry(row: int, name: str) -> Points:
        own = 1.0 if names[row] == name else 0.0
        own = own if said.felt is None else own - said.felt[:, row, names.index(name)]
        return own - sum(slopes[:, row, k] * getattr(x, name) for k, x in enumerate((m, q, chi)))

    residual = tuple(getattr(state, name) - reached[:, row] for row, name in enumerate(names))
    return residual, tuple(tuple(entry(row, name) for name in names) for row in range(len(names))), said


def _mixed(weight: Float[Any, "components points"], x: Array) -> Array:
    return (weight * x.reshape(*x.shape[:-1], *weight.shape)).sum(-2)


def hard_usage(on: Backend, p: Problems, state: State, count: Int[Any, ""] | int) -> Float[Any, "levels points"]:
    """Probability of each level at beta = inf, between its thresholds."""
    xp, felt = on.xp, fields_of(on.xp, p, state)
    middle = (p.levels[1:] + p.levels[:-1]) / 2
    z = (felt.curvature * middle[:, None] - felt.mean) / felt.deviation
    there = (xp.arange(z.shape[0]) < count - 1)[:, None]
    beyond = xp.where(there, (p.weight * on.erfc(z / np.sqrt(2)) / 2).sum(1), 0.0)
    return xp.concatenate([1 - beyond[:1], beyond[:-1] - beyond[1:], beyond[-1:]])


def newton_step(residual: tuple[Points, ...], jacobian: tuple[tuple[Points, ...], ...]) -> tuple[State, Points]:
    """−J^(-1) residual, and det J, by Cramer's rule."""
    if len(residual) == 2:
        (f, g), ((f_L, f_t), (g_L, g_t)) = residual, jacobian
        determinant = f_L * g_t - f_t * g_L
        return State((f_t * g - g_t * f) / determinant, (g_L * f - f_L * g) / determinant), determinant
    a, b, c = zip(*jacobian, strict=True)
    determinant = _triple(a, b, c)
    each = _triple(residual, b, c), _triple(a, residual, c), _triple(a, b, residual)
    return State(*(-x / determinant for x in each)), determinant


def _triple(a, b, c) -> Points:
    """a · (b × c)."""
    cross = (b[1] * c[2] - b[2] * c[1], b[2] * c[0] - b[0] * c[2], b[0] * c[1] - b[1] * c[0])
    return sum(x * y for x, y in zip(a, cross, strict=True))
