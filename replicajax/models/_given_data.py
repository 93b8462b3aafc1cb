"""Given data: the rows as they are, quantized in axes turned at random against them.  theory 9

With lambda, V the eigen-decomposition of XᵀX, b = VᵀXᵀy, D = lambda + z, and means over eigenvalues, the share of the data
is stationary in the ridge z and the noise kappa:

    G = mean[log D/(2 beta) − (b² + kappa)/(2D)] + (log chi + 1 − z chi)/(2 beta) + q/(2 chi) − z q/2 + kappa chi/2 + |y|²/2N,

which with |y|² = |y − U Uᵀy|² + sum b²/lambda, U the directions of the rows, has no terms that cancel;

    mean 1/D = chi,     mean (b² + kappa)/D² = q;     L = 1/chi − z,     chi_hat = q/chi² − kappa.                     (1)

**Quantized learning is ridge regression with the effective ridge z plus isotropic noise of variance kappa**:
<w> = V b/D + V N(0, kappa)/D, from which the error on any rows follows, and that of a row left out from its leverage.
"""

from __future__ import annotations

from copy import copy
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float

from replicajax import _checks
from replicajax.models._channel import Channel, Effective, Slopes
from replicajax.models._losses import Loss, Square
from replicajax.models._rows import Deployed, RowError, RowLaw, Rows, Spectrum, Standard, rows_of, tested
from replicajax.models._task import Task, Verdict, Weights, deployed
from replicajax.numerics import NUMPY, backend_of, harmonic_root


