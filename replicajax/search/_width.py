"""The quantization width that minimises the generalisation error, by gradients through the saddle point.

eg(width) may be flat, may have several minima and may fall towards an end of any range, so a scan over the whole range
comes first; a bracketed secant method on d eg/d log width then refines every minimum it saw, and the lowest wins.  With
`require_stable` the limits of the stable phase, replicon = 0, compete as well.  The winner is differentiated through the
equation it solves: d eg/d log width = 0, or replicon = 0.
"""

from functools import partial
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Bool, Float, Int

from replicajax import _checks
from replicajax.codebooks import uniform
from replicajax.models import LinearRegression
from replicajax.numerics import implicit_root
from replicajax.replica import Solution, solve

_RANGE = (0.03, 12.0)
"""Widths searched, in units of the teacher's standard deviation."""
_SCAN = 49
_REFINED = 3
"""How many of the lowest minima, and of the lowest limits of stability, are refined."""
_ITERATIONS = 60


class OptimalWidth(eqx.Module):
    """The best width and what the theory says there. Differentiable in the task and beta (implicitly)."""

    width: Float[Array, ""]
    """NaN where `require_stable` was asked and no width in the range is stable."""
    generalization_error: Float[Array, ""]
    solution: Solution
    minima: Int[Array, ""]
    """Local minima of eg(width) that the scan saw (stable ones only, if those were asked for)."""
    at_edge: Bool[Array, ""]
    """The best width is an end of the range: eg is still falling there."""
    at_stability_limit: Bool[Array, ""]
    """The best stable width is where the replicon vanishes."""
    converged: Bool[Array, ""]

    def __str__(self) -> str:
        if not self.converged:
            return "no width found: " + (
                "none in the searched range is stable" if jnp.isnan(self.width) else "the saddle point did not converge"
            )
        remark = (
            "end of the searched range"
            if self.at_edge
            else "limit of stability"
            if self.at_stability_limit
            else "minimum"
        )
        return (
            f"best width {self.width:.8g} ({remark}, {int(self.minima)} minima seen), "
            f"generalization error {self.generalization_error:.8g}\n{self.solution}"
        )


def optimal_width(task: LinearRegression, bits: int, beta: ArrayLike, *, require_stable: bool = False) -> OptimalWidth:
    """Width of the uniform codebook of 2^bits levels that minimises eg, within 0.03 to 12 teacher deviations.

    Args:
      task: the learning problem.
      bits: a whole number from 1 to 8.
      beta: inverse temperature, > 0; `jnp.inf` is empirical risk minimisation.
      require_stable: only widths at which replica symmetry is stable (replicon > 0), so that AMP finds the weights.
        Never possible at beta = inf.

    Raises:
      TypeError, ValueError: bad arguments.  Finding nothing raises nothing: see `converged`.
    """
    _checks.instance("task", task, LinearRegression, "LinearRegression(alpha=2.0)")
    beta = _checks.positive("beta", beta, infinite=True)
    return _optimal_width(task, _checks.integer("bits", bits, 1, 8), beta, bool(require_stable))


@eqx.filter_jit
def _optimal_width(task: LinearRegression, bits: int, beta, require_stable: bool) -> OptimalWidth:
    search = partial(_search, bits=bits, require_stable=require_stable)
    (x,), found = implicit_root(search, partial(_condition, bits=bits), (task, beta))
    solution = _solve_at(x, bits, task, beta)
    return OptimalWidth(
        width=jnp.where(found.any, jnp.exp(x), jnp.nan),
        generalization_error=jnp.where(found.any, solution.generalization_error, jnp.nan),
        solution=solution,
        minima=found.minima,
        at_edge=found.at_edge,
        at_stability_limit=found.at_limit,
        converged=found.any & solution.converged,
    )


class _Found(NamedTuple):
    any: Bool[Array, ""]
    minima: Int[Array, ""]
    at_edge: Bool[Array, ""]
    at_limit: Bool[Array, ""]


class _Probe(NamedTuple):
    """The theory at x = log width."""

    x: Float[Array, ""]
    eg: Float[Array, ""]
    slope: Float[Array, ""]  # d eg / d x
    replicon: Float[Array, ""]
    sound: Bool[Array, ""]


def _solve_at(x, bits: int, task, beta) -> Solution:
    return solve(task, uniform(bits, jnp.exp(x)), beta)


def _probe(x, bits: int, task, beta) -> _Probe:
    def observe(x):
        solution = _solve_at(x, bits, task, beta)
        return solution.generalization_error, (solution.replicon, solution.converged)

    eg, slope, (replicon, sound) = jax.jvp(observe, (x,), (jnp.ones_like(x),), has_aux=True)
    return _Probe(x, eg, slope, replicon, sound & jnp.isfinite(slope))


