"""Batched averages against the scalar ones, which share no quadrature node, and slopes against their derivatives."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from replicajax.numerics import (
    gauss_legendre,
    grid_averages,
    grid_slopes,
    hard_rounding,
    hard_rounding_slopes,
    rounding_averages,
    rounding_slopes,
    soft_rounding,
)

POINTS = 12
UNIFORM = {"even": True, "symmetric": True}
CASES = {
    "8 even": (8, UNIFORM, 20),
    "8 even, field off zero": (8, {"even": True}, 40),
    "7 by exponentials": (7, {"symmetric": True}, 40),
    "5 of any spacing": (5, {}, 40),
}


def points(levels: int, even: bool = False, symmetric: bool = False, coldest: float = 400.0):
    """levels, curvature, beta, mean, deviation: random, points last."""
    rng = np.random.default_rng(levels)
    if even:
        book = np.linspace(-1, 1, levels)[:, None] * np.exp(rng.uniform(-1, 1.5, POINTS))
    elif symmetric:
        u = np.linspace(-1, 1, levels)[:, None]
        book = np.sign(u) * np.abs(u) ** rng.uniform(0.7, 2, POINTS) * np.exp(rng.uniform(-1, 1.5, POINTS))
    else:
        book = np.sort(rng.normal(size=(levels, POINTS)), axis=0)
    curvature = np.exp(rng.uniform(-2, 1, POINTS))
    beta = np.exp(rng.uniform(0.0, np.log(coldest), POINTS))
    mean = np.zeros(POINTS) if symmetric else curvature * rng.normal(size=POINTS)
    return tuple(map(jnp.asarray, (book, curvature, beta, mean, curvature * rng.uniform(0.3, 2, POINTS))))


def reference(book, curvature, beta, mean, deviation):
    """soft_rounding and its derivatives in (mean, deviation, curvature), point by point."""

    def three(m, s, c, a, b):
        r = soft_rounding(a, c, b, m, s)
        return jnp.stack([r.mean, r.square, r.response]), r

    differentiated = jax.jit(jax.vmap(jax.jacfwd(three, (0, 1, 2), has_aux=True)))
    derivatives, values = differentiated(mean, deviation, curvature, book.T, beta)
    return values, derivatives


def check(slopes, averages, values, derivatives, symmetric=False, tolerance=1e-9):
    for got, want in zip(averages, values._replace(usage=values.usage.T), strict=True):
        np.testing.assert_allclose(got, want, rtol=tolerance, atol=tolerance)
    for i, (slope, name) in enumerate(zip(slopes, ("mean", "square", "response"), strict=True)):
        if symmetric and name == "mean":
            continue  # not computed
        np.testing.assert_allclose(slope.value, getattr(values, name), rtol=tolerance, atol=tolerance)
        for parameter, got, want in zip(slope._fields[1:], slope[1:], derivatives, strict=True):
            if not (symmetric and parameter == "mean"):
                np.testing.assert_allclose(got, want[:, i], rtol=100 * tolerance, atol=100 * tolerance)


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_thresholds(case):
    levels, traits, nodes = CASES[case]
    book, *rest = points(levels, **traits)
    kwargs = {"nodes": gauss_legendre(nodes)} | traits
    slopes = jax.jit(lambda *a: rounding_slopes(*a, **kwargs))(book, *rest)
    averages = jax.jit(lambda *a: rounding_averages(*a, **kwargs))(book, *rest)
    check(slopes, averages, *reference(book, *rest), traits.get("symmetric", False))


@pytest.mark.parametrize(("levels", "symmetric"), [(6, False), (32, True)])
def test_grid(levels, symmetric):
    book, *rest = points(levels, even=levels == 32, symmetric=symmetric, coldest=20.0)
    slopes = jax.jit(lambda *a: grid_slopes(*a, error=1e-13, symmetric=symmetric))(book, *rest)
    averages = jax.jit(lambda *a: grid_averages(*a, error=1e-13, symmetric=symmetric))(book, *rest)
    check(slopes, averages, *reference(book, *rest), symmetric)


@pytest.mark.slow
def test_many_even_levels_need_only_their_neighbours():
    book, curvature, _, mean, deviation = points(32, **UNIFORM)
    gap = book[1] - book[0]
    beta = 0.34 / (curvature * gap**2)  # just cold enough: exp(−0.34 · 15 · 16/2) = exp(−40.8)
    slopes = jax.jit(lambda *a: rounding_slopes(*a, nodes=gauss_legendre(28), **UNIFORM))
    averages = jax.jit(lambda *a: rounding_averages(*a, nodes=gauss_legendre(28), **UNIFORM))
    args = book, curvature, beta, mean, deviation
    check(slopes(*args), averages(*args), *reference(*args), symmetric=True)


@pytest.mark.slow
def test_zero_temperature():
    book, curvature, _, mean, deviation = points(5)

    def three(m, s, c, a):
        r = hard_rounding(a, c, m, s)
        return jnp.stack([r.mean, r.square, r.response])

    args = mean, deviation, curvature, book.T
    values, derivatives = jax.vmap(three)(*args), jax.vmap(jax.jacfwd(three, (0, 1, 2)))(*args)
    for i, slope in enumerate(hard_rounding_slopes(book, curvature, mean, deviation)):
        np.testing.assert_allclose(slope.value, values[:, i], rtol=1e-13)
        for got, want in zip(slope[1:], derivatives, strict=True):
            np.testing.assert_allclose(got, want[:, i], rtol=1e-11, atol=1e-13)
