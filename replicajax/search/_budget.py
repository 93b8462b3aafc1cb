"""How to divide a budget among model size, data and bits: least exact risk, by gradients.

    minimise over (M, bits, step)    sgd_risk( problem(M), precision(bits), N, step )    with    cost(M, N, bits) = budget

N is what the budget leaves (or, if N is given, M is), by a scalar equation with its implicit derivative; the rest is
unconstrained in the logit of its range, by BFGS from several starts.  Then bits are rounded both ways, each choice is
optimised again in M and the step, and whole numbers are what is returned.
"""

import itertools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optimistix as optx
from jaxtyping import Array, ArrayLike

from replicajax import _checks
from replicajax.numerics import bisect
from replicajax.scaling import Precision, Regression, SGDRisk, sgd_risk, step_limit

Cost = Callable[[Array, Array, Array], Array]
_STEP = (0.003, 0.95)
"""Range of the step size, in units of its limit."""
_MOST_STEPS = 1e18


class Split(NamedTuple):
    """A budget divided."""

    size: int
    """M."""
    steps: int
    """N."""
    bits: tuple[float, ...]
    """Of each entry of `precision`'s argument; whole unless asked for otherwise."""
    step_size: float
    cost: float
    """At most the budget."""
    risk: SGDRisk
    """Of whole numbers, as they stand here."""
    relaxed_bits: tuple[float, ...]
    relaxed_excess: float
    """Before rounding: a lower bound, if the search found the minimum."""
    converged: bool


def allocate_budget(
    problem: Callable[[Array], Regression],
    precision: Callable[[Array], Precision],
    cost: Cost,
    budget: ArrayLike,
    *,
    bits: Sequence[tuple[float, float]] = ((2.0, 12.0),),
    size: tuple[float, float] = (128.0, 1e7),
    steps: float | None = None,
    batch: float = 1.0,
    whole: bool = True,
) -> Split:
    """The least exact risk that a budget buys.

    Args:
      problem: of a real M, e.g. lambda M: scaling.power_law(M, 1.5, noise=0.1).
      precision: of a vector of bits, e.g. lambda b: scaling.of_bits("additive", b[0], reach=4.0).
      cost: of (M, N, bits), a positive pure function that grows with N (with M, if `steps` is given).
      budget: what may be spent, in the cost's units.
      bits: (least, most) for each entry of the vector.
      size: least and most M.
      steps: N, where data and not compute are given; else the budget decides.
      batch: samples a step.
      whole: round bits to whole numbers (M and N always are).

    Raises:
      TypeError, ValueError: a cost that is NaN, not positive or does not grow; a range that is empty; a budget that buys
        less than 64 steps of the smallest model at the fewest bits.
    """
    search = _Search(problem, precision, cost, steps, float(batch), _ranges(bits, size))
    limit = _checks.scalar("budget", budget)
    search.check_cost(float(limit))
    return _split(search, limit, whole)


def _ranges(bits, size) -> Array:
    ranges = [*bits, tuple(np.log(size)), tuple(np.log(_STEP))]
    for low, high in ranges:
        if not np.isfinite([low, high]).all() or low >= high:
            raise ValueError(f"bits and size must be ranges (least, most), got bits {bits!r}, size {size!r}")
    return jnp.asarray(ranges, float)


class _Search(eqx.Module):
    problem: Callable[[Array], Regression]
    precision: Callable[[Array], Precision]
    cost: Cost
    steps: float | None
    batch: float
    ranges: Array

    def check_cost(self, budget: float) -> None:
        sizes, least = np.exp(self.ranges[-2]), self.ranges[:-2, 0]
        few, many = (64.0, 1e9) if self.steps is None else (self.steps, self.steps)
        names = ("size", "steps", "bits")
        grows = (sizes[0], many) if self.steps is None else (sizes[1], few)
        for bits in (least, self.ranges[:-2, 1]):
            tried = [(sizes[0], few), grows, (sizes[1], many)]
            values = [np.asarray(self.cost(jnp.asarray(M), jnp.asarray(N), bits)) for M, N in tried]
            for (M, N), value in zip(tried, values, strict=True):
                if value.shape != () or not value > 0:
                    where = dict(zip(names, (float(M), float(N), [float(b) for b in bits]), strict=True))
                    raise ValueError(f"cost must return one positive number, got {value} at {where}")
            if not values[1] > values[0]:
                resource = "steps" if self.steps is None else "size"
                raise ValueError(f"cost must grow with {resource}, got {values[0]:.6g} and then {values[1]:.6g}")
        cheapest = float(self.cost(jnp.asarray(sizes[0]), jnp.asarray(few), least))
        if cheapest > budget:
            raise ValueError(
                f"budget must be at least {cheapest:.6g}, the smallest model at the fewest bits, got {budget:.6g}"
            )

    def place(self, x: Array) -> tuple[Array, Array, Array]:
        """Bits, log M and log of the step over its limit, from the unconstrained x."""
        low, high = self.ranges.T
        inside = low + (high - low) * jax.nn.sigmoid(x)
        return inside[:-2], inside[-2], inside[-1]

    def resources(self, bits, log_size, budget) -> tuple[Array, Array]:
        """log M, log N with the budget spent."""
        if self.steps is None:
            return log_size, _solve(
                lambda n: jnp.log(self.cost(jnp.exp(log_size), jnp.exp(n), bits)), budget, _MOST_STEPS
            )
        n = jnp.log(jnp.asarray(self.steps, float))
        most = jnp.exp(self.ranges[-2, 1])
        return _solve(lambda m: jnp.log(self.cost(jnp.exp(m), jnp.exp(n), bits)), budget, most), n

    def risk(self, bits, log_size, log_steps, log_step) -> SGDRisk:
        problem, precision = self.problem(jnp.exp(log_size)), self.precision(bits)
        step = jnp.exp(log_step) * step_limit(problem, precision, self.batch)
        return sgd_risk(problem, precision, jnp.exp(log_steps), step, batch=self.batch)

    def log_excess(self, x: Array, inputs: tuple[Array, Array]) -> Array:
        """Where `held` is not NaN, bits are as it says.  Fewer than 64 steps or too small a model count as much worse."""
        budget, held = inputs
        bits, log_size, log_step = self.place(x)
        bits = jnp.where(jnp.isnan(held), bits, held)
        log_size, log_steps = self.resources(bits, log_size, budget)
        least = self.ranges[-2, 0]
        short = jnp.maximum(jnp.log(64.0) - log_steps, 0) + jnp.maximum(least - log_size, 0)
        found = self.risk(bits, jnp.maximum(log_size, least), jnp.maximum(log_steps, jnp.log(64.0)), log_step)
        return jnp.log(found.excess) + short


