"""The quantization width that minimises the generalisation error, by gradients through the saddle point.

eg(width) may be flat, may have several minima and may fall towards an end of any range, so a scan over the whole range
comes first; a bracketed secant method on d eg/d log width then refines every minimum it saw, and the lowest wins.  With
`require_stable` the limits of the stable phase, replicon = 0, compete as well.  All widths of a step are one batch, whose
slopes in the width come with it (`replica.first_slopes`).  The winner is differentiated through the equation it solves:
d eg/d log width = 0, or replicon = 0.
"""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import ArrayLike, Bool, Float, Int

from replicajax import _checks
from replicajax.codebooks import Codebook, uniform
from replicajax.models import Task, with_limit
from replicajax.numerics import JAX, NUMPY, Backend, implicit_root
from replicajax.replica import (
    Direction,
    Solution,
    allowed_steps,
    broken_solution,
    broken_where_needed,
    solve,
    solve_with_slopes,
)

_RANGE = (0.03, 12.0)
"""Widths searched, in units of the teacher's standard deviation."""
_SCAN = 49
_REFINED = 3
"""How many of the lowest minima, and of the lowest limits of stability, are refined."""
_ITERATIONS = 60


class OptimalWidth(eqx.Module):
    """The best width and what the theory says there. Differentiable in the task and beta (implicitly)."""

    width: Float[Any, ""]
    """NaN where `require_stable` was asked and no width in the range is stable."""
    generalization_error: Float[Any, ""]
    solution: Solution
    minima: Int[Any, ""]
    """Local minima of eg(width) that the scan saw (stable ones only, if those were asked for)."""
    at_edge: Bool[Any, ""]
    """The best width is an end of the range: eg is still falling there."""
    at_stability_limit: Bool[Any, ""]
    """The best stable width is where the replicon vanishes."""
    converged: Bool[Any, ""]

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


def optimal_width(
    task: Task, bits: int, beta: ArrayLike, *, require_stable: bool = False, breaking: int | str = 0
) -> OptimalWidth:
    """Width of the uniform codebook of 2^bits levels that minimises eg, within 0.03 to 12 teacher deviations.

    Args:
      task: the learning problem.
      bits: a whole number from 1 to 8.
      beta: inverse temperature, > 0; `jnp.inf` is empirical risk minimisation.
      require_stable: only widths at which replica symmetry is stable (replicon > 0), so that AMP finds the weights.
        Never possible at beta = inf.
      breaking: as in `solve`; 1 has derivatives too, "auto" has not (what it chooses may change).

    Raises:
      TypeError, ValueError: bad arguments.  Finding nothing raises nothing: see `converged`.
    """
    _checks.instance("task", task, Task, "LinearRegression(alpha=2.0)")
    beta = _checks.positive("beta", beta, infinite=True)
    with_limit(task, beta)
    bits, require_stable = _checks.integer("bits", bits, 1, 8), bool(require_stable)
    _broken(task, beta, breaking, require_stable)
    scheme = breaking, None if _checks.is_traced(beta) else bool(np.isinf(beta))
    search = eqx.Partial(_search, bits=bits, require_stable=require_stable, scheme=scheme)
    y, found = implicit_root(search, eqx.Partial(_condition, bits=bits, scheme=scheme), (task, beta))
    xp: Any = jnp if _checks.is_traced((y, task, beta)) else np
    x = xp.asarray(y)[0]
    solution = _solve(task, uniform(bits, xp.exp(x)), beta, scheme)
    width, error = (xp.where(found.any, y, xp.nan) for y in (xp.exp(x), xp.asarray(solution.generalization_error)))
    converged = xp.asarray(found.any) & xp.asarray(solution.converged)
    width, error, converged = jax.device_put((width, error, converged))
    return OptimalWidth(
        width=width,
        generalization_error=error,
        solution=solution,
        minima=found.minima,
        at_edge=found.at_edge,
        at_stability_limit=found.at_limit,
        converged=converged,
    )


Scheme = tuple[int | str, bool | None]
"""`breaking`, and whether beta = inf, None where that is not known."""


def _broken(task: Task, beta: Any, breaking: int | str, require_stable: bool) -> None:
    allowed_steps(breaking)
    if breaking and require_stable:
        raise ValueError(f"require_stable asks for replica symmetry: breaking must be 0 with it, got {breaking!r}")
    if breaking == "auto" and _checks.is_traced((task, beta)):
        raise TypeError('breaking="auto" has no derivatives and cannot be traced: give 0 or 1')


