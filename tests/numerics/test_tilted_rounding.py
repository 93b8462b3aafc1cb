"""Averages under a tilted Gaussian against plain sums on fine grids, and their limits."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from replicajax.numerics import JAX, NUMPY, tilted_rounding

LEVELS = np.array([-1.5, -0.4, 0.5, 1.5])
NAMES = "log_partition", "potential", "first", "outer", "inner", "response", "entropy"


def brute(K, beta, y, mean, deviation, c):
    """Both integrals by the trapezoidal rule."""
    H, z = np.linspace(-8.5, 8.5, 301), np.linspace(-16, 16, 4001)
    weight, inner = (
        step * np.exp(-(x**2) / 2) / np.sqrt(2 * np.pi) for x, step in ((H, H[1] - H[0]), (z, z[1] - z[0]))
    )
    h = (mean + deviation * H)[:, None] + np.sqrt(c) * z
    e = beta * (h[..., None] * LEVELS - K * LEVELS**2 / 2)
    top = e.max(-1)
    p = np.exp(e - top[..., None])
    total = p.sum(-1)
    p /= total[..., None]
    phi = (top + np.log(total)) / beta
    log_tilt = y * phi
    high = log_tilt.max(1, keepdims=True)
    tilt = np.exp(log_tilt - high) * inner
    Z = tilt.sum(1)
    tilt /= Z[:, None]
    a, square = p @ LEVELS, p @ LEVELS**2
    entropy = beta * phi - (p * e).sum(-1)
    each = phi, a, a**2, beta * (square - a**2), entropy
    phi, a, inner_square, response, entropy = ((tilt * x).sum(1) for x in each)
    return [weight @ x for x in (high[:, 0] + np.log(Z), phi, a, a**2, inner_square, response, entropy)]


@pytest.mark.parametrize(
    ("beta", "y", "c", "deviation"),
    [(5.0, 1.0, 0.85, 1.3), (1.0, 0.4, 2.0, 1.3), (8.0, 3.0, 0.3, 0.8), (4.0, 3.9, 0.6, 1.0)],
)
def test_against_sums(beta, y, c, deviation):
    one = np.ones(1)
    ours = tilted_rounding(NUMPY, LEVELS, 1.7 * one, beta, y, 0.2 * one, deviation * one, c * one, cold=False)
    np.testing.assert_allclose(
        [getattr(ours, name)[0] for name in NAMES], brute(1.7, beta, y, 0.2, deviation, c), atol=2e-10
    )
    assert ours.usage.sum() == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize("c", [0.02, 0.3, 2.0])
def test_cold_is_the_limit(c):
    """Corrections are of first order in the temperature."""
    one = np.ones(1)
    arguments = 1.7 * one, 3.0, 0.2 * one, 1.3 * one, c * one

    def at(beta):
        K, y, *rest = arguments
        found = tilted_rounding(NUMPY, LEVELS, K, beta, y, *rest, cold=bool(np.isinf(beta)))
        return np.array([getattr(found, name)[0] for name in NAMES])

    np.testing.assert_allclose(2 * at(4e5) - at(2e5), at(np.inf), atol=1e-8)


@pytest.mark.parametrize("beta", [5.0, np.inf])
def test_derivatives_of_the_log_partition(beta):
    """E log Z moves with the fields by the averages themselves: theory 3's order parameters."""
    y, K, deviation, c = 1.3, 1.7, 1.2, 0.6

    def log_Z(x):
        y, mean, variance, c, K = x
        found = tilted_rounding(
            JAX,
            jnp.asarray(LEVELS),
            K[None],
            jnp.asarray(beta),
            y,
            mean[None],
            jnp.sqrt(variance)[None],
            c[None],
            bool(np.isinf(beta)),
        )
        return found.log_partition[0], found

    at = jnp.array([y, 0.3, deviation**2, c, K])
    slope, found = jax.jit(jax.grad(log_Z, has_aux=True))(at)
    potential, first, outer, inner, response = (
        float(getattr(found, name)[0]) for name in ("potential", "first", "outer", "inner", "response")
    )
    square = inner + (0.0 if np.isinf(beta) else response / beta)
    expected = [
        potential,
        y * first,
        y * (response + y * (inner - outer)) / 2,
        y * (response + y * inner) / 2,
        -y * square / 2,
    ]
    np.testing.assert_allclose(slope, expected, atol=1e-9)


def test_numpy_and_jax_agree():
    two = np.ones(2)
    arguments = LEVELS, 1.7 * two, 6.0, 2.0, np.array([0.2, -0.4]), np.array([1.3, 0.7]), np.array([0.3, 0.5])
    here = tilted_rounding(NUMPY, *arguments, cold=False)
    there = jax.jit(lambda *x: tilted_rounding(JAX, *x, cold=False))(*map(jnp.asarray, arguments))
    for a, b in zip(here, there, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-13)
