"""Real rows made into what is trained and tested on: standardised by the rows trained on, and turned."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import ArrayLike, Float

from replicajax import _checks
from replicajax.models import Standard

_FEWEST_HELD_OUT = 8


class Split(NamedTuple):
    X: Float[np.ndarray, "training features"]
    y: Float[np.ndarray, " training"]
    X_test: Float[np.ndarray, "held_out features"]
    y_test: Float[np.ndarray, " held_out"]
    standard: Standard
    """Of the training rows: what was done to columns and labels."""
    axes: Float[np.ndarray, "features features"]
    """In which weights are quantized."""


def training_rows(X: ArrayLike, y: ArrayLike, alpha: ArrayLike | None) -> int:
    """How many rows to train on: alpha for each column that varies, or 4 of 5 if None.

    Raises ValueError, before anything is trained, where fewer than 8 would be left to test on.
    """
    X = np.asarray(_checks.matrix("X", X))
    y = np.asarray(_checks.vector("y", y, X.shape[0], "row of X"))
    rows, features = X.shape[0], Standard.of(X, y).kept.size
    training = round(0.8 * rows if alpha is None else float(_checks.positive("alpha", alpha)) * features)
    if not 2 <= training <= rows - _FEWEST_HELD_OUT:
        if alpha is None:
            raise ValueError(f"X must have rows enough that {_FEWEST_HELD_OUT} are a fifth of them, got {rows}")
        raise ValueError(
            f"alpha must leave at least {_FEWEST_HELD_OUT} of the {rows} rows to test on and 2 to train on, got alpha "
            f"{float(np.asarray(alpha)):.4g}, that is {training} training rows of {features} features"
        )
    return training


def split(X: ArrayLike, y: ArrayLike, training: int, rng: np.random.Generator, rotate: bool = True) -> Split:
    """Training rows at random; no number of the others plays a part in what is done to them."""
    X, y = np.asarray(X, float), np.asarray(y, float)
    order = rng.permutation(len(y))
    train, test = order[:training], order[training:]
    standard = Standard.of(X[train], y[train])
    features = standard.kept.size
    axes = np.eye(features)
    if rotate:
        Q, R = np.linalg.qr(rng.normal(size=(features, features)))
        axes = Q * np.sign(np.diag(R))
    X, y = standard.features(X) @ axes, standard.labels(y)
    return Split(X[train], y[train], X[test], y[test], standard, axes)


def middle(y: ArrayLike) -> float | None:
    """Halfway between the two values of labels that take no more; None of others."""
    values = np.unique(np.asarray(y, float))
    return float(values.mean()) if values.size == 2 else None
