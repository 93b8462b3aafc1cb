"""Reading a task off data: whitening, and moment estimates of signal and noise."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import ArrayLike, Float

from replicajax import _checks

_FEWEST_ROWS = 8


class Whitening(NamedTuple):
    """z = (x − mean) map has covariance I on the rows it was made from."""

    mean: Float[Any, " columns"]
    map: Float[Any, "columns features"]

    def __call__(self, X: Float[Any, "rows columns"]) -> Float[Any, "rows features"]:
        return (X - self.mean) @ self.map


def whitening(X: ArrayLike, tolerance: float = 1e-10) -> Whitening:
    """Principal-component whitening of the rows of X.

    Directions whose variance is below `tolerance` of the largest are dropped (constant or repeated columns).

    Raises:
      ValueError: not a finite matrix, or no column varies, or fewer rows than independent columns.
    """
    X = np.asarray(_checks.matrix("X", X))
    mean = X.mean(0)
    spread = X.std(0)
    varying = spread > np.sqrt(tolerance) * np.maximum(spread.max(), np.abs(mean).max() * 1e-6)
    if not bool(varying.any()):
        raise ValueError(f"X must have a column that varies, got {X.shape[1]} constant columns")
    _, singular, basis = np.linalg.svd(X - mean, full_matrices=False)
    kept = singular**2 > tolerance * singular[0] ** 2
    if int(kept.sum()) >= X.shape[0] - 1:
        raise ValueError(
            f"X must have more rows than independent columns to be whitened, got {X.shape[0]} rows and "
            f"{int(varying.sum())} varying columns; pass whitened=True if its rows already have covariance I"
        )
    return Whitening(mean, basis[kept].T * (np.sqrt(X.shape[0]) / singular[kept]))


def moments_of_data(X: ArrayLike, y: ArrayLike, *, whitened: bool = False):
    """(alpha, signal, noise) for n rows z of N features, labels y = z·w0/sqrt(N) + xi.

    Rows drawn with covariance I have E|Z^T y|²/n = signal (n + N + 1) + N noise, so

        signal = (|Z^T y|²/n − N |y|²/n) / (n + 1).

    Rows whitened with their own covariance have Z^T Z = n I exactly, hence E|Z^T y|²/n = n signal + N noise, and with one
    degree of freedom spent on the mean

        signal = (|Z^T y|²/n − N |y|²/(n−1)) / (n − 1 − N) · (n − 1)/n.

    Either way noise = |y|²/n − signal.
    """
    X = np.asarray(_checks.matrix("X", X))
    y = np.asarray(_checks.vector("y", y, X.shape[0], "row of X"))
    rows = X.shape[0]
    if rows < _FEWEST_ROWS:
        raise ValueError(f"X must have at least {_FEWEST_ROWS} rows to estimate signal and noise, got {rows}")
    if float(np.ptp(y)) <= 1e-12 * float(np.abs(y).max()):
        raise ValueError(f"y must vary, got the constant label {float(y[0]):.6g} in all {rows} rows")
    if whitened:
        features = X.shape[1]
        power = np.sum(y**2) / rows
        signal = (np.sum((X.T @ y) ** 2) / rows - features * power) / (rows + 1)
    else:
        Z = whitening(X)(X)
        features = Z.shape[1]
        y = y - y.mean()
        power = np.sum(y**2) / (rows - 1)
        explained = np.sum((Z.T @ y) ** 2) / rows / (rows - 1)
        signal = (explained - features * power / (rows - 1)) / (1 - features / (rows - 1))
    if float(signal) <= 0:
        raise ValueError(
            f"y must depend linearly on X: the estimated signal variance is {float(signal):.3g} of a label variance of "
            f"{float(power):.3g} ({rows} rows, {features} features)"
        )
    return rows / features, signal, np.maximum(power - signal, 1e-6 * power)
