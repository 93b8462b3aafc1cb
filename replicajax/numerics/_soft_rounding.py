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

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import ndtr
from jaxtyping import Array, Float

# Integrands below exp(−REACH²/2) = 3e-15 of their peak are dropped.
_REACH = 8.2
# A Gaussian variable never exceeds this many deviations: its tail there is 0 in float64 (inf would spoil 2nd derivatives).
_FAR = 40.0


class SoftRounding(NamedTuple):
    """Gaussian averages of the soft rounding (1); those not used cost nothing under `jax.jit`."""

    potential: Float[Array, ""]
    """E of (1/beta) log sum_k exp{...}; at beta = inf, of the maximum over k."""
    mean: Float[Array, ""]
    """E <a>."""
    square: Float[Array, ""]
    """E <a>²."""
    response: Float[Array, ""]
    """E d<a>/dh = E beta Var(a)."""
    response_square: Float[Array, ""]
    """E (beta Var(a))²; inf at beta = inf."""
    entropy: Float[Array, ""]
    """E −sum_k p_k log p_k, in nats."""
    usage: Float[Array, " levels"]
    """E p_k."""


def default_nodes(levels: int) -> int:
    """Nodes per side of a threshold that keep every average within 1e-9, also for clustered levels (tests/numerics)."""
    return 40 if levels <= 16 else 32


def soft_rounding(
    levels: Float[Array, " levels"],
    curvature: Float[Array, ""],
    beta: Float[Array, ""],
    mean: Float[Array, ""],
    deviation: Float[Array, ""],
    nodes: int | None = None,
) -> SoftRounding:
    """Average the soft rounding (1) over a field h ~ N(mean, deviation²).

    Args:
      levels: K >= 2 increasing levels.
      curvature: coefficient of a²/2, > 0.
      beta: inverse temperature, > 0; may be inf.
      mean, deviation: of the Gaussian field (deviation > 0 is a standard deviation).
      nodes: Gauss-Legendre nodes on each side of each threshold.
    """
    nodes = nodes or default_nodes(levels.shape[0])
    cold = jnp.isinf(beta)
    warm_beta = jnp.where(cold, 1.0, beta)  # keeps 0 * inf out of values and of derivatives
    zero = hard_rounding(levels, curvature, mean, deviation)
    # The left side of each threshold is the right side in the mirror image h -> −h, a -> −a.
    mirrored = jnp.stack([levels, -levels[::-1]]), jnp.stack([mean, -mean])
    sides = jax.vmap(lambda a, m: _side(a, curvature, warm_beta, m, deviation, nodes))(*mirrored)
    warm = SoftRounding(
        potential=zero.potential + sides.potential.sum(),
        mean=zero.mean + sides.mean[0] - sides.mean[1],
        square=zero.square + sides.square.sum(),
        response=sides.response.sum(),
        response_square=sides.response_square.sum(),
        entropy=sides.entropy.sum(),
        usage=zero.usage + sides.usage[0] + sides.usage[1, ::-1],
    )
    return SoftRounding(*(jnp.where(cold, z, w) for z, w in zip(zero, warm, strict=True)))


def hard_rounding(
    levels: Float[Array, " levels"], curvature: Float[Array, ""], mean: Float[Array, ""], deviation: Float[Array, ""]
) -> SoftRounding:
    """beta = inf, h / curvature rounded to the nearest level: partial moments of the Gaussian between thresholds."""
    gaps = jnp.diff(levels)
    z = (curvature * (levels[1:] + levels[:-1]) / 2 - mean) / deviation
    density = jnp.exp(-(z**2) / 2) / jnp.sqrt(2 * jnp.pi)
    lower = jnp.concatenate([jnp.full_like(z[:1], -_FAR), z])
    upper = jnp.concatenate([z, jnp.full_like(z[:1], _FAR)])
    # The difference of two cdfs, taken in the tail where neither is close to 1.
    side = jnp.where(lower > 0, -1.0, 1.0).astype(z.dtype)
    usage = side * (ndtr(side * upper) - ndtr(side * lower))
    first, second = usage @ levels, usage @ levels**2
    return SoftRounding(
        potential=mean * first + deviation * gaps @ density - curvature * second / 2,
        mean=first,
        square=second,
        response=gaps @ density / deviation,
        response_square=jnp.full_like(first, jnp.inf),
        entropy=jnp.zeros_like(first),
        usage=usage,
    )


