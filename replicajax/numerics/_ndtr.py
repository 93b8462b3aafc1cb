"""Phi(z) = erfc(−z/sqrt 2)/2, to the last digits in both tails.

`jax.scipy.special.ndtr` chooses among three forms, and so costs twice as much to compile and to run.
"""

import math

import jax
from jaxtyping import Array, Float


def ndtr(z: Float[Array, "..."]) -> Float[Array, "..."]:
    return jax.lax.erfc(z * -math.sqrt(0.5)) / 2
