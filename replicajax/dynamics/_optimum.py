"""The width and the step that leave least error at a given time, by gradients through the dynamics."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike
from scipy.optimize import minimize

from replicajax import _checks
from replicajax.codebooks import Codebook, uniform
from replicajax.distributions import Distribution
from replicajax.dynamics._straight_through import (
    Fixed,
    Numbers,
    StraightThrough,
    least_tolerance,
    prepared,
    solved,
    straight_through,
)

_WIDTHS, _STEPS = (0.5, 0.8, 1.25, 2.0, 3.0), (0.03, 0.1, 0.3, 1.0)
"""Tried first: widths in units of the teacher's largest (or of its deviation), steps at
time 10 or more, longer before, 1.5 at most."""
_ROUGH, _FLAT = 1e-4, 1e-5
"""Mass misplaced in a step where the first guess is found; largest derivative, in logarithms, of a minimum."""


class OptimalTraining(NamedTuple):
    """Attributes:
    bits, width, step: of the best; generalization_error: at the time.
    gradient: of the logarithm of the error in those of width and step; converged: it is below 1e-5, and the course resolved.
    course: of the best, up to the time.
    of_bits: generalization_error of every number of bits tried.
    """

    bits: int
    width: float
    step: float
    generalization_error: float
    gradient: np.ndarray
    converged: bool
    course: StraightThrough
    of_bits: dict[int, float]

    def __str__(self) -> str:
        ends = "" if self.converged else ", not converged"
        return (
            f"{self.bits} bits, width {self.width:.6g}, step {self.step:.6g}: error {self.generalization_error:.6g} at time "
            f"{float(self.course.times[-1]):.6g}{ends}"
        )


def optimal_training(
    time: float,
    bits: int | Sequence[int] = 2,
    inputs: Codebook | None = None,
    noise: ArrayLike = 0.0,
    teacher: ArrayLike | Sequence[float] | Distribution = 1.0,
    *,
    ridge: ArrayLike = 0.0,
    start: Any = 1.0,
) -> OptimalTraining:
    """Width of a uniform codebook and step with the least error at a time, for one number of bits or the best of several.

    From the best of a coarse grid, by BFGS in logarithms; other minima may exist.  Arguments as in `straight_through`.

    Raises:
      TypeError, ValueError: as there; a time that is not positive, bits that are no whole numbers from 1 to 8.
    """
    if not (isinstance(time, int | float) and 0 < time < np.inf):
        raise ValueError(f"time must be a positive number, got {time!r}")
    tried = [_checks.integer("bits", b, 1, 8) for b in (bits if isinstance(bits, Sequence) else [bits])]
    if not tried:
        raise ValueError("bits must name at least one number, got none")
    unit = float(teacher.second_moment()) ** 0.5 if isinstance(teacher, Distribution) else float(np.abs(teacher).max())
    if not unit > 0:
        raise ValueError("teacher must not be 0 throughout: no error to learn from")
    settings = {"noise": noise, "teacher": teacher, "ridge": ridge, "start": start}
    found = {b: _of_bits(b, inputs, float(time), unit, settings) for b in tried}
    best = min(found, key=lambda b: found[b][0])
    _, x, slope = found[best]
    width, step = (float(v) for v in np.exp(x))
    course = straight_through(uniform(best, width), inputs, step, times=[float(time)], **settings)
    converged = bool(np.abs(slope).max() <= _FLAT and course.converged.all())
    at_time = float(course.generalization_error[0])
    return OptimalTraining(best, width, step, at_time, slope, converged, course, {b: found[b][0] for b in tried})


def _of_bits(bits: int, inputs: Codebook | None, time: float, unit: float, settings: dict[str, Any]) -> Any:
    """Error, logarithms of width and step, and the gradient of its logarithm in them."""
    steps = [min(s * max(1.0, 10 / time), 1.5) for s in _STEPS]
    tolerance, x, ends = least_tolerance(), np.log([unit, steps[1]]), None
    # Values that stand for a law of the teacher's depend on the width; the second time they are right.
    for _ in range(2 if isinstance(settings["teacher"], Distribution) else 1):
        _, _, numbers, fixed = prepared(
            uniform(bits, np.exp(x[0])), inputs, 1.0, times=[time], clip=None, schedule=(), **settings
        )

        def objective(
            at: np.ndarray, allowed: float = tolerance, numbers=numbers, fixed=fixed
        ) -> tuple[float, np.ndarray]:
            value, slope = _log_error(jnp.asarray(at, numbers.levels.dtype), numbers, fixed, allowed)
            return float(value), np.asarray(slope, float)

        if ends is None:
            grid = [np.log([w * unit, s]) for w in _WIDTHS for s in steps]
            x = min(grid, key=lambda at: np.nan_to_num(objective(at, _ROUGH)[0], nan=np.inf))
        ends = minimize(objective, x, jac=True, method="BFGS", options={"gtol": _FLAT / 10, "maxiter": 60})
        x = ends.x
    assert ends is not None
    return float(np.exp(ends.fun)), ends.x, np.asarray(ends.jac)


@jax.jit
def _log_error(x: Array, numbers: Numbers, fixed: Fixed, tolerance: Any) -> tuple[Array, Array]:
    """And its slopes in the logarithms of width and step: two tangents are pushed forward, not those of all numbers."""

    def of(x):
        width, step = jnp.exp(x)
        levels = numbers.levels / numbers.levels[-1] * width
        found = solved(numbers._replace(levels=levels, step=step), fixed, tolerance, 1)
        value = jnp.log(found.error[0])
        return value, value

    slope, value = jax.jacfwd(of, has_aux=True)(x)
    return value, slope
