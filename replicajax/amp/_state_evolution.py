"""State evolution: what AMP does at every iteration when N is large. [Q], theory 2

The overlap m_t = w0·a/N, q_t = |a|²/N and V_t of AMP's weights follow the saddle-point map of theory 1.1 without damping,

    (m, q, V)_t → (m_hat, chi_hat, L) → (m, q, V)_{t+1},

whose fixed points are the replica-symmetric solutions.  From different starts it may end at different ones.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Bool, Float, Int

from replicajax import _checks
from replicajax.amp._amp import START
from replicajax.codebooks import Codebook
from replicajax.models import (
    Fields,
    Order,
    Taught,
    fields_from_order,
    weight_averages,
    with_limit,
)
from replicajax.numerics import (
    NUMPY,
    Levels,
    default_nodes,
    gauss_legendre,
    hard_staircase_slopes,
    implicit_root,
    rounding_averages,
)

_OUTSIDE = 400
"""Iterations in NumPy, before it is worth compiling them."""
_NOTHING = 1e-12
"""Mean square of predictions that are none, in units of the signal."""
_SAME = 1e-6
"""Two limits closer than this in every order parameter, relative to its scale, are one."""


class Limit(NamedTuple):
    """Where iteration from one start ends."""

    order: Order
    generalization_error: Float[Array, ""]
    converged: Bool[Array, ""]
    steps: Int[Array, ""]


class StateEvolution(eqx.Module):
    """Entries 0 to `steps` of each trajectory: the start, then one entry per iteration."""

    task: Taught
    codebook: Codebook
    beta: Float[Array, ""]
    overlap: Float[Array, " steps+1"]
    """m."""
    replica_overlap: Float[Array, " steps+1"]
    """q: |a|²/N of AMP's mean weights."""
    susceptibility: Float[Array, " steps+1"]
    """V."""
    generalization_error: Float[Array, " steps+1"]
    """Of AMP's weights, as `Task.error` defines it: signal − 2 m + q of a regression."""
    test_error: Float[Array, " steps+1"]
    """The same with label noise, if labels have it added."""
    limit: Limit
    """From the start asked for."""
    hot: Limit
    """From infinite temperature: m = q = 0, V = beta times the mean squared level."""
    informed: Limit
    """From the teacher itself: m = q = rho, V = 0."""
    unique: Bool[Array, ""]
    """All three limits converged and agree.  Where they do not, AMP finds the one its start leads to, the Gibbs measure
    is dominated by the one of lowest free energy, and `solve` returns one of them."""

    def __str__(self) -> str:
        if np.ndim(self.overlap) > 1:
            unique = np.asarray(self.unique)
            return f"StateEvolution of shape {unique.shape}: {int(unique.sum())} of {unique.size} have one fixed point"
        lines = [f"{self.task}", f"{self.codebook}, beta {self.beta:.6g}", "  iteration      eg             V"]
        eg, V = np.asarray(self.generalization_error), np.asarray(self.susceptibility)
        shown = sorted({*range(min(len(eg), 11)), len(eg) - 1})
        lines += [f"  {t:9d} {eg[t]:14.9f} {V[t]:14.9f}" for t in shown]
        for name, end in (("limit", self.limit), ("from hot", self.hot), ("from teacher", self.informed)):
            state = f"after {int(end.steps)} iterations" if end.converged else "NOT CONVERGED"
            lines.append(f"  {name:<12s} eg {float(end.generalization_error):.9f}   {state}")
        lines.append("one fixed point" if self.unique else "SEVERAL FIXED POINTS, or none reached: the start decides")
        return "\n".join(lines)


