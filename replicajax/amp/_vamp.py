"""Vector message passing: quantized weights of any real rows, and their test error from those rows alone.  theory 7.4, 9

With lambda, V the eigen-decomposition of XᵀX, and the codebook's mean a and mean response c at the field h and curvature L,

    z = 1/c − L,    r = a/c − h;      m = V (VᵀXᵀy + Vᵀr)/(lambda + z),    c2 = mean 1/(lambda + z);
    L ← 1/c2 − z,   h ← m/c2 − r.

Weights are quantized in the columns of X as they come: turn those at random (`X @ axes`) for the theory of `GivenData` to hold.
A row left out would be predicted with a residual larger by 1/(1 − h_mu), h_mu its leverage in ridge regression of ridge z:
an estimate of the test error that needs no test set.  Rows that were centred have a leverage of 1/n besides, on the mean
(`models._rows`).
"""

from __future__ import annotations

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, Int

from replicajax import _checks
from replicajax.amp._amp import AMPResult, Trajectory, checked_scalars, denoise, round_off, site_response
from replicajax.codebooks import Codebook

_NULL = 1e-14
"""Eigenvalue, relative to the largest, that is 0."""


class _Design(NamedTuple):
    """X in its principal axes, in as many as it has rows or columns."""

    V: Float[Array, "columns axes"]
    eigenvalues: Float[Array, " axes"]
    b: Float[Array, " axes"]
    """VᵀXᵀy."""
    rows: Float[Array, "rows axes"]
    """X V."""

    def inverse_mean(self, z) -> Array:
        """Mean of 1/(lambda + z) over all columns."""
        columns, axes = self.V.shape
        null = (columns - axes) / z if columns > axes else 0.0
        return (jnp.sum(1 / (self.eigenvalues + z)) + null) / columns

    def regression(self, r, z) -> Array:
        """(XᵀX + z)^(-1) (Xᵀy + r)."""
        columns, axes = self.V.shape
        along = r @ self.V
        m = self.V @ ((self.b + along) / (self.eigenvalues + z))
        return m + (r - self.V @ along) / z if columns > axes else m

    def leverage(self, z) -> Array:
        return self.rows**2 @ (1 / (self.eigenvalues + z))


class _State(NamedTuple):
    step: Int[Array, ""]
    L: Float[Array, ""]
    h: Float[Array, " columns"]
    z: Float[Array, ""]
    c: Float[Array, ""]
    a: Float[Array, " columns"]
    log: Trajectory


def vamp(
    X: ArrayLike,
    y: ArrayLike,
    codebook: Codebook,
    beta: ArrayLike,
    *,
    ridge: ArrayLike = 0.0,
    steps: int = 200,
    tolerance: float | None = None,
    damping: ArrayLike = 0.3,
    teacher: ArrayLike | None = None,
) -> AMPResult:
    """Marginals of p(w) ∝ exp(−beta H(w)) over codewords, H = ½|y − Xw|² + ½ ridge |w|², for rows of any kind and scale.

    Pure and jitted; `jax.vmap` runs it over codebooks or temperatures.  One singular value decomposition of X, then two
    products with its right vectors an iteration.  Unlike `amp` it asks nothing of the columns but that they are turned at
    random; of many columns it settles where the replicon of `GivenData` is positive, and says so where it does not.  Of ten or
    so, with fewer rows, it may settle on wrong weights.

    Args:
      X: (rows, columns), y: (rows,).
      codebook: the levels.
      beta: inverse temperature, > 0; `jnp.inf` rounds, and never settles.
      ridge: coefficient of |w|²/2.
      steps: most iterations.
      tolerance: on `trajectory.residual`; sqrt(eps) of the dtype if None.  0 always does all steps.
      damping: in [0, 1): fraction of the old field and curvature kept at each iteration.
      teacher: (columns,) true weights if known, for the trajectory's overlap and generalization error; not used otherwise.

    Raises:
      TypeError, ValueError: shapes that disagree, NaN or inf in the data, or an argument out of range.  Failure to
        converge raises nothing.

    Returns:
      An AMPResult: `susceptibility` is c, the test errors are estimates by rows left out.
    """
    X = _checks.matrix("X", X)
    y = _checks.vector("y", y, X.shape[0], "row of X").astype(X.dtype)
    _checks.instance("codebook", codebook, Codebook, "uniform(bits=2, width=1.5)")
    scalars = checked_scalars(X.dtype, beta, ridge, damping, tolerance)
    known = None if teacher is None else _checks.vector("teacher", teacher, X.shape[1], "column of X").astype(X.dtype)
    if not _checks.is_traced(X) and not np.asarray(X).any():
        raise ValueError("X must not be all zeros: there is nothing to learn")
    steps = _checks.integer("steps", steps, 1, 10**6)
    book = Codebook(codebook.levels.astype(X.dtype))
    with jax.default_matmul_precision("highest"):  # of float32 an accelerator would by default multiply three digits
        return _vamp(X, y, book, known, scalars, steps)


