"""Gaussian expectations of soft rounding, exact from infinite temperature to zero.

A field h meets a codebook a_1 < ... < a_K in the weights

    p_k(h) ∝ exp{ beta [ h a_k − ½ curvature a_k² ] },                              (1)

whose log-sum-exp, mean <a>_h and variance are everything a replica theory or AMP asks of a quantized weight.
At beta = inf the mean is h / curvature rounded to the nearest level and its Gaussian averages are closed forms in the
thresholds t_k = curvature (a_k + a_{k+1}) / 2.  At finite beta each step of that staircase is smeared over
1 / (beta gap), so no fixed grid serves all temperatures.  The average is therefore split as

    E[F] = E[F at beta = inf]  +  sum over thresholds and their two sides of  ∫ (F − F at beta = inf) p(h) dh,   (2)

where every integrand lives next to its threshold and is smooth on each side.  The integrals use Gauss-Legendre nodes in
tau with distance = scale sinh(tau): `scale` is the distance to the nearest complex zero of the partition sum, so the
integrand is analytic in a strip of half-width about pi/2 in tau whatever the temperature.
"""

from __future__ import annotations

import math
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from replicajax.numerics._backend import JAX, NUMPY, Backend
from replicajax.numerics._staircase import LARGE, Averages, Fields, Levels, RoundingSlopes, Slope
from replicajax.numerics._window import SoftRounding, window

# A Gaussian variable never exceeds this many deviations: its tail there is 0 in float64 (inf would spoil 2nd derivatives).
_FAR = 40.0

Scalar = Float[Any, ""]
Vector = Float[Any, " levels"]


def default_nodes(levels: int) -> int:
    """Nodes per side of a threshold that keep every average within 1e-9, also for clustered levels (tests/numerics)."""
    return 40 if levels <= 16 else 32


def soft_rounding(
    levels: Vector,
    curvature: Scalar,
    beta: Scalar,
    mean: Scalar,
    deviation: Scalar,
    nodes: int | None = None,
    cold: bool | None = None,
) -> SoftRounding:
    """Average the soft rounding (1) over a field h ~ N(mean, deviation²).

    Args:
      levels: K >= 2 increasing levels.
      curvature: coefficient of a²/2, > 0.
      beta: inverse temperature, > 0; may be inf.
      mean, deviation: of the Gaussian field (deviation > 0 is a standard deviation).
      nodes: Gauss-Legendre nodes on each side of each threshold.
      cold: whether beta = inf, if known before compiling.
    """
    nodes = nodes or default_nodes(levels.shape[0])
    if cold is None:
        infinite = jnp.isinf(beta)
        warm_beta = jnp.where(infinite, 1.0, beta)  # keeps 0 * inf out of values and of derivatives
        zero, warm = (
            hard_rounding(levels, curvature, mean, deviation),
            _warm(nodes, levels, curvature, warm_beta, mean, deviation),
        )
        return SoftRounding(*(jnp.where(infinite, z, w) for z, w in zip(zero, warm, strict=True)))
    if cold:
        return hard_rounding(levels, curvature, mean, deviation)
    return _warm(nodes, levels, curvature, beta, mean, deviation)


def hard_rounding(
    levels: Float[Any, " levels"],
    curvature: Float[Any, ""],
    mean: Float[Any, ""],
    deviation: Float[Any, ""],
    on: Backend = JAX,
) -> SoftRounding:
    """beta = inf, h / curvature rounded to the nearest level: partial moments of the Gaussian between thresholds."""
    xp = on.xp
    gaps = xp.diff(levels)
    z = (curvature * (levels[1:] + levels[:-1]) / 2 - mean) / deviation
    density = xp.exp(-(z**2) / 2) / xp.sqrt(2 * xp.pi)
    lower = xp.concatenate([xp.full_like(z[:1], -_FAR), z])
    upper = xp.concatenate([z, xp.full_like(z[:1], _FAR)])
    # The difference of two cdfs, taken in the tail where neither is close to 1.
    side = xp.asarray(xp.where(lower > 0, -1.0, 1.0), z.dtype)
    usage = side * (on.erfc(-side * upper / math.sqrt(2)) - on.erfc(-side * lower / math.sqrt(2))) / 2
    first, second = usage @ levels, usage @ levels**2
    return SoftRounding(
        potential=mean * first + deviation * gaps @ density - curvature * second / 2,
        mean=first,
        square=second,
        response=gaps @ density / deviation,
        response_square=xp.full_like(first, xp.inf),
        entropy=xp.zeros_like(first),
        usage=usage,
    )


