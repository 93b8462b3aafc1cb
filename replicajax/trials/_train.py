"""A quantized linear model trained on real rows, by message passing and by sampling, beside its prediction."""

from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, Int

from replicajax import _checks
from replicajax._writing import whole
from replicajax.amp import AMPResult, GibbsSample, amp, gibbs
from replicajax.codebooks import Codebook
from replicajax.models import LinearRegression
from replicajax.replica import Solution, solve
from replicajax.trials._split import prepare, split


class HeldOutErrors(eqx.Module):
    """Mean squared errors on the rows held out."""

    amp: Float[Array, ""]
    amp_rounded: Float[Array, ""]
    gibbs: Float[Array, ""]
    gibbs_rounded: Float[Array, ""]
    constant: Float[Array, ""]
    """Of predicting the mean label."""


class Trained(eqx.Module):
    """y ≈ y_mean + (x − x_mean) map quantized."""

    solution: Solution
    """Theory at the task read off the data."""
    amp: AMPResult
    gibbs: GibbsSample
    held_out: HeldOutErrors
    codes: Int[Array, " features"]
    """Level indices of the quantized model: AMP's where it converged, else the nearest to the sampled means."""
    method: str = eqx.field(static=True)
    """"amp" or "gibbs": whose codes these are."""
    x_mean: Float[Array, " columns"]
    map: Float[Array, "columns features"]
    """Centres aside, from the columns of X to the axes that were quantized."""
    y_mean: Float[Array, ""]
    training_rows: int = eqx.field(static=True)
    held_out_rows: int = eqx.field(static=True)

    @property
    def quantized(self) -> Float[Array, " features"]:
        return self.solution.codebook.levels[self.codes]

    def predict(self, X: ArrayLike) -> Float[Array, " rows"]:
        """Labels of new rows, in the scale of the y trained on."""
        return self.y_mean + (_checks.matrix("X", X) - self.x_mean) @ self.map @ self.quantized

    def save(self, path: str | Path, y_scale: float = 1.0, y_offset: float = 0.0) -> None:
        """NumPy archive: codes (smallest unsigned type), levels, x_mean, map, y_mean, y_scale, method.

        A label is y_mean + y_scale (x − x_mean) map levels[codes]; y_scale and y_offset undo a standardisation of the
        labels made before training.  Raises OSError where `path` cannot be written; what was there stays then.
        """
        K = len(self.solution.codebook)
        arrays = {
            "codes": np.asarray(self.codes).astype(np.min_scalar_type(K - 1)),
            "levels": np.asarray(self.solution.codebook.levels),
            "x_mean": np.asarray(self.x_mean),
            "map": np.asarray(self.map),
            "y_mean": y_offset + y_scale * np.asarray(self.y_mean),
            "y_scale": np.asarray(y_scale),
            "method": np.asarray(self.method),
        }
        with whole(path) as file:
            np.savez(file, **arrays)


def train(
    X: ArrayLike,
    y: ArrayLike,
    codebook: Codebook,
    beta: ArrayLike,
    *,
    task: LinearRegression,
    iterations: int = 500,
    damping: float = 0.0,
    sweeps: int = 1000,
    rotate: bool = True,
    seed: int = 0,
) -> Trained:
    """Train on alpha N random rows with AMP and with a Gibbs sampler, test on the rest.

    Args:
      X: (rows, columns), y: (rows,), any scale; features are whitened, labels centred.
      codebook: levels, in units of the whitened weights (`task.signal` is their variance).
      beta: inverse temperature, finite.
      task: what the theory is told: alpha (also how many rows to train on), signal, noise, ridge; see
        `LinearRegression.from_data`.
      iterations, damping: of AMP.  sweeps: of the sampler.
      rotate: quantize in randomly rotated axes (see `measure_widths`).
      seed: of the split, the rotation and the sampler.

    Raises:
      TypeError, ValueError: bad arguments, or too few rows for this alpha.
    """
    _checks.instance("task", task, LinearRegression, "LinearRegression.from_data(X, y)")
    beta = _checks.positive("beta", beta)
    rows = prepare(X, y, task.alpha)
    shuffle, turn, sample = jax.random.split(jax.random.key(seed), 3)
    data = split(rows, shuffle, turn, rotate)
    passed = amp(data.X, data.y, codebook, beta, ridge=task.ridge, steps=iterations, damping=damping, row_norms=True)
    sampled = gibbs(data.X, data.y, codebook, beta, ridge=task.ridge, sweeps=sweeps, key=sample)
    nearest = jnp.argmin(jnp.abs(sampled.weights[:, None] - codebook.levels), axis=1)

    def error(w):
        return jnp.mean((data.y_test - data.X_test @ w) ** 2)

    converged = bool(passed.converged)
    return Trained(
        solution=solve(task, codebook, beta),
        amp=passed,
        gibbs=sampled,
        held_out=HeldOutErrors(
            amp=error(passed.weights),
            amp_rounded=error(passed.quantized),
            gibbs=error(sampled.weights),
            gibbs_rounded=error(codebook.levels[nearest]),
            constant=error(jnp.zeros_like(nearest, data.X.dtype)),
        ),
        codes=passed.codes if converged else nearest,
        method="amp" if converged else "gibbs",
        x_mean=rows.whitening.mean,
        map=data.map,
        y_mean=rows.y_mean,
        training_rows=len(data.y),
        held_out_rows=len(data.y_test),
    )
