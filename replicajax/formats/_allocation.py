"""Bits where they matter: the split of a budget among tensors that minimises the predicted divergence.

    KL ≈ ½ sum_t n_t f_t RMS_t² Rel_t²,   Rel_t² ∝ 2^(−2 b_t)     ⟹     b_t = b0 + log2 RMS_t + ½ log2 f_t,   (theory 4.3)

clamped to the allowed range, b0 set by sum_t n_t b_t = n b: water-filling where clamps bind.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float

from replicajax import _checks
from replicajax.formats._choice import choose_formats


def allocate_bits(
    counts: ArrayLike,
    rms: ArrayLike,
    fisher: ArrayLike | None = None,
    mean_bits: ArrayLike = 4.0,
    minimum: ArrayLike = 1.0,
    maximum: ArrayLike = 8.0,
    *,
    whole: bool = False,
) -> Float[Array, " tensors"]:
    """Bits per weight of every tensor, with mean `mean_bits` over weights.

    Args:
      counts: (tensors,) weights of each.
      rms: (tensors,) their RMS; 0 gets the minimum.
      fisher: (tensors,) mean diagonal Fisher information of each; by RMS alone if None.
      mean_bits, minimum, maximum: numbers.
      whole: whole bits, at most `mean_bits` on average, exactly optimal (`choose_formats`); otherwise
        real numbers, in closed form and differentiable.

    Raises:
      ValueError: negative entries, lengths that differ, mean_bits outside [minimum, maximum], minimum not below maximum.

    Source: theory 4.3.
    """
    n = _checks.positive("counts", counts)
    if n.ndim != 1 or n.size == 0:
        raise ValueError(f"counts must be a vector with an entry per tensor, got shape {n.shape}")
    size = _checks.vector("rms", _checks.nonnegative("rms", rms), n.size, "tensor")
    weight = np.ones(n.shape, n.dtype) if fisher is None else _checks.nonnegative("fisher", fisher)
    weight = _checks.vector("fisher", weight, n.size, "tensor")
    low, high, mean = (
        _checks.scalar(name, x) for name, x in (("minimum", minimum), ("maximum", maximum), ("mean_bits", mean_bits))
    )
    if not _checks.is_traced((low, high, mean)) and not (
        float(low) < float(high) and float(low) <= float(mean) <= float(high)
    ):
        raise ValueError(
            f"mean_bits must lie between minimum and maximum, got {float(mean):g} and [{float(low):g}, {float(high):g}]"
        )
    if whole:
        return jnp.asarray(_whole_bits(*(np.asarray(x) for x in (n, size, weight, mean, low, high))))
    if _checks.is_traced((n, size, weight)):
        return _real_bits(n, size, weight, mean, low, high)
    more = (0, 4 ** max(2, -(-(n.size - 1).bit_length() // 2)) - n.size)  # tensors of no weights: few programs
    padded = (np.pad(np.asarray(x), more) for x in (n, size, weight))
    return jnp.asarray(np.asarray(_real_bits(*padded, mean, low, high))[: n.size], n.dtype)


@jax.jit
def _real_bits(n, rms, fisher, mean, low, high) -> Array:
    matters = (rms > 0) & (fisher > 0)
    score = jnp.where(
        matters, jnp.log2(jnp.where(matters, rms, 1.0)) + jnp.log2(jnp.where(matters, fisher, 1.0)) / 2, -1e6
    )

    def spent(b0):
        return (n * jnp.clip(b0[..., None] + score, low, high)).sum(-1) - n.sum() * mean

    # spent is piecewise linear and increasing in b0, with a kink where a tensor enters or leaves its clamps.
    kinks = jnp.sort(jnp.concatenate([low - score, high - score]))
    at = spent(kinks)
    right = jnp.clip(jnp.searchsorted(at, 0.0), 1, kinks.size - 1)
    (x, y), (f, g) = (kinks[right - 1], kinks[right]), (at[right - 1], at[right])
    b0 = x - f * jnp.where(g > f, (y - x) / jnp.where(g > f, g - f, 1.0), 0.0)
    return jnp.clip(b0 + score, low, high)


def _whole_bits(n, rms, fisher, mean, low, high) -> np.ndarray:
    """min sum_t n_t f_t RMS_t² 4^(−b_t) over whole b_t within the budget."""
    choices = np.arange(np.ceil(low), np.floor(high) + 1)
    if choices.size == 0 or choices[0] > mean:
        raise ValueError(
            f"no whole number of bits lies between minimum {low:g} and maximum {high:g} within mean_bits {mean:g}"
        )
    cost = (n * fisher * rms**2)[:, None] * 4.0**-choices
    # 0 bits, if that is the least allowed, count in a budget as one more for all.
    return choices[choose_formats(n, choices + 1, cost, mean + 1).choice]
