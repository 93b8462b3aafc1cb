"""Every level of a codebook by gradients through the saddle point, at a price for the bits that an entropy coder needs.

    minimise  eg(levels) + weight · rate(levels),        rate = −sum_k P_k log2 P_k of the levels' usage          (theory 12)

Levels are what gaps of any size > 0 make of them, so that none changes places with another: BFGS and then Newton in the
logarithms of the gaps, from several starts, of which the lowest end wins.  Two levels that meet, or one that no weight
uses, are a minimum at infinity: the answer says so, and that a smaller codebook does as well.
"""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Bool, Float, Int
from scipy.optimize import minimize

from replicajax import _checks
from replicajax.codebooks import Codebook
from replicajax.models import Task, with_limit
from replicajax.numerics import falling_hull, implicit_root
from replicajax.replica import (
    Direction,
    Solution,
    break_many,
    broken_solution,
    one_step,
    slopes_many,
    solve,
    solve_many,
    unquantized,
)
from replicajax.search._width import optimal_width

_EXPONENTS = (1.0, 0.7, 1.4)
"""Of the power codebooks that the search starts from, at the best width of the uniform one."""
_SHRUNK = 0.6
_FLAT, _NEARLY_FLAT = 1e-7, 1e-5
"""Largest derivative in a level, in units of the teacher, of a minimum; of one where levels are still on their way to meet."""
_NEWTON = 12
_APART = 1e-4
"""Parts of the largest level between points whose slopes are compared."""
_MERGED, _UNUSED, _IDLE = 1e-4, 1e-7, 1e-10
"""Parts of the largest level between two that are one; usage of a level that is none, and of one the search leaves alone."""
_FAR = 20.0
"""Times the largest level in use, where one that is not is put."""
_SAME = 1e-7
"""Parts of the objective by which two minima differ."""


