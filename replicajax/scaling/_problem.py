"""Regression on features of known covariance: what one-pass SGD is run on (theory 5.1, [S]).

y = u·v* + r,    E u uᵀ = G,    E r² = noise + approximation,    r independent of u (all Gaussian).
"""

from __future__ import annotations

from typing import Any, final

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import zeta
from jaxtyping import Array, ArrayLike, Float
from scipy.special import zeta as zeta_of_numbers

from replicajax import _checks

_HEAD = 96
"""Directions of a relaxed power law that are kept one by one."""
_PANELS, _RULE = 24, np.polynomial.legendre.leggauss(8)


@final
class Regression(eqx.Module):
    """Features in their eigenbasis.

    Attributes:
      eigenvalues: (M,) of the covariance G, positive.
      target: (M,) v*, the best weights, in the eigenbasis.
      noise: variance of the label that no function of the data explains.
      approximation: variance of the label that no weights of these M features explain.
      multiplicity: (M,) directions that each entry stands for, 1 unless told otherwise; any real number.
      basis: (M, M), orthogonal: row k is feature k, column i eigenvector i.  None where features are their own eigenvectors.
        Only noise that acts elementwise asks for it.
    """

    eigenvalues: Float[Array, " M"]
    target: Float[Array, " M"]
    noise: Float[Array, ""]
    approximation: Float[Array, ""]
    multiplicity: Float[Array, " M"]
    basis: Float[Array, "M M"] | None

    def __init__(
        self,
        eigenvalues: ArrayLike,
        target: ArrayLike,
        noise: ArrayLike = 0.0,
        approximation: ArrayLike = 0.0,
        multiplicity: ArrayLike | None = None,
        basis: ArrayLike | None = None,
    ):
        """Raises ValueError, TypeError: shapes that do not fit, eigenvalues not positive, negative variances."""
        g = _checks.positive("eigenvalues", eigenvalues)
        if g.ndim != 1 or g.size == 0:
            raise ValueError(f"eigenvalues must be a vector of at least one number, got shape {g.shape}")
        self.eigenvalues = g
        self.target = _checks.vector("target", target, g.size, "eigenvalue")
        self.noise = _checks.variance("noise", noise, zero=True)
        self.approximation = _checks.variance("approximation", approximation, zero=True)
        ones = jnp.asarray(np.ones(g.shape, g.dtype), g.dtype)
        self.multiplicity = (
            ones if multiplicity is None else _checks.vector("multiplicity", multiplicity, g.size, "eigenvalue")
        )
        if basis is not None:
            basis = _checks.matrix("basis", basis)
            if basis.shape != (g.size, g.size):
                raise ValueError(f"basis must have shape {(g.size, g.size)}, got {basis.shape}")
            rows = _checks.known(basis)
            if not _checks.is_traced(rows) and np.abs(rows @ rows.T - np.eye(g.size)).max() > 1e-4:
                raise ValueError("basis must be orthogonal: its rows are not orthonormal")
        self.basis = basis

    @property
    def size(self) -> Float[Array, ""]:
        """M, the number of weights."""
        return self.multiplicity.sum()

    @property
    def signal(self) -> Float[Array, ""]:
        """v*ᵀ G v*: variance of the label that the features explain."""
        return (self.multiplicity * self.eigenvalues) @ self.target**2

    @property
    def residual(self) -> Float[Array, ""]:
        """E r²."""
        return self.noise + self.approximation


def power_law(
    size: ArrayLike, exponent: ArrayLike, *, source: ArrayLike | None = None, noise: ArrayLike = 0.0
) -> Regression:
    """The first `size` of infinitely many features of variance i^−exponent; the label has variance i^−source along the i-th.

    With source = exponent (the default) every weight of the target is 1, on average over targets that is theory 5's.
    What the features beyond `size` explain is `approximation` = zeta(source, size + 1).  A whole number up to 4096 keeps
    every direction; a larger, real or traced one is relaxed: beyond the first 96 directions a quadrature in log i stands
    for them (Euler and Maclaurin's correction at both ends; sums to 1e-9), so that `size` has a derivative and costs nothing.

    Raises:
      ValueError: size below 1 (relaxed: 128), exponent or source not above 1.
    """
    source = exponent if source is None else source
    a, b = (_checks.known(_checks.scalar(name, value)) for name, value in (("exponent", exponent), ("source", source)))
    for name, value in (("exponent", a), ("source", b)):
        if not _checks.is_traced(value) and float(value) <= 1:
            raise ValueError(f"{name} must exceed 1 (or the label has no variance), got {float(value)}")
    if isinstance(size, (int, np.integer)) and not isinstance(size, bool) and 1 <= size <= 4096:
        index, multiplicity, M = np.arange(1, size + 1).astype(a.dtype), None, np.asarray(size, a.dtype)
    else:
        M = _checks.known(_checks.scalar("size", size))
        if not _checks.is_traced(M) and float(M) < 1.3 * _HEAD:
            raise ValueError(f"size must be a whole number from 1 to 4096 or a real one from 128 on, got {size!r}")
        index, multiplicity = _relaxed_directions(M)
    beyond = (zeta if _checks.is_traced((b, M)) else zeta_of_numbers)(b, M + 1)
    return Regression(index**-a, index ** ((a - b) / 2), noise, beyond, multiplicity)


def _relaxed_directions(M: Float[Any, ""]) -> tuple[Float[Any, " directions"], Float[Any, " directions"]]:
    """i and how many directions it stands for:  sum_{i <= M} f(i) = sum over the head + int f di − [f'/24] at the ends."""
    xp = jnp if _checks.is_traced(M) else np
    node, weight = _RULE
    low, high = np.log(_HEAD + 0.5), xp.log(M + 0.5)
    edges = low + (high - low) * np.linspace(0.0, 1.0, _PANELS + 1)
    half = xp.diff(edges)[:, None] / 2
    inner = xp.exp((edges[:-1, None] + half * (1 + node)).ravel())
    index = xp.concatenate([np.arange(1.0, _HEAD + 2), inner, xp.stack([M, M + 1])])
    head = np.concatenate([np.ones(_HEAD - 1), [1 - 1 / 24, 1 / 24]])
    rest = (half * weight).ravel() * inner
    return index, xp.concatenate([head, rest, np.array([1 / 24, -1 / 24])])


def from_data(X: ArrayLike, y: ArrayLike) -> Regression:
    """Covariance, target and noise estimated from rows: the least-squares fit and the variance it leaves (unbiased).

    X and y are centred.  Directions of no variance (below 1e-10 of the largest) are left out.

    Raises:
      ValueError, TypeError: NaN, not as many labels as rows, not more rows than columns.
    """
    X = _checks.matrix("X", X)
    rows, columns = X.shape
    y = _checks.vector("y", y, rows, "row of X")
    if rows < columns + 2:
        raise ValueError(f"X must have at least two more rows than columns, got shape {X.shape}")
    X, y = X - X.mean(0), y - y.mean()
    U, root, Vt = np.linalg.svd(np.asarray(X), full_matrices=False)
    kept = root > 1e-5 * root[0]
    U, root, Vt = U[:, kept], root[kept], Vt[kept]
    along = U.T @ np.asarray(y)
    noise = max(float(y @ y - along @ along), 0.0) / (rows - 1 - kept.sum())
    basis = Vt.T if kept.all() else None
    return Regression(root**2 / rows, along / root, noise, basis=basis)