def state_evolution(
    task: Taught,
    codebook: Codebook,
    beta: ArrayLike,
    steps: int = 30,
    *,
    start: str | Order = "uninformed",
    max_steps: int = 20_000,
) -> StateEvolution:
    """AMP's errors at every iteration, and the fixed points they may end at; for any loss at finite beta.

    Order parameters are those of the predictions where features are correlated, in aligned axes (VAMP's business else).

    Differentiable in the task, the levels and beta: trajectories through their iterations, limits by the implicit function
    theorem.

    Args:
      task, codebook: the learning problem and the levels.
      beta: inverse temperature, > 0; may be inf.
      steps: iterations recorded.
      start: "uninformed" is `amp`'s own (m = q = 0, V = 1), "informed" is the teacher (m = q = rho, V = 0; rho
        is the mean square of x·w0, `signal` for iid features), or any
        `rj.models.Order(m, q, chi)` with m² <= rho q.
      max_steps: iterations after which a limit is given up as not converged.

    Raises:
      TypeError, ValueError: bad arguments.  Failure to converge raises nothing.
    """
    _checks.instance("task", task, Taught, "LinearRegression(alpha=2.0)")
    _checks.instance("codebook", codebook, Codebook, "uniform(bits=2, width=1.5)")
    beta = _checks.positive("beta", beta, infinite=True)
    with_limit(task, beta)
    if task.turned:
        raise ValueError(f'task must have iid features or axes="aligned" for AMP\'s state evolution, got {task}')
    if beta.ndim:
        raise ValueError(f"beta must be a single number (use jax.vmap for many), got shape {beta.shape}")
    steps, max_steps = _checks.integer("steps", steps, 1, 10**6), _checks.integer("max_steps", max_steps, 1, 10**9)
    if isinstance(start, str):
        _checks.choice("start", start, ["uninformed", "informed"])
        s = task.rho
        start = Order(0 * s, 0 * s, 0 * s + START) if start == "uninformed" else Order(s, s, 0 * s)
    else:
        _checks.instance("start", start, Order, "rj.models.Order(m=0.0, q=0.0, chi=1.0)")
        m, q, chi = (
            _checks.real("start.m", start.m),
            *(_checks.nonnegative(f"start.{n}", getattr(start, n)) for n in ("q", "chi")),
        )
        if not _checks.is_traced((m, q, task.rho)) and m**2 > task.rho * q * (1 + 1e-6):
            raise ValueError(f"start must have m² at most rho·q, got m = {float(m):.6g}, q = {float(q):.6g}")
        start = Order(m, q, chi)
    if _checks.is_traced((task, codebook, beta, start)):
        return _state_evolution(task, codebook, beta, start, steps, max_steps)
    return _outside(task, codebook, beta, start, steps, max_steps)


@eqx.filter_jit
def _state_evolution(task, book, beta, start: Order, steps: int, max_steps: int) -> StateEvolution:
    """Inside a transformation."""
    starts, beta = _starts(jnp, task, book, beta, start)

    def advance(y, _):
        y = next_order(y, task, book, beta)
        return y, y

    _, path = jax.lax.scan(advance, starts[0], None, length=steps)
    ends, (converged, used) = jax.vmap(
        lambda y: implicit_root(_iterate, _condition, (task, book, beta, jax.lax.stop_gradient(y), max_steps))
    )(starts)
    path = jnp.concatenate([starts[:1], path])
    return _report(jnp, task, book, beta, path, ends, converged, used)


