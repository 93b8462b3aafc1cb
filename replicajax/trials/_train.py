"""A quantized linear model trained on real rows, by message passing and by sampling, beside its prediction."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, Int

from replicajax import _binomial, _checks
from replicajax._writing import whole
from replicajax.amp import AMPResult, GibbsSample, gibbs, vamp
from replicajax.codebooks import Codebook
from replicajax.models import GivenData, Standard
from replicajax.replica import Accuracy, Solution, accuracy, solve
from replicajax.trials._split import middle, split, training_rows


class HeldOutErrors(eqx.Module):
    """Of each kind of prediction, on the rows held out: mean squared errors, in units of the variance of the labels trained
    on, or shares of rows right."""

    amp: Float[Array, ""]
    amp_rounded: Float[Array, ""]
    gibbs: Float[Array, ""]
    gibbs_rounded: Float[Array, ""]
    constant: Float[Array, ""]
    """Of predicting the mean label, or the more frequent one."""


class Accuracies(eqx.Module):
    """Of labels that take two values: the share of rows that fall on the right side of the middle."""

    held_out: HeldOutErrors
    standard_errors: HeldOutErrors
    """Binomial, as if one more row were right and one more wrong."""
    theory: Accuracy
    """Expected on the rows held out."""
    left_out: Accuracy
    """Expected on training rows left out one by one."""


class Trained(eqx.Module):
    """y ≈ y_mean + y_scale (x − x_mean) map quantized."""

    solution: Solution
    """Theory of the rows trained on, its errors on those held out."""
    left_out: Solution
    """The same with its errors on training rows left out one by one: what is known before any other row is seen."""
    amp: AMPResult
    gibbs: GibbsSample
    held_out: HeldOutErrors
    standard_errors: HeldOutErrors
    """Of `held_out`, from the scatter over rows."""
    accuracies: Accuracies | None
    """None unless labels take two values."""
    codes: Int[Array, " features"]
    """Level indices of the quantized model: AMP's where it converged, else the nearest to the sampled means."""
    method: str = eqx.field(static=True)
    """"amp" or "gibbs": whose codes these are."""
    x_mean: Float[np.ndarray, " columns"]
    map: Float[np.ndarray, "columns features"]
    """Centres aside, from the columns of X to the axes that were quantized; columns that did not vary have no part."""
    y_mean: float
    y_scale: float
    training_rows: int = eqx.field(static=True)
    held_out_rows: int = eqx.field(static=True)

    @property
    def quantized(self) -> Float[Array, " features"]:
        return self.solution.codebook.levels[self.codes]

    def predict(self, X: ArrayLike) -> Float[Array, " rows"]:
        """Labels of new rows, in the scale of the y trained on."""
        return self.y_mean + self.y_scale * ((_checks.matrix("X", X) - self.x_mean) @ self.map @ self.quantized)

    def save(
        self,
        path: str | Path,
        columns: list[str] | None = None,
        target: str | None = None,
        classes: Sequence[str] = (),
    ) -> None:
        """NumPy archive: codes (smallest unsigned type), levels, x_mean, map, y_mean, y_scale, method, columns, target and
        classes, the names of labels −1 and +1.

        A label is y_mean + y_scale (x − x_mean) map levels[codes].  Raises OSError where `path` cannot be written; what was
        there stays then.
        """
        K = len(self.solution.codebook)
        arrays: dict[str, Any] = {
            "codes": np.asarray(self.codes).astype(np.min_scalar_type(K - 1)),
            "levels": np.asarray(self.solution.codebook.levels),
            "x_mean": self.x_mean,
            "map": self.map,
            "y_mean": np.asarray(self.y_mean),
            "y_scale": np.asarray(self.y_scale),
            "method": np.asarray(self.method),
            "columns": np.asarray(columns or [f"x{i}" for i in range(len(self.x_mean))], str),
            "target": np.asarray(target or "y", str),
            "classes": np.asarray([*classes], str),
        }
        with whole(path) as file:
            np.savez(file, **arrays)