def _solve(log_cost: Callable[[Array], Array], budget: Array, most: ArrayLike) -> Array:
    """log of the resource at which the cost is the budget, up to `most`."""
    goal = jnp.log(budget)

    low, high = bisect(lambda x: log_cost(x) <= goal, 0.0, jnp.log(jnp.asarray(most, float)), 55)
    found = jax.lax.stop_gradient(low)
    slope = jax.lax.stop_gradient(jax.jvp(log_cost, (found,), (jnp.ones(()),))[1])
    beyond = high >= jnp.log(most) - 1e-9  # more than `most` is affordable
    return jnp.where(beyond, found, found + (goal - log_cost(found)) / slope)


@eqx.filter_jit
def _minimise(search: _Search, start: Array, budget: Array, held: Array):
    solver = optx.BFGS(rtol=1e-7, atol=1e-8)
    found = optx.minimise(
        search.log_excess,
        solver,
        start,
        (budget, held),
        options={"autodiff_mode": "fwd"},
        max_steps=200,
        throw=False,
    )
    return found.value, search.log_excess(found.value, (budget, held)), found.result == optx.RESULTS.successful


def _best(search: _Search, budget: Array, held: Array, starts: Sequence[Array]) -> tuple[Array, float, bool]:
    found = [_minimise(search, start, budget, held) for start in starts]
    x, value, converged = min(found, key=lambda f: float(f[1]) if np.isfinite(float(f[1])) else np.inf)
    return x, float(value), bool(converged)


def _split(search: _Search, budget: Array, whole: bool) -> Split:
    count = search.ranges.shape[0] - 2
    free = jnp.full(count, jnp.nan)
    starts = [jnp.asarray([b] * count + [m, 1.5]) for b, m in ((-0.5, -1.0), (0.5, 0.0), (-0.5, 1.0))]
    x, relaxed, converged = _best(search, budget, free, starts)
    bits, _, _ = search.place(x)
    chosen, at = bits, x
    if whole:
        around = [sorted({float(np.floor(b)), float(np.ceil(b))}) for b in np.asarray(bits)]
        low, high = np.ceil(np.asarray(search.ranges[:-2, 0])), np.floor(np.asarray(search.ranges[:-2, 1]))
        options = {tuple(np.clip(option, low, high)) for option in itertools.product(*around)}
        tried = [(jnp.asarray(option), *_best(search, budget, jnp.asarray(option), [x])) for option in sorted(options)]
        chosen, at, _, converged_too = min(tried, key=lambda t: t[2])
        converged = converged and converged_too
    _, log_size, log_step = search.place(at)
    log_size, _ = search.resources(chosen, log_size, budget)
    M = jnp.floor(jnp.exp(log_size) * (1 + 1e-12))
    _, log_steps = search.resources(chosen, jnp.log(M), budget)
    N = jnp.floor(jnp.exp(log_steps) * (1 + 1e-12))
    problem, precision = search.problem(M), search.precision(chosen)
    step = jnp.exp(log_step) * step_limit(problem, precision, search.batch)
    risk: Any = sgd_risk(problem, precision, int(N), step, batch=search.batch)
    spent = float(search.cost(M, N, chosen))
    return Split(
        size=int(M),
        steps=int(N),
        bits=tuple(float(b) for b in chosen),
        step_size=float(step),
        cost=spent,
        risk=risk,
        relaxed_bits=tuple(float(b) for b in bits),
        relaxed_excess=float(np.exp(relaxed)),
        converged=converged,
    )
