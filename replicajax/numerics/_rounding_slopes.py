"""Soft rounding and its first derivatives in one pass, for many points at once.

The averages are those of `soft_rounding` and so is the split (2) there into one integral per threshold and side.  What
Newton's method needs besides them costs no further exponential: every derivative is a moment of the same p_k(h),

    d<a>/dh         = beta Var              d<a>/dcurvature      = −½ beta (2 <a> Var + mu3)              (1)
    d(beta Var)/dh  = beta² mu3             d(beta Var)/dcurvature = −½ beta² (mu4 − Var² + 2 <a> mu3)    (2)

with mu3, mu4 the central moments; and for h = mean + deviation z, d/dmean E F = E F', d/ddeviation E F = E z F'.

On evenly spaced levels a_w + i gap the Boltzmann factors about a threshold (x beyond it) are powers of two numbers,

    i < 0:  y^l c^(l(l−1)/2),  l = −i,  y = exp(−beta gap x);   i > 0:  v^i c^(i(i−1)/2),  v = c / y,     (3)

with c = exp(−beta curvature gap²), so a node costs one exponential instead of K.  Factors below exp(−40) are dropped:
levels further off than `_NEIGHBOURS` where c allows (`negligible_beyond`).

Points are the last axis of every array and thresholds the one before; blocks of some hundred numbers stay in cache.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import ndtr
from jaxtyping import Array, DTypeLike, Float, Int

from replicajax.numerics._soft_rounding import SoftRounding, hard_rounding, window

Points = Float[Array, " points"]


class Nodes(NamedTuple):
    """Gauss-Legendre nodes on each side of each threshold, as arrays: another number of them is no other program."""

    unit: Float[Array, " most"]
    weight: Float[Array, " most"]
    count: Int[Array, ""] | int
    """The first `count` are used."""


def gauss_legendre(count: int, most: int | None = None, dtype: DTypeLike = float) -> Nodes:
    """`count` nodes on [−1, 1], in arrays of length `most`."""
    unit, weight = np.polynomial.legendre.leggauss(count)
    unit, weight = (np.pad(a, (0, (most or count) - count)) for a in (unit, weight))
    return Nodes(jnp.asarray(unit, dtype), jnp.asarray(weight, dtype), count)


class Slope(NamedTuple):
    """An average and its derivatives in the parameters of `rounding_slopes`."""

    value: Points
    mean: Points | float
    deviation: Points
    curvature: Points


class RoundingSlopes(NamedTuple):
    mean: Slope
    """E <a>."""
    square: Slope
    """E <a>²."""
    response: Slope
    """E beta Var(a)."""


def rounding_slopes(
    levels: Float[Array, "levels points"],
    curvature: Points,
    beta: Points,
    mean: Points,
    deviation: Points,
    *,
    nodes: Nodes,
    even: bool = False,
    symmetric: bool = False,
) -> RoundingSlopes:
    """Averages of the soft rounding over h ~ N(mean, deviation²) with their derivatives, at finite beta.

    Args:
      levels: K >= 2 increasing levels of each point.
      curvature, beta, deviation: positive and finite, as in `soft_rounding`.
      mean: of the field.
      nodes: quadrature on each side of each threshold.
      even: the levels are evenly spaced (not checked).
      symmetric: the levels are symmetric about 0 and mean is 0 (not checked): half the work.  E <a>, which is 0, and
        derivatives in the mean are not computed then but given as 0.
    """

    def side(levels, mean) -> RoundingSlopes:
        winner, factors = levels[1:], _factors(levels, curvature, beta, even)

        def integrands(x, z):
            _, shift, second, third, fourth = factors.moments(x, 4)
            # Cumulants of the rise above the winner: nothing here cancels at large beta.
            variance = second - shift**2
            mu3 = third - 3 * shift * second + 2 * shift**3
            mu4 = fourth - 4 * shift * third + 6 * shift**2 * second - 3 * shift**4
            a = winner + shift
            lean = 2 * a * variance + mu3
            return (
                (shift, variance, z * variance, lean),
                (shift * (shift + 2 * winner), a * variance, z * a * variance, a * lean),
                (variance, mu3, z * mu3, mu4 - variance**2 + 2 * a * mu3),
            )

        sums = _integrate(integrands, factors.scale, levels, curvature, beta, mean, deviation, nodes)
        (m, m_h, m_z, m_c), (q, q_h, q_z, q_c), (v, v_h, v_z, v_c) = jax.tree.map(lambda s: s.sum(0), sums)
        return RoundingSlopes(
            mean=Slope(m, beta * m_h, beta * m_z, -beta / 2 * m_c),
            square=Slope(q, 2 * beta * q_h, 2 * beta * q_z, -beta * q_c),
            response=Slope(beta * v, beta**2 * v_h, beta**2 * v_z, -(beta**2) / 2 * v_c),
        )

    hard = hard_rounding_slopes(levels, curvature, mean, deviation)
    right = side(levels, mean)
    if symmetric:
        nothing = Slope(*(jnp.zeros_like(deviation),) * 4)
        square, response = (
            Slope(2 * s.value, nothing.mean, 2 * s.deviation, 2 * s.curvature) for s in (right.square, right.response)
        )
        return RoundingSlopes(nothing, square._replace(value=square.value + hard.square.value), response)
    # In the mirror image h -> −h, a -> −a the left side of a threshold is the right side of another.
    left = side(-levels[::-1], -mean)
    mean_, square, response = (
        Slope(r.value + p * l.value, r.mean - p * l.mean, r.deviation + p * l.deviation, r.curvature + p * l.curvature)
        for p, r, l in zip((-1, 1, 1), right, left, strict=True)
    )
    return RoundingSlopes(
        mean_._replace(value=mean_.value + hard.mean.value),
        square._replace(value=square.value + hard.square.value),
        response,
    )


def hard_rounding_slopes(
    levels: Float[Array, "levels points"], curvature: Points, mean: Points, deviation: Points
) -> RoundingSlopes:
    """The same at beta = inf: sums over thresholds z of the Gaussian tail and density there."""
    middle = (levels[1:] + levels[:-1]) / 2
    z = (curvature * middle - mean) / deviation
    density, tail = jnp.exp(-(z**2) / 2) / np.sqrt(2 * np.pi), ndtr(-z)

    def slope(value, by_z) -> Slope:
        by_z = (
            by_z / deviation
        )  # dz/dmean = −1/deviation, dz/ddeviation = −z/deviation, dz/dcurvature = middle/deviation
        return Slope(value, -by_z.sum(0), -(z * by_z).sum(0), (middle * by_z).sum(0))

    gaps, rise = jnp.diff(levels, axis=0), jnp.diff(levels**2, axis=0)
    bell = slope((gaps * density).sum(0), -z * gaps * density)
    return RoundingSlopes(
        mean=slope(levels[0] + (gaps * tail).sum(0), -gaps * density),
        square=slope(levels[0] ** 2 + (rise * tail).sum(0), -rise * density),
        response=Slope(*(x / deviation for x in bell))._replace(
            deviation=bell.deviation / deviation - bell.value / deviation**2
        ),
    )


def rounding_averages(
    levels: Float[Array, "levels points"],
    curvature: Points,
    beta: Points,
    mean: Points,
    deviation: Points,
    *,
    nodes: Nodes,
    even: bool = False,
    symmetric: bool = False,
) -> SoftRounding:
    """Everything `soft_rounding` gives, by the same formulas, for many points; arguments as in `rounding_slopes`."""

    def side(levels, mean) -> SoftRounding:
        gaps, winner, factors = jnp.diff(levels, axis=0), levels[1:], _factors(levels, curvature, beta, even)

        def integrands(x, z):
            del z
            others, shift, second = factors.moments(x, 2)
            response = beta * (second - shift**2)
            log_partition = jnp.log1p(others)
            # An energy above the winner's is −beta r (x − ½ curvature gap) + ½ beta curvature r² at the rise r.
            energy = beta * (curvature * second / 2 - (x - curvature * gaps / 2) * shift)
            usage = [term / (1 + others) for term in factors.terms(x)]
            usage = [*usage, others / (1 + others)]
            values = log_partition, shift, shift * (shift + 2 * winner), response, response**2, log_partition + energy
            return values, usage

        values, usage = _integrate(integrands, factors.scale, levels, curvature, beta, mean, deviation, nodes)
        *values, entropy = jax.tree.map(lambda s: s.sum(0), values)
        departure = factors.by_level(usage[:-1])
        potential, mean_, square, response, response_square = values
        departure = departure.at[1:].add(-usage[-1])
        return SoftRounding(potential / beta, mean_, square, response, response_square, entropy, departure)

    zero = jax.vmap(hard_rounding, in_axes=-1, out_axes=-1)(levels, curvature, mean, deviation)
    right = side(levels, mean)
    left = right._replace(mean=right.mean) if symmetric else side(-levels[::-1], -mean)
    return SoftRounding(
        potential=zero.potential + right.potential + left.potential,
        mean=zero.mean + right.mean - left.mean,
        square=zero.square + right.square + left.square,
        response=right.response + left.response,
        response_square=right.response_square + left.response_square,
        entropy=right.entropy + left.entropy,
        usage=zero.usage + right.usage + left.usage[::-1],
    )


def _integrate(integrands: Callable, scale, levels, curvature, beta, mean, deviation, nodes: Nodes):
    """Integrals of integrands(x, z) over h = threshold + x, x > 0, up to the middle of the next level's cell."""
    gaps = jnp.diff(levels, axis=0)
    thresholds = curvature * (levels[1:] + levels[:-1]) / 2
    endless = jnp.full_like(gaps[:1], jnp.inf)
    middle = jnp.concatenate([curvature * (gaps[:-1] + gaps[1:]) / 4, endless])
    slowest = beta * jnp.minimum(gaps, jnp.concatenate([gaps[1:], endless]))
    low, high = window(mean - thresholds, slowest, middle, deviation)

    unit, weight, count = nodes
    start, stop = jnp.arcsinh(low / scale), jnp.arcsinh(high / scale)
    half = (stop - start) / 2
    density = half * scale / (deviation * np.sqrt(2 * np.pi))

    def node(i):
        grow = jnp.exp(start + half * (1 + unit[i]))
        x = scale * (grow - 1 / grow) / 2
        z = (thresholds + x - mean) / deviation
        return x, z, weight[i] * density * (grow + 1 / grow) / 2 * jnp.exp(-(z**2) / 2)

    def add(i, sums):
        x, z, measure = node(i)
        return jax.tree.map(lambda total, value: total + measure * value, sums, integrands(x, z))

    shapes = jax.eval_shape(lambda x: integrands(x, x), thresholds)
    return jax.lax.fori_loop(0, count, add, jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes))


