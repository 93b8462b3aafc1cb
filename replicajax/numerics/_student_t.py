"""Student's t from its tail integral, differentiable in the degrees of freedom.

With x = sqrt(v) sinh y the density is cosh^(−v) y dy up to a constant, so that

    int_x^inf (1 + u²/v)^(−(v + 1)/2) du = sqrt(v) J(y) cosh^(−v) y,     J(y) = int_0^inf [cosh(y + s)/cosh y]^(−v) ds,

at y = 0 half of the constant.  The integrand falls from 1 within a length that is known in
closed form; s = length exp(t − exp(−t)) makes it double-exponential at both ends of t.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

_T = np.linspace(-3.6, 4.0, 72)
_LENGTHS = np.exp(_T - np.exp(-_T))
_WEIGHTS = _LENGTHS * (1 + np.exp(-_T)) * (_T[1] - _T[0])


def student_t_beyond(x: Float[Array, "..."], df: Float[Array, ""]) -> Array:
    """int_x^inf (1 + u²/v)^(−(v + 1)/2) du = sqrt(v) J(y) cosh^(−v) y for x >= 0, df > 0; to 1e-12 relative."""
    y = jnp.arcsinh(x / jnp.sqrt(df))
    return jnp.sqrt(df) * _fall_integral(y, df) * jnp.exp(-df * _log_cosh(y))


def _fall_integral(y, df):
    lengths, weights = (a.astype(y.dtype).reshape(-1, *(1,) * y.ndim) for a in (_LENGTHS, _WEIGHTS))
    length = jax.lax.stop_gradient(_length(y, df))
    s = length * lengths
    # log[cosh(y + s)/cosh y], which overflows nowhere.
    log_ratio = s + jnp.log1p((1 - jnp.tanh(y)) / 2 * jnp.expm1(-2 * s))
    return length * (weights * jnp.exp(-df * log_ratio)).sum(0)


def _length(y, df):
    """Where the integrand of J is 1/e: cosh(y + s) = e^(1/v) cosh y."""
    # 2 e^(−y) times both sides, which overflows for no y; c = 1 + e^(−2y).
    c, e = 1 + jnp.exp(-2 * y), jnp.exp(jnp.minimum(1 / df, 300.0))
    small = jnp.expm1(jnp.minimum(1 / df, 300.0)) * c / 2  # e c/2 − c/2
    # e^s = [e c + sqrt((e c)² − 4 e^(−2y))]/2, in terms of e^s − 1.
    root = jnp.sqrt(jnp.maximum((e * c) ** 2 / 4 - jnp.exp(-2 * y), 1e-300))
    return jnp.log1p(small + (root - (1 - jnp.exp(-2 * y)) / 2))


def _log_cosh(y):
    return y + jnp.log1p(jnp.exp(-2 * y)) - math.log(2)