@eqx.filter_jit
def _vamp(X, y, book: Codebook, teacher, scalars, steps: int) -> AMPResult:
    beta, ridge, damping, tolerance = scalars
    levels, dtype = book.levels, X.dtype
    U, singular, Vt = jnp.linalg.svd(X, full_matrices=False)
    singular = jnp.where(singular**2 > _NULL * singular[0] ** 2, singular, 0.0)
    design = _Design(Vt.T, singular**2, singular * (y @ U), U * singular)
    typical = jnp.mean(X**2) * X.shape[0]
    unit = jnp.sqrt(jnp.mean(levels**2))
    least = jnp.where(X.shape[1] > X.shape[0], 0.0, singular[-1] ** 2)
    floor = 1e-6 * typical - least

    def rounded(h, L):
        return round_off(h, jnp.mean(h**2), L + ridge, levels)

    flat = 1e-8 if dtype == jnp.float64 else 1e-4
    centred = (jnp.abs(X.mean(0)) <= flat * jnp.sqrt(typical)).all() & (jnp.abs(y.mean()) <= flat * jnp.abs(y).max())
    means = jnp.where(centred, 1 / X.shape[0], 0.0).astype(dtype)

    def left_out(z, m):
        """Residuals of rows left out, and their mean square."""
        residual = (y - X @ m) / (1 - means - design.leverage(z))
        return residual, jnp.mean(residual**2)

    def record(log: Trajectory, t, s, m, residual) -> Trajectory:
        overlap = jnp.array(jnp.nan, dtype) if teacher is None else jnp.mean(teacher * m)
        error = jnp.array(jnp.nan, dtype) if teacher is None else jnp.mean((teacher - m) ** 2)
        new = Trajectory(left_out(s[0], m)[1], s[1], jnp.mean(m**2), residual, overlap, error)
        return Trajectory(*(old.at[t].set(value) for old, value in zip(log, new, strict=True)))

    def linear(r, z):
        """Of the rows: m, and the field and curvature they send."""
        m, c = design.regression(r, z), design.inverse_mean(z)
        return m, c, m / c - r, jnp.maximum(1 / c - z, 1e-9 * typical)

    def step(s: _State) -> _State:
        a, c = denoise(s.h, jnp.mean(s.h**2), s.L + ridge, levels, beta)
        least_response = 1e-4 / (typical + ridge)  # below it weights sit still, wherever they happen to be
        frozen, c = c < least_response, jnp.maximum(c, least_response)
        z, r = jnp.maximum(1 / c - s.L, floor), a / c - s.h
        m, c2, h, L = linear(r, z)
        residual = jnp.maximum(jnp.sqrt(jnp.mean((m - a) ** 2)) / unit, jnp.abs(c2 / c - 1))
        residual = jnp.where(frozen, 1.0, residual)
        h, L = (damping * old + (1 - damping) * new for old, new in ((s.h, h), (s.L, L)))
        return _State(s.step + 1, L, h, z, c, a, record(s.log, s.step + 1, (z, c), a, residual))

    def going(s: _State):
        residual = s.log.residual[s.step]
        return (s.step < steps) & (residual >= tolerance) & ~jnp.isnan(residual)

    # As if weights were Gaussian: ridge regression.
    z = ridge + jnp.maximum(1 / (beta * unit**2), 1e-3 * typical)
    m, c, h, L = linear(jnp.zeros(X.shape[1], dtype), z)
    nothing = Trajectory(*(jnp.zeros(steps + 1, dtype) for _ in Trajectory._fields))
    log = record(nothing, 0, (z, c), m, jnp.array(jnp.inf, dtype))
    s = jax.lax.while_loop(going, step, _State(jnp.array(0), L, h, z, c, m, log))

    cold = jnp.isinf(beta)
    codes, word, slope = rounded(s.h, s.L)
    residual, test_error = left_out(s.z, s.a)
    far = 1 / (1 - means)
    word_residual = far * (y - X @ word) + slope / s.c * (residual - far * (y - X @ s.a))
    response = site_response(s.h, s.L + ridge, levels, jnp.where(cold, 1.0, beta))[1]
    columns, axes = design.V.shape
    square = (jnp.sum((design.eigenvalues + s.z) ** -2) + (columns - axes) / s.z**2) / columns
    replicon = 1 - (jnp.mean(response**2) / s.c**2 - 1) * (square / s.c**2 - 1)
    log = Trajectory(*(jnp.where(jnp.arange(steps + 1) < s.step, x, x[s.step]) for x in s.log))
    return AMPResult(
        codebook=book,
        weights=s.a,
        codes=codes,
        susceptibility=s.c,
        test_error=test_error,
        rounded_test_error=jnp.mean(word_residual**2),
        replicon=jnp.where(cold, -jnp.inf, replicon),
        trajectory=log,
        converged=log.residual[-1] < tolerance,
        steps=s.step,
    )