class _Factors(NamedTuple):
    """Boltzmann factors about each threshold, relative to the winner's."""

    scale: Float[Array, "thresholds points"]
    """Distance to the nearest complex zero of the partition sum."""
    terms: Callable
    """x -> the factor of every level but the winner, in some order."""
    moments: Callable
    """x, n -> sum of the factors of all but the winner, and moments 1 to n of the rise above it."""
    by_level: Callable
    """What `terms` gave, summed over thresholds, in the order of the levels."""


def _factors(levels, curvature, beta, even: bool) -> _Factors:
    return (_even_factors if even else _any_factors)(levels, curvature, beta)


def _any_factors(levels, curvature, beta) -> _Factors:
    """One exponential a level."""
    rise = [level - levels[1:] for level in levels]
    offset = [curvature * (levels[:-1] - level) / 2 for level in levels]
    loser = [_column(np.arange(levels.shape[0] - 1) + 1 != j) for j in range(levels.shape[0])]

    def terms(x):
        return [
            jnp.where(lost, jnp.exp(beta * r * (o + x)), 0.0) for r, o, lost in zip(rise, offset, loser, strict=True)
        ]

    def moments(x, n: int):
        M = [jnp.zeros_like(x)] * (n + 1)
        for r, term in zip(rise, terms(x), strict=True):
            for power in range(n + 1):
                M[power] = M[power] + term
                term = term * r
        return [M[0], *(m / (1 + M[0]) for m in M[1:])]

    def pole(r, o):
        return jnp.where(r < 0, jnp.hypot(o, jnp.pi / (beta * jnp.where(r < 0, r, 1.0))), jnp.inf)

    nearest = jnp.stack([pole(r, o) for r, o in zip(rise, offset, strict=True)]).min(0)
    return _Factors(jax.lax.stop_gradient(nearest), terms, moments, lambda t: jnp.stack([x.sum(0) for x in t]))


