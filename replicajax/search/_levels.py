"""The levels at which an objective is least: every one is free but for their order, a symmetry and linear constraints.

Without constraints levels are what gaps of any size > 0 make of them, so that none changes places with another: BFGS and then
Newton in the logarithms of the gaps.  With constraints, sequential quadratic programs in the levels, and then Newton along
what the constraints that bind leave free.  From several starts, of which the lowest end wins.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array
from scipy.linalg import null_space, orth
from scipy.optimize import LinearConstraint, linprog, minimize
from scipy.sparse import issparse

from replicajax import _checks
from replicajax.codebooks import Codebook

_FLAT, _NEARLY_FLAT = 1e-7, 1e-5
"""Largest derivative in a level, in units of the objective, of a minimum; of one where levels are about to meet."""
_SEEN = 64
"""Roundings of the objective that a derivative is told from 0 by: in float32 that is what a minimum has."""
_NEWTON = 12
_MERGED, _UNUSED, _IDLE = 1e-4, 1e-7, 1e-10
"""Parts of the largest level between two that are one; usage of a level that is none, and of one the search leaves alone."""
_FAR = 20.0
"""Times the largest level in use, where one that is not is put."""
_SAME = 1e-7
"""Parts of the objective by which two minima differ."""
_BINDING = 1e-7
"""Parts of the largest level by which a constraint that binds is missed."""


class At(NamedTuple):
    """The objective at some levels, and its derivatives along some directions."""

    value: float
    """Infinite where there is none."""
    slope: np.ndarray
    curvature: np.ndarray | None
    usage: np.ndarray


class Objective(Protocol):
    """What is to be least."""

    @property
    def unit(self) -> float:
        """Of its values."""
        ...

    @property
    def length(self) -> float:
        """Of levels."""
        ...

    def at(self, levels: np.ndarray, directions: np.ndarray, second: bool = False) -> At:
        """`directions` (K, n) of levels."""
        ...


class Shape(NamedTuple):
    """What levels may be, as `checked` has it.  `rows` (R, K) @ levels between `least` and `most`."""

    count: int
    symmetric: bool
    rows: np.ndarray
    least: np.ndarray
    most: np.ndarray
    room: float = np.inf
    """The largest smallest gap, up to 1, that constraints allow."""

    @property
    def frame(self) -> np.ndarray:
        """(K, n): levels as sums of what is free before constraints: all of them, or the positive ones."""
        if not self.symmetric:
            return np.eye(self.count)
        half = self.count // 2
        frame = np.zeros((self.count, half))
        frame[self.count - half + np.arange(half), np.arange(half)] = 1
        return frame - frame[::-1]


class Ends(NamedTuple):
    """What is known of the end of a search; carries no derivative."""

    gradient: Any
    curvature: Any
    minima: Any
    spare: Any
    flat: Any
    free: Any
    """(K, K): projection on the directions in which levels may move."""


def shape_of(count: int, symmetric: bool, constraints: Any) -> Shape:
    """Raises TypeError, ValueError: constraints that are none, do not fit the levels, or cannot hold together."""
    many = [constraints] if isinstance(constraints, LinearConstraint) else constraints
    if not isinstance(many, Sequence) or not all(isinstance(each, LinearConstraint) for each in many):
        raise TypeError(
            f"constraints must be scipy.optimize.LinearConstraint(A, lb, ub) or several, got {constraints!r}"
        )
    rows, least, most = [np.zeros((0, count))], [np.zeros(0)], [np.zeros(0)]
    for each in many:
        rows_of: Any = each.A
        A = np.atleast_2d(np.asarray(rows_of.toarray() if issparse(rows_of) else rows_of, float))
        if A.ndim != 2 or A.shape[1] != count or not np.isfinite(A).all():
            raise ValueError(f"constraints must have finite A of {count} columns, one a level, got shape {A.shape}")
        try:
            low, high = (np.broadcast_to(np.asarray(bound, float), len(A)) for bound in (each.lb, each.ub))
        except ValueError:
            raise ValueError(
                f"constraints must have one bound for each of {len(A)} rows, got {each.lb} and {each.ub}"
            ) from None
        if np.isnan(low).any() or np.isnan(high).any() or (low == np.inf).any() or (high == -np.inf).any():
            raise ValueError(f"constraints must have bounds that numbers can keep, got {each.lb} and {each.ub}")
        rows, least, most = [*rows, A], [*least, low], [*most, high]
    shape = Shape(count, symmetric, np.concatenate(rows), np.concatenate(least), np.concatenate(most))
    return checked(shape)


def checked(shape: Shape) -> Shape:
    """With its room.  Raises ValueError: constraints that no increasing levels keep."""
    if not len(shape.rows):
        return shape
    found = _roomiest(shape, 1.0)
    if found is None:
        symmetry = "symmetric, " if shape.symmetric else ""
        raise ValueError(f"constraints must leave {symmetry}increasing levels, and they leave none")
    return shape._replace(room=found[1])


def _roomiest(shape: Shape, most: float) -> tuple[np.ndarray, float] | None:
    """What is free, at the largest smallest gap, up to `most`, that constraints allow; None if they allow none."""
    A, low, high = _limits(shape, 0.0)
    A, bound = np.concatenate([-A, A]), np.concatenate([-low, high])
    known, n = np.isfinite(bound), shape.frame.shape[1]
    room = (np.arange(len(A)) >= len(shape.rows)) & (np.arange(len(A)) < len(A) // 2)
    found = linprog(
        np.append(np.zeros(n), -1.0),
        np.column_stack([A, room])[known],
        bound[known],
        bounds=[(None, None)] * n + [(None, most)],
    )
    return (found.x[:-1], float(found.x[-1])) if found.success and found.x[-1] > 0 else None


def started(start: Any, shape: Shape) -> np.ndarray:
    """Levels to start from, as given.  Raises ValueError: none of this shape."""
    levels = np.asarray(Codebook(_checks.finite("start", start)).levels, float)
    if levels.size != shape.count:
        raise ValueError(f"start must have {shape.count} levels, got {levels.size}")
    if shape.symmetric:
        levels = (levels - levels[::-1]) / 2
        if (np.diff(levels) <= 0).any():
            raise ValueError("start must have levels of both signs where the codebook is symmetric")
    return levels


def least(objective: Objective, starts: Sequence[np.ndarray], shape: Shape) -> tuple[Array, Ends]:
    """Levels of the lowest minimum found."""
    ends = []
    for start in starts:
        levels = _descended(start, objective, shape) if not len(shape.rows) else _within(start, objective, shape)
        value = objective.at(levels, shape.frame).value
        if np.isfinite(value):
            ends.append((value, levels))
    if not ends:  # no theory anywhere: the levels it began with
        nothing = Ends(np.full(shape.count, np.nan), np.nan, 0, 0, False, np.eye(shape.count))
        return jnp.asarray(starts[0]), jax.tree.map(jnp.asarray, nothing)
    best, levels = min(ends, key=lambda each: each[0])
    lowest = np.array(sorted(value for value, _ in ends))
    minima = 1 + int((np.diff(lowest) > _SAME * abs(best)).sum())
    found = objective.at(levels, np.eye(shape.count))
    used = found.usage >= _UNUSED
    spare = levels.size - int(used.sum())
    spare += int((np.diff(levels[used]) < _MERGED * np.abs(levels[used]).max()).sum())
    free, held = _free(levels, found, shape)
    steepest = np.abs(free.T @ found.slope).max(initial=0.0) * objective.length / objective.unit
    curvature = np.inf
    if free.size:
        along = objective.at(levels, free, second=True).curvature
        assert along is not None
        curvature = _lowest(along)
    seen = max(_FLAT, _SEEN * float(jnp.finfo(jax.dtypes.canonicalize_dtype(float)).eps))
    flat = steepest <= max(_NEARLY_FLAT, seen) if spare else steepest <= seen and curvature > 0
    known = Ends(found.slope, curvature, minima, spare, bool(flat and held), free @ free.T)
    return jax.device_put((levels, known))


def condition(levels: Array, ends: Ends, slope: Array) -> Array:
    """What levels of a minimum solve: flat along what is free, and in all else where they are."""
    return ends.free @ slope + (jnp.eye(levels.size) - ends.free) @ (levels - jax.lax.stop_gradient(levels))


def _descended(start: np.ndarray, objective: Objective, shape: Shape) -> np.ndarray:
    """The minimum below some levels; those that fall out of use are put far away, and the others go on alone."""
    frame, usage = shape.frame, [np.ones(shape.count)]

    def of_gaps(y: np.ndarray) -> tuple[float, np.ndarray]:
        found = objective.at(_levels_of(y, shape), frame)
        usage[0] = found.usage
        return found.value / objective.unit, _chained(y, shape) @ found.slope / objective.unit

    def idle(_: np.ndarray) -> None:
        if usage[0].min() < _IDLE:
            raise StopIteration

    asked = {"gtol": 1e-7, "maxiter": 200}
    y = minimize(of_gaps, _gaps_of(start, shape), jac=True, method="BFGS", options=asked, callback=idle).x
    levels = _levels_of(y, shape)
    used = objective.at(levels, frame).usage >= _IDLE
    left = int(used.sum())
    outer = used[np.argmax(used) : levels.size - np.argmax(used[::-1])].all()  # what is left is one piece
    if used.all() or left < 2 or not outer:
        return _levels_of(_polished(y, objective, shape), shape)
    inner = _descended(levels[used], objective, shape._replace(count=left, rows=np.zeros((0, left))))
    far = _FAR * np.abs(inner).max()
    below, above = (int((levels[~used] * sign > 0).sum()) for sign in (-1, 1))
    return np.concatenate([-far * np.arange(below, 0, -1), inner, far * np.arange(1, above + 1)])


def _levels_of(y: np.ndarray, shape: Shape) -> np.ndarray:
    """From logarithms of gaps (of a symmetric one, from 0 on), and the lowest level of one that is not."""
    if not shape.symmetric:
        return y[0] + np.concatenate([np.zeros(1), np.cumsum(np.exp(y[1:]))])
    half = np.cumsum(np.exp(y))
    return np.concatenate([-half[::-1], np.zeros(shape.count % 2), half])


def _gaps_of(levels: np.ndarray, shape: Shape) -> np.ndarray:
    """The inverse."""
    if not shape.symmetric:
        return np.concatenate([levels[:1], np.log(np.diff(levels))])
    half = levels[(shape.count + 1) // 2 :]
    return np.log(np.diff(half, prepend=0.0))


def _chained(y: np.ndarray, shape: Shape) -> np.ndarray:
    """(n, n): what is free, differentiated in y, transposed."""
    scale = np.exp(y) if shape.symmetric else np.append(1.0, np.exp(y[1:]))
    return np.triu(np.tile(scale[:, None], y.size))


def _polished(y: np.ndarray, objective: Objective, shape: Shape) -> np.ndarray:
    """Newton's method where the Hessian is positive: BFGS leaves half of the digits."""
    frame = shape.frame
    value = np.inf
    for _ in range(_NEWTON):
        found = objective.at(_levels_of(y, shape), frame, second=True)
        if found.curvature is None or not np.isfinite(found.curvature).all():
            return y
        chain = _chained(y, shape)
        slope = chain @ found.slope
        bend = slope.copy()
        if not shape.symmetric:
            bend[0] = 0.0  # the lowest level is no logarithm
        curvature = chain @ found.curvature @ chain.T + np.diag(bend)
        if _lowest(curvature) <= 0 or found.value > value + 1e-12 * abs(found.value):
            return y
        step, value = np.linalg.solve(curvature, slope), found.value
        if np.abs(step).max() > 0.1:
            return y
        y = y - step
        if np.abs(step).max() < 1e-11:
            return y
    return y


