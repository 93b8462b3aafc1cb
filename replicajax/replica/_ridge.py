"""Ridge regression with unquantized weights, in closed form: the baseline every codebook is measured against."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float

from replicajax import _checks
from replicajax.models import Deployed, Effective, Features, GivenData, LinearRegression, Task, Taught, square_only
from replicajax.numerics import JAX, harmonic_root


class Unquantized(eqx.Module):
    """Typical case of the ridge estimator, or what it comes to on given data; symbols as in `Solution`."""

    ridge: Float[Array, ""]
    overlap: Float[Array, ""]
    self_overlap: Float[Array, ""]
    susceptibility: Float[Array, ""]
    generalization_error: Float[Array, ""]
    test_error: Float[Array, ""]

    def __str__(self) -> str:
        if np.ndim(self.ridge):
            return f"ridge regression at {np.size(self.ridge)} points"
        error, test = float(self.generalization_error), float(self.test_error)
        return (
            f"ridge regression, ridge {float(self.ridge):.6g}: generalization error {error:.9g}, test error {test:.9g}"
        )


def ridge_regression(task: Task, ridge: ArrayLike | None = None) -> Unquantized:
    """Typical generalisation error of argmin ½|y − Xw|² + ½ ridge |w|² over real w.

    With a = 1/(1 + chi), the fixed point chi = 1/(alpha/(1+chi) + ridge) is alpha a² − (alpha − 1 − ridge) a − ridge = 0,
    and  m = signal alpha (1−a),  R = ((signal−m)²/signal + noise) / (1 − alpha (1−a)²),  q = m²/signal + alpha (1−a)² R.

    Args:
      task: the learning problem: a LinearRegression, or GivenData (then the fit itself, on the rows that errors are of).
      ridge: coefficient of |w|²/2; the task's own if None.  0 gives the minimum-norm solution below alpha = 1
        and an infinite error at alpha = 1.

    Raises:
      TypeError: a task of another kind.
    """
    ridge = task.ridge if ridge is None else _checks.nonnegative("ridge", ridge)
    if isinstance(task, GivenData):
        if _checks.is_traced((task, ridge)):
            return _given(jnp, task, ridge)
        with np.errstate(all="ignore"):
            return jax.device_put(_given(np, *jax.tree.map(np.asarray, (task, ridge))))
    _checks.instance("task", task, LinearRegression, "LinearRegression(alpha=2.0)")
    square_only(task, "ridge regression")
    if isinstance(task, LinearRegression) and task.features is not None:
        return _correlated(task, task.features, ridge)
    numbers = task.alpha, task.signal, task.noise, ridge
    if _checks.is_traced(numbers):
        return _closed_form(jnp, *numbers)
    with np.errstate(divide="ignore"):
        return jax.device_put(_closed_form(np, *map(np.asarray, numbers)))


def _closed_form(xp: Any, alpha, signal, noise, ridge) -> Unquantized:
    b = alpha - 1 - ridge
    root = xp.sqrt(b**2 + 4 * alpha * ridge)
    a = xp.where(b > 0, (b + root) / (2 * alpha), 2 * ridge / xp.where(b > 0, 1.0, root - b + (root == b)))
    m = signal * alpha * (1 - a)
    gain = alpha * (1 - a) ** 2
    R = ((signal - m) ** 2 / signal + noise) / (1 - gain)
    q = m**2 / signal + gain * R
    error = R - noise
    return Unquantized(ridge, m, q, 1 / a - 1, error, R)


@eqx.filter_jit
def _correlated(task: LinearRegression, features: Features, ridge: Array) -> Unquantized:
    """Of correlated features: `models._turned` with kappa = 0, in whatever axes.

    With E = 1/(lambda + u),  alpha = ridge/u + mean lambda E,  R (1 − mean lambda² E²/alpha) = u² mean lambda tau E² + noise.
    """
    mean, eigenvalues, power = features.mean, features.eigenvalues, task.signal * features.teacher
    share = jnp.append(features.share * eigenvalues, ridge)
    u = jnp.maximum(harmonic_root(JAX, share, jnp.append(eigenvalues, 0.0), task.alpha), 0.0)  # 0: least squares
    E = jnp.where(eigenvalues + u > 0, 1 / jnp.where(eigenvalues + u > 0, eigenvalues + u, 1.0), 0.0)
    spare = 1 - mean((eigenvalues * E) ** 2) / task.alpha
    R = (u**2 * mean(eigenvalues * power * E**2) + task.noise) / spare
    q = mean(power * (eigenvalues * E) ** 2) + R / task.alpha * mean(eigenvalues * E**2)
    chi = mean(E) / (task.alpha - mean(eigenvalues * E))
    return Unquantized(ridge, mean(power * eigenvalues * E), q, chi, R - task.noise, R)


def _given(xp: Any, task: GivenData, ridge: Array) -> Unquantized:
    """w = V b/(lambda + ridge), and no more than the minimum-norm solution at ridge 0."""
    D = task.eigenvalues + ridge
    inverse = xp.where(D > 0, 1 / xp.where(D > 0, D, 1.0), 0.0)
    q, chi = ((task.share * x).sum() for x in ((task.projections * inverse) ** 2, inverse))
    z, nothing = xp.maximum(ridge, 1e-3 * np.finfo(D.dtype).eps * task.eigenvalues.max()), xp.zeros_like(chi)
    at = Effective(z, *[nothing] * 4)
    error = task.error(at, Deployed(xp.ones_like(chi), nothing, nothing)).value
    return Unquantized(ridge, np.nan * q, q, chi, error, error)


def optimal_ridge(task: Task) -> Float[Array, ""]:
    """noise/signal: Bayes-optimal for a Gaussian teacher, so the least error any unquantized linear fit can have.

    Of a teacher with more power in some directions than in others, that of the least typical error; of given data, that of
    the least error on training rows left out one by one.
    """
    if isinstance(task, GivenData) and task.rows is not None:
        return jnp.asarray(task.rows.ridge)
    if isinstance(task, LinearRegression) and task.features is not None and (np.ptp(task.features.teacher) > 0):
        return _least(task, task.features)
    if _checks.is_traced((task.noise, task.signal)):
        return task.noise / task.signal
    return jax.device_put(np.asarray(task.noise) / np.asarray(task.signal))


def unquantized(task: Task) -> Unquantized | None:
    """The best ridge regression; None where its theory is not that of the task: another loss, rows of unequal length."""
    known = isinstance(task, GivenData) or (isinstance(task, Taught) and task.in_closed_form and task.rows is None)
    return ridge_regression(task, optimal_ridge(task)) if known else None


def _least(task: LinearRegression, features: Features) -> Float[Array, ""]:
    from scipy.optimize import minimize_scalar

    def error(log: float) -> float:
        return float(_correlated(task, features, np.exp(log)).generalization_error)

    middle = np.log(float(task.noise / task.rho) + 1e-6)
    found: Any = minimize_scalar(error, bounds=(middle - 12, middle + 12), method="bounded")
    return jnp.exp(jnp.asarray(found.x, task.signal.dtype))
