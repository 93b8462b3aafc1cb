"""Exact risk of one-pass SGD with quantizers at its five sites (theory 5.2, [S]).

    noise = E (ỹ − ã)² ũũᵀ, from `_moments`;    g = c − G̃ Qp(v), the mean gradient;    batch B
    C <- C − step (G̃C + CG̃) + step² [ noise/B + (1 − 1/B) E g gᵀ ],     mu <- (I − step G̃) mu
    risk = noise variance + approximation + tr( G E (v − v*)(v − v*)ᵀ )

C = E (v − v°)(v − v°)ᵀ, mu = E v − v°.  With E v − v* = (v° − v*) + mu the last term is

    quantization  (v° − v*)ᵀ G (v° − v*)    what the errors leave when SGD has converged, on average
    bias          muᵀ G mu + 2 muᵀ G (v° − v*)    what is left of the start; may be negative
    variance      tr G (C − mu muᵀ).
"""

from __future__ import annotations

from typing import final

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Bool, Float

from replicajax import _checks
from replicajax.numerics import bisect
from replicajax.scaling._moments import Diagonal, Full, Moments, closes_on_the_diagonal, moments_of
from replicajax.scaling._precision import Precision
from replicajax.scaling._problem import Regression
from replicajax.scaling._schedule import IN_STAGES, Schedule, stages, step_factors
from replicajax.scaling._stages import FEW, AffineMap, State, Sums, advance

METHODS = ("auto", "stages", "scan")


@final
class SGDRisk(eqx.Module):
    """Risk after the last step and its parts: total = noise + approximation + quantization + bias + variance.

    Attributes:
      total: E (y − u·v)², noise included; inf beyond the stability limit.
      excess: total less noise.
      floor: E ỹ² − v°ᵀG̃v°, the variance that the quantized regression cannot explain.
      stable: whether the second moment stays bounded at every step size used.
      step_limit: the step size where that ends.
    """

    total: Float[Array, "..."]
    excess: Float[Array, "..."]
    approximation: Float[Array, "..."]
    quantization: Float[Array, "..."]
    bias: Float[Array, "..."]
    variance: Float[Array, "..."]
    floor: Float[Array, "..."]
    stable: Bool[Array, "..."]
    step_limit: Float[Array, "..."]

    def __str__(self) -> str:
        names = ("total", "excess", "approximation", "quantization", "bias", "variance", "floor", "step_limit")
        rows = [f"{name:15s}{float(getattr(self, name)):.9g}" for name in names]
        return "\n".join([*rows, f"{'stable':15s}{bool(self.stable)}"])


def sgd_risk(
    problem: Regression,
    precision: Precision,
    steps: ArrayLike,
    step_size: ArrayLike,
    schedule: Schedule = "geometric",
    *,
    batch: ArrayLike = 1.0,
    average: float = 0.0,
    method: str = "auto",
) -> SGDRisk:
    """Risk of one-pass SGD from v = 0.

    Args:
      steps: N >= 1.  An int follows the schedule to the letter; a float or a traced number relaxes stages to equal real
        lengths, so that N has a derivative.
      step_size: of the first step; `step_limit` is where it becomes unstable.
      schedule: "geometric", "constant", "cosine", "linear", N factors, or a function of t/N.
      batch: samples a step, >= 1.
      average: the risk of the mean over this fraction of the iterates, the last ones; 0 is the last iterate.
      method: "stages", stages of constant step at once, whose cost hardly grows with N: "geometric" and "constant", in
        features that are their own eigenvectors or with noise that is not elementwise.  It wants step · G̃ <= 1 throughout
        (only batches can be stable beyond) and counts that as the limit.  "scan", step by step: O(M) where it closes on the
        diagonal, O(M³) otherwise.  "auto", stages where they can be.

    Raises:
      TypeError, ValueError: not a problem or precision; steps below 1, step_size not positive, batch below 1, an average
        outside [0, 1); "stages" where it does not apply; "scan" of more than 10^7 steps or of a relaxed number.

    Source: theory 5.2, [S]; the fourth moments of multiplicative and elementwise noise are those of `_moments`.
    """
    _checks.instance("problem", problem, Regression, "scaling.power_law(100, 1.5)")
    _checks.instance("precision", precision, Precision, "scaling.Precision('additive', data=0.01)")
    step, size = _checks.scalar("step_size", step_size), _checks.scalar("batch", batch)
    if not _checks.is_traced(size) and float(size) < 1:
        raise ValueError(f"batch must be at least 1, got {batch!r}")
    _checks.fraction("average", average)
    whole = np.asarray(isinstance(steps, (int, np.integer)) and not isinstance(steps, bool))
    number = _checks.scalar("steps", steps)
    if not _checks.is_traced(number) and float(number) < 1:
        raise ValueError(f"steps must be at least 1, got {steps!r}")
    diagonal = closes_on_the_diagonal(problem, precision)
    named = isinstance(schedule, str) and schedule in IN_STAGES
    if _checks.choice("method", method, METHODS) == "auto":
        method = "stages" if named and diagonal else "scan"
        if whole and int(steps) <= 10**7 and _overshoots(problem, precision, step, size):  # type: ignore[arg-type]
            method = "scan"
    if method == "stages":
        if not named:
            raise ValueError(f"method 'stages' needs schedule 'geometric' or 'constant', got {schedule!r}")
        return risk_in_stages(problem, precision, number, step, size, whole, float(average), str(schedule))
    if not whole or int(steps) > 10**7:  # type: ignore[arg-type]
        raise ValueError(f"steps must be a whole number up to 10^7 to go step by step, got {steps!r}")
    last = int(np.ceil(average * int(steps)))  # type: ignore[arg-type]
    moments = moments_of(problem, precision)
    return _by_scan(problem, precision, moments, step_factors(schedule, int(steps)), step, size, last)  # type: ignore[arg-type]


