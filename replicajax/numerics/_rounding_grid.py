"""Soft rounding and its derivatives on an even grid of fields: for many levels closer than the thermal width.

Where levels blur into one another no threshold stands out, and the trapezoidal rule over the whole Gaussian is the better
quadrature: its error is exp(−2 pi d / step), with d the distance from the real axis to the nearest zero of the partition
sum.  Two neighbouring levels alone have theirs at d = pi/(beta gap); the end of a dense codebook, an error function of
(h − curvature a_K) sqrt(beta / (2 curvature)), at d = 1.99 sqrt(2 curvature / beta).  The smaller of the two is used, and
the number of nodes follows from it: large where beta is, and then `staircase_averages` is the better choice.

Fields are the last axis of every array; they take as many nodes as the most demanding one.  Levels are summed in slices,
so that their number is data.
"""

from __future__ import annotations

import math
from functools import partial
from typing import Any

from jaxtyping import Bool, Float

from replicajax.numerics._backend import JAX, Backend
from replicajax.numerics._staircase import (
    Averages,
    Fields,
    Levels,
    Nodes,
    RoundingSlopes,
    Slope,
    both_sides,
    hard_staircase_slopes,
    negligible_beyond,
    staircase_averages,
    unless_symmetric,
)
from replicajax.numerics._window import SoftRounding

_REACH = 8.5
"""Standard deviations kept on either side."""
_MOST = 2**16
"""Nodes at most, on each side; a field that needs more has no number."""
_ONE_BY_ONE = 16
"""Levels up to which thresholds are always integrated one by one."""
_SLICE = 16


def _nodes(on: Backend, book: Levels, curvature: Fields, beta: Fields, deviation: Fields, error):
    """Nodes on each side of the mean at which the trapezoidal rule errs by `error`, relative to the Gaussian's weight; and
    NaN for fields that need too many."""
    xp = on.xp
    there = (xp.arange(book.levels.shape[0] - 1) < book.count - 1)[:, None]
    gap = xp.where(there, xp.diff(book.levels, axis=0), 0.0).max(0)
    zero = xp.minimum(xp.pi / (beta * gap), 1.99 * xp.sqrt(2 * curvature / beta))
    needed = _REACH * deviation * -xp.log(error) / (2 * xp.pi * zero)
    count = xp.clip(xp.ceil(on.constant(needed).max()), 12, _MOST).astype(int)
    return count, xp.where(needed <= _MOST, 1.0, xp.nan)


def rounding_averages(
    book: Levels,
    curvature: Fields,
    beta: Fields,
    mean: Fields,
    deviation: Fields,
    *,
    nodes: Nodes,
    error: Float[Any, ""] | float = 1e-16,
    everything: Bool[Any, ""] | bool = True,
    centred: bool = False,
    crossed: bool = False,
    on: Backend = JAX,
) -> Averages:
    """By `staircase_averages`, or where many levels blur into one another by `grid_averages`."""
    arguments, flags = (
        (book, curvature, beta, mean, deviation),
        {"everything": everything, "centred": centred, "crossed": crossed, "on": on},
    )
    thresholds = partial(staircase_averages, nodes=nodes, **flags)
    if book.levels.shape[0] <= _ONE_BY_ONE:
        return thresholds(*arguments)
    sharp = negligible_beyond(book, curvature, beta, on.xp)
    return on.either(sharp, thresholds, partial(grid_averages, error=error, **flags), *arguments)


