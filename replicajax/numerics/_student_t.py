"""Student's t from its tail integral, differentiable in the degrees of freedom.

With x = sqrt(v) sinh y the density is cosh^(−v) y dy up to a constant, so that

    int_x^inf (1 + u²/v)^(−(v + 1)/2) du = sqrt(v) J(y) cosh^(−v) y,     J(y) = int_0^inf [cosh(y + s)/cosh y]^(−v) ds,

at y = 0 half of the constant.  The integrand falls from 1 within a length that is known in
closed form; s = length exp(t − exp(−t)) makes it double-exponential at both ends of t.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

_T = np.linspace(-3.6, 4.0, 72)
_LENGTHS = np.exp(_T - np.exp(-_T))
_WEIGHTS = _LENGTHS * (1 + np.exp(-_T)) * (_T[1] - _T[0])


def student_t_beyond(x: Float[Array, "..."], df: Float[Array, ""]) -> Array:
    """int_x^inf (1 + u²/v)^(−(v + 1)/2) du = sqrt(v) J(y) cosh^(−v) y for x >= 0, df > 0; to 1e-12 relative."""
    lengths, weights = (a.astype(x.dtype).reshape(-1, *(1,) * x.ndim) for a in (_LENGTHS, _WEIGHTS))
    sinh = jnp.minimum(x / jnp.sqrt(df), jnp.finfo(x.dtype).max ** 0.49)  # whose square is finite
    tanh, cosh = sinh / jnp.sqrt(1 + sinh**2), jnp.sqrt(1 + sinh**2)
    # Where the integrand of J is about 1/e: v (s tanh y + s²/(2 cosh² y)) = 1; of few degrees it falls like e^(−v s).
    length = jax.lax.stop_gradient(jnp.maximum(2 / (df * tanh + jnp.sqrt((df * tanh) ** 2 + 2 * df / cosh**2)), 1 / df))
    s = length * lengths
    # log[cosh(y + s)/cosh y], which overflows nowhere.
    log_ratio = s + jnp.log1p((1 - tanh) / 2 * jnp.expm1(-2 * s))
    J = length * (weights * jnp.exp(-df * log_ratio)).sum(0)
    return jnp.sqrt(df) * J * jnp.exp(-df * jnp.log1p(sinh**2) / 2)
