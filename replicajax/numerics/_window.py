"""Where a Gaussian times a decaying exponential is worth integrating, and what rounding averages are called."""

from __future__ import annotations

from typing import Any, NamedTuple

from jaxtyping import Float

_REACH = 8.2
"""Integrands below exp(−REACH²/2) = 3e-15 of their peak are dropped."""


class SoftRounding(NamedTuple):
    """Gaussian averages of the soft rounding (1) of `_soft_rounding`."""

    potential: Float[Any, ""]
    """E of (1/beta) log sum_k exp{...}; at beta = inf, of the maximum over k."""
    mean: Float[Any, ""]
    """E <a>."""
    square: Float[Any, ""]
    """E <a>²."""
    response: Float[Any, ""]
    """E d<a>/dh = E beta Var(a)."""
    response_square: Float[Any, ""]
    """E (beta Var(a))²; inf at beta = inf."""
    entropy: Float[Any, ""]
    """E −sum_k p_k log p_k, in nats."""
    usage: Float[Any, " levels"]
    """E p_k."""


def default_nodes(levels: int) -> int:
    """Nodes per side of a threshold that keep every average within 1e-9, also for clustered levels (tests/numerics)."""
    return 40 if levels <= 16 else 32


def window(xp, center, rate, end, deviation):
    """Where exp(−rate x) exp(−(x − center)²/2 deviation²) exceeds exp(−REACH²/2) of its peak on [0, end].

    The product is a Gaussian of the same deviation about center − rate deviation².
    """
    peak = center - rate * deviation**2
    nearest = xp.clip(peak, 0.0, end)
    radius = xp.sqrt((nearest - peak) ** 2 + (_REACH * deviation) ** 2)
    outward = xp.where(peak < 0, (_REACH * deviation) ** 2 / (radius + xp.abs(peak)), peak + radius)
    return xp.maximum(0.0, peak - radius), xp.minimum(end, outward)
