"""The fixed-point solver on maps whose answers are known, and its implicit derivatives."""

import jax
import jax.numpy as jnp
import numpy as np
import optimistix as optx
import pytest

from replicajax.numerics import implicit_root, solve_fixed_point

FREE = {"lower": -jnp.inf, "upper": jnp.inf}


def test_quadratic_convergence():
    def cosine(y, a):
        return jnp.cos(a * y) - y, jnp.cos(a * y)

    s = solve_fixed_point(cosine, jnp.array([0.0]), 1.0, **FREE)
    assert s.result == optx.RESULTS.successful
    np.testing.assert_allclose(s.value, 0.7390851332151607, rtol=1e-15)
    assert s.stats["num_steps"] <= 6


def test_falls_back_on_plain_iteration():
    """Newton on arctan diverges from 2; the map y/2 has the same fixed point and leads there."""

    def fn(y, _):
        return -jnp.arctan(y), y / 2

    s = solve_fixed_point(fn, jnp.array([20.0]), None, **FREE)
    assert s.result == optx.RESULTS.successful
    np.testing.assert_allclose(s.value, 0.0, atol=1e-12)


def test_reports_failure_and_returns_the_best():
    s = solve_fixed_point(lambda y, _: (y**2 + 1, y + 1), jnp.array([3.0]), None, **FREE, max_steps=40)
    assert s.result != optx.RESULTS.successful
    assert jnp.isfinite(s.value).all()


def test_respects_bounds():
    """Newton on log from 10 would jump below zero."""
    s = solve_fixed_point(lambda y, _: (-jnp.log(y), jnp.sqrt(y)), jnp.array([10.0]), None, lower=0.0, upper=jnp.inf)
    np.testing.assert_allclose(s.value, 1.0, rtol=1e-12)


def search(a):
    return solve_fixed_point(lambda y, a: (jnp.cos(a * y) - y, jnp.cos(a * y)), jnp.array([0.5]), a, **FREE).value, ()


def condition(y, _, a):
    return jnp.cos(a * y) - y


def root(a):
    return implicit_root(search, condition, a)[0][0]


@pytest.mark.slow
def test_implicit_derivatives_of_both_modes_and_two_orders():
    a, h = 1.2, 1e-4
    first = (root(a + h) - root(a - h)) / (2 * h)
    second = (root(a + h) - 2 * root(a) + root(a - h)) / h**2
    np.testing.assert_allclose(jax.grad(root)(a), first, rtol=1e-7)
    np.testing.assert_allclose(jax.jacfwd(root)(a), first, rtol=1e-7)
    for mode in (jax.grad(jax.grad(root)), jax.jacfwd(jax.grad(root)), jax.jacfwd(jax.jacfwd(root))):
        np.testing.assert_allclose(mode(a), second, rtol=1e-6)
