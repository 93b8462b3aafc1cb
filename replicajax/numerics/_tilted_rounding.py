"""Rounding under a tilted Gaussian: the inner average of one step of replica symmetry breaking.  theory 3, 8

A field h = H + sqrt(c) z meets a codebook whose log-sum-exp is phi(h) = (1/beta) log sum_k exp{beta [h a_k − ½ K a_k²]}.  Given
H the inner field z has density ∝ exp{y phi(h)} times the Gaussian one, with the partition sum

    Z(H) = E_z exp{y phi(H + sqrt(c) z)}.                                                                           (1)

At beta = inf phi is linear between thresholds t_k = K (a_k + a_{k+1})/2, and Z is a sum over cells, whose Gaussian the tilt
merely moves by y c a_k:

    Z(H) = sum_k exp{y (H a_k − ½ K a_k²) + ½ y² c a_k²} [Phi(b_k) − Phi(b_{k−1})],   b = (t − H − y c a_k)/sqrt(c).  (2)

At finite beta integrands differ from these near thresholds only, where (as in `_soft_rounding`) quadrature adds what is
missing, at the same nodes for all H.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Array, Float

from replicajax.numerics._backend import Backend
from replicajax.numerics._staircase import gauss_legendre

_OUTER = 36
"""Nodes for H on each side of where the tilted mean steps from one level to the next."""
_REACH = 9.0
"""Deviations of H looked at."""
_SIDE = 48
"""Nodes on each side of a threshold."""
_HERMITE, _NARROW = 64, 3.0
"""Nodes of the inner field, where it is narrower than so many steps 1/(beta gap) of <a>."""
_FADED = 37.0
"""Exponent at which a level has faded to rounding."""
_FAR = 1e5


class TiltedRounding(NamedTuple):
    """Averages over H of those over the tilted field, by component; <a> is the mean level at a field, [..] the tilted mean."""

    log_partition: Array
    """E log Z."""
    potential: Array
    """E [phi]."""
    first: Array
    """E [<a>]."""
    outer: Array
    """E [<a>]²."""
    inner: Array
    """E [<a>²]."""
    response: Array
    """E [beta Var(a)]."""
    entropy: Array
    """E [entropy of the level], in nats."""
    bend: Array
    """E of the square of d[<a>]/dH: of the outer stability."""
    inner_bend: Array
    """E [(beta Var)²], inf at beta = inf: of the inner stability."""
    usage: Float[Any, "components levels"]


@lru_cache
def _hermite(nodes: int) -> tuple[np.ndarray, np.ndarray]:
    unit, weight = np.polynomial.hermite_e.hermegauss(nodes)
    return unit, weight / weight.sum()


def tilted_rounding(
    on: Backend,
    levels: Float[Any, " levels"],
    curvature: Float[Any, " components"],
    beta: Float[Any, ""],
    parisi: Float[Any, ""],
    mean: Float[Any, " components"],
    deviation: Float[Any, " components"],
    variance: Float[Any, " components"],
    cold: bool,
) -> TiltedRounding:
    """(1) for H ~ N(mean, deviation²) and inner variance c = `variance`, at Parisi parameter y = `parisi`.

    `cold` says whether beta = inf.
    """
    xp = on.xp
    K, c, y = curvature[:, None], variance[:, None], parisi
    H, measure = (on.constant(x) for x in _outer(on, levels, K, c, beta, y, mean[:, None], deviation[:, None]))
    off = (H - mean[:, None]) / deviation[:, None]
    weight = measure * xp.exp(-(off**2) / 2) / (deviation[:, None] * math.sqrt(2 * math.pi))
    root = xp.sqrt(c)

    # The cells of (2): components, H, levels.
    a = levels
    t = K * (levels[1:] + levels[:-1]) / 2
    moved = H[..., None] + (y * c)[..., None] * a
    edge = xp.full_like(H[..., None], _FAR)
    z = (t[:, None, :, None] - moved[..., None, :]) / root[..., None, None]  # thresholds, levels
    inside = np.arange(levels.shape[0] - 1)
    b_up = xp.concatenate([z[..., inside, inside], edge], -1)
    b_low = xp.concatenate([-edge, z[..., inside, inside + 1]], -1)
    log_cell = y * (H[..., None] * a - K[..., None] * a**2 / 2) + (y**2 * c)[..., None] * a**2 / 2
    log_cell = log_cell + _log_difference(on, b_low, b_up)
    top = on.constant(log_cell.max(-1))
    cells = xp.exp(log_cell - top[..., None])

    # Thresholds: e^{y phi} times the Gaussian density there.
    phi_t = t * levels[:-1] - K * levels[:-1] ** 2 / 2
    apart = (t[:, None] - H[..., None]) / root[..., None]
    there = xp.exp(y * phi_t[:, None] - apart**2 / 2 - top[..., None]) / (root[..., None] * math.sqrt(2 * math.pi))
    gap = xp.diff(levels)

    total = cells.sum(-1)
    first, square, hits = cells @ a, cells @ a**2, there @ gap
    potential = H * first + (y * c - K / 2) * square + c * hits
    inner = _Inner(total, first, square, potential, hits, 0 * total, 0 * total + np.inf, cells)
    if not cold:
        narrow = (xp.sqrt(c) * beta * gap.max()).max() < _NARROW
        here = on, levels, K, c, beta, y, H, top
        inner = on.either(narrow, lambda _: _by_hermite(*here), lambda inner: _beyond_cold(*here, inner), inner)
    total, first, square, potential, hits, entropy, inner_bend, usage = inner
    log_total = top + xp.log(total)
    first, square, hits, potential, entropy = (x / total for x in (first, square, hits, potential, entropy))
    inner_bend, usage = inner_bend / total, usage / total[..., None]
    slope = hits + y * (square - first**2)

    def over(x):
        return (x * weight).sum(-1)

    return TiltedRounding(
        log_partition=over(log_total),
        potential=over(potential),
        first=over(first),
        outer=over(first**2),
        inner=over(square),
        response=over(hits),
        entropy=over(entropy),
        bend=over(slope**2),
        inner_bend=over(inner_bend),
        usage=(usage * weight[..., None]).sum(-2),
    )


class _Inner(NamedTuple):
    """Sums over the tilted field, not divided by Z: (components, H), over e^top."""

    total: Array
    first: Array
    square: Array
    potential: Array
    response: Array
    entropy: Array
    response_square: Array
    usage: Float[Array, "components nodes levels"]


def _by_hermite(on: Backend, levels, K, c, beta, y, H, top) -> _Inner:
    """Where the inner field is narrower than the steps of <a>."""
    xp = on.xp
    z, weight = (xp.asarray(x, levels.dtype) for x in _hermite(_HERMITE))
    h = H[..., None] + xp.sqrt(c)[..., None] * z
    at = _thermal(on, levels, K[..., None], beta, h)
    tilt = weight * xp.exp(y * at.phi - top[..., None])

    def over(x):
        return (tilt * x).sum(-1)

    return _Inner(
        total=tilt.sum(-1),
        first=over(at.mean),
        square=over(at.mean**2),
        potential=over(at.phi),
        response=over(at.variance),
        entropy=over(at.entropy),
        response_square=over(at.variance**2),
        usage=on.xp.moveaxis((tilt * at.p).sum(-1), 0, -1),
    )


def _beyond_cold(on: Backend, levels, K, c, beta, y, H, top, inner: _Inner) -> _Inner:
    """Where it is wider: (2), and what finite beta adds next to thresholds."""
    xp, soft = on.xp, _soft(on, levels, K, beta, y)
    apart = (soft.h[:, None] - H[..., None]) / xp.sqrt(c)[..., None]
    kernel = xp.exp(-(apart**2) / 2 + y * soft.phi[:, None] - top[..., None])
    kernel = kernel * soft.measure[:, None] / (xp.sqrt(c)[..., None] * math.sqrt(2 * math.pi))

    def add(values):
        return (kernel * values[:, None]).sum(-1)

    return _Inner(
        inner.total + add(soft.of_one),
        inner.first + add(soft.of_first),
        inner.square + add(soft.of_square),
        inner.potential + add(soft.of_potential),
        add(soft.variance),
        add(soft.entropy),
        add(soft.variance**2),
        inner.usage + (kernel[..., None] * soft.of_usage[:, None]).sum(-2),
    )


def _outer(on: Backend, levels, K, c, beta, y, mean, deviation) -> tuple[Array, Array]:
    """Nodes for H and their measure, (components, nodes): on both sides of the steps of [<a>], at (K − y c) times the middles.

    A step is as wide as the distance to the nearest complex zero of Z: pi/(y gap), or some sqrt(c), but at least what
    temperature makes it, pi/(beta gap).
    """
    xp = on.xp
    gap = xp.diff(levels)
    low, high = mean - _REACH * deviation, mean + _REACH * deviation
    steps = xp.clip((K - y * c) * (levels[1:] + levels[:-1]) / 2, low, high)
    steps = xp.sort(steps, axis=1)  # the other way round where y c exceeds K
    middles = (steps[:, 1:] + steps[:, :-1]) / 2
    thermal = xp.pi / (beta * gap.max())
    scale = 1 / xp.sqrt((y * gap.max() / xp.pi) ** 2 + 1 / (2 * c + thermal**2))
    below, above = steps - xp.concatenate([low, middles], 1), xp.concatenate([middles, high], 1) - steps
    return _beside(on, steps, scale, below, above, _OUTER)


def _beside(on: Backend, places, scale, below, above, nodes: int) -> tuple[Array, Array]:
    """Nodes on both sides of places, as far as told, at scale sinh(tau) with tau Gauss and Legendre's; and their measure."""
    xp, rule, parts = on.xp, gauss_legendre(nodes), []
    unit, weight = (xp.asarray(x, places.dtype) for x in (rule.unit, rule.weight))
    scale = scale[..., None]
    for sign, reach in ((-1.0, below), (1.0, above)):
        stop = xp.arcsinh(reach[..., None] / scale)
        tau = stop * (1 + unit) / 2
        parts.append((places[..., None] + sign * scale * xp.sinh(tau), weight * stop / 2 * scale * xp.cosh(tau)))
    shape = places.shape[0], -1
    at, measure = (xp.concatenate([part[i].reshape(shape) for part in parts], 1) for i in range(2))
    return at, measure


