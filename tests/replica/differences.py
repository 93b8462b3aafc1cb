"""Derivatives by differences, for tests."""

from collections.abc import Callable

import jax
import numpy as np

_STEP = 1e-3


def five_points(f: Callable[[float], np.ndarray], h: float = _STEP):
    """df/dx at 0, of fourth order."""
    return (f(-2 * h) - 8 * f(-h) + 8 * f(h) - f(2 * h)) / (12 * h)


def along(function: Callable, theta, direction):
    """The derivative of function(theta) along `direction`: by JAX, and by differences."""
    slope = jax.jvp(function, (theta,), (direction,))[1]
    return slope, five_points(lambda h: function(jax.tree.map(lambda x, v: x + h * v, theta, direction)))


def energy_at(free_energy: Callable[[float], float], beta: float) -> float:
    """d(beta f)/d beta."""
    return five_points(lambda h: (1 + h) * free_energy(beta * (1 + h)))
