"""The actual algorithm of theory 11, many runs at once: what `dynamics.straight_through` is compared with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, PRNGKeyArray

from replicajax import _checks
from replicajax.codebooks import Codebook
from replicajax.distributions import Distribution, thresholds
from replicajax.dynamics._straight_through import prepared


class SimulatedTraining(NamedTuple):
    """Over independent runs: the error of the weights at each time, exact given them, without the noise.

    Attributes:
      mean, error: (times,), error is the standard error of the mean; runs: (runs, times).
      weights: (times, runs, dimension), latent; quantized for the error.
    """

    mean: Float[Array, " times"]
    error: Float[Array, " times"]
    runs: Float[Array, "runs times"]
    weights: Float[Array, "times runs dimension"]


def simulate_straight_through(
    key: PRNGKeyArray,
    weights: Codebook,
    inputs: Codebook | None = None,
    step: float = 0.2,
    noise: float = 0.0,
    teacher: ArrayLike | Sequence[float] | Distribution = 1.0,
    times: ArrayLike | Sequence[float] = (10.0, 25.0, 50.0, 100.0),
    *,
    dimension: int = 1000,
    runs: int = 8,
    ridge: float = 0.0,
    start: float | tuple[float, float] = 1.0,
    clip: float | None = None,
) -> SimulatedTraining:
    """Arguments as in `dynamics.straight_through`; a `key` of impl "rbg" is the fastest on a CPU.

    The teacher's values are dealt out evenly over the dimensions; of a law they are drawn.  With `clip` the start is a
    truncated Gaussian.

    Raises:
      TypeError, ValueError: as there.
    """
    prepared(weights, inputs, step, noise, teacher, times, ridge, start, clip, ())  # refuses what the theory does
    dimension = _checks.integer("dimension", dimension, 2, 2**24)
    runs = _checks.integer("runs", runs, 2, 2**16)
    at = np.asarray(times, float)
    counts = np.diff(np.round(at * dimension).astype(int), prepend=0)
    of_teacher, of_start, of_steps = jax.random.split(key, 3)
    if isinstance(teacher, Distribution):
        w_star = teacher.sample(of_teacher, (runs, dimension))
    else:
        values = np.asarray(_checks.finite("teacher", teacher)).reshape(-1)
        w_star = jnp.broadcast_to(jnp.asarray(np.resize(values, dimension)), (runs, dimension))
    mean, deviation = start if isinstance(start, tuple) else (0.0, start)
    end = np.inf if clip is None else clip
    low, high = (-end - mean) / deviation, (end - mean) / deviation
    w = mean + deviation * jax.random.truncated_normal(of_start, low, high, (runs, dimension))
    numbers = jnp.asarray([step, noise**0.5, ridge, end], w.dtype)
    books = weights.levels.astype(w.dtype), None if inputs is None else inputs.levels.astype(w.dtype)
    found = []
    for k, count in enumerate(counts):
        w = _trained(jax.random.fold_in(of_steps, k), w, w_star.astype(w.dtype), numbers, books, count)
        found.append(w)
    kept = jnp.stack(found)
    kappa1, kappa2 = _moments(inputs)
    phi = np.asarray(_rounded(kept, books[0]), np.float64)
    star = np.asarray(w_star, np.float64)
    error = (kappa2 * phi**2 - 2 * kappa1 * phi * star + star**2).mean(-1).T
    spread = error.std(0, ddof=1) / runs**0.5
    return SimulatedTraining(jnp.asarray(error.mean(0)), jnp.asarray(spread), jnp.asarray(error), kept)


def _moments(inputs: Codebook | None) -> tuple[float, float]:
    """By a sum over a fine grid of inputs, not by the formulas of the theory."""
    if inputs is None:
        return 1.0, 1.0
    x = np.linspace(-12, 12, 2_000_001)
    p = np.exp(-(x**2) / 2)
    p /= p.sum()
    levels = np.asarray(inputs.levels, np.float64)
    phi = levels[np.searchsorted((levels[1:] + levels[:-1]) / 2, x)]
    return float(p @ (x * phi)), float(p @ phi**2)


def _rounded(x: Array, levels: Array | None) -> Array:
    if levels is None:
        return x
    if levels.size > 32:
        return levels[jnp.searchsorted(thresholds(levels), x)]
    # Comparisons fuse with what surrounds them.
    gaps, cuts = jnp.diff(levels), thresholds(levels)
    found = jnp.full_like(x, levels[0])
    for k in range(levels.size - 1):
        found = found + jnp.where(x > cuts[k], gaps[k], 0)
    return found


@jax.jit
def _trained(key: Any, w: Array, w_star: Array, numbers: Array, books: tuple, count: Array) -> Array:
    step, noise, ridge, end = numbers
    root = w.shape[-1] ** 0.5

    def one(i, w):
        of_x, of_label = jax.random.split(jax.random.fold_in(key, i))
        x = jax.random.normal(of_x, w.shape, w.dtype)
        phi_x = _rounded(x, books[1])
        label = (x * w_star).sum(-1) / root + noise * jax.random.normal(of_label, w.shape[:1], w.dtype)
        delta = (_rounded(w, books[0]) * phi_x).sum(-1) / root - label
        moved = w - step / root * delta[:, None] * phi_x - step / root**2 * ridge * w
        return jnp.clip(moved, -end, end)

    return jax.lax.fori_loop(0, count, one, w)