def _log_difference(on: Backend, low: Array, high: Array) -> Array:
    """log [Phi(high) − Phi(low)], in the tail where neither is close to 1."""
    xp = on.xp
    flip = low + high > 0
    one, other = xp.where(flip, -low, high), xp.where(flip, -high, low)
    upper = on.log_ndtr(one)
    ratio = xp.exp(on.log_ndtr(other) - upper)
    return upper + xp.log1p(-xp.where(ratio < 1, ratio, 1 - 1e-16))


class _Soft(NamedTuple):
    """At nodes next to all thresholds, each (components, nodes): what finite beta adds to (2), over e^{y phi}."""

    h: Array
    measure: Array
    phi: Array
    of_one: Array
    of_first: Array
    of_square: Array
    of_potential: Array
    variance: Array
    """beta Var(a)."""
    entropy: Array
    of_usage: Array


def _soft(on: Backend, levels, K, beta, y) -> _Soft:
    """Between midpoints of neighbouring thresholds, or to where the losing level has faded."""
    xp = on.xp
    gap = xp.diff(levels)
    t = K * (levels[1:] + levels[:-1]) / 2  # components, thresholds
    none = xp.full_like(t[:, :1], xp.inf)
    half = xp.diff(t, axis=1) / 2
    ends = xp.concatenate([none, half], 1), xp.concatenate([half, none], 1)
    scale = xp.pi / (beta * gap)
    beyond = xp.concatenate([gap[:1], gap[:-1]]), xp.concatenate([gap[1:], gap[-1:]])
    reaches = []
    for end, next_gap in zip(ends, beyond, strict=True):
        slowest = xp.minimum(gap, next_gap)  # to fade of the levels that lose there
        faded = _FADED / (beta * slowest)
        reaches.append(xp.where(end < faded, end, faded))
    below, above = reaches
    h, measure = _beside(on, t, scale, below, above, _SIDE)
    at = _thermal(on, levels, K, beta, h)
    won = xp.tensordot(levels, at.is_winner, 1)
    phi_cold = at.winner / beta
    before = xp.exp(-y * at.log_total / beta)  # e^{y phi} of beta = inf over that of now
    return _Soft(
        h=h,
        measure=measure,
        phi=at.phi,
        of_one=-xp.expm1(-y * at.log_total / beta),
        of_first=at.mean - before * won,
        of_square=at.mean**2 - before * won**2,
        of_potential=at.phi - before * phi_cold,
        variance=at.variance,
        entropy=at.entropy,
        of_usage=xp.moveaxis(at.p - before * at.is_winner, 0, -1),
    )


