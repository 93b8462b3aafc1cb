"""The prediction put to the test: held-out error of quantized weights sampled on real rows, width by width."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Bool, Float

from replicajax import _checks
from replicajax.amp import gibbs
from replicajax.codebooks import Codebook, uniform
from replicajax.models import GivenData, Task
from replicajax.replica import (
    Solution,
    accuracies,
    broken_where_needed,
    optimal_ridge,
    ridge_accuracy,
    ridge_regression,
    solve_many,
)
from replicajax.trials._split import middle, split, training_rows


class HeldOut(eqx.Module):
    """Held-out mean squared errors of the mean predictor, in units of the variance of the labels trained on; of labels that
    take two values also the accuracy of its sign."""

    widths: Float[np.ndarray, " widths"]
    errors: Float[np.ndarray, "splits widths"]
    """Measured."""
    mixed: Bool[np.ndarray, "splits widths"]
    """Whether the chains agreed; where not, the error is that of where they happened to be trapped."""
    theory: Float[np.ndarray, "splits widths"]
    """Predicted from the same rows (`GivenData`)."""
    ridge_errors: Float[np.ndarray, " splits"]
    """Of unquantized ridge regression on the same columns and splits."""
    accuracies: Float[np.ndarray, "splits widths"] | None
    """Share of the held-out rows whose class is that of the mean prediction; None unless labels take two values."""
    theory_accuracies: Float[np.ndarray, "splits widths"] | None
    ridge_accuracies: Float[np.ndarray, " splits"] | None
    tasks: tuple[GivenData, ...]
    """Of each split."""
    training_rows: int = eqx.field(static=True)
    held_out_rows: int = eqx.field(static=True)

    @property
    def error(self) -> Float[np.ndarray, " widths"]:
        return self.errors.mean(0)

    @property
    def standard_error(self) -> Float[np.ndarray, " widths"]:
        """Of `error`, from the scatter over splits."""
        return self.errors.std(0, ddof=1) / np.sqrt(self.errors.shape[0])

    @property
    def accuracy(self) -> Float[np.ndarray, " widths"] | None:
        return None if self.accuracies is None else self.accuracies.mean(0)

    @property
    def accuracy_standard_error(self) -> Float[np.ndarray, " widths"] | None:
        """Of `accuracy`, from the scatter over splits."""
        if self.accuracies is None:
            return None
        return self.accuracies.std(0, ddof=1) / np.sqrt(self.accuracies.shape[0])

    def __str__(self) -> str:
        splits = self.errors.shape[0]
        lines = [
            f"{splits} splits, {self.training_rows} rows trained on, {self.held_out_rows} held out; mean squared errors",
            f"{'width':>10s}{'theory':>10s}{'measured':>10s}{'±':>10s}{'chains mixed':>14s}",
        ]
        rows = zip(self.widths, self.theory.mean(0), self.error, self.standard_error, self.mixed.sum(0), strict=True)
        lines += [f"{w:10.4g}{t:10.4f}{e:10.4f}{s:10.4f}{f'{m} of {splits}':>14s}" for w, t, e, s, m in rows]
        return "\n".join([*lines, f"ridge regression {self.ridge_errors.mean():.4f}, unquantized"])

    @property
    def best_width(self) -> float:
        return float(self.widths[np.argmin(self.error)])


def predict_widths(
    task: Task, bits: int, widths: Float[np.ndarray, " widths"], beta: ArrayLike, breaking: int | str = 0
) -> Solution:
    """The theory at many widths; `breaking` as in `solve`."""
    problem = _at_widths(task, bits, widths, beta)
    found = solve_many(*problem)
    return broken_where_needed(found, {}, breaking, lambda _: problem)[0] if breaking else found


def _at_widths(task: Task, bits: int, widths: Float[np.ndarray, " widths"], beta: ArrayLike) -> Any:
    """Stacked tasks, codebooks and betas."""
    levels = np.asarray(widths, float)[:, None] * np.linspace(-1, 1, 2**bits)
    tasks, betas = jax.tree.map(lambda x: np.broadcast_to(x, (len(widths), *np.shape(x))), (task, np.asarray(beta)))
    return tasks, eqx.tree_at(lambda b: b.levels, uniform(bits, 1.0), levels), betas


def measure_widths(
    X: ArrayLike,
    y: ArrayLike,
    bits: int,
    widths: Sequence[float] | Float[np.ndarray, " widths"],
    beta: ArrayLike,
    *,
    alpha: float | None = None,
    ridge: ArrayLike = 0.0,
    baseline_ridge: ArrayLike | None = None,
    splits: int = 4,
    sweeps: int = 400,
    seed: int = 0,
    rotate: bool = True,
    tick: Callable[[], None] = lambda: None,
) -> HeldOut:
    """Train by Gibbs sampling on random subsets of rows, test on the rest, beside the theory of the same rows.

    Columns and labels are standardised by the training rows alone, and weights quantized in axes turned at random, as the
    theory has them (practitioners rotate weights before quantizing them for a like reason).

    Args:
      X: (rows, columns), y: (rows,), any scale.
      bits, widths: uniform codebooks to measure, in units of the standardised weights (`GivenData.signal` is their mean
        square).
      beta: inverse temperature, finite.
      alpha: training rows per column that varies; 4 of 5 rows if None.  At least 8 rows must be left to test on.
      ridge: coefficient of |w|²/2 while sampling; baseline_ridge: that of the unquantized fit beside it, chosen on each
        split's training rows if None.
      splits: random splits (at least 2, for error bars).  sweeps: Gibbs sweeps averaged over.
      rotate: quantize in randomly turned axes, another turn each split; False is along the columns.
      tick: called after each split, for a progress bar.

    Raises:
      TypeError, ValueError: bad arguments, or too few rows for this alpha.
    """
    splits = _checks.integer("splits", splits, 2, 10**4)
    beta = _checks.positive("beta", beta)
    ridge = _checks.nonnegative("ridge", ridge)
    training = training_rows(X, y, alpha)
    widths = np.asarray(widths, float)
    levels = jnp.asarray(widths[:, None] * np.linspace(-1, 1, 2**bits))
    errors, mixed, theory, baselines, tasks, right = [], [], [], [], [], []
    between = middle(y)
    for number in range(splits):
        rows = split(X, y, training, np.random.default_rng((seed, number)), rotate)
        task = GivenData(rows.X, rows.y, ridge, rows.X_test, rows.y_test)
        own = optimal_ridge(task) if baseline_ridge is None else baseline_ridge
        baselines.append(ridge_regression(task, own).generalization_error)
        theory.append(predict_widths(task, bits, widths, beta).generalization_error)
        sampled = _sampled(*rows[:3], levels, beta, ridge, sweeps, jax.random.key(seed + number))
        missed = rows.y_test - np.asarray(sampled[0])
        errors.append((missed**2).mean(1))
        mixed.append(np.asarray(sampled[1]))
        if between is not None:
            edge = float(rows.standard.labels(between))
            same = (np.asarray(sampled[0]) > edge) == (rows.y_test > edge)
            points, books, betas = _at_widths(task, bits, widths, beta)
            expected = accuracies(points, books, betas, edge).mean
            right.append((same.mean(1), expected, ridge_accuracy(task, own, edge)))
        tasks.append(task)
        tick()
    each = map(np.array, (errors, mixed, theory, baselines))
    shares = [np.array(x) for x in zip(*right, strict=True)] if right else [None] * 3
    return HeldOut(
        widths,
        *each,
        accuracies=shares[0],
        theory_accuracies=shares[1],
        ridge_accuracies=shares[2],
        tasks=tuple(tasks),
        training_rows=training,
        held_out_rows=len(np.asarray(y)) - training,
    )


@eqx.filter_jit
def _sampled(X, y, X_test, levels, beta, ridge, sweeps, key) -> tuple[Array, Array]:
    """Mean predictions of the held-out rows, and whether the chains agreed, at every width."""

    def quantized(levels):
        sample = gibbs(X, y, Codebook(levels), beta, ridge=ridge, sweeps=sweeps, key=key)
        return X_test @ sample.weights, sample.mixed

    return jax.vmap(quantized)(levels)
