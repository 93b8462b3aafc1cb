"""Drawn data sets have the moments their task promises."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import replicajax as rj
from replicajax.distributions import Discrete


@pytest.mark.parametrize("design", ["gaussian", "rademacher", "normalized"])
def test_moments(design):
    task = rj.LinearRegression(1.5, 2.0, 0.3)
    X, y, w = rj.draw(task, 600, jax.random.key(0), design=design)
    assert X.shape == (900, 600)
    np.testing.assert_allclose(jnp.mean(X**2) * 600, 1, atol=5 * np.sqrt(2 / X.size))
    np.testing.assert_allclose(jnp.mean(w**2), 2, atol=5 * 2 * np.sqrt(2 / 600))
    np.testing.assert_allclose(jnp.var(y - X @ w), 0.3, atol=5 * 0.3 * np.sqrt(2 / 900))
    if design == "normalized":
        np.testing.assert_allclose(jnp.linalg.norm(X, axis=1), 1, rtol=1e-12)
    if design == "rademacher":
        np.testing.assert_allclose(jnp.abs(X) * np.sqrt(600), 1, rtol=1e-12)


def test_teacher_scale_and_dtype():
    book = rj.codebook([-1.0, 3.0])
    task = rj.LinearRegression(1.0, 20.0, teacher=Discrete(book))
    instance = rj.draw(task, 50, jax.random.key(0), dtype=jnp.float32)
    assert {x.dtype for x in instance} == {jnp.dtype("float32")}
    np.testing.assert_allclose(np.unique(instance.weights), [-2.0, 6.0], rtol=1e-6)  # E w² = 20 = 4 · 5


def test_own_design_and_refusals():
    task = rj.LinearRegression(2.0)
    assert (rj.draw(task, 4, jax.random.key(0), design=lambda key, shape, dtype: jnp.ones(shape, dtype)).X == 1).all()
    with pytest.raises(ValueError, match="design must be one of gaussian, rademacher, normalized, got 'cauchy'"):
        rj.draw(task, 4, jax.random.key(0), design="cauchy")
    with pytest.raises(ValueError, match="size must be a whole number from 1"):
        rj.draw(task, 0, jax.random.key(0))
    with pytest.raises(TypeError, match="task.alpha must have a value, not be traced"):
        jax.jit(lambda a: rj.draw(rj.LinearRegression(a), 4, jax.random.key(0)))(2.0)


@pytest.mark.parametrize("name", ["share", "eigenvalues"])
def test_features_of_which_one_is_traced(name):
    """Others are known, and NumPy's."""
    features = rj.Features([0.5, 2.0], [1.0, 2.0], "aligned", [1.0, 3.0])
    task = rj.LinearRegression(2.0, features=features)

    def X(values):
        traced = eqx.tree_at(lambda t: getattr(t.features, name), task, values)
        return rj.draw(traced, 8, jax.random.key(0)).X

    np.testing.assert_allclose(jax.jit(X)(getattr(features, name)), X(getattr(features, name)), rtol=1e-12)