def grid_averages(
    book: Levels,
    curvature: Fields,
    beta: Fields,
    mean: Fields,
    deviation: Fields,
    *,
    error: Float[Any, ""] | float,
    everything: Bool[Any, ""] | bool = True,
    centred: bool = False,
    crossed: bool = False,
    on: Backend = JAX,
) -> Averages:
    """As `staircase_averages`; `error` is that of the quadrature.  The padding of `levels` makes them a multiple of 16."""
    xp = on.xp
    count, known = _nodes(on, book, curvature, beta, deviation, error)
    step, single = _REACH / count, xp.asarray(book.symmetric, bool)
    size = on.chunk(_SLICE, book.levels.shape[0])
    slices = -(-xp.asarray(book.count) // size)

    def at(z, usage, measure, every, curvature, beta, mean, deviation):
        def sliced(k):
            """Levels, and whether they are levels at all."""
            return on.rows(every, k * size, size), (k * size + xp.arange(size) < book.count)[:, None]

        best = mean / curvature + deviation / curvature * z  # with h = curvature best, −½ curvature (a − best)² decides

        def closer(k, nearest):
            levels, there = sliced(k)
            distance = xp.where(there, xp.abs(levels - best), xp.inf)
            chosen = xp.where(distance == distance.min(0), levels, -xp.inf).max(0)
            return xp.where(distance.min(0) < xp.abs(nearest - best), chosen, nearest)

        nearest = on.loop(slices, closer, every[0])

        def weights(k):
            levels, there = sliced(k)
            rise = levels - nearest
            return xp.where(there, xp.exp(-beta * curvature * rise * (rise / 2 + nearest - best)), 0.0), rise

        def add(k, sums):
            term, rise = weights(k)
            out = []
            for total in sums:
                out.append(total + term.sum(0))
                term = term * rise
            return tuple(out)

        partition, *M = on.loop(slices, add, (xp.zeros_like(mean),) * 5)
        shift, second, third, fourth = (m / partition for m in M)

        def use(k, usage):
            return on.add_rows(usage, k * size, measure / partition * weights(k)[0])

        usage = on.loop(xp.where(everything, slices, 0), use, usage)
        variance = second - shift**2
        mu3 = third - 3 * shift * second + 2 * shift**3
        mu4 = fourth - 4 * shift * third + 6 * shift**2 * second - 3 * shift**4
        a = nearest + shift
        lean = 2 * a * variance + mu3
        log_partition = xp.log(partition)
        potential = curvature * nearest * (best - nearest / 2) + log_partition / beta
        entropy = log_partition + beta * curvature * (second / 2 + shift * (nearest - best))
        new = a**2, z * a * variance, a * lean, variance, z * mu3, mu4 - variance**2 + 2 * a * mu3
        new += potential, variance**2, entropy
        return (*new, *(() if centred else (a * variance, mu3, a, z * variance, lean))), usage

    first = xp.where(single, 0, count)  # nodes left of the mean

    def add(i, sums, *fields):
        values, usage = sums
        z = ((i - first) * step).astype(mean.dtype)
        weight = step * xp.exp(-(z**2) / 2) / math.sqrt(2 * math.pi) * xp.where(single & (i > 0), 2.0, 1.0)
        measure = weight.astype(mean.dtype)
        new, usage = at(z, usage, measure, *fields)
        return on.add(values, new, measure), usage

    zeros = (xp.zeros_like(mean),) * (9 if centred else 14), xp.zeros_like(book.levels)
    values, usage = on.each_index(count + 1 + first, add, zeros, (book.levels, curvature, beta, mean, deviation))
    q, q_z, q_c, v, v_z, v_c, potential, v_square, entropy, *rest = (known * x for x in values)
    q_h, v_h, m, m_z, m_c = (unless_symmetric(xp, book, x) for x in rest or (xp.zeros_like(mean),) * 5)
    response, zero = beta * v, xp.zeros_like(mean)
    soft = SoftRounding(
        potential,
        zero + xp.nan if centred else m,
        q,
        response,
        beta**2 * v_square,
        entropy,
        both_sides(xp, book, usage),
    )
    slopes = RoundingSlopes(
        None if centred else Slope(m, response, beta * m_z, -beta / 2 * m_c),
        Slope(q, 2 * beta * q_h, 2 * beta * q_z, -beta * q_c),
        Slope(response, beta**2 * v_h, beta**2 * v_z, -(beta**2) / 2 * v_c),
    )
    first, second, jump = hard_staircase_slopes(book, curvature, beta, mean, deviation, on=on)
    assert first is not None
    hard = SoftRounding(zero, first.value, second.value, jump.value, zero + xp.inf, zero, zero)
    return Averages(slopes, soft, hard, zero + xp.nan if crossed else None)
