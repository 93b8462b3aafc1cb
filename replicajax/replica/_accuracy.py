"""Of rows of two classes: how many the sign of the prediction gets right.  theory 9

A row is predicted N(mean, variance) over the turns of the axes (`models.RowLaw`), and its class by the side of the threshold
it falls on, so that the share of rows expected right is the mean of Phi(±(mean − threshold)/sqrt(variance)).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import ArrayLike, Float

from replicajax import _checks
from replicajax.codebooks import Codebook
from replicajax.models import Deployed, GivenData, Rounded, deployed
from replicajax.replica._batch import outcomes
from replicajax.replica._equations import Points


class Accuracy(NamedTuple):
    """Share of the rows that errors are of, expected right."""

    mean: Float[np.ndarray, "..."]
    """Of the mean predictor."""
    rounded: Float[np.ndarray, "..."]
    """Of every weight at its most probable level; NaN where `Solution.rounded_error` is."""


def accuracies(tasks: GivenData, books: Codebook, betas: Points, threshold: float) -> Accuracy:
    """For a batch, stacked as in `solve_many`, of one table."""
    found = outcomes(tasks, books, betas)
    assert found.report is not None
    said, at, rounded = found.report.channel, found.report.channel.effective, found.rounded
    assert at is not None
    signal: Any = np.asarray(tasks.signal, float)
    hard = Rounded(signal * rounded.m, signal * rounded.q, rounded.response, signal * rounded.crossed)
    rough = deployed(said, found.chi.value, hard)
    each = []
    for i, (gain, share, noise) in enumerate(zip(*rough, strict=True)):
        task = jax.tree.map(lambda x, i=i: x[i], tasks)
        each.append(_share_right(task, at.ridge[i], at.noise[i], Deployed(gain, share, noise), threshold))
    mean, of_rounded = np.array(each).T
    return Accuracy(mean, of_rounded)


def accuracy(task: GivenData, codebook: Codebook, beta: ArrayLike, threshold: float = 0.0) -> Accuracy:
    """Expected share of rows, held or left out, whose class is that of the predicted side of the threshold.

    Args:
      task: rows with labels of two values.
      codebook: the levels.
      beta: inverse temperature, finite.
      threshold: a number between the two, in the units of the task's labels.

    Raises:
      TypeError, ValueError: bad arguments.
    """
    _checks.instance("task", task, GivenData, "GivenData(X, y)")
    _checks.instance("codebook", codebook, Codebook, "uniform(bits=2, width=1.5)")
    one = task, codebook, _checks.positive("beta", beta)
    tasks, books, betas = jax.tree.map(lambda x: np.asarray(x)[None], one)
    found = accuracies(tasks, books, betas, threshold)
    return Accuracy(found.mean[0], found.rounded[0])


def ridge_accuracy(task: GivenData, ridge: ArrayLike, threshold: float = 0.0) -> float:
    """Of unquantized ridge regression."""
    smallest = 1e-3 * np.finfo(float).eps * float(np.max(task.eigenvalues))
    z = max(float(np.asarray(ridge)), smallest)
    one: Any = np.ones(())
    return _share_right(task, z, 0.0, Deployed(one, 0 * one, 0 * one), threshold)[0]


def _share_right(task: GivenData, ridge, noise, rough: Deployed, threshold: float) -> tuple[float, float]:
    from scipy.special import ndtr  # takes long to import

    law = task.row_law(ridge, max(noise, 0.0), rough)
    assert task.rows is not None
    side = np.sign(task.rows.y - threshold)
    right = []
    for mean, variance in ((law.mean, law.variance), (law.rounded_mean, law.rounded_variance)):
        spread = np.sqrt(np.maximum(variance, np.finfo(float).tiny))
        right.append(float(ndtr(side * (mean - threshold) / spread).mean()))
    return right[0], right[1]
