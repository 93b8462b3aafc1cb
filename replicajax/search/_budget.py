"""How to divide a budget among model size, data and bits: least exact risk, by descent.

    minimise over (M, bits, step)    sgd_risk( problem(M), precision(bits), N, step )    with    cost(M, N, bits) = budget

N is what the budget leaves (or, if N is given, M is), by bisection; the rest is unconstrained in the logit of its range, by
BFGS from several starts, on differences: in so few variables they are worth less than what compiling derivatives takes.
Then bits are rounded both ways, each choice is optimised again in M and the step, and whole numbers are what is returned.
All of it is one program, of everything that a point x buys.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Bool, Float

from replicajax import _checks
from replicajax.numerics import bisect
from replicajax.scaling import Precision, Regression, SGDRisk, step_limit
from replicajax.scaling._risk import risk_in_stages

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
    return _split(search, np.asarray(limit), whole)


def _ranges(bits, size) -> np.ndarray:
    ranges = [*bits, tuple(np.log(size)), tuple(np.log(_STEP))]
    for low, high in ranges:
        if not np.isfinite([low, high]).all() or low >= high:
            raise ValueError(f"bits and size must be ranges (least, most), got bits {bits!r}, size {size!r}")
    return np.asarray(jnp.asarray(ranges, float))


class _Search(eqx.Module):
    problem: Callable[[Array], Regression]
    precision: Callable[[Array], Precision]
    cost: Cost
    steps: float | None
    batch: float
    ranges: np.ndarray

    def check_cost(self, budget: float) -> None:
        sizes, least = np.exp(self.ranges[-2]), self.ranges[:-2, 0]
        few, many = (64.0, 1e9) if self.steps is None else (self.steps, self.steps)
        names = ("size", "steps", "bits")
        grows = (sizes[0], many) if self.steps is None else (sizes[1], few)
        places = [(sizes[0], few), grows, (sizes[1], many)]
        tried = [(M, N, bits) for bits in (least, self.ranges[:-2, 1]) for M, N in places]
        values = [np.asarray(value) for value in _costs(self.cost, tried)]
        for place, value in zip(tried, values, strict=True):
            if value.shape != () or not value > 0:
                M, N, bits = place
                where = dict(zip(names, (float(M), float(N), [float(b) for b in bits]), strict=True))
                raise ValueError(f"cost must return one positive number, got {value} at {where}")
        for first, more in (values[:2], values[3:5]):
            if not more > first:
                resource = "steps" if self.steps is None else "size"
                raise ValueError(f"cost must grow with {resource}, got {first:.6g} and then {more:.6g}")
        cheapest = float(values[0])
        if cheapest > budget:
            raise ValueError(
                f"budget must be at least {cheapest:.6g}, the smallest model at the fewest bits, got {budget:.6g}"
            )

    @eqx.filter_jit
    def at(
        self, x: Float[Any, " bits+2"], budget: Float[Any, ""], held: Float[Any, " bits"], whole: Bool[Any, ""]
    ) -> _Point:
        """What x buys; where `held` is not NaN, bits are as it says; M and N as they are or whole numbers."""
        low, high = self.ranges.T
        inside = low + (high - low) * jax.nn.sigmoid(x)
        bits, size = jnp.where(jnp.isnan(held), inside[:-2], held), jnp.exp(inside[-2])
        least = jnp.exp(low[-2])

        def rounded(x):
            return jnp.where(whole, jnp.floor(x * (1 + 1e-12)), x)

        if self.steps is None:
            size = rounded(size)
            steps = rounded(_afford(lambda n: self.cost(size, n, bits), budget, _MOST_STEPS))
        else:
            steps = jnp.asarray(self.steps, float)
            size = rounded(_afford(lambda m: self.cost(m, steps, bits), budget, jnp.exp(high[-2])))
        problem, precision = self.problem(jnp.maximum(size, least)), self.precision(bits)
        step = jnp.exp(inside[-1]) * step_limit(problem, precision, self.batch)
        batch = jnp.asarray(self.batch, float)
        risk = risk_in_stages(problem, precision, jnp.maximum(steps, 64.0), step, batch, whole)
        # Fewer than 64 steps or too small a model count as much worse.
        short = jnp.maximum(jnp.log(64.0 / steps), 0) + jnp.maximum(jnp.log(least / size), 0)
        return _Point(jnp.log(risk.excess) + short, bits, size, steps, step, self.cost(size, steps, bits), risk)


@eqx.filter_jit
def _costs(cost: Cost, places: list) -> list[Array]:
    return [jnp.asarray(cost(*(jnp.asarray(x, float) for x in place))) for place in places]


class _Point(NamedTuple):
    log_excess: Array
    """More where the resources are too few."""
    bits: Array
    size: Array
    steps: Array
    step: Array
    cost: Array
    risk: SGDRisk


def _afford(cost: Callable[[Array], Array], budget: Array, most: ArrayLike) -> Array:
    """The resource at which the cost is the budget, up to `most`."""
    low, high = bisect(lambda x: cost(jnp.exp(x)) <= budget, 0.0, jnp.log(jnp.asarray(most, float)), 55)
    return jnp.exp(jnp.where(high >= jnp.log(most) - 1e-9, high, low))  # more than `most` is affordable


def _best(
    search: _Search, budget: np.ndarray, held: np.ndarray, starts: Sequence[Sequence[float] | np.ndarray]
) -> tuple[np.ndarray, float, bool]:
    from scipy.optimize import minimize  # takes long to import

    def loss(x):
        value = float(search.at(x, budget, held, np.asarray(False)).log_excess)
        return value if np.isfinite(value) else 1e6

    found = [minimize(loss, x, method="L-BFGS-B", options={"ftol": 1e-11, "gtol": 1e-6, "eps": 1e-7}) for x in starts]
    best = min(found, key=lambda f: f.fun)
    return best.x, float(best.fun), bool(best.success) and best.fun < 1e6


def _split(search: _Search, budget: np.ndarray, whole: bool) -> Split:
    count = search.ranges.shape[0] - 2
    free = np.full(count, np.nan)
    starts = [[b] * count + [m, 1.5] for b, m in ((-0.5, -1.0), (0.5, 0.0), (-0.5, 1.0))]
    x, relaxed, converged = _best(search, budget, free, starts)
    bits = np.asarray(search.at(x, budget, free, np.asarray(False)).bits)
    chosen = bits
    if whole:
        low, high = np.ceil(search.ranges[:-2, 0]), np.floor(search.ranges[:-2, 1])
        around = [sorted({float(np.floor(b)), float(np.ceil(b))}) for b in bits]
        options = {tuple(np.clip(option, low, high)) for option in itertools.product(*around)}
        tried = [(np.array(option), *_best(search, budget, np.array(option), [x])) for option in sorted(options)]
        chosen, x, _, converged_too = min(tried, key=lambda t: t[2])
        converged = converged and converged_too
    found = search.at(x, budget, chosen, np.asarray(True))
    return Split(
        size=int(found.size),
        steps=int(found.steps),
        bits=tuple(float(b) for b in chosen),
        step_size=float(found.step),
        cost=float(found.cost),
        risk=found.risk,
        relaxed_bits=tuple(float(b) for b in bits),
        relaxed_excess=float(np.exp(relaxed)),
        converged=converged,
    )
