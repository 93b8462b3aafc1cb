"""The prediction put to the test: held-out error of quantized weights sampled on real rows, width by width."""

from collections.abc import Callable, Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float

from replicajax import _checks
from replicajax.amp import gibbs
from replicajax.codebooks import Codebook, uniform
from replicajax.trials._split import Split, prepare, split


class HeldOut(eqx.Module):
    """Held-out mean squared errors of the mean predictor, in units of the squared labels."""

    widths: Float[Array, " widths"]
    errors: Float[Array, "splits widths"]
    ridge_errors: Float[Array, " splits"]
    """Of unquantized ridge regression with `baseline_ridge`, on the same splits."""
    training_rows: int = eqx.field(static=True)
    held_out_rows: int = eqx.field(static=True)

    @property
    def error(self) -> Float[Array, " widths"]:
        return self.errors.mean(0)

    @property
    def standard_error(self) -> Float[Array, " widths"]:
        """Of `error`, from the scatter over splits."""
        return self.errors.std(0, ddof=1) / np.sqrt(self.errors.shape[0])

    @property
    def best_width(self) -> Float[Array, ""]:
        return self.widths[jnp.argmin(self.error)]


def measure_widths(
    X: ArrayLike,
    y: ArrayLike,
    bits: int,
    widths: Sequence[float] | Float[np.ndarray, " widths"],
    beta: ArrayLike,
    *,
    alpha: float,
    ridge: ArrayLike = 0.0,
    baseline_ridge: ArrayLike = 0.0,
    splits: int = 4,
    sweeps: int = 400,
    seed: int = 0,
    rotate: bool = True,
    tick: Callable[[], None] = lambda: None,
) -> HeldOut:
    """Train by Gibbs sampling on random subsets of rows, test on the rest.

    Features are whitened on all rows (labels play no part in that), so that training rows are draws with covariance I as
    the theory has them; each split trains on alpha N of the rows.  Whitening leaves a rotation free, and quantization
    feels it: in the principal axes of real data the teacher has few large weights and many small ones, which a random
    rotation makes nearly Gaussian (practitioners rotate weights before quantizing them for the same reason).  Features
    that are far from Gaussian stay so to some degree.

    Args:
      X: (rows, columns), y: (rows,), any scale; both are centred.
      bits, widths: uniform codebooks to measure.
      beta: inverse temperature, finite.
      alpha: training rows per feature; at least 8 rows must be left to test on.
      ridge: coefficient of |w|²/2 while sampling; baseline_ridge: that of the unquantized fit beside it.
      splits: random splits (at least 2, for error bars).  sweeps: Gibbs sweeps averaged over.
      rotate: quantize in randomly rotated axes, another rotation each split; False is the principal axes
        (arbitrary ones where several directions have the same variance).
      tick: called after each split, for a progress bar.

    Raises:
      TypeError, ValueError: bad arguments, or too few rows for this alpha.
    """
    splits = _checks.integer("splits", splits, 2, 10**4)
    _checks.positive("beta", beta)
    ridge, baseline_ridge = _checks.nonnegative("ridge", ridge), _checks.nonnegative("baseline_ridge", baseline_ridge)
    data = prepare(X, y, alpha)
    levels = jnp.stack([uniform(bits, w).levels for w in widths])
    errors, baselines = [], []
    for key in jax.random.split(jax.random.key(seed), splits):
        shuffle, turn, sample = jax.random.split(key, 3)
        rows = split(data, shuffle, turn, rotate)
        one, baseline = _one_split(rows, levels, beta, ridge, baseline_ridge, sweeps, sample)
        errors.append(jax.block_until_ready(one))
        baselines.append(baseline)
        tick()
    held_out = len(data.y) - data.training
    return HeldOut(jnp.asarray(widths), jnp.stack(errors), jnp.stack(baselines), data.training, held_out)


@eqx.filter_jit
def _one_split(rows: Split, levels, beta, ridge, baseline_ridge, sweeps, key):
    X, y, X_test, y_test, _ = rows

    def quantized(levels):
        w = gibbs(X, y, Codebook(levels), beta, ridge=ridge, sweeps=sweeps, key=key).weights
        return jnp.mean((y_test - X_test @ w) ** 2)

    gram = X.T @ X + baseline_ridge * jnp.eye(X.shape[1])
    w = jnp.linalg.lstsq(gram, X.T @ y)[0]
    return jax.vmap(quantized)(levels), jnp.mean((y_test - X_test @ w) ** 2)
