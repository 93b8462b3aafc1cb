"""The spectrum that few rows were drawn with: eigenvalues of a covariance freed of the spread that few rows give them.

Of rows x ~ N(0, Sigma/N) in N columns, with nu degrees of freedom, G = N X Xᵀ/nu, a_k = tr (G + r)^(−k)/nu and means over the
eigenvalues of Sigma: a ridge r acts as u, as nu rows leave the rest of them unseen (Silverstein and Choi 1995),

    1/u = a_1,     mean lambda/(lambda + u) = (1 − r/u) nu/N,                                                            (1)

which is linear in how many eigenvalues are where (El Karoui 2008, who takes r complex).  What G says of a_1 is off by numbers
of order 1/nu, known of Gaussian rows whatever Sigma (Bai and Silverstein 2004), with b = tr (G + r)^(−1) (G + r')^(−1)/nu,

    mean (a_3/a_2 − a_2/a_1)/nu,     covariance 2 (a_2 a_2'/b² − 1)/(nu (r − r'))², at r = r' 2 (a_4/a_2 − (a_3/a_2)²)/nu²:  (2)

the first is taken away, and (1) at many r is fitted in the measure of the second, by shares >= 0 on a grid, with the mean of
the eigenvalues in hand.  Fewer rows than columns have u > u_0 > 0, and can hardly tell an eigenvalue far below u_0 from 0.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import ArrayLike, Float

from replicajax import _checks

_FEWEST_ROWS = 8
_RIDGES = 40
_ROUNDING = 1e-12
"""Of eigenvalues, to the largest."""
_TRUSTED = 1e-8
"""Least variance taken at its word, of combinations of ridges, to the greatest."""
_SURE = 1e-6
"""Relative error of 1/u, at least."""


class Population(NamedTuple):
    eigenvalues: Float[np.ndarray, " eigenvalues"]
    share: Float[np.ndarray, " eigenvalues"]


def population(X: ArrayLike, count: int) -> Population:
    """Eigenvalues of Sigma, those of the `count` of a grid, and 0, that have a share; about the mean of the rows.

    Raises:
      ValueError: not a finite matrix, fewer than 8 rows, or no column varies.
    """
    rows, freedom = _centred(X)
    columns = rows.shape[1]
    gram = rows @ rows.T if len(rows) <= columns else rows.T @ rows
    seen = np.linalg.eigvalsh(gram * (columns / freedom))[::-1][:freedom]
    seen = np.where(seen > _ROUNDING * seen[0], seen, 0.0)
    some = seen[seen > 0]
    low = some[-1 - min(10, len(some) // 20)]  # below it too few eigenvalues to make a mean
    r = np.geomspace(low / 3, 30 * some[0], _RIDGES)
    mean = seen.sum() / columns
    grid = np.concatenate([[0.0], np.geomspace(min(low, mean) / 10, 1.1 * some[0], count)])
    return _fitted(_Measured.of(seen, freedom, r), freedom / columns, mean, grid)


def variances(X: ArrayLike, count: int) -> Population:
    """N times those of columns, about their means, in `count` groups of about equal size.

    Raises:
      ValueError: as `population`.
    """
    rows, freedom = _centred(X)
    each = np.sort((rows**2).sum(0) * (rows.shape[1] / freedom))
    groups = np.array_split(each, min(count, len(each)))
    return Population(
        np.array([group.mean() for group in groups]), np.array([group.size / len(each) for group in groups])
    )


def _centred(X: ArrayLike) -> tuple[Float[np.ndarray, "rows columns"], int]:
    """Rows less their mean, and their degrees of freedom."""
    rows = np.asarray(_checks.matrix("X", X), float)
    if len(rows) < _FEWEST_ROWS:
        raise ValueError(f"X must have at least {_FEWEST_ROWS} rows to tell a spectrum from, got {len(rows)}")
    if not np.ptp(rows, 0).any():
        raise ValueError(f"X must have a column that varies, got {rows.shape[1]} constant columns")
    return rows - rows.mean(0), len(rows) - 1


class _Measured(NamedTuple):
    """u of ridges r; and combinations of them in which errors of 1/u are independent, of variance 1."""

    r: Float[np.ndarray, " ridges"]
    u: Float[np.ndarray, " ridges"]
    slope: Float[np.ndarray, " ridges"]
    """−d(1/u)/dr."""
    whiten: Float[np.ndarray, "combinations ridges"]

    @classmethod
    def of(cls, seen: Float[np.ndarray, " eigenvalues"], freedom: int, r: Float[np.ndarray, " ridges"]) -> _Measured:
        """(2), `seen` the eigenvalues of G, but for some that are 0."""
        inverse = 1 / (np.concatenate([seen, np.zeros(freedom - len(seen))])[:, None] + r)
        a1, a2, a3, a4 = ((inverse**k).mean(0) for k in (1, 2, 3, 4))
        same = np.eye(len(r))
        apart = (np.outer(a2, a2) / (inverse.T @ inverse / freedom) ** 2 - 1) / (np.subtract.outer(r, r) + same) ** 2
        covariance = 2 / freedom**2 * np.where(same, a4 / a2 - (a3 / a2) ** 2, apart)
        covariance += np.diag((_SURE * a1) ** 2)
        scale = np.sqrt(np.diag(covariance))
        variance, along = np.linalg.eigh(covariance / np.outer(scale, scale))
        trusted = variance > _TRUSTED * variance[-1]
        whiten = (along[:, trusted] / np.sqrt(variance[trusted])).T / scale
        return cls(r, 1 / (a1 - (a3 / a2 - a2 / a1) / freedom), a2, whiten)


def _fitted(measured: _Measured, ratio: float, mean: float, grid: Float[np.ndarray, " grid"]) -> Population:
    """(1) by least squares, ratio = nu/N, of that mean."""
    from scipy.optimize import nnls

    r, u, slope, whiten = measured
    whiten = whiten * (u * slope / ratio)  # from errors of mean lambda/(lambda + u) to those of 1/u at that r
    matrix, target = whiten @ (grid / (grid + u[:, None])), whiten @ ((1 - r / u) * ratio)
    firmly = 1e3 * np.linalg.norm(target)
    exact = firmly * np.stack([np.ones_like(grid), grid / mean])
    share, _ = nnls(np.vstack([matrix, exact]), np.append(target, [firmly, firmly]), maxiter=100 * len(grid))
    some = share > _ROUNDING
    return Population(grid[some], share[some] / share.sum())
