"""Bisection under JAX's transformations."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike


def bisect(is_low: Callable[[Array], Array], low: ArrayLike, high: ArrayLike, halvings: int) -> tuple[Array, Array]:
    """The bracket of where `is_low` turns from true to false, halved so many times; carries no derivative of its own."""

    def halve(_, bracket):
        low, high = bracket
        middle = (low + high) / 2
        below = is_low(middle)
        return jnp.where(below, middle, low), jnp.where(below, high, middle)

    return jax.lax.fori_loop(0, halvings, halve, (jnp.asarray(low), jnp.asarray(high)))