def _side(levels, curvature, beta, mean, deviation, nodes: int) -> SoftRounding:
    """The integrals of (2) over h = threshold + x, x > 0, up to the middle of the next level's cell."""
    gaps = jnp.diff(levels)
    winner = levels[1:]
    thresholds = curvature * (levels[1:] + levels[:-1]) / 2
    next_gaps = jnp.concatenate([gaps[1:], jnp.full_like(gaps[:1], jnp.inf)])
    middle = jnp.concatenate([curvature * (gaps[:-1] + gaps[1:]) / 4, jnp.full_like(gaps[:1], jnp.inf)])
    offset = (
        curvature * (levels[:-1, None] - levels) / 2
    )  # of threshold k from the meeting point of level j and the winner
    rise = levels - winner[:, None]

    slowest = beta * jnp.minimum(gaps, next_gaps)
    low, high = window(mean - thresholds, slowest, middle, deviation)
    below = rise < 0
    poles = jnp.sqrt(offset**2 + (jnp.pi / (beta * jnp.where(below, rise, 1.0))) ** 2)
    scale = jax.lax.stop_gradient(jnp.min(jnp.where(below, poles, jnp.inf), axis=1))

    unit, weight = (jnp.asarray(a, levels.dtype) for a in np.polynomial.legendre.leggauss(nodes))
    start, stop = jnp.arcsinh(low / scale), jnp.arcsinh(high / scale)
    half = ((stop - start) / 2)[:, None]
    tau = start[:, None] + half * (1 + unit)
    x = scale[:, None] * jnp.sinh(tau)  # (thresholds, nodes)
    z = (thresholds[:, None] + x - mean) / deviation
    measure = weight * half * scale[:, None] * jnp.cosh(tau) * jnp.exp(-(z**2) / 2) / (deviation * jnp.sqrt(2 * jnp.pi))

    # Energies relative to the winner, from differences of levels only: no cancellation at large beta.
    energy = -beta * rise[:, None, :] * (offset[:, None, :] + x[:, :, None])
    boltzmann = jnp.exp(-energy)
    partition = boltzmann.sum(-1)
    p = boltzmann / partition[..., None]
    shift = (p * rise[:, None, :]).sum(-1)  # <a> − winner
    response = beta * (p * (rise[:, None, :] - shift[..., None]) ** 2).sum(-1)
    others = jnp.where(rise[:, None, :] == 0, 0.0, boltzmann).sum(-1)
    log_partition = jnp.log1p(others)
    is_winner = rise[:, None, :] == 0
    departure = jnp.where(is_winner, -(others / partition)[..., None], p)

    def integrate(values):
        return (measure * values).sum()

    return SoftRounding(
        potential=integrate(log_partition) / beta,
        mean=integrate(shift),
        square=integrate(shift * (shift + 2 * winner[:, None])),
        response=integrate(response),
        response_square=integrate(response**2),
        entropy=integrate(log_partition + (p * energy).sum(-1)),
        usage=jnp.einsum("tn,tnk->k", measure, departure),
    )


def window(center, rate, end, deviation):
    """Where exp(−rate x) exp(−(x − center)²/2 deviation²) exceeds exp(−REACH²/2) of its peak on [0, end].

    The product is a Gaussian of the same deviation about center − rate deviation².
    """
    peak = center - rate * deviation**2
    nearest = jnp.clip(peak, 0.0, end)
    radius = jnp.sqrt((nearest - peak) ** 2 + (_REACH * deviation) ** 2)
    outward = jnp.where(peak < 0, (_REACH * deviation) ** 2 / (radius + jnp.abs(peak)), peak + radius)
    return jnp.maximum(0.0, peak - radius), jnp.minimum(end, outward)
