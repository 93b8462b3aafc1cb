"""The tab "Budget" in numbers: the best division of a training budget, and the exact risk of its neighbours.

Exponent and noise are data of the program, so that it is compiled once for each kind of error.
"""

from collections.abc import Callable, Iterator
from functools import cache
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from replicajax import allocate_budget, scaling
from replicajax.explore._state import State
from replicajax.search import Split, TrainingCost

LEAST, MOST, REACH = 2, 20, 4.0
"""Bits tried, and the range of integers: as the command has them."""
BITS = np.arange(LEAST, MOST + 1, dtype=float)
SIZES = np.geomspace(128.0, 1e7, 61)


class Neighbours(NamedTuple):
    """Exact risk − noise where one number is changed and steps are what the budget leaves; NaN where that is under 64."""

    at_bits: np.ndarray
    at_size: np.ndarray


class Problem(eqx.Module):
    """Of a size M."""

    exponent: Any
    noise: Any

    def __call__(self, size):
        return scaling.power_law(size, self.exponent, noise=self.noise)


@cache
def precision_of(error: str) -> Callable:
    """One function for each kind, or everything is compiled again."""
    return lambda bits: scaling.of_bits(error, bits[0], reach=REACH)


def problem_at(state: State) -> Problem:
    return Problem(np.asarray(state.exponent), np.asarray(state.label_noise))


def budget(state: State) -> Iterator[Split | Neighbours]:
    """The best division, then its neighbours."""
    problem, precision, cost = problem_at(state), precision_of(state.error), TrainingCost()
    best = allocate_budget(problem, precision, cost, 10.0**state.budget, bits=[(LEAST, MOST)])
    yield best
    limit = float(scaling.step_limit(problem(float(best.size)), precision(np.asarray(best.bits))))
    share = best.step_size / limit
    sizes = np.concatenate([np.full(BITS.size, float(best.size)), SIZES])
    bits = np.concatenate([BITS, np.full(SIZES.size, best.bits[0])])
    one: Any = 1.0
    price = np.array([float(cost(one, one, jnp.asarray(b))) for b in bits])  # of a step, for each weight
    steps = 10.0**state.budget / (sizes * price)
    found = np.asarray(_excess(precision, problem, share, sizes, np.maximum(steps, 64.0), bits))
    found = np.where((steps >= 64) & np.isfinite(found), found, np.nan)
    yield Neighbours(found[: BITS.size], found[BITS.size :])


@eqx.filter_jit
def _excess(precision, problem: Problem, share, sizes, steps, bits):
    def one(at):
        size, count, each = at
        rounding = precision(jnp.stack([each]))
        limit = scaling.step_limit(problem(size), rounding)
        return scaling.sgd_risk(problem(size), rounding, count, share * limit).excess

    return jax.lax.map(one, (sizes, steps, bits))
