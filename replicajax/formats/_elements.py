"""Element formats: the levels that a few bits can name, as codebooks."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float

from replicajax import _checks
from replicajax.codebooks import Codebook
from replicajax.distributions import StudentT, Symmetric, as_data
from replicajax.formats._maximum import expected_maximum

VARIANTS = ("symmetric", "asymmetric", "zero")


def level_count(bits: Any) -> int:
    """round(2^bits) levels; bits need not be whole.  Raises ValueError unless 1 <= bits <= 16."""
    if _checks.is_traced(bits) or isinstance(bits, bool) or np.ndim(bits) or not 1 <= float(bits) <= 16:
        raise ValueError(f"bits must be a number from 1 to 16 (not traced: it sets a shape), got {bits!r}")
    return round(2 ** float(bits))


def padded_size(count: int) -> int:
    """32, 256, 4096 or 2^16: programs are for so many levels, and few."""
    return 32 if count <= 32 else 16 ** -(-(count - 1).bit_length() // 4)


def integer(bits: float, *, symmetric: bool = False) -> Codebook:
    """INT(b): the integers −2^(b−1) … 2^(b−1) − 1, or with `symmetric` the 2^b half-integers from −(2^b − 1)/2.

    `bits` may be fractional: round(2^bits) levels.

    Raises:
      ValueError: bits outside [1, 16].
    """
    count = level_count(bits)
    low = -(count - 1) / 2 if symmetric else -(count // 2)
    return Codebook(low + np.arange(count))


def floating_point(exponent_bits: int, mantissa_bits: int) -> Codebook:
    """ExMy: sign, exponent, mantissa and no special codes, largest level 2^(2^(x−1)) (2 − 2^(−y)).

    Code (e, m) is 2^(e − bias) (1 + m 2^(−y)), or 2^(1 − bias) m 2^(−y) where e = 0; bias 2^(x−1) − 1.  Zero has two codes.

    Raises:
      ValueError: exponent_bits outside [1, 6], mantissa_bits outside [0, 10].
    """
    exponent_bits = _checks.integer("exponent_bits", exponent_bits, 1, 6)
    mantissa_bits = _checks.integer("mantissa_bits", mantissa_bits, 0, 10)
    e, m = np.meshgrid(np.arange(2**exponent_bits), np.arange(2**mantissa_bits) / 2**mantissa_bits, indexing="ij")
    bias = 2 ** (exponent_bits - 1) - 1
    levels = (2.0 ** (np.maximum(e, 1) - bias) * ((e > 0) + m)).ravel()
    return Codebook(np.concatenate([-levels[:0:-1], levels]), codes=2 ** (1 + exponent_bits + mantissa_bits))


def nf4() -> Codebook:
    """NF4 of QLoRA (Dettmers et al., arXiv 2305.14314, appendix E): 16 levels from −1 to 1."""
    negative = [
        -1.0,
        -0.6961928009986877,
        -0.5250730514526367,
        -0.39491748809814453,
        -0.28444138169288635,
        -0.18477343022823334,
        -0.09105003625154495,
    ]
    positive = [
        0.07958029955625534,
        0.16093020141124725,
        0.24611230194568634,
        0.33791524171829224,
        0.44070982933044434,
        0.5626170039176941,
        0.7229568362236023,
        1.0,
    ]
    return Codebook([*negative, 0.0, *positive])


def sf4(df: ArrayLike = 5.0) -> Codebook:
    """SF4(df) (Dotzel et al., arXiv 2405.03103): quantiles of Student's t, divided by the largest.

    Eight evenly spaced probabilities from delta to 1/2 and nine from 1/2 to 1 − delta, delta = (1/32 + 1/30)/2.
    """
    delta = (1 / 32 + 1 / 30) / 2
    probability = np.concatenate([np.linspace(delta, 0.5, 8), np.linspace(0.5, 1 - delta, 9)[1:]])
    df = _checks.scalar("df", df)
    law = as_data(StudentT(df))
    return Codebook(_over_largest(law, probability))


@eqx.filter_jit
def _over_largest(law: Symmetric, probability: Float[Any, " levels"]) -> Float[Array, " levels"]:
    levels = law.quantile(probability)
    return levels / jnp.max(jnp.abs(levels))


def cube_root(
    law: Symmetric,
    bits: float,
    *,
    variant: str = "symmetric",
    exponent: ArrayLike = 1 / 3,
    block_size: ArrayLike | None = None,
    scaling: str = "absmax",
) -> Codebook:
    """Levels at evenly spaced quantiles of the density proportional to p^exponent (Panter and Dite: 1/3 is optimal).

    Without `block_size` the levels are in the units of `law`: quantiles i/(K + 1) of i = 1 … K = round(2^bits).  With it they
    are for blocks divided by their largest magnitude: quantiles of the density truncated to [−1, 1] (in units of the
    expected largest magnitude, exact), whose ends are levels; with "signmax" only +1 is.

    Args:
      variant: "symmetric" (no zero), "asymmetric" (with zero, one level more above it than below), or "zero" (with zero,
        one level fewer: zero has two codes).  "signmax" is "asymmetric".
      exponent: any power of the density.

    Raises:
      ValueError: bits outside [1, 16], an unknown variant or scaling, an exponent for which p^exponent has no integral.
    """
    _checks.instance("law", law, Symmetric, "formats.Normal()")
    count = level_count(bits)
    variant = _checks.choice("variant", variant, VARIANTS)
    exponent = _checks.scalar("exponent", exponent)
    if variant != "symmetric" and count % 2:
        raise ValueError(f"variant {variant!r} needs an even number of levels, got bits {bits} ({count} levels)")
    ends = (False, False)
    if block_size is not None:
        if _checks.choice("scaling", scaling, ("absmax", "signmax")) == "signmax" and variant != "asymmetric":
            raise ValueError(f"variant must be 'asymmetric' with scaling 'signmax', got {variant!r}")
        ends = (scaling == "absmax", True)
    law.check_exponent(exponent)
    largest = None if block_size is None else expected_maximum(law, block_size)
    family = as_data(law, exponent, largest)
    probability = _probabilities(count, variant, *ends)
    more = padded_size(count) - probability.size
    padded = np.pad(probability, (0, more), constant_values=0.5).astype(family.dtype)
    levels = _levels(family, padded, exponent, np.asarray(np.inf, family.dtype) if largest is None else largest)
    return Codebook(_checks.known(levels)[: probability.size], count)


@eqx.filter_jit
def _levels(
    law: Symmetric, probability: Float[Any, " levels"], exponent: Array, largest: Any
) -> Float[Array, " levels"]:
    """Quantiles of p^exponent of what lies between `largest` and its negative, in units of it; in those of the law if inf."""
    shape, whole = law.tempered(exponent), jnp.isinf(largest)
    cut = jnp.where(whole, 0.0, shape.cdf(-jnp.where(whole, 1.0, largest)))
    inner = shape.quantile(jnp.clip(cut + probability * (1 - 2 * cut), cut, 1 - cut)) / jnp.where(whole, 1.0, largest)
    ends = jnp.where(probability == 0, -1.0, jnp.where(probability == 1, 1.0, inner))
    return jnp.where(whole, inner, ends)


def _probabilities(count: int, variant: str, low_end: bool, high_end: bool) -> np.ndarray:
    """Where the levels lie between the ends, in probability; 0.5 is zero."""
    if variant == "symmetric":
        spaced = np.linspace(0, 1, count + 2 - low_end - high_end)
        return spaced[1 - low_end :][:count]
    half = count // 2
    below = np.linspace(0, 0.5, half + 1 - low_end)[1 - low_end :]  # ends at zero
    above = half if variant == "asymmetric" else half - 1
    up = np.linspace(0.5, 1, above + 2 - high_end)[1:][:above]
    return np.concatenate([below, up])