def _solve(task: Task, book: Codebook, beta: Any, scheme: Scheme) -> Solution:
    breaking, cold = scheme
    if breaking == 1:
        return broken_solution((task, book, beta), bool(cold))
    return solve(task, book, beta, breaking=breaking)


class _Found(NamedTuple):
    any: Bool[Any, ""]
    minima: Int[Any, ""]
    at_edge: Bool[Any, ""]
    at_limit: Bool[Any, ""]


class _Probe(NamedTuple):
    """The theory at some x = log width."""

    x: Float[Any, " n"]
    eg: Float[Any, " n"]
    slope: Float[Any, " n"]  # d eg / d x
    replicon: Float[Any, " n"]
    sound: Bool[Any, " n"]


def _probe(x, book: Codebook, task, beta, breaking: int | str) -> _Probe:
    """Of numbers, by one batch; of widths in units of that of the book."""
    tasks, betas = jax.tree.map(lambda leaf: np.broadcast_to(leaf, (x.size, *np.shape(leaf))), (task, np.asarray(beta)))
    books = jax.tree.map(lambda levels: np.exp(x)[:, None] * levels, book)
    found, slopes = solve_with_slopes(tasks, books, betas)
    slope = slopes.log_width
    if breaking:

        def wider(_: str) -> Direction:
            still, _, also = jax.tree.map(np.zeros_like, (tasks, books, betas))
            return still, books, also

        found, each = broken_where_needed(found, {"log_width": slope}, breaking, wider)
        slope = each["log_width"]
    return _Probe(x, found.generalization_error, slope, found.replicon, found.converged & np.isfinite(slope))


def _traced_probe(x, bits: int, task, beta, scheme: Scheme) -> _Probe:
    """Inside a transformation."""

    def one(x):
        def observe(x):
            solution = _solve(task, uniform(bits, jnp.exp(x)), beta, scheme)
            return solution.generalization_error, (solution.replicon, solution.converged)

        eg, slope, (replicon, sound) = jax.jvp(observe, (x,), (jnp.ones_like(x),), has_aux=True)
        return _Probe(x, eg, slope, replicon, sound & jnp.isfinite(slope))

    return jax.vmap(one)(x)


def _condition(y, found: _Found, inputs, bits: int, scheme: Scheme):
    """What the winner solves: the end of the range, the limit of stability or the minimum."""
    x, (task, beta) = y, inputs
    probe = _traced_probe(x, bits, task, beta, scheme)
    end = x - jnp.log(task.signal) / 2  # the derivative of an end, whichever it is
    return jnp.where(found.at_edge, end, jnp.where(found.at_limit, probe.replicon, probe.slope))


def _search(inputs, bits: int, require_stable: bool, scheme: Scheme):
    task, beta = inputs
    if _checks.is_traced(inputs):
        probe = jax.jit(partial(_traced_probe, bits=bits, task=task, beta=beta, scheme=scheme))
        return _best(JAX, probe, jnp.sqrt(task.signal), require_stable)
    task, beta = jax.tree.map(np.asarray, (task, beta))
    book = eqx.tree_at(lambda book: book.levels, uniform(bits, 1.0), np.linspace(-1, 1, 2**bits))
    probe = partial(_probe, book=book, task=task, beta=beta, breaking=scheme[0])
    found = _best(NUMPY, probe, np.sqrt(task.signal), require_stable)
    return jax.device_put(found)