class OptimalCodebook(eqx.Module):
    """The best levels and what the theory says there.  Differentiable in the task and beta (implicitly), outside `jit`.

    Attributes:
      levels: (K,), in the units of the weights.
      generalization_error, rate (bits), solution: there; objective: eg + weight · rate.
      gradient: (K,) of the objective in every level.
      curvature: least eigenvalue of its Hessian in the levels (among symmetric ones, if those were asked for).
      minima: how many different ones the starts ended in.
      spare: levels that are not needed: that have met another, or that no weight uses.
      converged: the gradient is below 1e-7 in units of the teacher and the curvature positive (1e-5, and any, where levels are
        spare), and the saddle point was found.
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


def optimal_codebook(
    task: Task,
    levels: int,
    beta: ArrayLike,
    *,
    symmetric: bool = True,
    rate_weight: ArrayLike = 0.0,
    breaking: int = 0,
    start: ArrayLike | None = None,
) -> OptimalCodebook:
    """Levels that minimise eg + rate_weight · rate.

    Args:
      task: the learning problem.
      levels: how many, 2 to 64.
      beta: inverse temperature, > 0; `jnp.inf` is empirical risk minimisation.
      symmetric: only codebooks with a level −a for every a.
      rate_weight: what a bit of the coded weights costs, in units of eg, >= 0.
      breaking: 0, or 1: one step of replica symmetry breaking, for the square loss.
      start: (levels,) increasing, to start from besides.

    Raises:
      TypeError, ValueError: bad arguments; inside `jit` or `vmap`.  Finding nothing raises nothing: see `converged`.
    """
    _checks.instance("task", task, Task, "LinearRegression(alpha=2.0)")
    beta = _checks.positive("beta", beta, infinite=True)
    with_limit(task, beta)
    count = _checks.integer("levels", levels, 2, 64)
    if _checks.is_traced(rate_weight):
        raise TypeError("rate_weight must be a number that is known: the search has no derivative in it")
    _checks.nonnegative("rate_weight", rate_weight)
    weight = float(np.asarray(rate_weight))
    one_step(task, breaking)
    if breaking not in (0, 1):
        raise ValueError(
            f"breaking must be 0 or 1 (what it is may not change from codebook to codebook), got {breaking!r}"
        )
    kind = _Kind(count, bool(symmetric), breaking, None if _checks.is_traced(beta) else bool(np.isinf(beta)))
    starts = () if start is None else (_started(start, kind),)
    if breaking and weight:
        raise ValueError(f"rate_weight must be 0 with breaking=1, got {weight:g}")
    search = eqx.Partial(_search, kind=kind, starts=starts, weight=weight)
    condition = eqx.Partial(_condition, kind=kind, weight=weight)
    y, ends = implicit_root(search, condition, (task, beta))
    book = Codebook(_levels_of(y, kind))
    solution = _solution(task, book, beta, kind)
    objective = solution.generalization_error + weight * solution.rate
    return OptimalCodebook(
        levels=book.levels,
        generalization_error=solution.generalization_error,
        rate=solution.rate,
        objective=objective,
        gradient=ends.gradient,
        curvature=ends.curvature,
        minima=ends.minima,
        spare=ends.spare,
        converged=ends.flat & solution.converged,
        solution=solution,
    )


class _Kind(NamedTuple):
    """What programs differ in."""

    count: int
    symmetric: bool
    breaking: int
    cold: bool | None


def _levels_of(y: Any, kind: _Kind, xp: Any = jnp) -> Any:
    """From logarithms of gaps (of a symmetric one, from 0 on), and the lowest level of one that is not."""
    if not kind.symmetric:
        return y[0] + xp.concatenate([xp.zeros(1, y.dtype), xp.cumsum(xp.exp(y[1:]))])
    half = xp.cumsum(xp.exp(y))
    return xp.concatenate([-half[::-1], xp.zeros(kind.count % 2, y.dtype), half])


def _gaps_of(levels: np.ndarray, kind: _Kind) -> np.ndarray:
    """The inverse."""
    if not kind.symmetric:
        return np.concatenate([levels[:1], np.log(np.diff(levels))])
    half = levels[(kind.count + 1) // 2 :]
    return np.log(np.diff(half, prepend=0.0))


def _started(start: ArrayLike, kind: _Kind) -> np.ndarray:
    levels = np.asarray(Codebook(_checks.finite("start", start)).levels, float)
    if levels.size != kind.count:
        raise ValueError(f"start must have {kind.count} levels, got {levels.size}")
    if kind.symmetric:
        levels = (levels - levels[::-1]) / 2
        if (np.diff(levels) <= 0).any():
            raise ValueError("start must have levels of both signs where the codebook is symmetric")
    return levels


def _solution(task: Task, book: Codebook, beta: Any, kind: _Kind) -> Solution:
    if kind.breaking:
        return broken_solution((task, book, beta), bool(kind.cold))
    # A number is one also inside a transformation.
    return solve(task, book, np.inf if kind.cold else beta)


class _Ends(NamedTuple):
    """What is known of the end of a search; carries no derivative."""

    gradient: Any
    curvature: Any
    minima: Any
    spare: Any
    flat: Any


def _condition(y: Array, ends: _Ends, inputs: Any, kind: _Kind, weight: float) -> Array:
    """What the optimum solves; compiled where it is differentiated."""
    task, beta = inputs

    def objective(y: Array) -> Array:
        found = _solution(task, Codebook(_levels_of(y, kind)), beta, kind)
        return found.generalization_error + weight * found.rate

    return jax.grad(objective)(y)


class _At(NamedTuple):
    """The objective at some levels, and its derivatives along some directions."""

    value: float
    slope: np.ndarray
    curvature: np.ndarray | None
    usage: np.ndarray


class _Theory:
    """The objective of one search, from batches of points and the derivatives at the saddle points that were found."""

    def __init__(self, task: Task, beta: Any, kind: _Kind, weight: float):
        self._task, self._beta = jax.tree.map(np.asarray, (task, beta))
        self._kind, self._weight = kind, weight

    def at(self, levels: np.ndarray, directions: np.ndarray, second: bool = False) -> _At:
        """`directions` (K, n) of levels."""
        if self._kind.breaking:
            return self._broken_at(levels, directions, second)
        found = solve_many(*self._points(levels[None]))
        value = float(found.generalization_error[0] + self._weight * found.rate[0])
        if not (found.converged[0] and np.isfinite(value)):
            return _At(np.inf, np.zeros(directions.shape[1]), None, np.zeros(levels.size))
        slope, curvature = self._slopes(found, directions.T, None), None
        if second:
            n = directions.shape[1]
            rows, columns = np.triu_indices(n)
            curvature = np.zeros((n, n))
            each = self._slopes(found, directions.T[rows], directions.T[columns])
            curvature[rows, columns] = curvature[columns, rows] = each
        return _At(value, slope, curvature, np.asarray(found.usage[0])[: levels.size])

    def _broken_at(self, levels: np.ndarray, directions: np.ndarray, second: bool) -> _At:
        """One step of breaking; second derivatives are differences of the first."""
        n, h = directions.shape[1], _APART * np.abs(levels).max()
        aside = h * directions.T
        points = levels + np.concatenate([0 * aside[:1], aside, -aside]) if second else levels[None]
        problem = self._points(points)
        towards = {i: self._towards(np.broadcast_to(directions[:, i], points.shape)) for i in range(n)}
        found, moved = break_many(*problem, towards)
        slopes = np.stack([np.asarray(moved[i]) for i in range(n)], -1)
        value = float(found.generalization_error[0])
        if not (found.converged[0] and np.isfinite(value)):
            return _At(np.inf, np.zeros(n), None, np.zeros(levels.size))
        curvature = (slopes[1 : n + 1] - slopes[n + 1 :]) / (2 * h) if second else None
        curvature = None if curvature is None else (curvature + curvature.T) / 2
        return _At(value, slopes[0], curvature, np.asarray(found.usage[0])[: levels.size])

    def _points(self, levels: np.ndarray) -> tuple[Task, Codebook, np.ndarray]:
        many = jax.tree.map(lambda x: np.repeat(np.asarray(x)[None], len(levels), 0), (self._task, self._beta))
        return many[0], self._book(levels), many[1]

    def _towards(self, levels: np.ndarray) -> Direction:
        still = jax.tree.map(lambda x: np.zeros((len(levels), *np.shape(x))), (self._task, self._beta))
        return still[0], self._book(levels), still[1]

    def _book(self, levels: np.ndarray) -> Codebook:
        return eqx.tree_at(lambda book: book.levels, Codebook(np.arange(levels.shape[-1], dtype=float)), levels)

    def _slopes(self, found: Solution, first: np.ndarray, second: np.ndarray | None) -> np.ndarray:
        many = jax.tree.map(lambda x: np.repeat(np.asarray(x), len(first), 0), found)
        along = self._towards(first), None if second is None else self._towards(second)
        total = np.asarray(slopes_many(many, *along))
        if self._weight:
            total = total + self._weight * np.asarray(slopes_many(many, *along, of="rate"))
        return total


def _frame(kind: _Kind) -> np.ndarray:
    """(K, n): levels as sums of what is free: all of them, or the positive ones."""
    if not kind.symmetric:
        return np.eye(kind.count)
    half = kind.count // 2
    frame = np.zeros((kind.count, half))
    frame[kind.count - half + np.arange(half), np.arange(half)] = 1
    return frame - frame[::-1]


def _search(inputs: Any, kind: _Kind, starts: tuple[np.ndarray, ...], weight: float) -> tuple[Array, _Ends]:
    if _checks.is_traced(inputs):
        raise TypeError("optimal_codebook searches with numbers: differentiate it outside jax.jit and jax.vmap")
    task, beta = inputs
    theory, frame, ends = _Theory(task, beta, kind, weight), _frame(kind), []
    begun = [*starts, *_power_codebooks(task, beta, kind)]
    for start in begun:
        levels = _descended(start, theory, kind)
        value = theory.at(levels, frame).value
        if np.isfinite(value):
            ends.append((value, levels))
    if not ends:  # no theory anywhere: the levels it began with
        nothing = _Ends(np.full(kind.count, np.nan), np.nan, 0, 0, False)
        return jnp.asarray(_gaps_of(begun[0], kind)), jax.tree.map(jnp.asarray, nothing)
    best, levels = min(ends, key=lambda each: each[0])
    lowest = np.array(sorted(value for value, _ in ends))
    minima = 1 + int((np.diff(lowest) > _SAME * abs(best)).sum())
    gradient = theory.at(levels, np.eye(kind.count))
    found = theory.at(levels, frame / np.linalg.norm(frame, axis=0), second=True)
    assert found.curvature is not None
    curvature = np.linalg.eigvalsh(found.curvature)[0]
    used = levels[found.usage >= _UNUSED]
    spare = levels.size - used.size + int((np.diff(used) < _MERGED * np.abs(used).max()).sum())
    steepest = np.abs(gradient.slope).max() / float(np.sqrt(task.signal))
    flat = steepest <= _NEARLY_FLAT if spare else steepest <= _FLAT and curvature > 0
    known = _Ends(gradient.slope, curvature, minima, spare, bool(flat))
    return jnp.asarray(_gaps_of(levels, kind)), jax.tree.map(jnp.asarray, known)


def _descended(start: np.ndarray, theory: "_Theory", kind: _Kind) -> np.ndarray:
    """The minimum below some levels; those that fall out of use are put far away, and the others go on alone."""
    frame, usage = _frame(kind), [np.ones(kind.count)]

    def objective(y: np.ndarray) -> tuple[float, np.ndarray]:
        found = theory.at(_levels_of(y, kind, np), frame)
        usage[0] = found.usage
        return found.value, _chained(y, kind) @ found.slope

    def idle(_: np.ndarray) -> None:
        if usage[0].min() < _IDLE:
            raise StopIteration

    asked = {"gtol": 1e-7, "maxiter": 200}
    y = minimize(objective, _gaps_of(start, kind), jac=True, method="BFGS", options=asked, callback=idle).x
    levels = _levels_of(y, kind, np)
    used = theory.at(levels, frame).usage >= _IDLE
    left = int(used.sum())
    outer = used[np.argmax(used) : levels.size - np.argmax(used[::-1])].all()  # what is left is one piece
    if used.all() or left < 2 or not outer:
        return _levels_of(_polished(y, theory, kind), kind, np)
    inner = _descended(levels[used], theory, kind._replace(count=left))
    far = _FAR * np.abs(inner).max()
    below, above = (int((levels[~used] * sign > 0).sum()) for sign in (-1, 1))
    return np.concatenate([-far * np.arange(below, 0, -1), inner, far * np.arange(1, above + 1)])


def _chained(y: np.ndarray, kind: _Kind) -> np.ndarray:
    """(n, n): what is free, differentiated in y, transposed."""
    scale = np.exp(y) if kind.symmetric else np.append(1.0, np.exp(y[1:]))
    return np.triu(np.tile(scale[:, None], y.size))


def _polished(y: np.ndarray, theory: _Theory, kind: _Kind) -> np.ndarray:
    """Newton's method where the Hessian is positive: BFGS leaves half of the digits."""
    frame = _frame(kind)
    value = np.inf
    for _ in range(_NEWTON):
        found = theory.at(_levels_of(y, kind, np), frame, second=True)
        if found.curvature is None or not np.isfinite(found.curvature).all():
            return y
        chain = _chained(y, kind)
        slope = chain @ found.slope
        bend = slope.copy()
        if not kind.symmetric:
            bend[0] = 0.0  # the lowest level is no logarithm
        curvature = chain @ found.curvature @ chain.T + np.diag(bend)
        if np.linalg.eigvalsh(curvature)[0] <= 0 or found.value > value + 1e-12 * abs(found.value):
            return y
        step, value = np.linalg.solve(curvature, slope), found.value
        if np.abs(step).max() > 0.1:
            return y
        y = y - step
        if np.abs(step).max() < 1e-11:
            return y
    return y


