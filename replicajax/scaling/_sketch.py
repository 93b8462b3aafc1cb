"""Gaussian sketches of a power-law (or any) spectrum: sampled, and what they tend to.

u = S x, x of covariance Λ = diag(λ), S an M × p matrix of entries N(0, 1/M);  G = S Λ Sᵀ (theory 5.1).  For large M

    m(z) = tr (G − z)^{-1}/M   solves   z = −1/m + (1/M) sum_i λ_i/(1 + λ_i m)              (Marchenko and Pastur; Silverstein)
    Λ^(1/2) Sᵀ (G − z)^{-1} S Λ^(1/2)   tends to   Λ m (1 + Λ m)^{-1},

so how many eigenvalues an interval holds, their mean and the target's energy in them are integrals of m around it.
"""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Complex, Float, PRNGKeyArray

from replicajax import _checks
from replicajax.numerics import bisect
from replicajax.scaling._problem import Regression

_BINS_PER_OCTAVE = 4
_RULE = np.polynomial.legendre.leggauss(10)


def sketched(
    eigenvalues: ArrayLike,
    target: ArrayLike,
    sketch: int | ArrayLike,
    key: PRNGKeyArray | None = None,
    *,
    noise: ArrayLike = 0.0,
) -> Regression:
    """Regression on M random mixtures of features with a diagonal covariance.

    Args:
      eigenvalues, target: (p,) variances of x and weights w*.
      sketch: M, from 1 to p; or S itself, (M, p).
      key: draws S.  Without key and S, the large-M limit: a few eigenvalues per octave, each with the number of directions it
        stands for (a real one) and no `basis`, so that elementwise noise is not for it.  Risks are within about 1/M.

    Raises:
      ValueError, TypeError: spectrum not positive, shapes that do not fit, a sketch larger than the space.
    """
    spectrum = _checks.positive("eigenvalues", eigenvalues)
    if spectrum.ndim != 1:
        raise ValueError(f"eigenvalues must be a vector, got shape {spectrum.shape}")
    w = _checks.vector("target", target, spectrum.size, "eigenvalue")
    if np.ndim(sketch) == 2:
        S = _checks.matrix("sketch", sketch)
        if S.shape[1] != spectrum.size:
            raise ValueError(f"sketch must have {spectrum.size} columns, one per eigenvalue, got shape {S.shape}")
        size = S.shape[0]
    else:
        S, size = None, sketch
    if isinstance(size, (int, np.integer)) and size > spectrum.size:
        raise ValueError(f"sketch must be at most the {spectrum.size} dimensions of the space, got {size}")
    size = _checks.integer("sketch", size, 1, spectrum.size)
    if S is None and key is None:
        return _limit(spectrum, w, size, noise)
    if S is None:
        assert key is not None
        S = jax.random.normal(key, (size, spectrum.size), spectrum.dtype) / jnp.sqrt(size)
    eigenvalues, seen, missed, basis = _seen(spectrum, w, S)
    return Regression(eigenvalues, seen, noise, missed, basis=basis)


@jax.jit
def _seen(spectrum: Array, w: Array, S: Array) -> tuple[Array, Array, Array, Array]:
    """Eigenvalues of the mixtures, the target in their axes, what of it they miss, and these axes."""
    # G by the singular values of S Λ^(1/2), to full relative accuracy.
    U, root, Vt = jnp.linalg.svd(S * jnp.sqrt(spectrum), full_matrices=False)
    along = Vt @ (jnp.sqrt(spectrum) * w)
    return root**2, along / root, jnp.maximum(spectrum @ w**2 - along @ along, 0), U


def _limit(spectrum: Array, w: Array, size: int, noise: ArrayLike) -> Regression:
    # 1 = (1/M) sum λ m/(1 + λ m) at z = 0: what is not explained is λ w² /(1 + λ m).
    m = _at_zero(spectrum, size)
    approximation = float((spectrum * w**2 / (1 + spectrum * m)).sum())
    # All eigenvalues lie between these, up to fluctuations that fall exponentially.
    low, high = float(1 / m) / 64, 4 * float(spectrum.max() + spectrum.sum() / size)
    edges = np.geomspace(low, high, int(np.ceil(_BINS_PER_OCTAVE * np.log2(high / low))) + 1)
    node, weight = _RULE
    angle = np.pi * (node + 1) / 2
    centre, radius = (edges[1:] + edges[:-1]) / 2, (edges[1:] - edges[:-1]) / 2
    z = centre[:, None] + radius[:, None] * np.exp(1j * angle)
    m_at = _stieltjes(spectrum, jnp.asarray(z.ravel()), float(size)).reshape(z.shape)
    energy = _energy(spectrum, w, m_at.ravel()).reshape(z.shape)
    # (1/pi) Im int f dz from the right end of the half circle to the left one, counted from below.
    dz = 1j * radius[:, None] * np.exp(1j * angle) * weight * np.pi / 2

    def inside(f):
        return np.asarray(-jnp.imag((f * dz).sum(1)) / np.pi)

    count, first = inside(size * m_at), inside(size * m_at * z)
    explained = inside(energy / z)
    kept = count > 1e-7
    count, first, explained = count[kept], first[kept], np.maximum(explained[kept], 0)
    g = first / count
    return Regression(g, np.sqrt(explained / (count * g)), noise, approximation, count)


def _at_zero(spectrum: Array, size: int) -> Array:
    def few(log_m):
        return (spectrum * jnp.exp(log_m) / (1 + spectrum * jnp.exp(log_m))).sum() < size

    return jnp.exp(bisect(few, jnp.log(1 / spectrum.max()) - 20, jnp.log(1 / spectrum.min()) + 40, 100)[0])


@eqx.filter_jit
def _stieltjes(spectrum: Float[Array, " p"], z: Complex[Array, " n"], size: float) -> Complex[Array, " n"]:
    """m(z) above the real axis: Newton's method in log m, brought down from far above."""

    def one(z):
        def newton(_, carry):
            m, z = carry
            mixed = spectrum * m / (1 + spectrum * m)
            residual = 1 + z * m - mixed.sum() / size
            slope = z * m - (mixed / (1 + spectrum * m)).sum() / size  # in log m
            step = -residual / slope
            step = step / jnp.maximum(1.0, jnp.abs(step))
            return m * jnp.exp(step), z

        def lower(k, m):
            height = 4.0 ** (5 - k) * jnp.abs(z)
            there = z + 1j * jnp.where(k < 12, height, 0.0)
            return jax.lax.fori_loop(0, 5, newton, (m, there))[0]

        start = -1 / (z + 1j * 4.0**5 * jnp.abs(z))
        return jax.lax.fori_loop(0, 13, lower, start)

    return jax.lax.map(one, z, batch_size=64)


@eqx.filter_jit
def _energy(spectrum, w, m):
    """sum_i λ_i w_i² λ_i m/(1 + λ_i m)."""
    return jax.lax.map(lambda m: (spectrum * w**2 * spectrum * m / (1 + spectrum * m)).sum(), m, batch_size=64)
