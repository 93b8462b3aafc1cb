"""Ridge regression with unquantized weights, in closed form: the baseline every codebook is measured against."""

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float

from replicajax import _checks
from replicajax.models import LinearRegression


class Unquantized(eqx.Module):
    """Typical case of the ridge estimator; symbols as in `Solution`."""

    ridge: Float[Array, ""]
    overlap: Float[Array, ""]
    self_overlap: Float[Array, ""]
    susceptibility: Float[Array, ""]
    generalization_error: Float[Array, ""]
    test_error: Float[Array, ""]


def ridge_regression(task: LinearRegression, ridge: ArrayLike | None = None) -> Unquantized:
    """Typical generalisation error of argmin ½|y − Xw|² + ½ ridge |w|² over real w.

    With a = 1/(1 + chi), the fixed point chi = 1/(alpha/(1+chi) + ridge) is alpha a² − (alpha − 1 − ridge) a − ridge = 0,
    and  m = signal alpha (1−a),  R = ((signal−m)²/signal + noise) / (1 − alpha (1−a)²),  q = m²/signal + alpha (1−a)² R.

    Args:
      task: the learning problem.
      ridge: coefficient of |w|²/2; the task's own if None.  0 gives the minimum-norm solution below alpha = 1
        and an infinite error at alpha = 1.
    """
    _checks.instance("task", task, LinearRegression, "LinearRegression(alpha=2.0)")
    return _closed_form(task, task.ridge if ridge is None else _checks.nonnegative("ridge", ridge))


@eqx.filter_jit
def _closed_form(task: LinearRegression, ridge: Float[Array, ""]) -> Unquantized:
    alpha, signal = task.alpha, task.signal
    b = alpha - 1 - ridge
    root = jnp.sqrt(b**2 + 4 * alpha * ridge)
    a = jnp.where(b > 0, (b + root) / (2 * alpha), 2 * ridge / jnp.where(b > 0, 1.0, root - b + (root == b)))
    m = signal * alpha * (1 - a)
    gain = alpha * (1 - a) ** 2
    R = ((signal - m) ** 2 / signal + task.noise) / (1 - gain)
    q = m**2 / signal + gain * R
    error = R - task.noise
    return Unquantized(ridge, m, q, 1 / a - 1, error, R)


def optimal_ridge(task: LinearRegression) -> Float[Array, ""]:
    """noise/signal: Bayes-optimal for a Gaussian teacher, so the least error any unquantized linear fit can have."""
    return task.noise / task.signal