def _power_codebooks(task: Task, beta: Any, kind: _Kind) -> list[np.ndarray]:
    """At the best width of a uniform one of as many bits or more, and narrower."""
    bits = max(int(np.ceil(np.log2(kind.count))), 1)
    found = optimal_width(task, bits, beta)
    width = float(found.width) if found.converged else float(np.sqrt(task.signal))
    grid = np.linspace(-1, 1, kind.count)
    shapes = [width * np.sign(grid) * np.abs(grid) ** p for p in _EXPONENTS]
    return [*shapes, _SHRUNK * shapes[0]]


class RateFrontier(NamedTuple):
    """Attributes, one entry a learned codebook:
    levels: K; weight: price of a bit; bits: after coding; generalization_error.
    codebooks: the levels; converged.
    hull: whether it lies on the lower convex hull of (bits, error): no mixture of others does better.
    uniform: (bits, error) of uniform codebooks at their best width, bits of fixed length.
    fixed: (bits, error) of codebooks learned at no price, bits log2 K of fixed length.
    unquantized: error of ridge regression of the best ridge; NaN where the task has none.
    """

    levels: np.ndarray
    weight: np.ndarray
    bits: np.ndarray
    generalization_error: np.ndarray
    codebooks: tuple[np.ndarray, ...]
    converged: np.ndarray
    hull: np.ndarray
    uniform: np.ndarray
    fixed: np.ndarray
    unquantized: float

    def __str__(self) -> str:
        lines = ["bits after coding   error      levels   price of a bit"]
        for i in np.flatnonzero(self.hull):
            lines.append(
                f"{self.bits[i]:17.4f}   {self.generalization_error[i]:.6f}{self.levels[i]:9d}   {self.weight[i]:.3g}"
            )
        return "\n".join(lines)


