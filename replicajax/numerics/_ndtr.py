"""Phi(z) = erfc(−z/sqrt 2)/2, as good in both tails as z is: `jax.scipy.special.ndtr` computes three forms, to choose."""

import math

import jax
from jaxtyping import Array, Float


def ndtr(z: Float[Array, "..."]) -> Float[Array, "..."]:
    return jax.lax.erfc(z * -math.sqrt(0.5)) / 2
