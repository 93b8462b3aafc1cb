"""Rows of a table as ridge regression sees them: their spectrum, and what it predicts on rows held or left out.  theory 9"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Array, ArrayLike, Float

from replicajax import _checks
from replicajax.numerics import Backend

_FLAT = 1e-10
"""Deviation of a column, relative to its largest entry, below which it does not vary."""
_LARGEST = 1e100
"""Entries beyond which, or below whose inverse, squares and their sums leave the floating numbers."""
_CHUNK = 2**22


class Spectrum(NamedTuple):
    """Of XᵀX, as `GivenData` has it."""

    eigenvalues: Float[Any, "... eigenvalues"]
    projections: Float[Any, "... eigenvalues"]
    share: Float[Any, "... eigenvalues"]


class Deployed(NamedTuple):
    """Weights rounded to their most probable level: gain <w> + share r + N(0, noise), with D <w> = V b + r, r ~ N(0, kappa)."""

    gain: Array
    share: Array
    noise: Array


class RowError(NamedTuple):
    """Mean square of what is missed, label noise included."""

    value: Any
    by_ridge: Any
    by_noise: Any
    thermal: Any
    """A Gibbs sample's is larger by this over beta."""
    deployed: Any
    """Of the rounded weights."""


class RowLaw(NamedTuple):
    """What is predicted of each row, left out where it was trained on: N(mean, variance) over the turns of the axes."""

    mean: Float[np.ndarray, " rows"]
    variance: Float[np.ndarray, " rows"]
    rounded_mean: Float[np.ndarray, " rows"]
    rounded_variance: Float[np.ndarray, " rows"]
    """Of the rounded weights."""


class _LeftOut(NamedTuple):
    """Of the rows trained on, in ridge regression with the effective ridge."""

    residual: Any
    residual_by_ridge: Any
    leverage: Any
    spread: Any
    """A²/D², which the noise makes a variance."""
    spread_by_ridge: Any
    kept: Any
    """1 − h."""


