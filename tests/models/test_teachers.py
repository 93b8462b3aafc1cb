"""Teachers beyond Gaussian: order parameters against direct quadrature over teacher and field, and Bayes optimality."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import integrate, stats

import replicajax as rj
from replicajax.distributions import Discrete, GaussBernoulli, Laplace, StudentT
from replicajax.models import Fields, free_energy, weight_averages
from replicajax.models._potentials import Order

BOOK = rj.codebook([-1.4, -0.3, 0.5, 1.6])
FIELDS = Fields(*(jnp.asarray(x) for x in (1.1, 0.4, 1.2)))
BETA = 3.0


def soft(h, curvature):
    """<a>, beta Var(a) by the definition."""
    a = np.asarray(BOOK.levels)
    energy = BETA * (h[..., None] * a - curvature * a**2 / 2)
    p = np.exp(energy - energy.max(-1, keepdims=True))
    p /= p.sum(-1, keepdims=True)
    mean = p @ a
    return mean, BETA * (p @ a**2 - mean**2)


def averages_given(w):
    """E over z of (w <a>, <a>², beta Var) at teacher weight w, on a fine Gaussian grid."""
    z = np.linspace(-9, 9, 2001)
    weight = stats.norm.pdf(z) * (z[1] - z[0])
    mean, response = soft(float(FIELDS.m_hat) * w + np.sqrt(float(FIELDS.chi_hat)) * z, float(FIELDS.L) + 0.1)
    return np.array([w * (weight @ mean), weight @ mean**2, weight @ response])


@pytest.mark.parametrize(
    ("teacher", "density", "atoms"),
    [
        (Laplace(), stats.laplace(scale=np.sqrt(0.5)).pdf, []),
        (StudentT(5.0), stats.t(5, scale=np.sqrt(3 / 5)).pdf, []),
        (GaussBernoulli(0.3), lambda w: 0.3 * stats.norm.pdf(w, scale=np.sqrt(1 / 0.3)), [(0.7, 0.0)]),
        (Discrete(BOOK, [0.1, 0.4, 0.3, 0.2]), None, list(zip([0.1, 0.4, 0.3, 0.2], BOOK.levels, strict=True))),
    ],
)
def test_averages(teacher, density, atoms):
    """A teacher of variance 0.8: (m, q, chi) of one map evaluation, by the definition of the expectation."""
    signal = 0.8
    task = rj.LinearRegression(2.0, signal, 0.1, 0.1, teacher)
    scale = float(task.teacher_scale)
    exact = sum((p * averages_given(scale * float(w)) for p, w in atoms), np.zeros(3))
    if density is not None:
        for a, b in ((-np.inf, -5), (-5, -1), (-1, 0), (0, 1), (1, 5), (5, np.inf)):
            value = integrate.quad_vec(lambda w: density(w) * averages_given(scale * w), a, b, epsabs=1e-11)[0]
            exact = exact + value
    found = jax.jit(weight_averages)(task, BOOK, FIELDS, jnp.asarray(BETA))
    got = [found.own.m, found.rounding.square, found.rounding.response]
    np.testing.assert_allclose(got, exact, rtol=1e-9, atol=1e-9)


@pytest.mark.slow
def test_bayes_optimal_line():
    """A teacher drawn from the codebook, beta = 1/noise: q = m and Q = signal (Nishimori), and eg = Q − q."""
    for levels, alpha, noise in (([-1.5, -0.5, 0.5, 1.5], 1.5, 0.3), ([-1.0, 0.2, 0.9, 2.0], 0.7, 0.5)):
        book = rj.codebook(levels)
        s = rj.solve(rj.LinearRegression(alpha, None, noise, teacher=Discrete(book)), book, 1 / noise)
        assert s.converged
        assert s.stable
        np.testing.assert_allclose(s.replica_overlap, s.overlap, atol=1e-8)
        np.testing.assert_allclose(s.self_overlap, np.mean(np.square(levels)), atol=1e-8)
        np.testing.assert_allclose(s.generalization_error, s.susceptibility * noise, atol=1e-8)


def test_averages_differentiate_in_the_degrees_of_freedom():
    @jax.jit
    def alignment(df):
        task = rj.LinearRegression(2.0, 0.8, 0.1, 0.1, StudentT(df))
        return weight_averages(task, BOOK, FIELDS, jnp.asarray(BETA)).own.m

    h = 1e-3
    difference = (alignment(4.0 + h) - alignment(4.0 - h)) / (2 * h)
    np.testing.assert_allclose(jax.jit(jax.grad(alignment))(4.0), difference, rtol=1e-6)


@pytest.mark.slow
def test_stationary_and_differentiable():
    """A Student-t teacher: gradient of the free energy, and d eg/d df against central differences."""

    def eg(df):
        task = rj.LinearRegression(1.4, 0.9, 0.2, 0.05, StudentT(df))
        s = rj.solve(task, BOOK, BETA)
        point = jax.lax.stop_gradient((task, Order(s.overlap, s.replica_overlap, s.susceptibility), s.fields))
        slope = jax.grad(lambda o, f: free_energy(point[0], BOOK, jnp.asarray(BETA), o, f), argnums=(0, 1))(*point[1:])
        return s.generalization_error, jnp.stack(jax.tree.leaves(slope))

    h = 1e-3
    gradient = jax.jit(jax.value_and_grad(eg, has_aux=True))
    (_, slope), derivative = gradient(4.0)
    difference = (gradient(4.0 + h)[0][0] - gradient(4.0 - h)[0][0]) / (2 * h)
    assert jnp.abs(slope).max() < 1e-9
    np.testing.assert_allclose(derivative, difference, rtol=1e-5)