def risk_in_stages(
    problem: Regression,
    precision: Precision,
    steps: Array,
    step_size: Array,
    batch: Array,
    whole: ArrayLike,
    average: float = 0.0,
    schedule: str = "geometric",
) -> SGDRisk:
    """`sgd_risk` in stages; `whole`, which may be traced, says whether they follow the schedule to the letter."""
    if not closes_on_the_diagonal(problem, precision):
        raise ValueError("method 'stages' needs noise that commutes with G: elementwise noise in a basis does not")
    return _by_stages(problem, precision, steps, step_size, batch, average, schedule, whole)


def _overshoots(problem: Regression, precision: Precision, step: Array, batch: Array) -> bool:
    """Whether step · G̃ > 1 somewhere, as far as is known: stable in large batches only."""
    if _checks.is_traced((problem, precision, step, batch)) or float(batch) == 1:
        return False
    largest, eps = float(np.max(problem.eigenvalues)), float(precision.data)
    return float(step) * (largest + eps if precision.kind == "additive" else (1 + eps) * largest) > 1


def _gains(precision: Precision) -> tuple[Array, Array, Array]:
    """By which the second moments of Qo's, Qa's and Qp's arguments grow."""
    if precision.kind == "additive":
        return jnp.ones(()), jnp.ones(()), jnp.ones(())
    return 1 + precision.output, 1 + precision.activation, 1 + precision.parameter


def _parameter_noise(moments: Moments, precision: Precision, W):
    """Kp."""
    if precision.kind == "additive":
        return precision.parameter * moments.one
    return precision.parameter * (moments.elementwise(W) if precision.kind == "elementwise" else W)


def _gradient_noise(moments: Moments, precision: Precision, C, mu):
    """E (ỹ − ã)² ũũᵀ, and E (g gᵀ)."""
    v = moments.limit
    W = C + 2 * moments.outer(v, mu) + moments.outer(v, v)
    Kp = _parameter_noise(moments, precision, W)
    output, activation, _ = _gains(precision)
    additive = precision.kind == "additive"
    noise = activation * moments.fourth(W + Kp) - 2 * moments.third(v + mu)
    noise += moments.labels * (1.0 if additive else 1 + precision.label)
    if additive:
        noise += (precision.label + precision.activation + precision.output) * moments.times(moments.one)
    return output * noise, moments.both_sides(C + Kp)