class GivenData(Task):
    """Weights w of y ≈ X w, fitted under H(w) = ½ |y − X w|² + ½ ridge |w|² to these very rows, in randomly turned axes.

    Nothing is assumed of the rows: they may be few, correlated, of unequal length, not Gaussian.  What is averaged over is
    the rotation between their principal axes and those in which weights are quantized.  Errors are mean
    squares on the held-out rows, label noise included; without those, leave-one-out on the rows themselves.

    Differentiable in eigenvalues, projections and ridge; for the rows to play their part a task must not be stacked with
    one of other rows.

    Attributes:
      eigenvalues: (eigenvalues,) of XᵀX; one 0 stands for all where there are fewer rows than columns.
      projections: (eigenvalues,) b.
      share: (eigenvalues,) of the columns, 1/N each but for that.
      residual: |y − U Uᵀy|²/N, what no weights at all would fit.
      ridge: coefficient of |w|²/2, >= 0.
    """

    eigenvalues: Float[Array, " eigenvalues"]
    projections: Float[Array, " eigenvalues"]
    share: Float[Array, " eigenvalues"]
    residual: Float[Array, ""]
    ridge: Float[Array, ""]
    rows: Rows | None = eqx.field(static=True)

    def __init__(
        self,
        X: ArrayLike,
        y: ArrayLike,
        ridge: ArrayLike = 0.0,
        X_test: ArrayLike | None = None,
        y_test: ArrayLike | None = None,
        centred: bool | None = None,
    ):
        """The rows as they are: see `standardized` for tables.

        Args:
          X: (rows, columns), y: (rows,): what is trained on.
          ridge: coefficient of |w|²/2.
          X_test: (test rows, columns), y_test: (test rows,): what errors are measured on; leave-one-out if None.
          centred: whether columns of X, and y, had their means taken away, which a row left out had a share in; by inspection
            if None.

        Raises:
          ValueError: shapes that disagree, NaN or inf, X all zeros, y all zeros, fewer than 2 rows.
        """
        dtype = jnp.result_type(float)
        spectrum, residual, self.rows = rows_of(X, y, X_test, y_test, np.dtype(dtype), centred)
        self.eigenvalues, self.projections, self.share = (jnp.asarray(x, dtype) for x in spectrum)
        self.residual = jnp.asarray(residual, dtype)
        self.ridge = _checks.nonnegative("ridge", ridge)
        if self.ridge.ndim:
            raise ValueError(f"ridge must be a single number (many belong in a sweep), got shape {self.ridge.shape}")

    @classmethod
    def standardized(
        cls,
        X: ArrayLike,
        y: ArrayLike,
        ridge: ArrayLike = 0.0,
        X_test: ArrayLike | None = None,
        y_test: ArrayLike | None = None,
    ) -> GivenData:
        """Columns of X less their mean and over deviation times sqrt(columns), y less its mean and over its deviation.

        Means and deviations are those of the training rows alone; columns that do not vary there are left out.
        """
        standard = Standard.of(X, y)
        X_test, y_test = tested(X, X_test, y_test)
        if X_test is not None and y_test is not None:
            X_test, y_test = standard.features(X_test), standard.labels(y_test)
        return cls(standard.features(X), standard.labels(y), ridge, X_test, y_test, centred=True)

    @classmethod
    def of_form(cls, eigenvalues: ArrayLike, projections: ArrayLike, ridge: ArrayLike = 0.0) -> GivenData:
        """H(w) = ½ (w − g)ᵀ A (w − g) + ½ ridge |w|² of any form A and any g in its range, without rows: errors are NaN.

        Args:
          eigenvalues: (columns,) of A.
          projections: (columns,) of A g on the eigenvectors; 0 where the eigenvalue is.

        Raises:
          ValueError: negative eigenvalues, shapes that disagree.
        """
        eigenvalues = _checks.nonnegative("eigenvalues", eigenvalues)
        if eigenvalues.ndim != 1:
            raise ValueError(f"eigenvalues must be a vector, got shape {eigenvalues.shape}")
        projections = _checks.vector("projections", projections, eigenvalues.size, "eigenvalue")
        form = object.__new__(cls)
        known = {
            "eigenvalues": eigenvalues,
            "projections": projections,
            "share": jnp.full_like(eigenvalues, 1 / eigenvalues.size),
            "residual": jnp.zeros((), eigenvalues.dtype),
            "ridge": _checks.nonnegative("ridge", ridge),
            "rows": None,
        }
        for name, value in known.items():
            object.__setattr__(form, name, value)
        return form

    @property
    def closed(self) -> bool:
        return False

    @property
    def matched(self) -> bool:
        return True

    @property
    def in_closed_form(self) -> bool:
        return True

    @property
    def turned(self) -> bool:
        return True

    @property
    def elementwise(self) -> bool:
        return True

    @property
    def loss(self) -> Loss:
        return Square()

    @property
    def alpha(self):
        """Rows per column."""
        return _like(self.ridge, 1.0 if self.rows is None else self.rows.alpha)

    @property
    def signal(self):
        """Mean square of a weight, by what cross-validated ridge regression explains; a unit, no part of the theory."""
        return _like(self.ridge, 1.0 if self.rows is None else self.rows.signal)

    @property
    def noise(self):
        """Variance of what it does not explain; likewise."""
        return _like(self.ridge, 0.0 if self.rows is None else self.rows.noise)

    @property
    def held_out(self) -> bool:
        """Whether errors are those of held-out rows."""
        return self.rows is not None and self.rows.held_out

    @property
    def error_is(self) -> str:
        return "mean square on " + ("held-out rows" if self.held_out else "rows left out one by one")

    @property
    def kind(self) -> str:
        return f"given data {'' if self.rows is None else self.rows.digest}"

    def bare(self) -> GivenData:
        """Without rows, padded to one of few sizes: one program for many tables."""
        size = self.eigenvalues.shape[-1]
        extra = [(0, 0)] * (self.eigenvalues.ndim - 1) + [(0, -size % 64)]
        bare = copy(self)
        padded = {
            "eigenvalues": np.pad(self.eigenvalues, extra, mode="edge"),
            "projections": np.pad(self.projections, extra),
            "share": np.pad(self.share, extra),
        }
        for name, value in {**padded, "rows": None}.items():
            object.__setattr__(bare, name, value)
        return bare

    def start(self, precision):
        """z is that precision."""
        mean = _mean_over(self.share)
        z = backend_of(precision).xp.maximum(precision, 1e-6 * mean(self.eigenvalues))
        D = self.eigenvalues + z[..., None]
        chi, q = mean(1 / D), mean((self.projections / D) ** 2)
        return 1 / chi - z, q / (1 - z * chi) ** 2

    def channel(self, m, q, chi, beta: Any) -> Channel:
        """(1); of points in NumPy or JAX, eigenvalues last."""
        on = backend_of(q, chi)
        xp, mean, b2 = on.xp, _mean_over(self.share), self.projections**2
        z = harmonic_root(on, self.share, self.eigenvalues, chi)
        D = self.eigenvalues + z[..., None]
        square, cube = D**-2, D**-3
        S2, S3 = mean(square), mean(cube)
        spread = mean((1 / D - chi[..., None]) ** 2)  # S2 − chi², which is small where chi is
        kappa = (q - mean(b2 * square)) / S2
        by_z = 2 * (mean(b2 * cube) + kappa * S3) / S2
        z_chi, kappa_q = -1 / S2, 1 / S2
        kappa_chi = by_z * z_chi
        # 1/chi − z, and q/chi² − kappa.
        L, chi_hat = mean(self.eigenvalues / D) / chi, q * spread / (chi**2 * S2) + mean(b2 * square) / S2
        zero = xp.zeros_like(q)
        log_D, thermal = mean(xp.log(D)), mean(self.eigenvalues / D) / (2 * beta)
        some = self.eigenvalues > 0
        missed = xp.where(some, b2 / xp.where(some, self.eigenvalues, 1.0), 0.0) * z[..., None] / D
        potential = (log_D + xp.log(chi) + 1 - z * chi) / (2 * beta) + (self.residual + mean(missed) + L * q) / 2
        noise = kappa * mean(self.eigenvalues * square)
        energy = (self.residual + mean(missed * z[..., None] / D) + noise) / 2 + thermal
        return Channel(
            potential=potential,
            m_hat=L,
            chi_hat=chi_hat,
            L=L,
            energy=energy,
            entropy=-(log_D + xp.log(chi)) / 2,
            replicon=(S2 / chi**2, spread / chi**4),
            slopes=(
                Slopes(zero, zero, zero),
                Slopes(zero, 1 / chi**2 - kappa_q, zero),
                Slopes(-(chi**-2) - z_chi, -2 * q / chi**3 - kappa_chi, -(chi**-2) - z_chi),
            ),
            effective=Effective(z, kappa, z_chi, kappa_q, kappa_chi),
        )

    def judge(self, said, m, q, chi, beta, rounded) -> Verdict:
        """NaN where the rows are elsewhere."""
        del m, q
        at = said.effective
        assert at is not None
        error = self.error(at, deployed(said, chi, rounded))
        by_order = 0 * at.noise, error.by_noise * at.noise_by_q
        by_order += (error.by_ridge * at.ridge_by_chi + error.by_noise * at.noise_by_chi,)
        return Verdict(error.value, error.value + error.thermal / beta, error.deployed, error.value / 2, by_order)

    def error(self, at: Effective, deployed: Deployed) -> RowError:
        """On rows, or NaN without; of points or of one."""
        if self.rows is None:
            return RowError(*[np.nan * at.noise] * len(RowError._fields))
        spectrum, on = Spectrum(self.eigenvalues, self.projections, self.share), backend_of(at.noise)
        judge = self.rows.errors if np.ndim(at.noise) and on is NUMPY else self.rows.error
        return judge(on, spectrum, at.ridge, at.noise, deployed)

    def row_law(self, ridge: float, noise: float, deployed: Deployed) -> RowLaw:
        """Predictions row by row, of one point.

        Raises:
          ValueError: a task without its rows.
        """
        if self.rows is None:
            raise ValueError("task must have its rows for predictions row by row, got a bare one")
        numbers = (np.asarray(x, float) for x in (self.eigenvalues, self.projections, self.share))
        return self.rows.law(Spectrum(*numbers), ridge, noise, deployed)

    def rescaled(self, noise, ridge):
        del noise
        return eqx.tree_at(lambda t: t.ridge, self, ridge)

    def weights(self) -> Weights:
        """Nobody knows a teacher."""
        return Weights(*(_like(self.ridge, x)[None] for x in (1.0, 0.0, 0.0)))

    def __str__(self) -> str:
        rows = "bare" if self.rows is None else str(self.rows)
        return f"given data, {rows}, ridge {float(np.max(self.ridge)):.6g}"


def _mean_over(share):
    """Means over eigenvalues."""
    return lambda x: (share * x).sum(-1)


def _like(x, number: float) -> Any:
    return backend_of(x).xp.full(np.shape(x), number, x.dtype)
