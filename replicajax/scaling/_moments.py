"""Fourth moments of features with errors, for the second moment of an SGD step.

Given u, the perturbed features are ũ ~ N(u, S), S = eps {I, u uᵀ, diag(u²)}; u and y are Gaussian.  A step needs

    G̃ = E ũũᵀ,    F(K) = E ũũᵀ (ũᵀKũ),    Y1(m) = E y ũũᵀ (ũᵀm),    Y2 = E y² ũũᵀ.

With T(K) = 2 GKG + tr(GK) G (Isserlis), c = E u y, y1(m) = c (Gm)ᵀ + (Gm) cᵀ + (c·m) G and y2 = E y² G + 2 ccᵀ:

    additive         ũ is Gaussian of covariance G̃ = G + eps I: the same expressions with G̃ for G
    multiplicative   ũ = s u, s ~ N(1, eps):  (1 + 6 eps + 3 eps²) T,  (1 + 3 eps) y1,  (1 + eps) y2
    elementwise      ũ_i = s_i u_i: E over u of uuᵀ (uᵀKu) + S uᵀKu + (uuᵀ + S) tr(KS) + 2 (SKuuᵀ + uuᵀKS + SKS)

(Theory 5.2 takes a multiplicative ũ as Gaussian of covariance (1 + eps) G: right to order 0 in eps, and low by 23% in a test.)
Of a matrix that commutes with G only the diagonal is needed, and it closes on itself: `Diagonal`; else `Full`.
"""

from __future__ import annotations

from typing import final

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from replicajax.scaling._precision import Precision
from replicajax.scaling._problem import Regression


@final
class Diagonal(eqx.Module):
    """In the eigenbasis of G; matrices are (M,) diagonals, `count` directions each.

    F(K) = square K + trace (own·K),  Y1(m) = cross m + cross_trace (c·m), sums over all directions.
    """

    covariance: Float[Array, " M"]
    target: Float[Array, " M"]
    """Of G itself, v*."""
    eigenvalues: Float[Array, " M"]
    c: Float[Array, " M"]
    limit: Float[Array, " M"]
    """v° = G̃^{-1} c, where the mean of SGD goes."""
    count: Float[Array, " M"]
    square: Float[Array, " M"]
    trace: Float[Array, " M"]
    own: Float[Array, " M"]
    cross: Float[Array, " M"]
    cross_trace: Float[Array, " M"]
    labels: Float[Array, " M"]
    """Y2."""

    def __init__(self, problem: Regression, precision: Precision):
        g, v, n, eps = problem.eigenvalues, problem.target, problem.multiplicity, precision.data
        c, ey2 = g * v, problem.signal + problem.residual
        if precision.kind == "additive":
            G = own = trace = g + eps
            square, cross, labels = 2 * G**2, 2 * c * G, ey2 * G + 2 * c**2
            cross_trace = G
        else:
            G, own, labels = (1 + eps) * g, g, (1 + eps) * (ey2 * g + 2 * c**2)
            if precision.kind == "multiplicative":
                third, fourth = 1 + 3 * eps, 1 + 6 * eps + 3 * eps**2
                square, trace = 2 * fourth * g**2, fourth * g
                cross, cross_trace = 2 * third * c * g, third * g
            else:
                square = (2 * (1 + eps) ** 2 + 12 * eps + 6 * eps**2) * g**2
                trace = (1 + eps) ** 2 * g
                cross, cross_trace = (2 + 8 * eps) * c * g, (1 + eps) * g
        self.covariance, self.target, self.eigenvalues, self.c, self.limit = G, v, g, c, c / G
        self.count, self.square, self.trace, self.own = n, square, trace, own
        self.cross, self.cross_trace, self.labels = cross, cross_trace, labels

    def fourth(self, K):
        return self.square * K + self.trace * ((self.count * self.own) @ K)

    def third(self, m):
        return self.cross * m + self.cross_trace * ((self.count * self.c) @ m)

    def times(self, K):
        """G̃ K."""
        return self.covariance * K

    def times_right(self, K):
        """K G̃."""
        return self.covariance * K

    def both_sides(self, K):
        """G̃ K G̃."""
        return self.covariance**2 * K

    def twice(self, K):
        """K + Kᵀ."""
        return 2 * K

    def outer(self, a, b):
        """(a bᵀ + b aᵀ)/2."""
        return a * b

    def elementwise(self, K):
        """diag(K), feature by feature."""
        return K

    @property
    def one(self):
        return jnp.ones_like(self.covariance)

    def error(self, K):
        """tr(G K)."""
        return (self.count * self.eigenvalues) @ K

    @property
    def label_square(self):
        """v°ᵀ G̃ v°."""
        return (self.count * self.covariance) @ self.limit**2