def _even_factors(levels, curvature, beta) -> _Factors:
    """By (3): polynomials in y and v whose coefficients depend on the threshold only through their degree."""
    K = levels.shape[0]
    gap = (levels[-1] - levels[0]) / (K - 1)
    neighbours = min(K - 1, _NEIGHBOURS)
    below, above = (_column(np.arange(1, K)), _column(np.arange(K - 2, -1, -1)))
    c = jnp.exp(-beta * curvature * gap**2)
    coefficient = [c ** (l * (l - 1) // 2) for l in range(1, neighbours + 1)]
    lower = [jnp.where(l <= below, k, 0.0) for l, k in enumerate(coefficient, 1)]
    upper = [jnp.where(l <= above, k, 0.0) for l, k in enumerate(coefficient, 1)]

    def steps(x):
        return jnp.exp(-beta * gap * x), jnp.exp(beta * gap * (x - curvature * gap))

    def terms(x):
        (y, v), down, up = steps(x), [], []
        y_l = v_l = 1.0
        for low, high in zip(lower, upper, strict=True):
            y_l, v_l = y_l * y, v_l * v
            down.append(low * y_l)
            up.append(high * v_l)
        return down + up

    def moments(x, n: int):
        y, v = steps(x)
        down, up = ([jnp.zeros_like(x)] * (n + 1) for _ in range(2))
        for l in range(neighbours, 0, -1):  # Horner
            for power in range(n + 1):
                down[power] = y * (down[power] + l**power * lower[l - 1])
                up[power] = v * (up[power] + l**power * upper[l - 1])
        others = down[0] + up[0]
        return [others, *(gap**p * (up[p] + (-1) ** p * down[p]) / (1 + others) for p in range(1, n + 1))]

    def by_level(t):
        # The winner of threshold k is level k + 1, so a rise of i gaps lands on level k + 1 + i.
        usage = jnp.zeros_like(levels)
        for l, (down, up) in enumerate(zip(t[:neighbours], t[neighbours:], strict=True), 1):
            usage = usage.at[: K - l].add(down[l - 1 :])
            usage = usage.at[l + 1 :].add(up[: K - 1 - l])
        return usage

    def pole(l: int):
        return jnp.hypot(curvature * gap * (l - 1) / 2, jnp.pi / (beta * gap * l))

    poles = [jnp.where(l <= below, pole(l), jnp.inf) for l in range(1, neighbours + 1)]
    return _Factors(jax.lax.stop_gradient(jnp.stack(poles).min(0)), terms, moments, by_level)


def _column(array: np.ndarray):
    return array[:, None]


_NEIGHBOURS = 15
"""Levels to either side of the winner kept by (3)."""


def negligible_beyond(levels: int, gap: Array, curvature: Array, beta: Array) -> Array:
    """Whether (3) loses nothing: all levels are kept, or the first one dropped weighs less than exp(−40)."""
    return (levels - 1 <= _NEIGHBOURS) | (beta * curvature * gap**2 * _NEIGHBOURS * (_NEIGHBOURS + 1) / 2 > 40.0)
