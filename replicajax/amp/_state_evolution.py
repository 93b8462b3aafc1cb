"""State evolution: what AMP does at every iteration when N is large. [Q], theory 2

The overlap m_t = w0·a/N, q_t = |a|²/N and V_t of AMP's weights follow the saddle-point map of theory 1.1 without damping,

    (m, q, V)_t → (m_hat, chi_hat, L) → (m, q, V)_{t+1},

whose fixed points are the replica-symmetric solutions.  From different starts it may end at different ones.
"""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Bool, Float, Int

from replicajax import _checks
from replicajax.amp._amp import START
from replicajax.codebooks import Codebook
from replicajax.models import LinearRegression, Order, fields_from_order, order_from_averages, weight_averages
from replicajax.numerics import implicit_root

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

    task: LinearRegression
    codebook: Codebook
    beta: Float[Array, ""]
    overlap: Float[Array, " steps+1"]
    """m."""
    replica_overlap: Float[Array, " steps+1"]
    """q: |a|²/N of AMP's mean weights."""
    susceptibility: Float[Array, " steps+1"]
    """V."""
    generalization_error: Float[Array, " steps+1"]
    """signal − 2 m + q: mean squared error of AMP's weights."""
    test_error: Float[Array, " steps+1"]
    """The same with label noise."""
    limit: Limit
    """From the start asked for."""
    hot: Limit
    """From infinite temperature: m = q = 0, V = beta times the mean squared level."""
    informed: Limit
    """From the teacher itself: m = q = signal, V = 0."""
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
    task: LinearRegression,
    codebook: Codebook,
    beta: ArrayLike,
    steps: int = 30,
    *,
    start: str | Order = "uninformed",
    max_steps: int = 20_000,
) -> StateEvolution:
    """AMP's errors at every iteration, and the fixed points they may end at.

    Differentiable in the task, the levels and beta: trajectories through their iterations, limits by the implicit function
    theorem.

    Args:
      task, codebook: the learning problem and the levels.
      beta: inverse temperature, > 0; may be inf.
      steps: iterations recorded.
      start: "uninformed" is `amp`'s own (m = q = 0, V = 1), "informed" is the teacher (m = q = signal, V = 0), or any
        `rj.models.Order(m, q, chi)` with m² <= signal q.
      max_steps: iterations after which a limit is given up as not converged.

    Raises:
      TypeError, ValueError: bad arguments.  Failure to converge raises nothing.
    """
    _checks.instance("task", task, LinearRegression, "LinearRegression(alpha=2.0)")
    _checks.instance("codebook", codebook, Codebook, "uniform(bits=2, width=1.5)")
    beta = _checks.positive("beta", beta, infinite=True)
    if beta.ndim:
        raise ValueError(f"beta must be a single number (use jax.vmap for many), got shape {beta.shape}")
    steps, max_steps = _checks.integer("steps", steps, 1, 10**6), _checks.integer("max_steps", max_steps, 1, 10**9)
    if isinstance(start, str):
        _checks.choice("start", start, ["uninformed", "informed"])
        s = task.signal
        start = Order(0 * s, 0 * s, 0 * s + START) if start == "uninformed" else Order(s, s, 0 * s)
    else:
        _checks.instance("start", start, Order, "rj.models.Order(m=0.0, q=0.0, chi=1.0)")
        m, q, chi = (
            _checks.real("start.m", start.m),
            *(_checks.nonnegative(f"start.{n}", getattr(start, n)) for n in ("q", "chi")),
        )
        if not _checks.is_traced((m, q, task.signal)) and m**2 > task.signal * q * (1 + 1e-6):
            raise ValueError(f"start must have m² at most signal·q, got m = {float(m):.6g}, q = {float(q):.6g}")
        start = Order(m, q, chi)
    return _state_evolution(task, codebook, beta, start, steps, max_steps)


@eqx.filter_jit
def _state_evolution(task, book, beta, start: Order, steps: int, max_steps: int) -> StateEvolution:
    dtype = jnp.result_type(task.alpha, task.signal, task.noise, task.ridge, book.levels, beta)
    beta, signal = beta.astype(dtype), task.signal.astype(dtype)
    first = jnp.stack([jnp.asarray(x, dtype) for x in start])
    one = jnp.ones((), dtype)
    hottest = jnp.where(jnp.isinf(beta), START, beta * jnp.mean(book.levels**2))
    starts = jnp.stack([first, jnp.stack([0 * one, 0 * one, hottest]), jnp.stack([signal, signal, 0 * one])])

    def advance(y, _):
        y = next_order(y, task, book, beta)
        return y, y

    _, path = jax.lax.scan(advance, first, None, length=steps)
    m, q, V = jnp.concatenate([first[None], path]).T

    ends, (converged, used) = jax.vmap(
        lambda y: implicit_root(_iterate, _condition, (task, book, beta, jax.lax.stop_gradient(y), max_steps))
    )(starts)
    order = Order(*ends.T)
    error = task.residual_variance(order.m, order.q) - task.noise
    limits = [jax.tree.map(lambda x, i=i: x[i], Limit(order, error, converged, used)) for i in range(3)]
    apart = jnp.abs(ends - ends[0]) / jnp.stack([signal, signal, 1 + ends[0, 2]])
    tolerance = max(_SAME, float(jnp.finfo(dtype).eps) ** 0.5)
    R = task.residual_variance(m, q)
    return StateEvolution(
        task, book, beta, m, q, V, R - task.noise, R, *limits, unique=converged.all() & (apart < tolerance).all()
    )


def next_order(y: Float[Array, "3"], task: LinearRegression, book: Codebook, beta) -> Float[Array, "3"]:
    """One iteration of (m, q, V)."""
    fields = fields_from_order(task, Order(*y), beta)
    # chi_hat is a variance: cancellation must not make it negative (the teacher itself, without noise, has 0).
    floor = jnp.finfo(y.dtype).tiny ** 0.5
    fields = fields._replace(chi_hat=jnp.maximum(fields.chi_hat, floor))
    return jnp.stack(order_from_averages(weight_averages(task, book, fields, beta)))


def _condition(y, found, inputs):
    del found
    task, book, beta, _, _ = inputs
    return next_order(y, task, book, beta) - y


def _iterate(inputs):
    """Plain iteration until the order parameters stand still to a few ulp."""
    task, book, beta, start, max_steps = inputs
    tolerance = 8 * jnp.finfo(start.dtype).eps

    def going(carry):
        _, change, t = carry
        return (t < max_steps) & (change > tolerance)

    def step(carry):
        y, _, t = carry
        new = next_order(y, task, book, beta)
        scale = jnp.stack([task.signal, task.signal, 1 + y[2]])
        return new, jnp.max(jnp.abs(new - y) / scale), t + 1

    y, change, t = jax.lax.while_loop(going, step, (start, jnp.full_like(start[0], jnp.inf), jnp.array(0)))
    return y, (change <= tolerance, t)