class _Sides(NamedTuple):
    """Both sides of every threshold, one a row, and quadrature there: nodes at `x` from the threshold."""

    sign: Float[Any, " sides"]
    """1 where the winner is the higher level."""
    winner: np.ndarray
    won: Float[Any, " sides"]
    middle: Float[Any, " sides"]
    """Of the two levels, in the mirror where sign is −1."""
    rise: Float[Any, "sides levels"]
    x: Float[Any, "sides nodes"]
    measure: Float[Any, "sides nodes"]
    e: Float[Any, "sides nodes levels"]
    """Exponents relative to the winner's, from differences of levels only: no cancellation at large beta."""


def _sides(nodes: int, levels: Vector, curvature, beta, mean, deviation, on: Backend) -> _Sides:
    xp, K, c = on.xp, levels.shape[0], curvature
    up, down = np.arange(1, K), np.arange(K - 1)
    winner, loser = np.concatenate([up, down]), np.concatenate([down, up])
    step = np.repeat([1, -1], K - 1)
    sign, after = xp.asarray(step, levels.dtype), np.clip(winner + step, 0, K - 1)
    won, lost = levels[winner], levels[loser]
    gap, middle = sign * (won - lost), sign * (won + lost) / 2
    next_gap = sign * (levels[after] - won)
    end = xp.where(after == winner, xp.inf, c * (gap + next_gap) / 4)
    next_gap = xp.where(after == winner, xp.inf, next_gap)
    distance = c * middle - sign * mean
    low, high = window(xp, -distance, beta * xp.minimum(gap, next_gap), end, deviation)
    rise = sign[:, None] * (levels - won[:, None])
    offset = sign[:, None] * (lost[:, None] - levels) / 2  # of the loser 0 exactly
    below = rise < 0
    zeros = (c * offset) ** 2 + (xp.pi / (beta * xp.where(below, rise, 1.0))) ** 2
    scale = on.constant(xp.minimum(xp.sqrt(xp.where(below, zeros, xp.inf).min(1)), LARGE * high))

    unit, weight = (xp.asarray(a, levels.dtype) for a in np.polynomial.legendre.leggauss(nodes))
    start, stop = (xp.log(x + xp.sqrt(1 + x**2)) for x in (low / scale, high / scale))  # arcsinh
    half = ((stop - start) / 2)[:, None]
    tau = start[:, None] + half * (1 + unit)
    x = scale[:, None] * xp.sinh(tau)
    z = (distance[:, None] + x) / deviation
    measure = weight * half * scale[:, None] * xp.cosh(tau) * xp.exp(-(z**2) / 2) / (deviation * math.sqrt(2 * math.pi))
    e = beta * rise[:, None] * (c * offset[:, None] + x[..., None])
    return _Sides(sign, winner, won, middle, rise, x, measure, e)


def crossed_rounding(levels: Vector, curvature: Scalar, beta: Scalar, mean: Scalar, deviation: Scalar) -> Scalar:
    """E of <a> times the most probable level, as `soft_rounding` has its averages; derivatives are those of the quadrature."""
    at = _sides(default_nodes(levels.shape[0]), levels, curvature, beta, mean, deviation, JAX)
    boltzmann = jnp.exp(at.e)
    shift = (boltzmann * at.rise[:, None]).sum(-1) / boltzmann.sum(-1)
    change = at.measure * (at.sign * at.won)[:, None] * shift
    return hard_rounding(levels, curvature, mean, deviation).square + change.sum()


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def _warm(nodes: int, levels, curvature, beta, mean, deviation) -> SoftRounding:
    """At finite beta; its derivatives are averages too (`_with_slopes`)."""
    return _with_slopes(nodes, levels, curvature, beta, mean, deviation)[0]


@_warm.defjvp
def _warm_jvp(nodes: int, primals, tangents):
    values, slopes = _with_slopes(nodes, *primals)
    levels, *scalars = tangents

    def along(slope: _Slope):
        rest = zip(slope[1:], scalars, strict=True)
        return slope.levels @ levels + sum(by * t for by, t in rest)

    return values, SoftRounding(*map(along, slopes))


class _Slope(NamedTuple):
    """Derivatives of an average; of the usage, one row a level."""

    levels: Float[Any, "... levels"]
    curvature: Float[Any, "..."]
    beta: Float[Any, "..."]
    mean: Float[Any, "..."]
    deviation: Float[Any, "..."]