@final
class Full(eqx.Module):
    """In the basis of the features; matrices are (M, M)."""

    precision: Precision
    covariance: Float[Array, "M M"]
    target: Float[Array, " M"]
    G: Float[Array, "M M"]
    c: Float[Array, " M"]
    limit: Float[Array, " M"]
    labels: Float[Array, "M M"]

    def __init__(self, problem: Regression, precision: Precision):
        g, v, eps = problem.eigenvalues, problem.target, precision.data
        basis = jnp.eye(g.size, dtype=g.dtype) if problem.basis is None else problem.basis
        self.precision, self.target = precision, basis @ v
        self.G = (basis * g) @ basis.T
        self.c = basis @ (g * v)
        ey2 = problem.signal + problem.residual
        labels = ey2 * self.G + 2 * jnp.outer(self.c, self.c)
        if precision.kind == "additive":
            added = eps * jnp.eye(g.size, dtype=g.dtype)
            self.covariance, self.labels = self.G + added, labels + ey2 * added
        elif precision.kind == "multiplicative":
            self.covariance, self.labels = (1 + eps) * self.G, (1 + eps) * labels
        else:
            self.covariance, self.labels = self.G + eps * _diagonal(self.G), labels + eps * _diagonal(labels)
        self.limit = jnp.linalg.solve(self.covariance, self.c)

    def fourth(self, K):
        eps = self.precision.data
        if self.precision.kind == "additive":
            return _isserlis(self.covariance, K)
        if self.precision.kind == "multiplicative":
            return (1 + 6 * eps + 3 * eps**2) * _isserlis(self.G, K)
        G, g = self.G, jnp.diagonal(self.G)
        whole, own = _isserlis(G, K), _isserlis(G, _diagonal(K))
        # E S K u uᵀ / eps
        half = (g[:, None] * K) @ G + 2 * (K * G).sum(1)[:, None] * G
        return (
            whole
            + eps * (_diagonal(whole) + own + 2 * (half + half.T))
            + eps**2 * (_diagonal(own) + 2 * K * (jnp.outer(g, g) + 2 * G**2))
        )

    def third(self, m):
        eps, G, c = self.precision.data, self.G, self.c
        if self.precision.kind == "additive":
            return _third(self.covariance, c, m)
        if self.precision.kind == "multiplicative":
            return (1 + 3 * eps) * _third(G, c, m)
        whole, g = _third(G, c, m), jnp.diagonal(G)
        half = m[:, None] * (jnp.outer(g, c) + 2 * G * c[:, None])
        return whole + eps * (_diagonal(whole) + half + half.T)

    def times(self, K):
        return self.covariance @ K

    def times_right(self, K):
        return K @ self.covariance

    def both_sides(self, K):
        return self.covariance @ K @ self.covariance

    def twice(self, K):
        return K + K.T

    def outer(self, a, b):
        return (jnp.outer(a, b) + jnp.outer(b, a)) / 2

    def elementwise(self, K):
        return _diagonal(K)

    @property
    def one(self):
        return jnp.eye(self.c.size, dtype=self.c.dtype)

    def error(self, K):
        return (self.G * K).sum()

    @property
    def label_square(self):
        return self.limit @ self.c


Moments = Diagonal | Full


def closes_on_the_diagonal(problem: Regression, precision: Precision) -> bool:
    return precision.kind != "elementwise" or problem.basis is None


@eqx.filter_jit
def moments_of(problem: Regression, precision: Precision) -> Moments:
    return (Diagonal if closes_on_the_diagonal(problem, precision) else Full)(problem, precision)


def _isserlis(G, K):
    return 2 * G @ K @ G + (G * K).sum() * G


def _third(G, c, m):
    along = G @ m
    return jnp.outer(c, along) + jnp.outer(along, c) + (c @ m) * G


def _diagonal(K):
    return jnp.diag(jnp.diagonal(K))