def train(
    X: ArrayLike,
    y: ArrayLike,
    codebook: Codebook,
    beta: ArrayLike,
    *,
    alpha: float | None = None,
    ridge: ArrayLike = 0.0,
    iterations: int = 500,
    damping: float = 0.3,
    sweeps: int = 1000,
    rotate: bool = True,
    seed: int = 0,
) -> Trained:
    """Train on random rows with VAMP and with a Gibbs sampler, test on the rest.

    Args:
      X: (rows, columns), y: (rows,), any scale; standardised by the rows trained on.
      codebook: levels, in units of the standardised weights (`GivenData.signal` is their mean square).
      beta: inverse temperature, finite.
      alpha: rows to train on per column that varies; 4 of 5 rows if None.
      ridge: coefficient of |w|²/2.
      iterations, damping: of VAMP.  sweeps: of the sampler.
      rotate: quantize in randomly turned axes (see `measure_widths`).
      seed: of the split, the turn and the sampler.

    Raises:
      TypeError, ValueError: bad arguments, or too few rows for this alpha.
    """
    beta = _checks.positive("beta", beta)
    rows = split(X, y, training_rows(X, y, alpha), np.random.default_rng(seed), rotate)
    passed = vamp(rows.X, rows.y, codebook, beta, ridge=ridge, steps=iterations, damping=damping)
    sampled = gibbs(rows.X, rows.y, codebook, beta, ridge=ridge, sweeps=sweeps, key=jax.random.key(seed))
    levels = np.asarray(codebook.levels)
    nearest = np.abs(np.asarray(sampled.weights)[:, None] - levels).argmin(1)
    weights = passed.weights, passed.quantized, sampled.weights, levels[nearest], 0 * levels[nearest]
    predicted = rows.X_test @ np.stack(weights, 1)
    squares = (rows.y_test[:, None] - predicted) ** 2
    converged = bool(passed.converged)
    tasks = GivenData(rows.X, rows.y, ridge, rows.X_test, rows.y_test), GivenData(rows.X, rows.y, ridge)
    between, right = middle(y), None
    if between is not None:
        edge = float(rows.standard.labels(between))
        same = ((predicted > edge) == (rows.y_test[:, None] > edge)).sum(0)
        theory, left = (accuracy(task, codebook, beta, edge) for task in tasks)
        right = _accuracies(same, len(squares), theory, left)
    return Trained(
        solution=solve(tasks[0], codebook, beta),
        left_out=solve(tasks[1], codebook, beta),
        amp=passed,
        gibbs=sampled,
        held_out=HeldOutErrors(*jnp.asarray(squares.mean(0))),
        standard_errors=HeldOutErrors(*jnp.asarray(squares.std(0, ddof=1) / np.sqrt(len(squares)))),
        accuracies=right,
        codes=passed.codes if converged else jnp.asarray(nearest),
        method="amp" if converged else "gibbs",
        x_mean=_scattered(rows.standard, np.shape(X)[1], rows.standard.mean),
        map=_scattered(rows.standard, np.shape(X)[1], rows.axes / rows.standard.spread[:, None]),
        y_mean=rows.standard.centre,
        y_scale=rows.standard.scale,
        training_rows=len(rows.y),
        held_out_rows=len(rows.y_test),
    )


def _accuracies(right: np.ndarray, rows: int, theory: Accuracy, left_out: Accuracy) -> Accuracies:
    """Of the numbers of rows right."""
    errors = [_binomial.standard_error(int(count) / rows, rows) for count in right]
    shares, spreads = (HeldOutErrors(*map(jnp.asarray, x)) for x in (right / rows, errors))
    return Accuracies(shares, spreads, theory, left_out)


def _scattered(standard: Standard, columns: int, values: np.ndarray) -> np.ndarray:
    """Of every column, 0 for those that were left out."""
    out = np.zeros((columns, *values.shape[1:]))
    out[standard.kept] = values
    return out