def _limits(shape: Shape, gap: float) -> tuple[Any, Any, Any]:
    """Constraints and order as bounds on what is free; gaps of a symmetric codebook come in pairs, of which one will do."""
    order = np.diff(np.eye(shape.count), axis=0)[(shape.count - 1) // 2 if shape.symmetric else 0 :]
    rows = np.concatenate([shape.rows, order]) @ shape.frame
    low, high = np.append(shape.least, np.full(len(order), gap)), np.append(shape.most, np.full(len(order), np.inf))
    return rows, low, high


def _within(start: np.ndarray, objective: Objective, shape: Shape) -> np.ndarray:
    """The minimum within constraints below some levels, in units of the largest of them."""
    frame, usual = shape.frame, np.diff(start).min()
    roomiest = _roomiest(shape, usual)
    assert roomiest is not None
    within, gap = roomiest
    size = max(np.abs(start).max(), np.abs(within).max())
    least_gap = min(_MERGED / 4 * size, gap / 2)
    kept = _independent(*_limits(shape, least_gap), size)
    towards = np.linalg.lstsq(frame, start, rcond=None)[0] / size
    # The nearest levels that are allowed; of those that have met, others with room.
    asked: dict[str, Any] = {"method": "SLSQP", "jac": True, "constraints": kept}
    z = minimize(lambda z: (((z - towards) ** 2).sum(), 2 * (z - towards)), within / size, **asked).x
    if size * np.diff(frame @ z).min() < min(usual, gap) / 2:
        z = within / size

    def of_levels(z: np.ndarray) -> tuple[float, np.ndarray]:
        levels = size * (frame @ z)
        if (np.diff(levels) <= 0).any():
            return np.inf, np.zeros(z.size)
        found = objective.at(levels, frame)
        return found.value / objective.unit, found.slope * size / objective.unit

    z = minimize(of_levels, z, options={"ftol": 1e-14, "maxiter": 300}, **asked).x
    levels, value = size * (frame @ z), np.inf
    for _ in range(_NEWTON):
        found = objective.at(levels, np.eye(shape.count))
        free, _ = _free(levels, found, shape)
        if not free.size or not np.isfinite(found.value) or found.value > value + 1e-12 * abs(found.value):
            return levels
        along = objective.at(levels, free, second=True)
        if along.curvature is None or not _lowest(along.curvature) > 0:
            return levels
        step, value = free @ np.linalg.solve(along.curvature, along.slope), found.value
        if np.abs(step).max() > 0.1 * size:
            return levels
        levels = levels - step
        if np.abs(step).max() < 1e-11 * size:
            return levels
    return levels


def _independent(A: Any, low: Any, high: Any, size: float) -> list[LinearConstraint]:
    """On levels in units of a size: equalities that say the same once, and nothing that always holds."""
    same, some = low == high, (A != 0).any(1)
    bounds = [LinearConstraint(A[~same & some], low[~same & some] / size, high[~same & some] / size)]
    left, stretch, right = np.linalg.svd(A[same], full_matrices=False)
    rank = stretch > 1e-10 * stretch.max(initial=0.0)
    if rank.any():
        value: Any = (left.T @ low[same])[rank] / stretch[rank] / size
        bounds.append(LinearConstraint(right[rank], value, value))
    return bounds


def _free(levels: np.ndarray, found: At, shape: Shape) -> tuple[np.ndarray, bool]:
    """(K, n): orthonormal directions that constraints leave levels in use, and whether all constraints hold."""
    frame = shape.frame
    if not len(shape.rows):
        return _spanned(frame[:, (frame[found.usage < _IDLE] == 0).all(0)]), True
    size = np.abs(levels).max()
    A, low, high = _limits(shape, min(_MERGED / 4 * size, shape.room / 2))
    at, missed = A @ np.linalg.lstsq(frame, levels, rcond=None)[0], _BINDING * size * np.abs(A).sum(1)
    below, above = at - low <= missed, high - at <= missed
    hold = bool((at >= low - missed).all() and (at <= high + missed).all())
    while (below | above).any():
        rows = np.flatnonzero(below | above)
        push = np.linalg.lstsq(A[rows].T, frame.T @ found.slope, rcond=None)[0]
        # The objective must not fall into the allowed side of any that binds (Kuhn and Tucker).
        wrong = np.where(below[rows], np.where(above[rows], 0.0, -push), push)
        worst = rows[np.argmax(wrong)]
        if wrong.max() <= _FLAT * np.abs(push).max():
            return _spanned(frame @ null_space(A[rows])), hold
        below[worst] = above[worst] = False
    return orth(frame), hold


def _lowest(curvature: np.ndarray) -> float:
    return float(np.linalg.eigvalsh(curvature)[0]) if np.isfinite(curvature).all() else np.nan


def _spanned(directions: np.ndarray) -> np.ndarray:
    return orth(directions) if directions.size else directions