def _outside(task, book, beta, start: Order, steps: int, max_steps: int) -> StateEvolution:
    """With numbers at hand: NumPy, then JAX from where it got, should that be slow to converge."""
    known = jax.tree.map(lambda x: np.asarray(x, np.float64), (task, book, beta, start))
    starts, heat = _starts(np, *known)
    advance = _map(known[0], known[1], heat, starts.shape[0])
    path, ends = [starts[0]], starts
    change, used = np.full(starts.shape[0], np.inf), np.zeros(starts.shape[0], int)
    tolerance = _still(starts.dtype)
    for t in range(max(steps, min(max_steps, _OUTSIDE))):
        # The first start goes on as long as its iterations are wanted; the others, and all limits, stop where they end.
        new = advance(np.concatenate([path[-1:], ends]))
        if t < steps:
            path.append(new[0])
        moves = (change > tolerance) & (t < max_steps)
        if not moves.any() and t >= steps:
            break
        change = np.where(moves, _change(np, known[0], new[1:], ends), change)
        ends, used = np.where(moves[:, None], new[1:], ends), used + moves
    slow = (change > tolerance) & (used < max_steps)
    for i in np.flatnonzero(slow):
        with jax.enable_x64(True):
            y, (ok, more) = _iterate_on(known[:3], jnp.asarray(ends[i]), max_steps - int(used[i]))
        ends[i], change[i], used[i] = np.asarray(y), 0.0 if ok else np.inf, used[i] + int(more)
    found = _report(np, known[0], known[1], heat, np.array(path), ends, change <= tolerance, used)
    dtype = jnp.result_type(*jax.tree.leaves((task, book, beta)))
    found = jax.tree.map(lambda x: jnp.asarray(x, dtype if np.asarray(x).dtype.kind == "f" else None), found)
    return eqx.tree_at(lambda s: (s.task, s.codebook), found, (task, book))


def _starts(xp: Any, task, book, beta, start: Order):
    """(3, 3): the start asked for, infinite temperature, the teacher; and beta in the same dtype."""
    dtype = xp.result_type(*(x.dtype for x in jax.tree.leaves((task, book, beta))))
    one = xp.ones((), dtype)
    hottest = xp.where(xp.isinf(beta), START, xp.where(xp.isinf(beta), 1.0, beta) * xp.mean(book.levels**2))
    rows = start, (0 * one, 0 * one, hottest), (task.rho, task.rho, 0 * one)
    return xp.stack([xp.stack([xp.asarray(x, dtype) for x in row]) for row in rows]), xp.asarray(beta, dtype)


@eqx.filter_jit
def _error_each(task: Taught, m: Float[Array, " n"], q: Float[Array, " n"]) -> Float[Array, " n"]:
    return jax.vmap(task.error)(m, q)


def _report(xp: Any, task, book, beta, path, ends, converged, used) -> StateEvolution:
    order = Order(*ends.T)

    def errors(m, q):
        if task.closed:
            return task.error(m, q)
        return _error_each(task, m, xp.maximum(q, _NOTHING * task.signal))

    error = errors(order.m, order.q)
    limits = [jax.tree.map(lambda x, i=i: x[i], Limit(order, error, converged, used)) for i in range(3)]
    one = xp.ones_like(ends[0, 0])
    apart = xp.abs(ends - ends[0]) / xp.stack([one * task.signal, one * task.signal, 1 + ends[0, 2]])
    tolerance = max(_SAME, float(np.finfo(ends.dtype).eps) ** 0.5)
    m, q, V = path.T
    eg = errors(m, q)
    fresh = eg + task.noise if task.adds_noise else eg
    return StateEvolution(
        task, book, beta, m, q, V, eg, fresh, *limits, unique=converged.all() & (apart < tolerance).all()
    )