def _with_slopes(
    nodes: int, levels: Vector, curvature, beta, mean, deviation, on: Backend = JAX
) -> tuple[SoftRounding, SoftRounding]:
    """All averages and all their derivatives, by one quadrature.

    An average of F(p, a) changes with the energies e_k = beta (h a_k − ½ curvature a_k²) and with the levels themselves,

        dF = sum_k y_k de_k + sum_k x_k da_k,       y_k = p_k times a deviation from a mean, so that sum_k y_k = 0,

    so that E y_k and E (h − curvature a_k) y_k are all that is needed, and y_k lives where the staircase is soft.
    """
    xp, K, c = on.xp, levels.shape[0], curvature
    sign, winner, won, middle, rise, x, measure, e = _sides(nodes, levels, curvature, beta, mean, deviation, on)
    boltzmann = xp.exp(e)
    is_winner = np.arange(K) == winner[:, None, None]
    others = xp.where(is_winner, 0.0, boltzmann).sum(-1)
    p = boltzmann / (1 + others)[..., None]
    shift = (p * rise[:, None]).sum(-1)
    u = rise[:, None] - shift[..., None]
    variance = (p * u**2).sum(-1)
    log_partition, energy = xp.log1p(others), (p * e).sum(-1)
    a = (sign * won)[:, None] + shift
    spread = u**2 - variance[..., None]
    entropy = log_partition - energy
    departure = xp.where(is_winner, -(others / (1 + others))[..., None], p)
    turn = (sign[:, None] * measure)[..., None]

    def average(values, measure=measure):
        return xp.tensordot(measure, values, 2)

    hard = hard_rounding(levels, c, mean, deviation, on)
    values = SoftRounding(
        potential=hard.potential + average(log_partition) / beta,
        mean=hard.mean + average(shift, sign[:, None] * measure),
        square=hard.square + average(shift * (shift + 2 * (sign * won)[:, None])),
        response=beta * average(variance),
        response_square=beta**2 * average(variance**2),
        entropy=average(entropy),
        usage=hard.usage + average(departure),
    )

    weights = measure[..., None] * p
    y = xp.stack(
        [
            turn * p * u,
            2 * a[..., None] * weights * u,
            weights * spread,
            2 * variance[..., None] * weights * spread,
            -weights * (e - energy[..., None]),
        ]
    )
    d = (c * (middle[:, None] - sign[:, None] * levels))[:, None] + x[..., None]  # sign (h − curvature a)
    signed = sign[:, None, None] * d
    one, far = y.sum((1, 2)), (y * signed).sum((1, 2))
    flat = weights.reshape(-1, K)
    mixed, mixed_far = flat.T @ p.reshape(-1, K), flat.T @ (p * signed).reshape(-1, K)
    each, each_far = weights.sum((0, 1)), (weights * signed).sum((0, 1))
    centred = (turn * p * u).sum((0, 1))
    lean = (turn * variance[..., None] * p * u).sum((0, 1))
    one, far = (
        xp.concatenate([rows, xp.diag(diagonal) - square])
        for rows, diagonal, square in ((one, each, mixed), (far, each_far, mixed_far))
    )
    nothing = xp.zeros_like(centred)
    direct = xp.stack([values.usage, 2 * (levels * values.usage - centred), 2 * centred, 4 * lean, nothing])
    direct = xp.concatenate([direct, xp.zeros((K, K), direct.dtype)])

    by_levels = beta * far + direct
    by_curvature = -beta / 2 * one @ levels**2
    by_beta = far @ levels + c / 2 * one @ levels**2
    by_mean = beta * one @ levels
    by_deviation = beta * ((far + (c * levels - mean) * one) @ levels) / deviation
    first = _Slope(by_levels, by_curvature, by_beta, by_mean, by_deviation)
    m, q, v, v_square, s = (jax.tree.map(lambda rows, i=i: rows[i], first) for i in range(5))
    usage = jax.tree.map(lambda rows: rows[5:], first)
    response = jax.tree.map(lambda x: beta * x, v)._replace(beta=values.response / beta + beta * v.beta)
    square = jax.tree.map(lambda x: beta**2 * x, v_square)
    square = square._replace(beta=2 * values.response_square / beta + square.beta)
    potential = _Slope(
        # E p (h − curvature a), by Stein's lemma
        levels=(mean - c * levels) * values.usage + deviation**2 * beta * centred,
        curvature=-(values.square + values.response / beta) / 2,
        beta=-values.entropy / beta**2,
        mean=values.mean,
        deviation=deviation * values.response,
    )
    return values, SoftRounding(potential, m, q, response, square, s, usage)  # type: ignore[arg-type]


