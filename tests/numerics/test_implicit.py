"""Derivatives of a root through the equation it solves."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from replicajax.numerics import bracketed_roots, implicit_root


def search(a):
    """cos(a y) = y, by plain iteration, whose derivative would be another program's."""
    step = lambda y: (y + jnp.cos(a * y)) / 2  # noqa: E731
    return jax.lax.while_loop(lambda y: jnp.abs(step(y) - y).max() > 1e-15, step, jnp.array([0.5])), ()


def condition(y, _, a):
    return jnp.cos(a * y) - y


def root(a):
    return implicit_root(search, condition, a)[0][0]


@pytest.mark.optimized
def test_implicit_derivatives_of_both_modes_and_two_orders():
    a, h = 1.2, 1e-4
    first = (root(a + h) - root(a - h)) / (2 * h)
    second = (root(a + h) - 2 * root(a) + root(a - h)) / h**2
    np.testing.assert_allclose(jax.grad(root)(a), first, rtol=1e-7)
    np.testing.assert_allclose(jax.jacfwd(root)(a), first, rtol=1e-7)
    for mode in (jax.grad(jax.grad(root)), jax.jacfwd(jax.grad(root)), jax.jacfwd(jax.jacfwd(root))):
        np.testing.assert_allclose(mode(a), second, rtol=1e-6)


def test_the_search_may_be_out_of_jax_where_the_inputs_are_known():
    def outside(a):
        x, found = bracketed_roots(
            lambda x, _: np.cos(float(a) * x) - x, *np.array([[0.0], [1.0], [1.0], [-1.0]]), 1e-15
        )
        assert found.all()
        return jnp.asarray(x), ()

    def of(a):
        return implicit_root(outside, condition, a)[0][0]

    np.testing.assert_allclose(jax.grad(of)(1.2), jax.grad(root)(1.2), rtol=1e-12)


def test_roots_of_many_functions_in_their_brackets():
    """A steep one, a flat one, one with its root at an end, and one that is NaN."""
    powers, shifts = np.array([1.0, 9.0, 1.0, 1.0]), np.array([0.3, 0.5, 0.0, np.nan])
    function = lambda x, at: x ** powers[at] - shifts[at] ** powers[at]  # noqa: E731
    low, high, every = np.zeros(4), np.ones(4), np.arange(4)
    x, found = bracketed_roots(function, low, high, function(low, every), function(high, every), 1e-13)
    np.testing.assert_allclose(x[:3], shifts[:3], rtol=1e-12, atol=1e-300)
    assert found.tolist() == [True, True, True, False]
