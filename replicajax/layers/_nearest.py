"""Rounding to the nearest level, and what a layer's outputs lose by it or by anything else."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float

from replicajax import _checks
from replicajax.codebooks import Codebook
from replicajax.distributions import thresholds
from replicajax.formats import BlockFormat
from replicajax.layers._layer import in_floats
from replicajax.layers._scales import as_format, weight_scales


def round_to_nearest(W: ArrayLike, fmt: Codebook | BlockFormat) -> Float[Array, "outputs inputs"]:
    """W with every weight at the nearest level.

    Raises:
      TypeError, ValueError: neither codebook nor block format; blocks that do not fill rows.
    """
    W, fmt = in_floats(_checks.matrix("W", W)), as_format(fmt)
    return nearest(W, weight_scales(W, fmt), fmt.codebook.levels)


@jax.jit
def nearest(W: Array, scales: Array, levels: Array) -> Array:
    """Levels times scales, every weight with a scale of its own."""
    levels = levels.astype(W.dtype)
    return scales * levels[jnp.searchsorted(thresholds(levels), W / jnp.where(scales == 0, 1.0, scales))]


def output_error(quantized: ArrayLike, W: ArrayLike, H: ArrayLike) -> Float[Array, ""]:
    """tr (Ŵ − W) H (Ŵ − W)ᵀ / tr W H Wᵀ.  Raises ValueError, TypeError: shapes that do not fit, what is no matrix."""
    quantized, W, H = (in_floats(_checks.matrix(*pair)) for pair in (("quantized", quantized), ("W", W), ("H", H)))
    if quantized.shape != W.shape or H.shape != (W.shape[1], W.shape[1]):
        raise ValueError(f"quantized, W and H must fit together, got shapes {quantized.shape}, {W.shape} and {H.shape}")
    return _output_error(quantized, W, H)


@jax.jit
def _output_error(quantized: Array, W: Array, H: Array) -> Array:
    off = quantized - W
    return jnp.sum((off @ H) * off) / jnp.sum((W @ H) * W)
