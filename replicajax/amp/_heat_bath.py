"""The single-site heat bath that every sampler here is made of.

One site given the rest, with field phi = Xᵀ(y − Xw) and J = XᵀX:

    p(w_i = a) ∝ exp{ beta [ (phi_i + J_ii w_i) a − ½ (J_ii + ridge) a² ] },      phi ← phi − J_i (new w_i − old w_i).
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from replicajax import _checks
from replicajax.codebooks import Codebook

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

    def field(self, w):
        return self.b - self.J @ w

    def per_weight(self, w, phi):
        """H/N, with phi = field(w)."""
        return (self.constant + (self.ridge * w @ w - w @ (self.b + phi)) / 2) / w.shape[0]


class Word(NamedTuple):
    """A codeword and its field."""

    w: Float[Array, " columns"]
    phi: Float[Array, " columns"]


def random_word(energy: Energy, key: PRNGKeyArray) -> Word:
    w = jax.random.choice(key, energy.levels, energy.b.shape)
    return Word(w, energy.field(w))


def sweep(energy: Energy, beta, word: Word, key: PRNGKeyArray) -> tuple[Word, Float[Array, " columns"]]:
    """Every site once, in order; also each site's conditional mean at its update."""
    levels, J = energy.levels, energy.J
    norms = jnp.diagonal(J)

    def site(word: Word, inputs):
        i, g, u = inputs
        w, phi = word
        h = phi[i] + g * w[i]
        p = jax.nn.softmax(beta * (h * levels - (g + energy.ridge) * levels**2 / 2))
        new = levels[jnp.minimum(jnp.sum(jnp.cumsum(p) < u), levels.shape[0] - 1)]
        return Word(w.at[i].set(new), phi - J[i] * (new - w[i])), p @ levels

    uniforms = jax.random.uniform(key, norms.shape, norms.dtype)
    return jax.lax.scan(site, word, (jnp.arange(len(norms)), norms, uniforms))


def spread(energies: Float[Array, "chains sweeps"]) -> Float[Array, ""]:
    """R-hat: total over within-chain deviation, near 1 when the chains agree."""
    within, between = energies.var(axis=1).mean(), energies.mean(axis=1).var(ddof=1)
    return jnp.sqrt((within + between) / jnp.where(within > 0, within, 1.0))


def checked(X, y, codebook, beta, ridge):
    """The arguments every sampler shares, in the dtype of X; levels in the place of the codebook."""
    X = _checks.matrix("X", X)
    y = _checks.vector("y", y, X.shape[0], "row of X")
    _checks.instance("codebook", codebook, Codebook, "uniform(bits=2, width=1.5)")
    beta, ridge = _checks.positive("beta", beta), _checks.nonnegative("ridge", ridge)
    return X, *(x.astype(X.dtype) for x in (y, codebook.levels, beta, ridge))
