"""Which format for which tensor, exactly: a multiple-choice knapsack.

    min sum_t c_t,j(t)   with   sum_t n_t b_t,j(t) <= n b.

Relaxed to mixtures of formats it is solved by slopes: every tensor moves along the convex hull of its (bits, score) while a
bit there saves more than lambda.  What a tensor's format costs beyond that, its regret c + lambda n b − min, is lost for good:
formats whose regret exceeds what the best known choice loses are struck out, and partial choices, kept where no other has
both fewer bits and a lower score, are dropped as soon as their own relaxation is no better than it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import ArrayLike

from replicajax import _checks
from replicajax.numerics import falling_hull

_BEAM, _MOST = 2_000, 2_000_000
"""Partial choices kept in the search for a good choice, and in the proof that it is best."""
_ROUNDING = 1e-12


class FormatChoice(NamedTuple):
    """What `choose_formats` found.

    Attributes:
      choice: (tensors,) index of each one's format.
      mean_bits: per weight.
      score: the sum.
      gap: by how much of itself the score may exceed the least possible; 0 where it is proven least.
    """

    choice: np.ndarray
    mean_bits: float
    score: float
    gap: float


class _Class(NamedTuple):
    """Of tensors that must agree: formats that others do not beat in both, by increasing bits."""

    weight: np.ndarray
    score: np.ndarray
    option: np.ndarray


class _Relaxation(NamedTuple):
    """Least score of some classes, mixtures allowed, at every total of bits: linear between these."""

    weight: np.ndarray
    score: np.ndarray

    def __call__(self, weight: np.ndarray) -> np.ndarray:
        found = np.interp(weight, self.weight, self.score)
        return np.where(weight < self.weight[0] * (1 - _ROUNDING), np.inf, found)


def choose_formats(
    counts: ArrayLike,
    bits: ArrayLike,
    scores: ArrayLike,
    mean_bits: float,
    *,
    groups: Sequence[int] | None = None,
    pinned: Mapping[int, int] | None = None,
) -> FormatChoice:
    """The formats of least total score within a budget, proven, or with a stated gap where the proof takes too much memory.

    Args:
      counts: (tensors,) weights of each, > 0.
      bits: (tensors, formats) per weight, scales included; or (formats,).
      scores: (tensors, formats), what each costs, >= 0; inf where a format is not to be had.
      mean_bits: of all weights, not exceeded.
      groups: (tensors,) labels: tensors of one label get one format.
      pinned: formats of tensors that have no choice.

    Raises:
      ValueError: bad arguments; a budget below the least possible, which the message has.
    """
    for name, x in (("counts", counts), ("bits", bits)):
        _checks.positive(name, x)
    n, b = np.asarray(counts, np.float64), np.asarray(bits, np.float64)
    if n.ndim != 1 or n.size == 0:
        raise ValueError(f"counts must be a vector with an entry per tensor, got shape {n.shape}")
    c = np.array(scores, float)
    if c.ndim != 2 or len(c) != n.size or not c.shape[1] or np.isnan(c).any() or (c < 0).any():
        raise ValueError(f"scores must be ({n.size}, formats), numbers >= 0 or inf, got shape {c.shape}")
    if b.shape not in (c.shape, c.shape[1:]):
        raise ValueError(f"bits must be {c.shape} or {c.shape[1:]} as scores have it, got shape {b.shape}")
    w = n[:, None] * np.broadcast_to(b, c.shape)
    for tensor, only in (pinned or {}).items():
        if not (0 <= tensor < n.size and 0 <= only < c.shape[1]):
            raise ValueError(
                f"pinned must map a tensor below {n.size} to a format below {c.shape[1]}, got {tensor}: {only}"
            )
        c[tensor, np.arange(c.shape[1]) != only] = np.inf
    labels = labels_of(groups, n.size)
    classes = _classes(w, c, labels)
    for k, each in enumerate(classes):
        if not each.option.size:
            raise ValueError(
                f"scores must leave every tensor a format, got none for tensor {int(np.argmax(labels == k))}"
            )
    budget = float(mean_bits) * n.sum() * (1 + _ROUNDING)
    least = sum(each.weight[0] for each in classes)
    if not budget >= least:
        raise ValueError(f"mean_bits must be at least {least / n.sum():.6g}, the least possible, got {mean_bits:.6g}")
    chosen, gap = _solved(classes, budget)
    choice = chosen[labels]
    rows = np.arange(n.size)
    return FormatChoice(choice, float(w[rows, choice].sum() / n.sum()), float(c[rows, choice].sum()), gap)


def pareto(
    counts: ArrayLike, bits: ArrayLike, scores: ArrayLike, groups: Sequence[int] | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """(mean bits, score) of the choices at the corners of the relaxed problem, which are optimal at those budgets."""
    n, c = np.asarray(counts, float), np.asarray(scores, float)
    w = n[:, None] * np.broadcast_to(np.asarray(bits, float), c.shape)
    classes = _classes(w, c, labels_of(groups, n.size))
    found = _follow(classes, *_steps(classes)[:2])
    return found.weight / n.sum(), found.score


def labels_of(groups: Sequence[int] | None, count: int) -> np.ndarray:
    """0, 1, 2, ... of the groups that tensors are in, each its own unless told.

    Raises:
      ValueError: not a label for each.
    """
    if groups is None:
        return np.arange(count)
    if np.shape(groups) != (count,):
        raise ValueError(f"groups must have a label for each of {count} tensors, got shape {np.shape(groups)}")
    return np.unique(np.asarray(groups), return_inverse=True)[1]


def _classes(weight: np.ndarray, score: np.ndarray, labels: np.ndarray) -> list[_Class]:
    return [_undominated(weight[labels == k].sum(0), score[labels == k].sum(0)) for k in range(labels.max() + 1)]


def _undominated(weight: np.ndarray, score: np.ndarray) -> _Class:
    order = np.lexsort((score, weight))
    order = order[np.isfinite(score[order])]
    best = np.minimum.accumulate(score[order])
    kept = order[np.append(True, best[1:] < best[:-1])[: order.size]]
    return _Class(weight[kept], score[kept], kept)


def _steps(classes: Sequence[_Class]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Bits, savings and class of all moves along hulls, the best first."""
    found = []
    for k, each in enumerate(classes):
        hull = falling_hull(each.weight, each.score)
        for a, b in zip(hull, hull[1:], strict=False):
            found.append((each.weight[b] - each.weight[a], each.score[a] - each.score[b], k))
    if not found:
        return np.zeros(0), np.zeros(0), np.zeros(0, int)
    weight, saved, of = np.array(found).T
    order = np.argsort(-saved / weight, kind="stable")
    return weight[order], saved[order], of[order].astype(int)