class _Thermal(NamedTuple):
    """The Boltzmann distribution of one weight at fields h."""

    p: Array
    """Levels first: sums over few numbers in a row are slow in NumPy."""
    is_winner: Array
    winner: Array
    """beta phi at beta = inf."""
    log_total: Array
    """beta phi less that."""
    phi: Array
    mean: Array
    variance: Array
    """beta Var(a)."""
    entropy: Array


def _thermal(on: Backend, levels, K, beta, h) -> _Thermal:
    xp = on.xp
    level = levels.reshape(-1, *(1,) * h.ndim)
    e = beta * (h * level - K * level**2 / 2)
    # No maximum, whose derivative asks for equality of numbers that a compiler may have rounded twice.
    is_winner = xp.asarray(np.arange(levels.shape[0]).reshape(level.shape) == e.argmax(0), levels.dtype)
    winner = (is_winner * e).sum(0)
    relative = e - winner
    boltzmann = xp.exp(relative)
    total = boltzmann.sum(0)
    p = boltzmann / total
    mean, log_total = xp.tensordot(levels, p, 1), xp.log(total)
    variance = beta * (p * (level - mean) ** 2).sum(0)
    entropy = log_total - (p * relative).sum(0)
    return _Thermal(p, is_winner, winner, log_total, (winner + log_total) / beta, mean, variance, entropy)