def rate_frontier(
    task: Task,
    beta: ArrayLike,
    levels: tuple[int, ...] = (2, 3, 4, 6, 8),
    weights: tuple[float, ...] = (0.0, 0.003, 0.01, 0.03, 0.1),
) -> RateFrontier:
    """eg against bits after coding, over numbers of levels and prices of a bit; prices in units of the signal.

    A codebook with levels to spare stands for the smaller one it has become.

    Raises:
      TypeError, ValueError: as `optimal_codebook` does.
    """
    unit, found, prices = float(task.signal), [], []
    for count in levels:
        start = None
        for price in sorted(weights):
            best = optimal_codebook(task, count, beta, rate_weight=price * unit, start=start)
            start = np.asarray(best.levels) if not int(best.spare) else None
            found.append(best)
            prices.append(price)
    bits = np.array([float(x.rate) for x in found])
    error = np.array([float(x.generalization_error) for x in found])
    fixed = [(np.log2(x.levels.size), e) for x, e, p in zip(found, error, prices, strict=True) if p == 0]
    ridge, hull = unquantized(task), np.zeros(bits.size, bool)
    hull[falling_hull(bits, error)] = True
    uniform = [(b, float(optimal_width(task, b, beta).generalization_error)) for b in (1, 2, 3)]
    return RateFrontier(
        np.array([x.levels.size for x in found]),
        np.array(prices),
        bits,
        error,
        tuple(np.asarray(x.levels) for x in found),
        np.array([bool(x.converged) for x in found]),
        hull,
        np.array(uniform),
        np.array(fixed),
        np.nan if ridge is None else float(ridge.generalization_error),
    )