class Nearby(NamedTuple):
    """Soft rounding in the neighbourhood of some arguments, to first order: all that a first derivative needs to know."""

    at: tuple[Array, ...]
    """Arguments of `soft_rounding`; the last two with an axis of fields."""
    soft: tuple[SoftRounding, SoftRounding]
    """Values, and slopes (each a _Slope)."""
    hard: tuple[SoftRounding, SoftRounding]

    @classmethod
    def of(cls, levels, curvature, beta, mean, deviation) -> Nearby:
        """By NumPy, which compiles nothing."""
        nodes = default_nodes(levels.shape[0])
        fields = list(zip(mean, deviation, strict=True))
        with np.errstate(all="ignore"):
            soft = [_with_slopes(nodes, levels, curvature, beta, *field, NUMPY) for field in fields]
            hard = [_hard_with_slopes(levels, curvature, *field) for field in fields]
        stacked = (jax.tree.map(lambda *x: np.stack(x), *each) for each in (soft, hard))
        return cls((levels, curvature, beta, mean, deviation), *stacked)

    def soften(self, *arguments: Array) -> SoftRounding:
        """As `soft_rounding`."""
        return _near(self.soft, *arguments)

    def harden(self, levels: Array, curvature: Array, mean: Array, deviation: Array) -> SoftRounding:
        """As `hard_rounding`: mean, square and response."""
        return _near(self.hard, levels, curvature, jnp.zeros_like(curvature), mean, deviation)


def _near(known: tuple[SoftRounding, SoftRounding], *arguments: Array) -> SoftRounding:
    change = [x - jax.lax.stop_gradient(x) for x in arguments]

    def one(value, slope, levels, *scalars):
        return value + slope.levels @ levels + sum(by * change for by, change in zip(slope[1:], scalars, strict=True))

    def all_of(values, slopes, mean, deviation):
        pairs = zip(values, slopes, strict=True)
        return SoftRounding(*[one(value, slope, *change[:3], mean, deviation) for value, slope in pairs])

    return jax.vmap(all_of)(*known, *change[3:])


def _hard_with_slopes(levels, curvature, mean, deviation) -> tuple[SoftRounding, SoftRounding]:
    """Mean, square and response of hard rounding: of the levels' probabilities, and of thresholds that move."""
    values = hard_rounding(levels, curvature, mean, deviation, NUMPY)
    gaps, middle = np.diff(levels), (levels[1:] + levels[:-1]) / 2
    z = (curvature * middle - mean) / deviation
    density = np.exp(-(z**2) / 2) / math.sqrt(2 * math.pi)

    def slope(direct, by_z, of_deviation=0.0) -> _Slope:
        by_z = by_z / deviation
        shared = curvature / 2 * by_z  # a threshold is the middle of two levels
        by_levels = direct + np.append(shared, 0.0) + np.insert(shared, 0, 0.0)
        return _Slope(by_levels, by_z @ middle, np.zeros(()), -by_z.sum(), of_deviation - by_z @ z)

    jump = np.append(0.0, density) - np.append(density, 0.0)
    response = slope(jump / deviation, -gaps * density * z / deviation, -values.response / deviation)
    square = slope(2 * levels * values.usage, -2 * middle * gaps * density)
    first = slope(values.usage, -gaps * density)
    nothing = jax.tree.map(np.zeros_like, response)
    usage = jax.tree.map(lambda x: np.zeros((levels.size, *np.shape(x))), response)
    return values, SoftRounding(nothing, first, square, response, nothing, nothing, usage)  # type: ignore[arg-type]


def soft_averages(book: Levels, curvature: Fields, beta: Fields, mean: Fields, deviation: Fields) -> Averages:
    """As `staircase_averages`, all sides, nodes and levels at once: for few fields inside a JAX transformation."""

    def one(levels, curvature, beta, mean, deviation):
        soft, slopes = _with_slopes(default_nodes(levels.shape[0]), levels, curvature, beta, mean, deviation)
        three = (
            Slope(getattr(soft, name), *(getattr(getattr(slopes, name), by) for by in Slope._fields[1:]))
            for name in RoundingSlopes._fields
        )
        return Averages(RoundingSlopes(*three), soft, hard_rounding(levels, curvature, mean, deviation))

    fields = (-1, 0, 0, 0, 0)
    return jax.vmap(one, in_axes=fields, out_axes=-1)(book.levels, curvature, beta, mean, deviation)
