"""What a quantized weight may be: K increasing levels a_1 < ... < a_K."""

from __future__ import annotations

from collections.abc import Sequence

import equinox as eqx
import jax
import numpy as np
from jaxtyping import Array, ArrayLike, Float

from replicajax import _checks


class Codebook(eqx.Module):
    """K increasing levels; a pytree whose one leaf is `levels`, so every level has a gradient.

    `codes`, K unless told otherwise, is the number of bit patterns: a float has two zeros but one level for them.
    """

    levels: Float[Array, " levels"]
    codes: int = eqx.field(static=True)

    def __init__(self, levels: ArrayLike | Sequence[float], codes: int | None = None):
        array = _checks.finite("levels", levels)
        if array.ndim != 1 or array.shape[0] < 2:
            raise ValueError(f"levels must be a vector of at least two numbers, got shape {array.shape}")
        if not _checks.is_traced(array) and (np.diff(np.asarray(array)) <= 0).any():
            step = int(np.argmax(np.diff(np.asarray(array)) <= 0))
            low, high = np.asarray(array)[step : step + 2]
            kind = "duplicate" if low == high else "unsorted"
            raise ValueError(
                f"levels must be strictly increasing, got {kind} levels {low:.6g}, {high:.6g} "
                f"at positions {step}, {step + 1}"
            )
        self.levels = array
        self.codes = array.shape[0] if codes is None else codes

    @property
    def bits(self) -> float:
        """log2 of the number of codes."""
        return float(np.log2(self.codes))

    def __len__(self) -> int:
        return self.levels.shape[0]

    def __str__(self) -> str:
        return f"{len(self)} levels {_checks.brief(self.levels)}"


def codebook(levels: ArrayLike | Sequence[float]) -> Codebook:
    """Any levels.

    Args:
      levels: (K,) strictly increasing, K >= 2, in the units of the weights.

    Raises:
      ValueError: fewer than two levels, unsorted, duplicate, infinite or NaN.
    """
    return Codebook(levels)


def uniform(bits: int, width: ArrayLike) -> Codebook:
    """2^bits evenly spaced levels from −width to +width.

    Raises:
      ValueError: bits not a whole number from 1 to 16, or width not positive.
    """
    return power(bits, width, 1.0)


def power(bits: int, width: ArrayLike, exponent: ArrayLike) -> Codebook:
    """Levels width sign(u) |u|^exponent for u evenly spaced in [−1, 1]; exponent > 1 is finer near zero. [Q]

    Raises:
      ValueError: bits not a whole number from 1 to 16, width or exponent not positive.
    """
    bits = _checks.integer("bits", bits, 1, 16)
    width, exponent = (_checks.known(_checks.scalar(n, x)) for n, x in (("width", width), ("exponent", exponent)))
    levels = _compiled_levels if _checks.is_traced((width, exponent)) else _levels
    return Codebook(levels(bits, width, exponent))


def _levels(bits: int, width, exponent):
    grid = np.linspace(-1.0, 1.0, 2**bits)
    sign, size = (x.astype(width.dtype) for x in (np.sign(grid), np.abs(grid)))
    return width * sign * size ** exponent.astype(width.dtype)


_compiled_levels = jax.jit(_levels, static_argnums=0)
