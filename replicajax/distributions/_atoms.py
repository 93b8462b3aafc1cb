"""Laws with atoms: weights that are zero, or levels of a codebook."""

from __future__ import annotations

from typing import final

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float

from replicajax import _checks
from replicajax.codebooks import Codebook
from replicajax.distributions._law import Distribution, Mixture, float_or


@final
class GaussBernoulli(Distribution):
    """Zero, or with probability `density` a draw of N(0, 1/density)."""

    density: Float[Array, ""]

    def __init__(self, density: ArrayLike):
        """Raises ValueError unless 0 < density < 1 (`Normal` is density 1)."""
        self.density = _checks.positive("density", density)
        if not _checks.is_traced(self.density) and bool((self.density >= 1).any()):
            raise ValueError(f"density must be below 1 (Normal() is density 1), got {_checks.brief(self.density)}")

    def second_moment(self) -> Float[Array, ""]:
        return jnp.ones(())

    def mixture(self) -> Mixture:
        p = self.density
        return Mixture(jnp.stack([1 - p, p]), jnp.zeros(2, p.dtype), jnp.stack([jnp.zeros_like(p), 1 / p]))

    def sample(self, key, shape, dtype=None):
        which, value = jax.random.split(key)
        on = jax.random.bernoulli(which, self.density, shape)
        return on * jax.random.normal(value, shape, float_or(dtype)) / jnp.sqrt(self.density).astype(float_or(dtype))

    def __str__(self) -> str:
        return f"Gauss-Bernoulli, density {self.density:.6g}"


@final
class Discrete(Distribution):
    """One of the levels of a codebook, in the codebook's own scale.

    With equal probabilities, no ridge and beta = 1/noise, learning with the same codebook is Bayes-optimal: q = m.
    """

    codebook: Codebook
    probabilities: Float[Array, " levels"]

    def __init__(self, codebook: Codebook, probabilities: ArrayLike | None = None):
        """Equal probabilities if None.  Raises ValueError unless they are positive, one per level, and sum to 1."""
        _checks.instance("codebook", codebook, Codebook, "uniform(bits=2, width=1.5)")
        levels = len(codebook)
        p = jnp.full(levels, 1 / levels) if probabilities is None else _checks.positive("probabilities", probabilities)
        p = _checks.vector("probabilities", p, levels, "level")
        if not _checks.is_traced(p) and abs(float(p.sum()) - 1) > 1e-6:
            raise ValueError(f"probabilities must sum to 1, got {float(p.sum()):.6g}")
        self.codebook, self.probabilities = codebook, p

    def second_moment(self) -> Float[Array, ""]:
        return self.probabilities @ self.codebook.levels**2

    def mixture(self) -> Mixture:
        levels = self.codebook.levels
        return Mixture(self.probabilities, levels, jnp.zeros_like(levels))

    def sample(self, key, shape, dtype=None):
        return jax.random.choice(key, self.codebook.levels.astype(float_or(dtype)), shape, p=self.probabilities)

    def __str__(self) -> str:
        return f"drawn from {self.codebook}"
