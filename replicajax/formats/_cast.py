"""Floats of sixteen bits: weights as they are, rounded to so many digits.

E err² = sum_k ulp_k²/12 P(2^k <= |x| < 2^(k+1)),      ulp_k = 2^(k − mantissa).
"""

from __future__ import annotations

from typing import final

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from replicajax import _checks
from replicajax.distributions import Symmetric, as_data
from replicajax.formats._rounded_scales import SCALE_FORMATS

_LEAST = {"bf16": -126, "fp16": -14}
"""Exponent of normal numbers."""
_OCTAVES = 40
"""About the RMS, on either side."""


@final
class Cast(eqx.Module):
    """Every weight as a "bf16" or "fp16"."""

    dtype: str = eqx.field(static=True)

    def __init__(self, dtype: str):
        """Raises ValueError: another dtype."""
        self.dtype = _checks.choice("dtype", dtype, tuple(_LEAST))

    @property
    def bits(self) -> float:
        return 16.0

    def __str__(self) -> str:
        return self.dtype


def cast_error(law: Symmetric, fmt: Cast) -> Float[Array, ""]:
    """Rel of iid weights that the format's range holds."""
    mantissa, least = float(SCALE_FORMATS[fmt.dtype].mantissa), float(_LEAST[fmt.dtype])
    return _cast_error(as_data(law), jnp.asarray(mantissa), jnp.asarray(least))


@eqx.filter_jit
def _cast_error(law: Symmetric, mantissa: Array, least: Array) -> Array:
    square = law.second_moment()
    k = jnp.round(jnp.log2(square) / 2) + jnp.arange(-_OCTAVES, _OCTAVES + 1)
    edges = jnp.exp2(jnp.append(k, k[-1] + 1)).at[0].set(0.0)
    share = 2 * law.whole.cell_moments(edges)[0]
    ulp = jnp.exp2(jnp.maximum(k, least) - mantissa)
    return jnp.sqrt(ulp**2 @ share / 12 / square)
