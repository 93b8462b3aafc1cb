"""Every level of a codebook by gradients through the saddle point, at a price for the bits that an entropy coder needs.

    minimise  eg(levels) + weight · rate(levels),        rate = −sum_k P_k log2 P_k of the levels' usage          (theory 12)

Two levels that meet, or one that no weight uses, are a minimum at infinity: the answer says so, and that a smaller codebook
does as well.  The search itself is `_levels`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, overload

import equinox as eqx
import jax
import numpy as np
from jaxtyping import Array, ArrayLike, Bool, Float, Int
from scipy.optimize import LinearConstraint

from replicajax import _checks
from replicajax.codebooks import Codebook
from replicajax.models import Task, with_limit
from replicajax.numerics import implicit_root
from replicajax.replica import (
    Direction,
    Solution,
    allowed_steps,
    break_many,
    broken_solution,
    slopes_many,
    solve,
    solve_many,
)
from replicajax.search._levels import At, Ends, Shape, condition, least, shape_of, started
from replicajax.search._width import optimal_width

if TYPE_CHECKING:
    from replicajax.formats import BlockFormat
    from replicajax.layers import Layer
    from replicajax.search._layer_codebook import LayerCodebook

_EXPONENTS = (1.0, 0.7, 1.4)
"""Of the power codebooks that the search starts from, at the best width of the uniform one."""
_SHRUNK = 0.6
_APART = 1e-4
"""Parts of the largest level between points whose slopes are compared."""


class OptimalCodebook(eqx.Module):
    """The best levels and what the theory says there.  Differentiable in the task and beta (implicitly), outside `jit`.

    Attributes:
      levels: (K,), in the units of the weights.
      generalization_error, rate (bits), solution: there; objective: eg + weight · rate.
      gradient: (K,) of the objective in every level; not 0 where constraints bind.
      curvature: least eigenvalue of its Hessian in the directions that symmetry and constraints leave; infinite if none.
      minima: how many different ones the starts ended in.
      spare: levels that are not needed: that have met another, or that no weight uses.
      converged: the gradient along what is free is below 1e-7 in units of the teacher (8e-6 in float32) and the curvature
        positive (1e-5, and any, where levels are spare), constraints hold, and the saddle point was found.
    """

    levels: Float[Array, " levels"]
    generalization_error: Float[Any, ""]
    rate: Float[Any, ""]
    objective: Float[Any, ""]
    gradient: Float[Array, " levels"]
    curvature: Float[Any, ""]
    minima: Int[Any, ""]
    spare: Int[Any, ""]
    converged: Bool[Any, ""]
    solution: Solution

    @property
    def codebook(self) -> Codebook:
        return Codebook(self.levels)

    def __str__(self) -> str:
        remark = "" if self.converged else ", not converged"
        if self.spare:
            remark += f"; {int(self.spare)} of them not needed: a codebook of {self.levels.size - int(self.spare)} does as well"
        return (
            f"best levels {_checks.brief(self.levels)} ({int(self.minima)} minima seen{remark})\n"
            f"generalization error {self.generalization_error:.8g}, {self.rate:.6g} bits after coding\n{self.solution}"
        )


@overload
def optimal_codebook(
    task: Task,
    levels: int,
    beta: ArrayLike,
    *,
    symmetric: bool = True,
    rate_weight: ArrayLike = 0.0,
    breaking: int = 0,
    start: ArrayLike | None = None,
    constraints: LinearConstraint | Sequence[LinearConstraint] = (),
) -> OptimalCodebook: ...


@overload
def optimal_codebook(
    task: Layer,
    levels: int,
    *,
    symmetric: bool = True,
    start: ArrayLike | None = None,
    constraints: LinearConstraint | Sequence[LinearConstraint] = (),
    algorithm: str = "gptq",
    fmt: BlockFormat | None = None,
    damping: ArrayLike = 0.01,
    order: str = "natural",
) -> LayerCodebook: ...


def optimal_codebook(
    task: Task | Layer,
    levels: int,
    beta: ArrayLike | None = None,
    *,
    symmetric: bool = True,
    rate_weight: ArrayLike = 0.0,
    breaking: int = 0,
    start: ArrayLike | None = None,
    constraints: LinearConstraint | Sequence[LinearConstraint] = (),
    **of_layer: Any,
) -> OptimalCodebook | LayerCodebook:
    """Levels that minimise eg + rate_weight · rate; of a layer, the relative error of its outputs.

    Args:
      task: the learning problem, or a layer to be quantized.
      levels: how many, 2 to 64.
      beta: inverse temperature, > 0; `jnp.inf` is empirical risk minimisation.  None for a layer.
      symmetric: only codebooks with a level −a for every a.
      rate_weight: what a bit of the coded weights costs, in units of eg, >= 0.  0 for a layer.
      breaking: 0, or 1: one step of replica symmetry breaking, as in `solve`.
      start: (levels,) increasing, to start from besides.
      constraints: `scipy.optimize.LinearConstraint(A, lb, ub)`, or several: lb <= A @ levels <= ub.

    Of a layer alone:
      algorithm: for which levels are best: "rounding", "gptq", or "optimum", the best codeword whatever finds it.
      fmt: blocks and scales that the levels are used in; unless given, they are in units of the RMS of each row.  Where the
        largest of a block has the largest level, that level is 1 (−1 with "signmax").
      damping, order: as in `layers.gptq_error`.

    Raises:
      TypeError, ValueError: bad arguments, constraints that leave no codebook; inside `jit` or `vmap`; weights of a layer that
        are rounded one by one (their error jumps: give the layer their law).  Finding nothing raises nothing: see `converged`.
    """
    count = _checks.integer("levels", levels, 2, 64)
    if not isinstance(task, Task):
        from replicajax.layers import Layer
        from replicajax.search._layer_codebook import layer_codebook

        if isinstance(task, Layer):
            unknown = of_layer.keys() - {"algorithm", "fmt", "damping", "order"}
            if unknown:
                raise TypeError(f"optimal_codebook has no argument {', '.join(sorted(unknown))}")
            if beta is not None or breaking or not np.array_equal(rate_weight, 0.0):
                raise ValueError("beta, rate_weight and breaking are of learning tasks, not of a layer: leave them out")
            return layer_codebook(task, count, symmetric, start, constraints, **of_layer)
    _checks.instance("task", task, Task, "LinearRegression(alpha=2.0)")
    if of_layer:
        raise TypeError(f"{', '.join(of_layer)}: only of a layer, got a {type(task).__name__}")
    if beta is None:
        raise TypeError("beta must be given: a positive number, or jnp.inf")
    beta = _checks.positive("beta", beta, infinite=True)
    with_limit(task, beta)
    if _checks.is_traced(rate_weight):
        raise TypeError("rate_weight must be a number that is known: the search has no derivative in it")
    _checks.nonnegative("rate_weight", rate_weight)
    weight = float(np.asarray(rate_weight))
    allowed_steps(breaking)
    if breaking not in (0, 1):
        raise ValueError(
            f"breaking must be 0 or 1 (what it is may not change from codebook to codebook), got {breaking!r}"
        )
    if breaking and weight:
        raise ValueError(f"rate_weight must be 0 with breaking=1, got {weight:g}")
    shape = shape_of(count, bool(symmetric), constraints)
    starts = () if start is None else (started(start, shape),)
    kind = _Kind(breaking, None if _checks.is_traced(beta) else bool(np.isinf(beta)))
    search = eqx.Partial(_search, kind=kind, shape=shape, starts=starts, weight=weight)
    solved_by = eqx.Partial(_condition, kind=kind, weight=weight)
    found, ends = implicit_root(search, solved_by, (task, beta))
    solution = _solution(task, Codebook(found), beta, kind)
    return OptimalCodebook(
        levels=found,
        generalization_error=solution.generalization_error,
        rate=solution.rate,
        objective=solution.generalization_error + weight * solution.rate,
        gradient=ends.gradient,
        curvature=ends.curvature,
        minima=ends.minima,
        spare=ends.spare,
        converged=ends.flat & solution.converged,
        solution=solution,
    )


class _Kind(NamedTuple):
    """What programs differ in."""

    breaking: int
    cold: bool | None


def _solution(task: Task, book: Codebook, beta: Any, kind: _Kind) -> Solution:
    if kind.breaking:
        return broken_solution((task, book, beta), bool(kind.cold))
    # A number is one also inside a transformation.
    return solve(task, book, np.inf if kind.cold else beta)


def _condition(levels: Array, ends: Ends, inputs: Any, kind: _Kind, weight: float) -> Array:
    """What the optimum solves; compiled where it is differentiated."""
    task, beta = inputs

    def objective(levels: Array) -> Array:
        found = _solution(task, Codebook(levels), beta, kind)
        return found.generalization_error + weight * found.rate

    return condition(levels, ends, jax.grad(objective)(levels))


def _search(
    inputs: Any, kind: _Kind, shape: Shape, starts: tuple[np.ndarray, ...], weight: float
) -> tuple[Array, Ends]:
    if _checks.is_traced(inputs):
        raise TypeError("optimal_codebook searches with numbers: differentiate it outside jax.jit and jax.vmap")
    task, beta = inputs
    return least(_Theory(task, beta, kind, weight), [*starts, *_power_codebooks(task, beta, shape.count)], shape)


class _Theory:
    """The objective of one search, from batches of points and the derivatives at the saddle points that were found; second
    derivatives are differences of the first, which costs no other program."""

    def __init__(self, task: Task, beta: Any, kind: _Kind, weight: float):
        # Of one precision, whatever the task was made in.
        self._task, self._beta = jax.tree.map(
            lambda x: np.asarray(x, jax.dtypes.canonicalize_dtype(float)), (task, beta)
        )
        self._kind, self._weight = kind, weight
        self.unit = float(self._task.signal)
        self.length = self.unit**0.5

    def at(self, levels: np.ndarray, directions: np.ndarray, second: bool = False) -> At:
        n, h = directions.shape[1], _APART * np.abs(levels).max()
        aside = h * directions.T
        points = levels + np.concatenate([0 * aside[:1], aside, -aside]) if second else levels[None]
        found, slopes = (self._broken if self._kind.breaking else self._symmetric)(points, directions)
        value = float(found.generalization_error[0])
        if self._weight:
            value += self._weight * float(found.rate[0])
        if not (found.converged[0] and np.isfinite(value)):
            return At(np.inf, np.zeros(n), None, np.zeros(levels.size))
        curvature = (slopes[1 : n + 1] - slopes[n + 1 :]) / (2 * h) if second else None
        curvature = None if curvature is None else (curvature + curvature.T) / 2
        return At(value, slopes[0], curvature, np.asarray(found.usage[0])[: levels.size])

    def _symmetric(self, points: np.ndarray, directions: np.ndarray) -> tuple[Solution, np.ndarray]:
        found, n = solve_many(*self._points(points)), directions.shape[1]
        many = jax.tree.map(lambda x: np.repeat(np.asarray(x), n, 0), found)
        along = self._towards(np.tile(directions.T, (len(points), 1)))
        slopes = np.asarray(slopes_many(many, along, few=True))
        if self._weight:
            slopes = slopes + self._weight * np.asarray(slopes_many(many, along, of="rate", few=True))
        return found, slopes.reshape(len(points), n)

    def _broken(self, points: np.ndarray, directions: np.ndarray) -> tuple[Any, np.ndarray]:
        towards = [self._towards(np.broadcast_to(each, points.shape)) for each in directions.T]
        found, slopes = break_many(*self._points(points), dict(enumerate(towards)))
        return found, np.stack([np.asarray(slopes[i]) for i in range(len(towards))], -1)

    def _points(self, levels: np.ndarray) -> tuple[Task, Codebook, np.ndarray]:
        many = jax.tree.map(lambda x: np.repeat(np.asarray(x)[None], len(levels), 0), (self._task, self._beta))
        return many[0], self._book(levels), many[1]

    def _towards(self, levels: np.ndarray) -> Direction:
        still = jax.tree.map(lambda x: np.zeros((len(levels), *np.shape(x))), (self._task, self._beta))
        return still[0], self._book(levels), still[1]

    def _book(self, levels: np.ndarray) -> Codebook:
        return eqx.tree_at(lambda book: book.levels, Codebook(np.arange(levels.shape[-1], dtype=float)), levels)


def _power_codebooks(task: Task, beta: Any, count: int) -> list[np.ndarray]:
    """At the best width of a uniform one of as many bits or more, and narrower."""
    bits = max(int(np.ceil(np.log2(count))), 1)
    found = optimal_width(task, bits, beta)
    width = float(found.width) if found.converged else float(np.sqrt(task.signal))
    grid = np.linspace(-1, 1, count)
    shapes = [width * np.sign(grid) * np.abs(grid) ** p for p in _EXPONENTS]
    return [*shapes, _SHRUNK * shapes[0]]