def _map(task, book, beta, starts: int):
    """(m, q, V) to (m, q, V) of theory 2 for one more than so many starts at once, in NumPy."""
    with jax.enable_x64(True):
        law = _mixture(task)
    weight, w, v = (np.asarray(x)[:, None] for x in law[:3])
    scale = np.ones_like(weight) if law.scale is None else np.asarray(law.scale)[:, None]
    fields = weight.size * (starts + 1)
    levels = Levels(np.repeat(book.levels[:, None], fields, 1), len(book), False)
    nodes = gauss_legendre(default_nodes(len(book)))

    def fields_of(y: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        if not task.closed:
            with jax.enable_x64(True):
                m_hat, chi_hat, L = (np.asarray(x) for x in _heard(task, y, beta))
            return m_hat, chi_hat, L
        m, q, V = y.T
        L = task.alpha / (1 + V)
        # A variance: cancellation must not make it negative (the teacher itself, without noise, has 0).
        chi_hat = np.maximum(task.alpha * task.residual_variance(m, q) / (1 + V) ** 2, np.finfo(float).tiny ** 0.5)
        return L, chi_hat, L

    def advance(y: np.ndarray) -> np.ndarray:
        m_hat, chi_hat, L = fields_of(y)
        shape = weight.shape[0], m_hat.size
        m_hat = m_hat * scale
        deviation = np.sqrt(m_hat**2 * v + chi_hat * scale)
        each = L * scale + task.ridge, beta, m_hat * w, deviation
        columns = (np.broadcast_to(x, shape).reshape(-1) for x in each)
        with np.errstate(all="ignore"):
            if np.isinf(beta):
                slopes = hard_staircase_slopes(levels, *columns, on=NUMPY)
            else:
                slopes = rounding_averages(levels, *columns, nodes=nodes, everything=False, on=NUMPY).slopes
        assert slopes.mean is not None
        three = slopes.mean, slopes.square, slopes.response
        mean, square, response = (np.reshape(x.value, shape) for x in three)
        overlap = w * mean + v * m_hat * response
        return np.stack([(weight * scale * x).sum(0) for x in (overlap, square, response)], 1)

    return advance


@eqx.filter_jit
def _mixture(task):
    return task.weights()


@eqx.filter_jit
def _heard(task, y: Float[Any, "starts 3"], beta) -> Fields:
    return jax.vmap(lambda y: fields_from_order(task, _apart(task, y), beta))(y)


def _apart(task, y: Float[Array, "3"]) -> Order:
    """Off the edges, where the quadrature of a channel has no nodes: no prediction at all, and no spread of it."""
    m, q, V = y
    if task.closed:
        return Order(m, q, V)
    return Order(m, jnp.maximum(q, _NOTHING * task.signal), jnp.maximum(V, 1e-9))


def next_order(y: Float[Array, "3"], task: Taught, book: Codebook, beta) -> Float[Array, "3"]:
    """One iteration of (m, q, V)."""
    fields = fields_from_order(task, _apart(task, y), beta)
    # chi_hat is a variance: cancellation must not make it negative (the teacher itself, without noise, has 0).
    floor = jnp.finfo(y.dtype).tiny ** 0.5
    fields = fields._replace(chi_hat=jnp.maximum(fields.chi_hat, floor))
    return jnp.stack(weight_averages(task, book, fields, beta).label)


def _condition(y, found, inputs):
    del found
    task, book, beta, _, _ = inputs
    return next_order(y, task, book, beta) - y


def _still(dtype) -> float:
    """Change at which the order parameters stand still: a few ulp."""
    return 8 * float(np.finfo(dtype).eps)


def _change(xp: Any, task, new, old):
    """Largest change of an order parameter, relative to its scale."""
    scale = xp.stack([task.signal + 0 * old[..., 0], task.signal + 0 * old[..., 0], 1 + old[..., 2]], -1)
    return xp.max(xp.abs(new - old) / scale, axis=-1)


def _iterate(inputs):
    """Plain iteration until the order parameters stand still."""
    task, book, beta, start, max_steps = inputs
    tolerance = _still(start.dtype)

    def going(carry):
        _, change, t = carry
        return (t < max_steps) & (change > tolerance)

    def step(carry):
        y, _, t = carry
        new = next_order(y, task, book, beta)
        return new, _change(jnp, task, new, y), t + 1

    y, change, t = jax.lax.while_loop(going, step, (start, jnp.full_like(start[0], jnp.inf), jnp.array(0)))
    return y, (change <= tolerance, t)


@eqx.filter_jit
def _iterate_on(problem, start, max_steps):
    return _iterate((*problem, start, max_steps))