def _step(moments: Moments, precision: Precision, step, batch, state: State) -> State:
    """One step of SGD; sums, where there are any, take its result in."""
    C, mu, sums = state
    noise, gradient = _gradient_noise(moments, precision, C, mu)
    C = C - step * moments.twice(moments.times(C)) + step**2 * (noise / batch + (1 - 1 / batch) * gradient)
    mu = mu - step * moments.times(mu)
    if sums is not None:
        carried = sums.last - step * moments.times_right(sums.last)
        sums = Sums(sums.mean + mu, carried + C, sums.square + moments.twice(carried) + C)
    return State(C, mu, sums)


def _affine_map(moments: Diagonal, precision: Precision, step, batch) -> AffineMap:
    zero = jnp.zeros_like(moments.c)
    output, activation, parameter = _gains(precision)
    single, mean = step**2 / batch, step**2 * (1 - 1 / batch)
    noise, gradient = _gradient_noise(moments, precision, zero, zero)
    fourth = single * output * activation * parameter
    both = moments.both_sides(moments.one)
    h = 2 * moments.limit * (fourth * moments.square + mean * both * (parameter - 1))
    return AffineMap(
        delta=2 * step * moments.covariance - fourth * moments.square - mean * parameter * both,
        b=fourth * moments.trace,
        own=moments.count * moments.own,
        h=h - 2 * single * output * moments.cross,
        h_trace=-2 * single * output * moments.cross_trace,
        k=moments.count * moments.c,
        k_square=2 * moments.count * moments.own * moments.limit,
        e=single * noise + mean * gradient,
        decay=step * moments.covariance,
    )


def _is_stable(moments: Diagonal, precision: Precision, step, batch):
    """Largest eigenvalue of diag(1 − delta) + b ownᵀ below 1."""
    one = _affine_map(moments, precision, step, batch)
    return (one.delta > 0).all() & (one.own @ (one.b / jnp.where(one.delta > 0, one.delta, 1.0)) < 1)


def _step_limit(moments: Diagonal, precision: Precision, batch) -> Array:
    """sum own b/delta = 1, by bisection in log step and a Newton step that carries the derivative."""

    def excess(log_step):
        one = _affine_map(moments, precision, jnp.exp(log_step), batch)
        return jnp.log(one.own @ (one.b / one.delta))

    frozen = jax.lax.stop_gradient((moments, precision, batch))
    high = jnp.log(2 / frozen[0].covariance.max())
    low, _ = bisect(lambda x: _is_stable(*frozen[:2], jnp.exp(x), frozen[2]), high - 40.0, high, 60)
    slope = jax.lax.stop_gradient(jax.grad(excess)(low))
    return jnp.exp(low - jnp.where(jnp.isfinite(slope) & (slope > 0), excess(low) / slope, 0.0))


@eqx.filter_jit
def step_limit(problem: Regression, precision: Precision, batch: ArrayLike = 1.0) -> Float[Array, ""]:
    """Step size from which the second moment of SGD grows without bound; of noise that closes on the diagonal.

    Elementwise noise in a basis is taken as if features were their own eigenvectors.
    """
    return _step_limit(Diagonal(problem, precision), precision, jnp.asarray(batch, float))


@eqx.filter_jit
def _by_stages(problem, precision, steps, step_size, batch, average: float, schedule: str, whole) -> SGDRisk:
    moments = Diagonal(problem, precision)
    lengths, sizes = stages(schedule, steps, whole)
    tail = jnp.where(whole, jnp.ceil(average * steps), average * steps)
    ends = jnp.cumsum(lengths)
    before = jnp.clip(steps - tail - (ends - lengths), 0, lengths) if average else lengths
    zero = jnp.zeros_like(moments.c)

    def go(state: State, n, factor, averaging: bool) -> State:
        """n steps; sums are left alone unless they are what is averaged."""
        kept, state = state.sums, state if averaging else State(state.C, state.mu, None)

        def many(state: State) -> State:
            return advance(state, _affine_map(moments, precision, step_size * factor, batch), jnp.maximum(n, FEW))

        def few(state: State) -> State:
            def one(t, s):
                new = _step(moments, precision, step_size * factor, batch, s)
                return jax.tree.map(lambda new, old: jnp.where(t < n, new, old), new, s)

            return jax.lax.fori_loop(0, FEW, one, state)

        moved = jax.lax.cond(n >= FEW, many, few, state)
        return moved if averaging else State(moved.C, moved.mu, kept)

    def stage(state: State, each):
        n, first, factor = each
        state = jax.lax.cond(first > 0, lambda s: go(s, first, factor, False), lambda s: s, state)
        if average:
            state = jax.lax.cond(n > first, lambda s: go(s, n - first, factor, True), lambda s: s, state)
        return state, None

    start = State(moments.limit**2, -moments.limit, Sums(zero, zero, zero) if average else None)
    state, _ = jax.lax.scan(stage, start, (lengths, before, sizes))
    limit = jnp.minimum(_step_limit(moments, precision, batch), 1 / moments.covariance.max())
    return _result(problem, precision, moments, state, tail, limit, step_size < limit)