def _best(on: Backend, probe, unit, require_stable: bool):
    xp = on.xp
    ends = [xp.log(end * unit) for end in _RANGE]
    scan = probe(xp.linspace(ends[0], ends[1], _SCAN))
    allowed = scan.sound & ((scan.replicon > 0) | (not require_stable))
    eg = xp.where(allowed, scan.eg, xp.inf)

    here, there = jax.tree.map(lambda a: a[:-1], scan), jax.tree.map(lambda a: a[1:], scan)
    lower = xp.minimum(eg[:-1], eg[1:])
    dips = (here.slope < 0) & (there.slope >= 0) & here.sound & there.sound & xp.isfinite(lower)
    brackets = _lowest(xp, dips & (_depth(xp, here, there) <= eg.min()), lower, here, there)
    is_limit = np.zeros(_REFINED, bool)
    if require_stable:
        stable, unstable = scan.sound & (scan.replicon > 0), scan.sound & ~(scan.replicon > 0)
        leaving, entering = stable[:-1] & unstable[1:], unstable[:-1] & stable[1:]
        stay = (_choose(xp, leaving, *pair) for pair in ((here, there), (there, here)))
        limits = _lowest(xp, leaving | entering, lower, *stay)
        brackets = jax.tree.map(lambda a, b: xp.concatenate([a, b]), brackets, limits)
        is_limit = np.concatenate([is_limit, ~is_limit])
    refined, real = _refine(on, probe, *brackets, is_limit)

    edges = jax.tree.map(lambda a: a[np.array([0, -1])], scan)
    edge_is_low = allowed[np.array([0, -1])] & xp.stack([edges.slope[0] >= 0, edges.slope[1] <= 0])
    candidates = jax.tree.map(lambda a, b: xp.concatenate([a, b]), refined, edges)
    possible = xp.concatenate([real & ((refined.replicon > 0) | (not require_stable)), edge_is_low])
    worth = xp.where(possible & candidates.sound, candidates.eg, xp.inf)
    winner = xp.argmin(worth)
    found = _Found(
        any=xp.isfinite(worth[winner]),
        minima=dips.sum(),
        at_edge=winner >= is_limit.size,
        at_limit=xp.concatenate([is_limit, np.zeros(2, bool)])[winner],
    )
    return candidates.x[winner][None], found


_DEEPER = 10
"""How many times deeper than its tangents say a dip may be."""


def _depth(xp: Any, here: _Probe, there: _Probe):
    """What a minimum between two probes can be at best.

    Where eg jumps from branch to branch there is none, and a search for it would be long; mostly it could not win.
    """
    bend = there.slope - here.slope
    fall = here.slope * (here.eg - there.eg + there.slope * (there.x - here.x)) / xp.where(bend > 0, bend, 1.0)
    lower = xp.minimum(here.eg, there.eg)
    return lower - _DEEPER * (lower - here.eg - fall)


def _choose(xp: Any, flag, yes: _Probe, no: _Probe) -> _Probe:
    return jax.tree.map(lambda a, b: xp.where(flag, a, b), yes, no)


def _lowest(xp: Any, flags, eg, here: _Probe, there: _Probe):
    """The _REFINED flagged brackets of lowest eg, as (left or stable end, other end, whether it was flagged)."""
    order = xp.argsort(xp.where(flags, eg, xp.inf))[:_REFINED]
    real = flags[order]
    order = xp.where(real, order, order[0])  # the others are looked at in vain: let them be no harder than this one
    take = partial(jax.tree.map, lambda a: a[order])
    return take(here), take(there), real


def _refine(on: Backend, probe, first: _Probe, second: _Probe, real, is_limit):
    """Roots of the slope, or of minus the replicon, each between two probes: the Illinois secant method."""
    xp = on.xp

    def target(p: _Probe):
        return xp.where(is_limit, -p.replicon, p.slope)

    def body(carry):
        last, x_a, f_a, x_b, f_b, moves, i = carry
        secant = (x_a * f_b - x_b * f_a) / xp.where(f_b == f_a, 1.0, f_b - f_a)
        inside = (secant - x_a) * (secant - x_b) < 0
        p = probe(xp.where(moves, xp.where(inside, secant, (x_a + x_b) / 2), x_b))
        f = target(p)
        # A step this small has an error of about its square.
        tolerance = np.finfo(x_a.dtype).eps ** 0.7
        going = moves & (xp.abs(p.x - x_b) > tolerance * (1 + xp.abs(x_b))) & (f != 0)
        same = f * f_b > 0
        # The end that stays put has its value halved, so that it cannot stay for ever.
        new_a, new_f = xp.where(same, x_a, x_b), xp.where(same, f_a / 2, f_b)
        keep = partial(xp.where, moves)
        # A limit is approached from the stable side.
        last = _choose(xp, moves & ~(is_limit & (p.replicon <= 0)), p, last)
        return last, keep(new_a, x_a), keep(new_f, f_a), keep(p.x, x_b), keep(f, f_b), going, i + 1

    best = _choose(xp, is_limit | (first.eg < second.eg), first, second)
    start = best, first.x, target(first), second.x, target(second), real, 0
    end = on.repeat(lambda carry: carry[-2].any() & (carry[-1] < _ITERATIONS), body, start)
    return end[0], real
