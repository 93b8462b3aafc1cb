"""How weights are distributed: one random number w, as a mixture of Gaussians and as a sampler.

Every law here is a Gaussian of random mean and variance,  w ~ N(mean_c, variance_c) with probability weight_c.  Theory
needs nothing else of a teacher: seen through a Gaussian channel, m_hat w + sqrt(chi_hat) z is again a mixture of
Gaussians.  A new law is a new class in this file.
"""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, PRNGKeyArray

from replicajax import _checks
from replicajax.codebooks import Codebook

_NODES = 64
"""Components that stand for a continuum of variances: averages within 1e-10 where chi_hat > 0.01 m_hat² (tests)."""
_NEGLIGIBLE = 37.0
"""exp(−37) = 1e-16."""


class Mixture(NamedTuple):
    """N(mean_c, variance_c) with probability weight_c."""

    weight: Float[Array, " components"]
    mean: Float[Array, " components"]
    variance: Float[Array, " components"]


class Distribution(eqx.Module):
    """The law of one weight."""

    def second_moment(self) -> Float[Array, ""]:
        """E w²; 1 for the named laws, which have unit RMS and mean 0."""
        return jnp.ones(())

    def mixture(self) -> Mixture:
        """The law as a mixture of Gaussians; exact, or to 1e-10 where the variance is continuous."""
        raise NotImplementedError

    def sample(self, key: PRNGKeyArray, shape: tuple[int, ...], dtype=None) -> Array:
        """Independent draws, in the dtype asked for (the default float if None)."""
        raise NotImplementedError


class Normal(Distribution):
    """N(0, 1)."""

    def mixture(self) -> Mixture:
        one = jnp.ones(1)
        return Mixture(one, jnp.zeros(1), one)

    def sample(self, key, shape, dtype=None):
        return jax.random.normal(key, shape, _float(dtype))

    def __str__(self) -> str:
        return "Gaussian"


class Laplace(Distribution):
    """Density exp(−sqrt 2 |w|) / sqrt 2: a Gaussian whose variance is exponentially distributed with mean 1."""

    def mixture(self) -> Mixture:
        variance, weight = _gamma_nodes(jnp.ones(()))
        return Mixture(weight, jnp.zeros_like(weight), variance)

    def sample(self, key, shape, dtype=None):
        return jax.random.laplace(key, shape, _float(dtype)) / np.sqrt(2)

    def __str__(self) -> str:
        return "Laplace"


class StudentT(Distribution):
    """Student's t with df > 2 degrees of freedom at unit variance: variance (df − 2)/(2 g), g ~ Gamma(df/2, 1)."""

    df: Float[Array, ""]

    def __init__(self, df: ArrayLike):
        """Raises ValueError unless df > 2, where the variance is finite."""
        self.df = _checks.positive("df", df)
        if not _checks.is_traced(self.df) and bool((self.df <= 2).any()):
            raise ValueError(f"df must exceed 2 for a finite variance, got {_checks.brief(self.df)}")

    def mixture(self) -> Mixture:
        g, weight = _gamma_nodes(self.df / 2)
        return Mixture(weight, jnp.zeros_like(weight), (self.df - 2) / (2 * g))

    def sample(self, key, shape, dtype=None):
        df = self.df.astype(_float(dtype))
        return jax.random.t(key, df, shape, _float(dtype)) * jnp.sqrt((df - 2) / df)

    def __str__(self) -> str:
        return f"Student-t, df {self.df:.6g}"


class GaussBernoulli(Distribution):
    """Zero, or with probability `density` a draw of N(0, 1/density)."""

    density: Float[Array, ""]

    def __init__(self, density: ArrayLike):
        """Raises ValueError unless 0 < density < 1 (`Normal` is density 1)."""
        self.density = _checks.positive("density", density)
        if not _checks.is_traced(self.density) and bool((self.density >= 1).any()):
            raise ValueError(f"density must be below 1 (Normal() is density 1), got {_checks.brief(self.density)}")

    def mixture(self) -> Mixture:
        p = self.density
        return Mixture(jnp.stack([1 - p, p]), jnp.zeros(2, p.dtype), jnp.stack([jnp.zeros_like(p), 1 / p]))

    def sample(self, key, shape, dtype=None):
        which, value = jax.random.split(key)
        on = jax.random.bernoulli(which, self.density, shape)
        return on * jax.random.normal(value, shape, _float(dtype)) / jnp.sqrt(self.density).astype(_float(dtype))

    def __str__(self) -> str:
        return f"Gauss-Bernoulli, density {self.density:.6g}"


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
        return jax.random.choice(key, self.codebook.levels.astype(_float(dtype)), shape, p=self.probabilities)

    def __str__(self) -> str:
        return f"drawn from {self.codebook}"


def _float(dtype):
    return jnp.result_type(float) if dtype is None else dtype


def _gamma_nodes(shape: Float[Array, ""]):
    """Nodes g_c and weights with sum_c weight_c F(g_c) = E F(g) for g ~ Gamma(shape, 1), shape >= 1.

    F may grow like g^(−1/2) near zero.  With g = shape e^v the density is exp{−shape (e^v − 1 − v)} up to a constant, and
    v = t − e^(−t) + 1 makes both tails fall double-exponentially, so that the trapezoidal rule in t converges geometrically.
    """
    k = shape
    # e^v − 1 − v >= max(v²/2, e^v/2 − 1) right of 0 and >= v²/(2 − v) left of it: where the integrand is negligible.
    right = jnp.minimum(jnp.sqrt(2 * _NEGLIGIBLE / k), jnp.log(2 + 2 * _NEGLIGIBLE / k))
    c = _NEGLIGIBLE / (k - 0.5)
    left = -(c + jnp.sqrt(c**2 + 8 * c)) / 2
    start, stop = (jax.lax.stop_gradient(_inverse(v)) for v in (left, right))
    step = (stop - start) / (_NODES - 1)
    t = start + step * jnp.arange(_NODES)
    v = t - jnp.exp(-t) + 1
    weight = jnp.exp(-k * (jnp.expm1(v) - v)) * (1 + jnp.exp(-t))
    return k * jnp.exp(v), weight / weight.sum()


def _inverse(v):
    """t with t − e^(−t) + 1 = v, by Newton's method."""
    t = jnp.where(v < 0, -jnp.log1p(-v), v)
    for _ in range(6):
        t = t - (t - jnp.exp(-t) + 1 - v) / (1 + jnp.exp(-t))
    return t