@eqx.filter_jit
def _by_scan(problem, precision, moments: Moments, each, step_size, batch, tail: int) -> SGDRisk:
    C = moments.outer(moments.limit, moments.limit)
    zero = jnp.zeros_like(moments.limit), jnp.zeros_like(C), jnp.zeros_like(C)
    start = State(C, -moments.limit, Sums(*zero) if tail else None)
    steps = each.size

    def one(state: State, at):
        t, factor = at
        new = _step(moments, precision, step_size * factor, batch, state)
        sums = jax.tree.map(lambda new, old: jnp.where(t >= steps - tail, new, old), new.sums, state.sums)
        return State(new.C, new.mu, sums), None

    # Kept once in every so many steps, the rest computed again for a derivative.
    piece = int(np.ceil(np.sqrt(steps)))
    whole = steps // piece * piece
    times = jnp.arange(steps)

    def pieces(carry, at):
        return jax.checkpoint(lambda c, a: jax.lax.scan(one, c, a))(carry, at)

    state, _ = jax.lax.scan(pieces, start, (times[:whole].reshape(-1, piece), each[:whole].reshape(-1, piece)))
    state, _ = jax.lax.scan(one, state, (times[whole:], each[whole:]))
    if isinstance(moments, Diagonal):
        limit = _step_limit(moments, precision, batch)
        stable = _is_stable(moments, precision, step_size * each.max(), batch)
    else:
        stable, limit = _full_stability(moments, precision, step_size * each.max(), batch)
    return _result(problem, precision, moments, state, tail, limit, stable)


def _growth(moments: Full, precision: Precision, step, batch):
    """Largest eigenvalue of C's homogeneous map, by 200 steps of the power method on positive matrices."""

    def forward(C):
        return _step(moments, precision, step, batch, State(C, jnp.zeros_like(moments.c), None)).C

    nothing = forward(jnp.zeros_like(moments.covariance))

    def iterate(_, carry):
        C, _ = carry
        new = forward(C) - nothing
        size = jnp.trace(new)
        return (new + new.T) / (2 * size), size  # the map is for symmetric matrices: rounding must not lead out of them

    start = moments.one / moments.c.size
    return jax.lax.fori_loop(0, 200, iterate, (start, jnp.ones(())))[1]


def _full_stability(moments: Full, precision: Precision, step, batch):
    high = jnp.log(2 / jnp.trace(moments.covariance) * moments.c.size)
    low, _ = bisect(lambda x: _growth(moments, precision, jnp.exp(x), batch) < 1, high - 12.0, high, 24)
    limit = jax.lax.stop_gradient(jnp.exp(low))
    return step < limit, limit


def _result(problem, precision, moments: Moments, state: State, tail, limit, stable) -> SGDRisk:
    C, mu, sums = state
    shift = moments.limit - moments.target
    if sums is not None:
        C, mu = sums.square / tail**2, sums.mean / tail
    bias = moments.error(moments.outer(mu, mu) + 2 * moments.outer(mu, shift))
    quantization = moments.error(moments.outer(shift, shift))
    variance = moments.error(C - moments.outer(mu, mu))
    label_square = problem.signal + problem.residual
    label_square = label_square + precision.label * (1.0 if precision.kind == "additive" else label_square)
    excess = problem.approximation + quantization + bias + variance

    def unless_unstable(x):
        return jnp.where(stable, x, jnp.inf)

    return SGDRisk(
        total=unless_unstable(problem.noise + excess),
        excess=unless_unstable(excess),
        approximation=problem.approximation,
        quantization=quantization,
        bias=bias,
        variance=unless_unstable(variance),
        floor=label_square - moments.label_square,
        stable=stable,
        step_limit=limit,
    )