@dataclass(frozen=True, eq=False, repr=False)
class Rows:
    """What errors are measured on, in principal axes.  Two are equal only if they are the same."""

    axes: Float[np.ndarray, "columns eigenvalues"]
    """V, but for directions in which no training row has a part."""
    projected: Float[np.ndarray, "rows eigenvalues"]
    squares: Float[np.ndarray, "rows eigenvalues"]
    """Of `projected`; of all null directions together in the last column, if there are any."""
    y: Float[np.ndarray, " rows"]
    eigenvalues: Float[np.ndarray, " eigenvalues"]
    projections: Float[np.ndarray, " eigenvalues"]
    """Those that belong to these rows."""
    unexplained: Float[np.ndarray, " rows"]
    """y − U Uᵀ y of the rows trained on, U their directions: what no weights at all would fit."""
    free: Float[np.ndarray, " rows"]
    """1 − h at ridge 0."""
    training: int
    """Rows trained on."""
    held_out: bool
    """Whether these are others."""
    centred: bool
    """Whether columns and labels trained on have mean 0, and hence every row a leverage 1/n on that."""
    ridge: float
    """Of least error on training rows left out."""
    noise: float
    """Variance that ridge regression with it does not explain."""
    signal: float
    """Mean square of a weight that would explain the rest."""

    @property
    def alpha(self) -> float:
        return self.training / self.axes.shape[0]

    @property
    def digest(self) -> str:
        """Of all numbers."""
        every = (self.axes, self.projected, self.squares, self.y, self.eigenvalues, self.projections)
        return hashlib.sha256(b"".join(np.ascontiguousarray(x).tobytes() for x in every)).hexdigest()

    def __repr__(self) -> str:
        return f"Rows({self})"

    def __str__(self) -> str:
        columns = self.axes.shape[0]
        how = f"{len(self.y)} to test on" if self.held_out else "each left out once"
        return f"{self.training} rows of {columns} columns, {how}"

    def error(self, on: Backend, spectrum: Spectrum, z, kappa, deployed: Deployed) -> RowError:
        """Of weights V b/D + V N(0, kappa)/D, D = eigenvalues + z.

        Held out: mean (y − A b/D)² + kappa mean A²/D².  Left out: leverage h = A²/D, and

            mean ((y − A b/D)² + kappa A²/D²)/(1 − h)²,

        with 1 − 1/n − h for rows that were centred: left out, one would have had its share in no mean, and been n/(n−1) times
        as far from it.  Rounded weights hear of a row left out by their gain.  Where rows are fewer than columns residual and
        1 − h both vanish with z; they are taken as what is left of them at z = 0, plus what z adds.
        """
        xp = on.xp
        A, squares, y = (xp.asarray(x) for x in (self.projected, self.squares, self.y))
        inverse = 1 / (spectrum.eigenvalues + z[..., None])
        u = spectrum.projections * inverse
        gain, share, noise = (x[..., None] for x in deployed)
        if self.held_out:
            told, r_z = xp.stack([u, u * inverse]) @ A.T
            r, d = y - told, squares.mean(0)
            rounded = ((y - gain * (y - r)) ** 2).mean(-1)
            rounded += (kappa[..., None] * (gain * inverse + share) ** 2 + noise) @ d
            spread, spread_z = (inverse**2) @ d, -2 * (inverse**3) @ d
            by_ridge = 2 * (r * r_z).mean(-1) + kappa * spread_z
            return RowError((r**2).mean(-1) + kappa * spread, by_ridge, spread, inverse @ d, rounded)
        r, r_z, h, s, s_z, kept = self._left_out(xp, spectrum, z)
        far = self._far
        missed = r**2 + kappa[..., None] * s
        by_ridge = ((2 * r * r_z + kappa[..., None] * s_z) / kept**2 - 2 * missed * s / kept**3).mean(-1)
        length, share = squares.sum(1), far * share
        of_noise = (gain / kept) ** 2 * s + 2 * gain / kept * share * h + share**2 * length
        left = (far * y - gain * (far * y - r / kept)) ** 2 + kappa[..., None] * of_noise + far**2 * noise * length
        return RowError(
            (missed / kept**2).mean(-1), by_ridge, (s / kept**2).mean(-1), far * (h / kept).mean(-1), left.mean(-1)
        )

    def _left_out(self, xp: Any, spectrum: Spectrum, z) -> _LeftOut:
        A, squares = xp.asarray(self.projected), xp.asarray(self.squares)
        inverse = 1 / (spectrum.eigenvalues + z[..., None])
        # 1/lambda − 1/D and b/lambda − b/D; the differences from what belongs to the rows are 0, but have derivatives.
        own, b, some = xp.asarray(self.eigenvalues), xp.asarray(self.projections), self.eigenvalues > 0
        added = spectrum.eigenvalues - own + z[..., None]
        per_own = inverse / xp.where(some, own, 1.0) * some
        missing = per_own * (b * added + own * (b - spectrum.projections))
        r, r_z = xp.stack([missing, spectrum.projections * inverse**2]) @ A.T
        h, s, s_z, kept = xp.stack([inverse, inverse**2, -2 * inverse**3, per_own * added]) @ squares.T
        return _LeftOut(xp.asarray(self.unexplained) + r, r_z, h, s, s_z, xp.asarray(self.free) + kept)

    def law(self, spectrum: Spectrum, z: float, kappa: float, deployed: Deployed) -> RowLaw:
        """Whose mean squares about the labels are those of `error`; of one point, in NumPy.

        A row left out is predicted about a mean y_mu/(n−1) lower, which its label is higher by: both cancel in mean − y.
        """
        squares, y, (gain, share, noise) = self.squares, self.y, deployed
        inverse = 1 / (spectrum.eigenvalues + z)
        if self.held_out:
            mean = self.projected @ (spectrum.projections * inverse)
            of_noise = squares @ inverse**2, squares @ (gain * inverse + share) ** 2
            return RowLaw(mean, kappa * of_noise[0], gain * mean, kappa * of_noise[1] + noise * squares.sum(1))
        r, _, h, s, _, kept = self._left_out(np, spectrum, np.asarray(z))
        far, length, missed = self._far, squares.sum(1), r / kept
        share = far * share
        of_noise = (gain / kept) ** 2 * s + 2 * gain / kept * share * h + share**2 * length
        rounded_missed = far * y - gain * (far * y - missed)
        rounded_variance = kappa * of_noise + far**2 * noise * length
        return RowLaw(y - missed, kappa * s / kept**2, y - rounded_missed, rounded_variance)

    @property
    def _far(self) -> float:
        return self.training / (self.training - 1) if self.centred else 1.0

    def errors(self, on: Backend, spectrum: Spectrum, z, kappa, deployed: Deployed) -> RowError:
        """Of many points, in NumPy, a few at a time."""
        size = max(1, _CHUNK // self.squares.size)
        parts = [slice(i, i + size) for i in range(0, z.shape[0], size)]
        inputs = spectrum, z, kappa, deployed
        each = [self.error(on, *jax.tree.map(lambda x, part=part: x[part], inputs)) for part in parts]
        return RowError(*(np.concatenate(x) for x in zip(*each, strict=True)))


def rows_of(
    X: ArrayLike, y: ArrayLike, X_test: ArrayLike | None, y_test: ArrayLike | None, dtype: Any, centred: bool | None
) -> tuple[Spectrum, float, Rows]:
    """Checked, in principal axes; and |unexplained|²/N.  `dtype` is what the spectrum is rounded to."""
    X, y = table("X", X, "y", y)
    if X.shape[0] < 2:
        raise ValueError(f"X must have at least 2 rows, got {X.shape[0]}")
    for name, values in ("X", X), ("y", y):
        largest = np.abs(values).max()
        if not largest:
            raise ValueError(f"{name} must not be all zeros: there is nothing to learn")
        limit = min(_LARGEST, float(np.finfo(dtype).max) ** 0.25)
        if not 1 / limit < largest < limit:
            raise ValueError(
                f"{name} must have entries of a size between {1 / limit:.0e} and {limit:.0e}, got {largest:.3g}"
            )
    Z, target = tested(X, X_test, y_test)
    rows, columns = X.shape
    U, singular, Vt = np.linalg.svd(X, full_matrices=False)
    kept = singular > np.finfo(float).eps * max(X.shape) * singular[0]
    U, singular, axes = U[:, kept], singular[kept], Vt[kept].T
    null = columns - singular.size
    extra = (0, min(null, 1))
    inside = U.T @ y
    spectrum = Spectrum(
        np.pad(singular**2, extra).astype(dtype),
        np.pad(singular * inside, extra).astype(dtype),
        np.append(np.full(singular.size, 1 / columns), [null / columns][:null]).astype(dtype),
    )
    if centred is None:
        flat = 1e-8 * rows
        centred = bool((np.abs(X.sum(0)) <= flat * np.abs(X).max()).all() and abs(y.sum()) <= flat * np.abs(y).max())
    means = 1 / rows if centred else 0.0
    unexplained, free = y - U @ inside, 1 - means - (U**2).sum(1)
    if rows - centred <= singular.size:
        unexplained, free = 0 * unexplained, 0 * free
    if Z is None or target is None:
        projected, target, length = U * singular, y, 0.0
    else:
        projected, length = Z @ axes, (Z**2).sum(1)
    squares = projected**2
    if null:
        beyond = np.maximum(length - squares.sum(1), 0.0)
        squares, projected = np.column_stack([squares, beyond]), np.pad(projected, ((0, 0), extra))
    ridge, noise = _cross_validated(U, singular, inside, unexplained, free)
    explained = max(y @ y / rows - noise, 1e-3 * (y @ y) / rows)
    found = Rows(
        axes=axes,
        projected=projected,
        squares=squares,
        y=target,
        eigenvalues=spectrum.eigenvalues.astype(float),
        projections=spectrum.projections.astype(float),
        unexplained=unexplained,
        free=free,
        training=rows,
        held_out=Z is not None,
        centred=centred,
        ridge=ridge,
        noise=noise,
        signal=float(explained * rows / (singular**2).sum()),
    )
    return spectrum, float(unexplained @ unexplained) / columns, found


def tested(
    X: ArrayLike, X_test: ArrayLike | None, y_test: ArrayLike | None
) -> tuple[np.ndarray, np.ndarray] | tuple[None, None]:
    """Rows to test on, if there are any; checked against those to train on."""
    if X_test is None and y_test is None:
        return None, None
    if X_test is None or y_test is None:
        raise ValueError(f"X_test and y_test go together, got {'X_test' if y_test is None else 'y_test'} alone")
    X_test, y_test = table("X_test", X_test, "y_test", y_test)
    columns = np.shape(X)[1]
    if X_test.shape[1] != columns:
        raise ValueError(f"X_test must have the {columns} columns of X, got {X_test.shape[1]}")
    return X_test, y_test


def table(name: str, X: ArrayLike, of: str, y: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Checked, in float64 whatever JAX's default: what is done to columns must not lose their digits."""
    if _checks.is_traced((X, y)):
        raise TypeError(
            f"{name} and {of} must have values, not be traced by jit, grad or vmap: make the task outside, and "
            "differentiate in its ridge, eigenvalues or projections"
        )
    for each, values in (name, X), (of, y):
        if np.ma.is_masked(values):
            raise ValueError(f"{each} must not have masked entries")
    with jax.enable_x64(True):
        X = np.asarray(_checks.matrix(name, X), float)
        return X, np.asarray(_checks.vector(of, y, X.shape[0], f"row of {name}"), float)


def _cross_validated(U, singular, inside, unexplained, free) -> tuple[float, float]:
    """The ridge of least leave-one-out error, and the noise variance |r|²/(n − trace) that it leaves.

    Rows left out: r_mu/(1 − h_mu) for r = y − U s²/(s² + ridge) Uᵀy, h = diag of the same, and 1/n for a mean.
    """
    squares = singular**2
    best = (np.inf, 0.0, 0.0)
    for ridge in np.geomspace(1e-4, 1e3, 71) * squares.mean():
        grown = ridge / (squares + ridge)
        r, kept = unexplained + U @ (grown * inside), free + U**2 @ grown
        best = min(best, (np.mean((r / kept) ** 2), ridge, r @ r / kept.sum()))
    return float(best[1]), float(best[2])


class Standard(NamedTuple):
    """Columns less their mean, over deviation times sqrt(columns); labels less theirs, over their deviation."""

    kept: np.ndarray
    """Columns that vary, also without any one row: of another nothing can be learnt that would hold for the next row."""
    mean: np.ndarray
    spread: np.ndarray
    """Deviation times sqrt(columns), so that rows have variance 1/columns."""
    centre: float
    scale: float

    @classmethod
    def of(cls, X: ArrayLike, y: ArrayLike) -> Standard:
        """Of these rows.  Raises ValueError where no column varies, or y does not."""
        X, y = table("X", X, "y", y)
        mean, spread, centre, scale = X.mean(0), X.std(0), float(y.mean()), float(y.std())
        varies = spread > _FLAT * np.abs(X).max(0)
        n, most = len(y), np.abs(X - mean).max(0)
        left = spread**2 - most**2 / max(n - 1, 1)  # of the variance, times n/(n−1), without the row that is farthest
        kept = np.flatnonzero(varies & (left > 1e-6 * spread**2))
        if not kept.size:
            raise ValueError(f"X must have a column that varies in two rows or more, got none of {X.shape[1]}")
        if scale <= 1e-12 * max(abs(centre), 1e-300):
            raise ValueError(f"y must vary, got the constant label {centre:.6g} in all {len(y)} rows")
        return cls(kept, mean[kept], spread[kept] * np.sqrt(kept.size), centre, scale)

    def features(self, X: ArrayLike) -> np.ndarray:
        return (np.asarray(X, float)[:, self.kept] - self.mean) / self.spread

    def labels(self, y: ArrayLike) -> np.ndarray:
        return (np.asarray(y, float) - self.centre) / self.scale
