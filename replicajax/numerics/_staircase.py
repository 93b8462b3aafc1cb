"""Soft rounding of many fields at once: the averages of `soft_rounding`, with the slopes that Newton's method needs.

The split is (2) of `_soft_rounding`, one integral for each side of each threshold.  Sides, nodes and levels are loops whose
lengths are data and fields are the last axis of every array, so that one program serves any number of levels:

    for each side of a threshold:  for each node x:  for each level that matters there:
        weight relative to the winner's = exp{ beta rise (curvature offset + x) }                          (1)

Levels go from the nearest on, and stop where all further ones weigh less than exp(−40).  Slopes cost no exponential.  With
h = mean + deviation z,

    d/dmean E F = E F',      d/ddeviation E F = E z F',      <a>' = beta Var,                              (2)

where Var' is traded for z Var by parts, and with the curvature the threshold moves, and weights (1) change about it:

    d/dcurvature E F = −middle E F' + E dF,      d log weight = beta rise offset.                          (3)

Nothing here cancels however large beta is: (3) vanishes for the two levels that meet at the threshold.

In the mirror image h -> −h, a -> −a the left side of a threshold is the right side of another; where the image is the
codebook itself and the mean is 0, right sides count twice.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, DTypeLike, Float, Int

from replicajax.numerics._backend import JAX, Backend
from replicajax.numerics._window import SoftRounding, window

Fields = Float[Any, " fields"]
Count = Int[Any, ""] | int

_NEGLIGIBLE = 40.0
"""exp(−40) = 4e-18."""
_NOTHING = -1e4
"""Logarithm of what is 0 in any precision."""
LARGE = 64.0
"""Of a scale, in units of the window."""
_MOST_LEVELS = 30
"""Besides the winner, that are looked at; see `negligible_beyond`."""


class Nodes(NamedTuple):
    """Gauss-Legendre nodes of one side, as arrays: another number of them is no other program."""

    unit: Float[Any, " most"]
    weight: Float[Any, " most"]
    count: Count
    """The first `count` are used."""


@lru_cache
def gauss_legendre(count: int, most: int | None = None, dtype: DTypeLike = float) -> Nodes:
    """`count` nodes on [−1, 1], in arrays of length `most`."""
    unit, weight = np.polynomial.legendre.leggauss(count)
    unit, weight = (np.pad(a, (0, (most or count) - count)).astype(dtype) for a in (unit, weight))
    return Nodes(unit, weight, count)


class Levels(NamedTuple):
    """Codebooks of as many fields, of one size."""

    levels: Float[Any, "levels fields"]
    """Increasing; rows from `count` on are padding."""
    count: Count
    symmetric: Bool[Any, ""] | bool
    """About 0, and the mean of the field is 0 too.  Then E <a> and derivatives in the mean, which are 0, are not computed."""

    @property
    def sides(self) -> Count:
        """Of thresholds, that are integrated over."""
        return (self.count - 1) * (2 - 1 * self.symmetric)


class Slope(NamedTuple):
    """An average and its derivatives in the parameters of the field."""

    value: Fields
    mean: Fields
    deviation: Fields
    curvature: Fields


class RoundingSlopes(NamedTuple):
    mean: Slope | None
    """E <a>, if asked for."""
    square: Slope
    """E <a>²."""
    response: Slope
    """E beta Var(a)."""


class _Side:
    """One side of a threshold: the way from the loser to the winner, and from there to the middle of the next gap."""

    def __init__(self, on: Backend, book: Levels, number: Count):
        xp = on.xp
        single = xp.asarray(book.symmetric, bool)
        threshold, right = xp.where(single, number, number // 2), single | (number % 2 == 0)
        self.on, self.book = on, book
        self.right = right
        self.winner_index, self.loser_index = threshold + right, threshold + 1 - right
        self.step = xp.where(right, 1, -1)
        self.behind = xp.where(right, self.winner_index, book.count - 1 - self.winner_index)
        """Levels on the loser's side of the winner."""
        dtype = book.levels.dtype
        self.share = xp.where(single, 2.0, 1.0).astype(dtype)
        self.odd = xp.where(single, 0.0, self.step).astype(dtype)
        """What an average that changes sign in the mirror counts for."""
        won, lost = self.row(self.winner_index), self.row(self.loser_index)
        after = self.step * (self.row(self.winner_index + self.step) - won)
        self.winner, self.loser = self.step * won, self.step * lost
        self.middle, self.gap = (self.winner + self.loser) / 2, self.winner - self.loser
        self.last = self.behind >= book.count - 1
        """Nothing comes after the winner."""
        self.next_gap = after

    def row(self, index) -> Fields:
        xp, levels = self.on.xp, self.book.levels
        return self.on.row(levels, xp.minimum(xp.maximum(index, 0), levels.shape[0] - 1))

    def others(self) -> Int[Any, " others"]:
        """Indices of the other levels in order of distance from the winner, the loser first."""
        xp = self.on.xp
        i = xp.arange(min(self.book.levels.shape[0] - 1, _MOST_LEVELS)).reshape(-1, *(1,) * np.ndim(self.winner_index))
        pairs = xp.minimum(self.behind, self.book.count - 1 - self.behind)
        paired = i < 2 * pairs
        distance = xp.where(paired, i // 2 + 1, i - pairs + 1)
        backward = xp.where(paired, i % 2 == 0, self.behind > pairs)
        return self.winner_index + xp.where(backward, -self.step, self.step) * distance


class _Integral(NamedTuple):
    """The quadrature of one side, and the weights (1) there: exp(fixed + slope x)."""

    on: Backend
    end: Fields
    """Where the side of the next threshold begins; inf if there is none."""
    start: Fields
    half: Fields
    scale: Fields
    density: Fields
    z: Fields
    """Of the threshold."""
    gap: Fields
    """Between its levels."""
    stiffness: Fields
    """½ beta curvature."""
    index: Int[Any, " others"]
    rise: Float[Any, "others fields"]
    fixed: Float[Any, "others fields"]
    slope: Float[Any, "others fields"]
    rows: Count
    """Levels that matter."""

    def weight(self, i, x: Fields) -> Fields:
        return self.on.xp.exp(self.fixed[i] + self.slope[i] * x)

    def moments(self, x: Fields) -> tuple[Fields, ...]:
        """Sum of the weights of all but the winner; averages of the rise above it and of its square; and how the logarithm
        of the partition sum and these two change with the logarithm of the curvature.

        The logarithm of a weight changes by −½ beta curvature rise (rise + gap): 0 exactly for the loser.
        """

        def of_level(rise, fixed, slope):
            term = self.on.xp.exp(fixed + slope * x)
            first = rise * term
            beyond = (rise + self.gap) * first
            return term, first, beyond, rise * beyond, rise * (rise * beyond)

        others, *M = self.on.over_rows(of_level, self.rows, (self.rise, self.fixed, self.slope), x, 5)
        per_sum = 1 / (1 + others)
        shift, beyond, first, square = (m * per_sum for m in M)
        log, first, square = (-self.stiffness * m for m in (beyond, first, square))
        second = beyond - self.gap * shift
        return others, shift, second, log, first - shift * log, square - second * log

    def over_nodes(self, deviation: Fields, nodes: Nodes, integrands: Callable, zeros):
        """Integrals of integrands(sums, x, z, measure), which adds itself to the sums."""
        xp = self.on.xp
        per_deviation = 1 / deviation

        def add(unit, weight, sums):
            grow = xp.exp(self.start + self.half * (1 + unit))
            shrink = 1 / grow
            x = self.scale * (grow - shrink) / 2
            z = self.z + x * per_deviation
            return integrands(sums, x, z, weight * self.density * (grow + shrink) / 2 * xp.exp(-(z**2) / 2))

        unit, weight = (xp.asarray(a, deviation.dtype) for a in nodes[:2])
        return self.on.each_node(unit, weight, nodes.count, add, zeros)


def _integral(on: Backend, side: _Side, curvature: Fields, beta: Fields, mean: Fields, deviation: Fields) -> _Integral:
    xp = on.xp
    distance = curvature * side.middle - side.step * mean
    end = xp.where(side.last, xp.inf, curvature * (side.gap + side.next_gap) / 4)
    narrow = xp.where(side.last, side.gap, xp.minimum(side.gap, side.next_gap))
    low, high = window(xp, -distance, beta * narrow, end, deviation)

    index = side.others()
    number = xp.arange(index.shape[0])
    there = (number < side.book.count - 1)[:, None]
    other = side.step * side.row(index)
    rise = xp.where(there, other - side.winner, 0.0)
    # From where it meets the winner to the threshold; of the loser 0 exactly, which large beta asks for.
    offset = curvature * (side.loser - other) / 2
    fixed, slope = beta * rise * offset, beta * rise
    zeros = xp.where(rise < 0, offset**2 + (xp.pi / xp.where(rise < 0, slope, 1.0)) ** 2, xp.inf)
    matters = (fixed + slope * xp.where(rise < 0, low, high) > -_NEGLIGIBLE) & (rise != 0)
    # Nothing at all, so that a field's averages do not depend on the others'.
    fixed, slope = xp.where(matters, fixed, _NOTHING), xp.where(matters, slope, 0.0)
    rows = (matters.any(1) * (number + 1)).max()
    # Beyond the window's size a larger scale changes nothing, but costs digits of the window.
    scale = on.constant(xp.minimum(xp.sqrt(zeros.min(0)), LARGE * high))
    start, stop = (xp.log(x + xp.sqrt(1 + x**2)) for x in (low / scale, high / scale))  # arcsinh, for x >= 0
    half = (stop - start) / 2
    density = half * scale / (deviation * math.sqrt(2 * math.pi)) * side.share
    z, stiffness = distance / deviation, beta * curvature / 2
    return _Integral(on, end, start, half, scale, density, z, side.gap, stiffness, index, rise, fixed, slope, rows)


class Averages(NamedTuple):
    slopes: RoundingSlopes
    soft: SoftRounding | None
    """Its usage is that of hard rounding, unless everything was asked for."""
    hard: SoftRounding | None
    """At beta = inf; without usage."""
    crossed: Fields | None = None
    """E of <a> times the most probable level, if asked for; NaN where levels blur, since it jumps."""


def staircase_averages(
    book: Levels,
    curvature: Fields,
    beta: Fields,
    mean: Fields,
    deviation: Fields,
    *,
    nodes: Nodes,
    everything: Bool[Any, ""] | bool = True,
    centred: bool = False,
    crossed: bool = False,
    on: Backend = JAX,
) -> Averages:
    """Averages over h ~ N(mean, deviation²) with their derivatives, at finite beta.

    Args:
      curvature, beta, deviation: positive.
      nodes: quadrature on each side of each threshold.
      everything: the potential, the square of the response, the entropy and the usage of the levels too.
      centred: the mean is 0 and stays so: neither E <a> nor derivatives in the mean are asked for.
      crossed: where everything is asked for, `Averages.crossed` too.
    """

    xp, counting = on.xp, on is JAX or bool(everything)  # compiled, it is not known

    def of_side(k, total, levels, curvature, beta, mean, deviation):
        values, usage = total
        side = _Side(on, book._replace(levels=levels), k)
        integral = _integral(on, side, curvature, beta, mean, deviation)

        def integrands(sums, x, z, measure):
            values, usage = sums
            others, shift, second, _, bend, square = integral.moments(x)
            variance, a = second - shift**2, side.winner + shift

            def energies():
                log_partition = xp.log1p(others)
                # An energy above the winner's is −beta r (x − ½ curvature gap) + ½ beta curvature r² at the rise r.
                energy = beta * (curvature * second / 2 - (x - curvature * side.gap / 2) * shift)
                found = log_partition, variance**2, log_partition + energy, others / (1 + others)
                return (*found, side.winner * shift) if crossed else found

            new = shift * (shift + 2 * side.winner), a * variance, z * a * variance, a * bend
            new += variance, z * variance, z**2 * variance, square - 2 * shift * bend
            new += on.either(everything, energies, lambda: (xp.zeros_like(x),) * (4 + crossed))
            if not centred:
                new += shift, bend
            scale = measure / (1 + others)

            def use(i, usage):
                return on.add_row(usage, integral.index[i], scale * integral.weight(i, x))

            usage = on.loop(xp.where(everything, integral.rows, 0), use, usage)
            return on.add(values, new, measure), usage

        zeros = (xp.zeros_like(deviation),) * ((12 if centred else 14) + crossed), usage
        (q, q_h, q_z, q_c, v, v_h, v_z, v_c, *rest), usage = integral.over_nodes(deviation, nodes, integrands, zeros)
        # By parts on this side alone; what is left at the threshold its other side takes away.
        end = xp.where(side.last, 0.0, integral.end)
        _, shift, second, *_ = integral.moments(end)
        at_end = xp.where(side.last, 0.0, side.share * (second - shift**2) * _density(xp, integral.z + end / deviation))
        at_end = at_end / deviation
        tail = side.right * _tail(on, integral.z)
        jump = side.right * side.gap * _density(xp, integral.z)
        if counting:
            usage = on.add_row(on.add_row(usage, side.winner_index, tail - rest[3]), side.loser_index, -tail)
        of_side = q, 2 * beta * q_z, 2 * (q_c / curvature - beta * side.middle * q_h)
        by_mean = beta * (v_h / deviation + at_end)
        of_side += beta * v, beta * (v_z - v) / deviation, beta * v_c / curvature - side.middle * by_mean
        of_side += rest[0] / beta, beta**2 * rest[1], rest[2]
        of_side += side.gap * tail, 2 * side.middle * side.gap * tail, jump
        if not centred:
            m, m_c = rest[4 + crossed :]
            odd = 2 * beta * q_h, by_mean, m, beta * v_h, m_c / curvature - beta * side.middle * v
            of_side += tuple(side.odd * x for x in odd)
        of_side += (rest[4],) if crossed else ()
        return on.add(values, of_side), usage

    x = book.levels[0]
    zeros = (
        (xp.zeros_like(x),) * ((12 if centred else 17) + crossed),
        xp.zeros_like(book.levels) + (xp.arange(book.levels.shape[0]) == 0)[:, None],
    )
    values, usage = on.each_index(book.sides, of_side, zeros, (book.levels, curvature, beta, mean, deviation))
    q, q_z, q_c, v, v_z, v_c, potential, v_square, entropy, first, second, jump, *rest = values
    product = rest.pop() if crossed else None
    q_h, v_h, m, m_z, m_c = rest or (xp.zeros_like(x),) * 5
    first, second = unless_symmetric(xp, book, x + first), x**2 + second
    hard_potential = mean * first + deviation * jump - curvature * second / 2
    soft = SoftRounding(
        potential=hard_potential + potential,
        mean=xp.full_like(x, xp.nan) if centred else first + m,
        square=second + q,
        response=v,
        response_square=v_square,
        entropy=entropy,
        usage=both_sides(xp, book, usage) if counting else usage,
    )
    slopes = RoundingSlopes(
        None if centred else Slope(soft.mean, v, m_z, m_c),
        Slope(soft.square, q_h, q_z, q_c),
        Slope(v, v_h, v_z, v_c),
    )
    zero, infinite = xp.zeros_like(x), xp.full_like(x, xp.inf)
    hard = SoftRounding(hard_potential, first, second, jump / deviation, infinite, zero, zero)
    return Averages(slopes, soft, hard, None if product is None else second + product)


def hard_staircase_slopes(
    book: Levels,
    curvature: Fields,
    beta: Fields,
    mean: Fields,
    deviation: Fields,
    *,
    centred: bool = False,
    on: Backend = JAX,
) -> RoundingSlopes:
    """The same at beta = inf: sums over thresholds z of the Gaussian tail and density there."""
    del beta
    xp = on.xp

    def of_threshold(k, sums, levels, curvature, mean, deviation):
        low, high = on.row(levels, k), on.row(levels, k + 1)
        gap, middle = high - low, (high + low) / 2
        z = (curvature * middle - mean) / deviation
        density, tail = _density(xp, z), _tail(on, z)

        def slope(value, by_z):
            by_z = by_z / deviation
            # dz/dmean = −1/deviation, dz/ddeviation = −z/deviation, dz/dcurvature = middle/deviation
            return value, -by_z, -z * by_z, middle * by_z

        jump = gap * density
        bell = slope(jump, -z * jump)
        square = slope(2 * middle * gap * tail, -2 * middle * jump)
        first = () if centred else slope(gap * tail, -jump)
        return on.add(sums, (*square, *bell, *first))

    x = book.levels[0]
    fields = book.levels, curvature, mean, deviation
    sums = on.each_index(book.count - 1, of_threshold, (xp.zeros_like(x),) * (8 if centred else 12), fields)
    square, bell, first = Slope(*sums[:4]), Slope(*(s / deviation for s in sums[4:8])), sums[8:]
    return RoundingSlopes(
        Slope(unless_symmetric(xp, book, x + first[0]), *first[1:]) if first else None,
        square._replace(value=x**2 + square.value),
        bell._replace(deviation=bell.deviation - bell.value / deviation),
    )


def _density(xp: Any, z: Fields) -> Fields:
    return xp.exp(-(z**2) / 2) / math.sqrt(2 * math.pi)


def _tail(on: Backend, z: Fields) -> Fields:
    return on.erfc(z / math.sqrt(2)) / 2


def unless_symmetric(xp: Any, book: Levels, x: Fields) -> Fields:
    return xp.where(xp.asarray(book.symmetric, bool), 0.0, x)


def both_sides(xp: Any, book: Levels, usage: Float[Any, "levels fields"]) -> Float[Any, "levels fields"]:
    """Usage counted on right sides only, shared with the mirror images."""
    mirrored = usage[xp.clip(book.count - 1 - xp.arange(usage.shape[0]), 0, None)]
    return xp.where(xp.asarray(book.symmetric, bool), (usage + mirrored) / 2, usage)


def negligible_beyond(book: Levels, curvature: Fields, beta: Fields, xp: Any = np) -> Bool[Any, ""]:
    """Whether the nearest `_MOST_LEVELS` are enough: there are no more, or further ones weigh less than exp(−40)."""
    there = (xp.arange(book.levels.shape[0] - 1) < book.count - 1)[:, None]
    gap, reach = xp.where(there, xp.diff(book.levels, axis=0), xp.inf).min(0), _MOST_LEVELS // 2
    return (book.count - 1 <= reach) | (beta * curvature * gap**2 * reach * (reach + 1) / 2 > _NEGLIGIBLE).all()
