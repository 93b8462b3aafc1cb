"""The single-site heat bath that every sampler here is made of.

One site given the rest; for the square loss, with field phi = Xᵀ(y − Xw) and J = XᵀX,

    p(w_i = a) ∝ exp{ beta [ (phi_i + J_ii w_i) a − ½ (J_ii + ridge) a² ] },      phi ← phi − J_i (new w_i − old w_i),

and for any other, with predictions phi = X w,

    p(w_i = a) ∝ exp{ −beta [ sum ell(y, phi + X_i (a − w_i)) + ½ ridge a² ] },     phi ← phi + X_i (new w_i − old w_i).
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from replicajax import _checks
from replicajax.codebooks import Codebook
from replicajax.models import Loss, Square, loss_for

HOT = 1e-2
"""Annealing starts at this fraction of beta."""


class Energy(NamedTuple):
    """H(w) = ½|y − Xw|² + ½ ridge |w|² over the levels, as a quadratic form."""

    J: Float[Array, "columns columns"]
    b: Float[Array, " columns"]
    constant: Float[Array, ""]
    ridge: Float[Array, ""]
    levels: Float[Array, " levels"]

    @classmethod
    def of(cls, X, y, levels, ridge):
        return cls(jnp.matmul(X.T, X, precision="highest"), X.T @ y, y @ y / 2, ridge, levels)

    @property
    def columns(self) -> int:
        return self.b.shape[0]

    def field(self, w):
        return self.b - self.J @ w

    def per_weight(self, w, phi):
        """H/N, with phi = field(w)."""
        return (self.constant + (self.ridge * w @ w - w @ (self.b + phi)) / 2) / w.shape[0]

    def heights(self, word: Word, i) -> Float[Array, " levels"]:
        """H with each level at site i, up to a constant."""
        g = self.J[i, i]
        return (g + self.ridge) * self.levels**2 / 2 - (word.phi[i] + g * word.w[i]) * self.levels

    def moved(self, word: Word, i, new) -> Word:
        return Word(word.w.at[i].set(new), word.phi - self.J[i] * (new - word.w[i]))


class LossEnergy(NamedTuple):
    """H(w) = sum ell(y, x·w) + ½ ridge |w|² over the levels; a site costs rows times levels."""

    Xt: Float[Array, "columns rows"]
    y: Float[Array, " rows"]
    loss: Loss
    ridge: Float[Array, ""]
    levels: Float[Array, " levels"]

    @property
    def columns(self) -> int:
        return self.Xt.shape[0]

    def field(self, w):
        return jnp.matmul(w, self.Xt, precision="highest")

    def _losses(self, u: Float[Array, " rows"]) -> Float[Array, ""]:
        return jax.vmap(self.loss)(self.y, u).sum()

    def per_weight(self, w, phi):
        """H/N, with phi = field(w)."""
        return (self._losses(phi) + self.ridge * w @ w / 2) / w.shape[0]

    def heights(self, word: Word, i) -> Float[Array, " levels"]:
        """H with each level at site i, up to a constant."""
        moves = self.levels - word.w[i]
        return jax.vmap(lambda d: self._losses(word.phi + d * self.Xt[i]))(moves) + self.ridge * self.levels**2 / 2

    def moved(self, word: Word, i, new) -> Word:
        return Word(word.w.at[i].set(new), word.phi + self.Xt[i] * (new - word.w[i]))


def energy_of(X, y, levels, ridge, loss: Loss) -> Energy | LossEnergy:
    return Energy.of(X, y, levels, ridge) if isinstance(loss, Square) else LossEnergy(X.T, y, loss, ridge, levels)


class Word(NamedTuple):
    """A codeword and its field, or its predictions."""

    w: Float[Array, " columns"]
    phi: Float[Array, " columns"]


def random_word(energy: Energy | LossEnergy, key: PRNGKeyArray) -> Word:
    w = jax.random.choice(key, energy.levels, (energy.columns,))
    return Word(w, energy.field(w))


def sweep(energy: Energy | LossEnergy, beta, word: Word, key: PRNGKeyArray) -> tuple[Word, Float[Array, " columns"]]:
    """Every site once, in order; also each site's conditional mean at its update."""
    levels = energy.levels

    def site(word: Word, inputs):
        i, u = inputs
        p = jax.nn.softmax(-beta * energy.heights(word, i))
        new = levels[jnp.minimum(jnp.sum(jnp.cumsum(p) < u), levels.shape[0] - 1)]
        return energy.moved(word, i, new), p @ levels

    uniforms = jax.random.uniform(key, (energy.columns,), levels.dtype)
    return jax.lax.scan(site, word, (jnp.arange(energy.columns), uniforms))


def spread(energies: Float[Array, "chains sweeps"]) -> Float[Array, ""]:
    """R-hat: total over within-chain deviation, near 1 when the chains agree."""
    within, between = energies.var(axis=1).mean(), energies.mean(axis=1).var(ddof=1)
    return jnp.sqrt((within + between) / jnp.where(within > 0, within, 1.0))


def checked(X, y, codebook, beta, ridge, loss=None):
    """The arguments every sampler shares, in the dtype of X; levels in the place of the codebook; square loss if None."""
    X = _checks.matrix("X", X)
    y = _checks.vector("y", y, X.shape[0], "row of X")
    _checks.instance("codebook", codebook, Codebook, "uniform(bits=2, width=1.5)")
    beta, ridge = _checks.positive("beta", beta), _checks.nonnegative("ridge", ridge)
    return X, *(x.astype(X.dtype) for x in (y, codebook.levels, beta, ridge)), loss_for(loss, y)
