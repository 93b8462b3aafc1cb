"""Step sizes: how each of N steps compares with the first.

geometric (theory 5.1): with L = floor(log2 N), step_t = step · 2^(−min(floor(t/floor(N/L)), L − 1)), t = 0 … N − 1.
"""

from __future__ import annotations

from collections.abc import Callable

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float

from replicajax import _checks

SCHEDULES = ("geometric", "constant", "cosine", "linear")
IN_STAGES = ("geometric", "constant")
_MOST_STAGES = 64
Schedule = str | Callable[[Array], Array] | Array | np.ndarray


def step_factors(schedule: Schedule, steps: int) -> Float[Array, " steps"]:
    """step_t/step.  A callable is given t/N; an array is the factors themselves.

    Raises:
      ValueError: an unknown name, an array of another length, factors that are negative.
    """
    if isinstance(schedule, str):
        return jnp.asarray(_named(_checks.choice("schedule", schedule, SCHEDULES), int(steps)), float)
    if callable(schedule):
        return _checks.nonnegative("schedule", jnp.broadcast_to(schedule(jnp.arange(steps) / steps), (steps,)))
    each = _checks.nonnegative("schedule", schedule)
    if each.shape != (steps,):
        raise ValueError(f"schedule must have shape ({steps},), one factor per step, got shape {each.shape}")
    return each


def _named(schedule: str, steps: int) -> np.ndarray:
    time = np.arange(steps)
    if schedule == "geometric":
        stages = max(steps.bit_length() - 1, 1)
        return np.exp2(-np.minimum(time // max(steps // stages, 1), stages - 1).astype(float))
    if schedule == "constant":
        return np.ones(steps)
    return 0.5 * (1 + np.cos(np.pi * time / steps)) if schedule == "cosine" else 1 - time / steps


def stage_count(steps: Array) -> Array:
    """L = floor(log2 N), at least 1."""
    # log2 of a power of two is exact enough only with a margin.
    return jnp.maximum(jnp.floor(jnp.log2(steps) * (1 + 1e-14)), 1.0)


def stages(schedule: str, steps: Array, whole: ArrayLike) -> tuple[Array, Array]:
    """Lengths and factors of the stages of constant step (those of length 0 are not there).

    With `whole` as the definition has it; else of equal real lengths N/L, which N moves.
    """
    number = jnp.arange(_MOST_STAGES)
    if schedule == "constant":
        return jnp.where(number == 0, steps, 0.0), jnp.ones(_MOST_STAGES)
    count = stage_count(steps)
    each = jnp.where(whole, jnp.floor(steps / count), steps / count)
    last = steps - (count - 1) * each
    return jnp.where(number < count - 1, each, jnp.where(number == count - 1, last, 0.0)), jnp.exp2(
        -number.astype(float)
    )
