"""The upper incomplete gamma function in few operations, and differentiable in its order.

    int_z^inf y^(a−1) e^(−y) dy = z^a e^(−z) J,      J = int_0^inf exp{a w − z (e^w − 1)} dw      (y = z e^w)
                                = Gamma(a) − z^a e^(−z) S/a,     S = sum_n z^n/[(a + 1) … (a + n)]

J beyond z = a + 1, where its integrand falls from the start, by the double-exponential rule of `_student_t`; S before.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import gammaln
from jaxtyping import Array

_T = np.linspace(-3.6, 4.0, 72)
_LENGTHS = np.exp(_T - np.exp(-_T))
_WEIGHTS = _LENGTHS * (1 + np.exp(-_T)) * (_T[1] - _T[0])
_TERMS = np.arange(1.0, 80.0)
_ALL_BEFORE = np.tril(np.ones((79, 79)))


def gamma_tail(a: Array, z: Array, z_power: Array) -> Array:
    """int_z^inf y^(a−1) e^(−y) dy for 0 < a < 60, z >= 0 and z^a as it is known; to 1e-13 relative."""
    axes = (1,) * len(jnp.broadcast_shapes(a.shape, z.shape))
    lengths, weights, n = (x.astype(z.dtype).reshape(-1, *axes) for x in (_LENGTHS, _WEIGHTS, _TERMS))
    before = z < a + 1
    small, large = jnp.where(before & (z > 0), z, 1.0), jnp.where(before, a + 1, z)
    fall = large - a
    length = jax.lax.stop_gradient(2 / (fall + jnp.sqrt(fall**2 + 2 * large)))
    w = length * lengths
    J = length * (weights * jnp.exp(a * w - large * jnp.expm1(w))).sum(0)
    log_product = jnp.tensordot(_ALL_BEFORE.astype(z.dtype), jnp.log(a + n), 1)
    S = 1 + jnp.exp(n * jnp.log(small) - log_product).sum(0)
    factor = z_power * jnp.exp(-z)
    return jnp.where(before, jnp.exp(gammaln(a)) - factor * jnp.where(z > 0, S, 1.0) / a, factor * J)