def _condition(y, found: _Found, inputs, bits: int):
    """What the winner solves: the end of the range, the limit of stability or the minimum."""
    (x,), (task, beta) = y, inputs
    probe = _probe(x, bits, task, beta)
    end = x - jnp.log(task.signal) / 2  # the derivative of an end, whichever it is
    return jnp.where(found.at_edge, end, jnp.where(found.at_limit, probe.replicon, probe.slope))[None]


def _search(inputs, bits: int, require_stable: bool):
    task, beta = inputs
    probe = partial(_probe, bits=bits, task=task, beta=beta)
    ends = jnp.log(jnp.asarray(_RANGE, task.signal.dtype)) + jnp.log(task.signal) / 2
    scan = jax.lax.map(
        probe, jnp.linspace(ends[0], ends[1], _SCAN), batch_size=max(1, min(_SCAN, 2 ** (13 - 2 * bits)))
    )
    allowed = scan.sound & ((scan.replicon > 0) | (not require_stable))
    eg = jnp.where(allowed, scan.eg, jnp.inf)

    here, there = jax.tree.map(lambda a: a[:-1], scan), jax.tree.map(lambda a: a[1:], scan)
    lower = jnp.minimum(eg[:-1], eg[1:])
    dips = (here.slope < 0) & (there.slope >= 0) & here.sound & there.sound & jnp.isfinite(lower)
    brackets = _lowest(dips, lower, here, there)
    is_limit = jnp.zeros(_REFINED, bool)
    if require_stable:
        stable, unstable = scan.sound & (scan.replicon > 0), scan.sound & ~(scan.replicon > 0)
        leaving, entering = stable[:-1] & unstable[1:], unstable[:-1] & stable[1:]
        limits = _lowest(
            leaving | entering, lower, *(_choose(leaving, *pair) for pair in ((here, there), (there, here)))
        )
        brackets = jax.tree.map(lambda a, b: jnp.concatenate([a, b]), brackets, limits)
        is_limit = jnp.concatenate([is_limit, ~is_limit])
    refined, real = jax.lax.map(lambda job: _refine(probe, *job), (brackets, is_limit))

    edges = jax.tree.map(lambda a: a[jnp.array([0, -1])], scan)
    edge_is_low = allowed[jnp.array([0, -1])] & jnp.stack([edges.slope[0] >= 0, edges.slope[1] <= 0])
    candidates = jax.tree.map(lambda a, b: jnp.concatenate([a, b]), refined, edges)
    possible = jnp.concatenate([real & ((refined.replicon > 0) | (not require_stable)), edge_is_low])
    worth = jnp.where(possible & candidates.sound, candidates.eg, jnp.inf)
    winner = jnp.argmin(worth)
    found = _Found(
        any=jnp.isfinite(worth[winner]),
        minima=dips.sum(),
        at_edge=winner >= is_limit.size,
        at_limit=jnp.concatenate([is_limit, jnp.zeros(2, bool)])[winner],
    )
    return candidates.x[winner][None], found


def _choose(flag, yes: _Probe, no: _Probe) -> _Probe:
    return jax.tree.map(lambda a, b: jnp.where(flag, a, b), yes, no)


def _lowest(flags, eg, here: _Probe, there: _Probe):
    """The _REFINED flagged brackets of lowest eg, as (left or stable end, other end, whether it was flagged)."""
    order = jnp.argsort(jnp.where(flags, eg, jnp.inf))[:_REFINED]
    take = partial(jax.tree.map, lambda a: a[order])
    return take(here), take(there), flags[order]


def _refine(probe, bracket, is_limit):
    """Root of the slope, or of minus the replicon, between two probes: the Illinois secant method."""
    a, b, real = bracket

    def target(p: _Probe):
        return jnp.where(is_limit, -p.replicon, p.slope)

    def more(carry):
        _, x_a, f_a, x_b, f_b, i = carry
        tight = jnp.abs(x_b - x_a) <= 8 * jnp.finfo(x_a.dtype).eps * (1 + jnp.abs(x_a))
        return real & ~tight & (f_a != 0) & (f_b != 0) & (i < _ITERATIONS)

    def body(carry):
        last, x_a, f_a, x_b, f_b, i = carry
        secant = (x_a * f_b - x_b * f_a) / (f_b - f_a)
        inside = (secant - x_a) * (secant - x_b) < 0
        p = probe(jnp.where(inside, secant, (x_a + x_b) / 2))
        f = target(p)
        same = f * f_b > 0
        # The end that stays put has its value halved, so that it cannot stay for ever.
        x_a, f_a = jnp.where(same, x_a, x_b), jnp.where(same, f_a / 2, f_b)
        last = _choose(is_limit & (p.replicon <= 0), last, p)  # a limit is approached from the stable side
        return last, x_a, f_a, p.x, f, i + 1

    start = (_choose(is_limit | (a.eg < b.eg), a, b), a.x, target(a), b.x, target(b), 0)
    return jax.lax.while_loop(more, body, start)[0], real