def _follow(classes: Sequence[_Class], weight: np.ndarray, saved: np.ndarray) -> _Relaxation:
    """The best moves first; scores are summed from the least, which are of many decades less than the first."""
    first, last = sum(each.weight[0] for each in classes), sum(each.score[-1] for each in classes)
    return _Relaxation(first + np.append(0.0, np.cumsum(weight)), last + np.append(np.cumsum(saved[::-1])[::-1], 0.0))


def _solved(classes: Sequence[_Class], budget: float) -> tuple[np.ndarray, float]:
    """The option of every class, and the gap."""
    weight, saved, of = _steps(classes)
    whole = _follow(classes, weight, saved)
    bound = float(whole(np.asarray(budget)))
    at = int(np.searchsorted(whole.weight, budget, side="right")) - 1
    slope = saved[at] / weight[at] if at < weight.size else 0.0
    regret = [each.score + slope * each.weight for each in classes]
    regret = [each - each.min() for each in regret]
    # Those that decide much come first: few partial choices survive them.
    order = np.argsort([-np.partition(each, 1)[1] if each.size > 1 else -np.inf for each in regret], kind="stable")
    rank = np.argsort(order)
    ordered = [classes[k] for k in order]
    rest = [_follow(ordered[k:], weight[rank[of] >= k], saved[rank[of] >= k]) for k in range(len(ordered))]
    rest.append(_Relaxation(np.zeros(1), np.zeros(1)))

    chosen, best, _ = _search(ordered, rest, budget, np.inf, _BEAM)
    struck = [_within(each, regret[k], best - bound) for each, k in zip(ordered, order, strict=True)]
    again, score, missed = _search(struck, rest, budget, best, _MOST)
    if again is not None:
        chosen, best = again, score
    gap = 0.0 if missed >= best or best == 0 else (best - missed) / best
    back = np.empty(len(classes), int)
    back[order] = chosen
    return back, float(gap)


def _within(each: _Class, regret: np.ndarray, most: float) -> _Class:
    kept = (regret < most) | (regret == regret.min())
    return _Class(each.weight[kept], each.score[kept], each.option[kept])


def _search(classes: Sequence[_Class], rest: Sequence[_Relaxation], budget: float, best: float, most: int):
    """Options of less than `best` together, their score, and the least relaxation among what was dropped for want of room."""
    weight, score = np.zeros(1), np.zeros(1)
    trail: list[tuple[np.ndarray, np.ndarray]] = []
    missed = np.inf
    for k, each in enumerate(classes):
        size = each.weight.size
        w, c = ((a[:, None] + b).ravel() for a, b in ((weight, each.weight), (score, each.score)))
        bound = c + rest[k + 1](budget - w)
        live = np.flatnonzero(bound < best * (1 - _ROUNDING) if np.isfinite(best) else np.isfinite(bound))
        live = live[np.lexsort((c[live], w[live]))]
        least = np.minimum.accumulate(c[live])
        live = live[np.append(True, least[1:] < least[:-1])[: live.size]]
        if live.size > most:
            ranked = np.argsort(bound[live], kind="stable")
            missed = min(missed, float(bound[live[ranked[most]]]))
            live = live[np.sort(ranked[:most])]
        if not live.size:
            return None, np.inf, missed
        trail.append((live // size, live % size))
        weight, score = w[live], c[live]
    at = int(np.argmin(score))
    found, total = [], float(score[at])
    for each, (before, place) in zip(reversed(classes), reversed(trail), strict=True):
        found.append(int(each.option[place[at]]))
        at = int(before[at])
    return np.array(found[::-1]), total, missed
