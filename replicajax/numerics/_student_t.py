"""Student's t from its tail integral, differentiable in the degrees of freedom.

With x = sqrt(v) sinh y the density is cosh^(−v) y dy up to a constant, so that

    P(X > x) = J(y) cosh^(−v) y / (2 J(0)),     J(y) = int_0^inf [cosh(y + s)/cosh y]^(−v) ds,

one quadrature for the tail and, at y = 0, for the constant.  The integrand falls from 1 within a length that is known in
closed form; s = length exp(t − exp(−t)) makes it double-exponential at both ends of t.
"""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

_FIRST, _LAST, _COUNT = -3.6, 4.0, 72


def student_t_tail(x: Float[Array, "..."], df: Float[Array, ""]) -> tuple[Array, Array]:
    """P(X > x) and density at x >= 0 of t with df > 0 degrees of freedom and scale 1; to 1e-12 relative."""
    y = jnp.arcsinh(x / jnp.sqrt(df))
    fall = jnp.exp(-df * _log_cosh(y))
    at_zero = _fall_integral(jnp.zeros((), y.dtype), df)
    return _fall_integral(y, df) * fall / (2 * at_zero), fall / jnp.cosh(y) / (2 * jnp.sqrt(df) * at_zero)


def _fall_integral(y, df):
    t = jnp.linspace(_FIRST, _LAST, _COUNT, dtype=y.dtype).reshape(-1, *(1,) * y.ndim)
    length = jax.lax.stop_gradient(_length(y, df))
    s = length * jnp.exp(t - jnp.exp(-t))
    weight = s * (1 + jnp.exp(-t)) * (_LAST - _FIRST) / (_COUNT - 1)
    # log[cosh(y + s)/cosh y], which overflows nowhere.
    log_ratio = s + jnp.log1p((1 - jnp.tanh(y)) / 2 * jnp.expm1(-2 * s))
    return (weight * jnp.exp(-df * log_ratio)).sum(0)


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
