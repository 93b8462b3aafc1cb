"""Averages of many fields, in JAX and in NumPy, against the scalar ones, and slopes against their derivatives.

`soft_rounding` is itself checked against 32 digits, and shares neither loops nor sums with these.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from replicajax.numerics import (
    JAX,
    NUMPY,
    Levels,
    crossed_rounding,
    gauss_legendre,
    grid_averages,
    hard_rounding,
    hard_staircase_slopes,
    soft_rounding,
    staircase_averages,
)

POINTS = 12
CASES = {
    "8 even": (8, {"even": True, "symmetric": True}, 20),
    "8 even, field off zero": (8, {"even": True}, 40),
    "7 by exponentials": (7, {"symmetric": True}, 40),
    "5 of any spacing": (5, {}, 40),
    "2": (2, {"even": True, "symmetric": True}, 20),
}
BACKENDS = {"jax": JAX, "numpy": NUMPY}


@partial(jax.jit, static_argnames=("centred",))
def compiled(levels, count, symmetric, *arguments, nodes, centred):
    return staircase_averages(Levels(levels, count, symmetric), *arguments, nodes=nodes, centred=centred, crossed=True)


def averages_of(on, levels, symmetric, *arguments, nodes, centred=False, size=16):
    """Padded, as the solver does it."""
    padded = np.pad(levels, ((0, size - len(levels)), (0, 0)), mode="edge")
    if on is JAX:
        return compiled(padded, len(levels), symmetric, *arguments, nodes=nodes, centred=centred)
    with np.errstate(all="ignore"):
        book = Levels(padded, len(levels), symmetric)
        return staircase_averages(book, *arguments, nodes=nodes, centred=centred, crossed=True, on=NUMPY)


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
    return tuple(map(np.asarray, (book, curvature, beta, mean, curvature * rng.uniform(0.3, 2, POINTS))))


def reference(book, curvature, beta, mean, deviation):
    """soft_rounding and its derivatives in (mean, deviation, curvature), point by point."""

    def three(m, s, c, a, b):
        r = soft_rounding(a, c, b, m, s)
        return jnp.stack([r.mean, r.square, r.response]), r

    differentiated = jax.jit(jax.vmap(jax.jacfwd(three, (0, 1, 2), has_aux=True)))
    derivatives, values = differentiated(mean, deviation, curvature, book.T, beta)
    return values, derivatives


def check(averages, values, derivatives, symmetric=False, tolerance=1e-9):
    slopes, soft = averages.slopes, averages.soft
    count = values.usage.shape[1]
    for name, got, want in zip(soft._fields, soft, values._replace(usage=values.usage.T), strict=True):
        if name == "mean" and slopes.mean is None:
            continue
        got = got[:count] if name == "usage" else got
        np.testing.assert_allclose(got, want, rtol=tolerance, atol=tolerance, err_msg=name)
    for i, (slope, name) in enumerate(zip(slopes, ("mean", "square", "response"), strict=True)):
        if slope is None or (symmetric and name == "mean"):
            continue  # not computed
        np.testing.assert_allclose(slope.value, getattr(values, name), rtol=tolerance, atol=tolerance)
        for parameter, got, want in zip(slope._fields[1:], slope[1:], derivatives, strict=True):
            if not (parameter == "mean" and (symmetric or slopes.mean is None)):
                np.testing.assert_allclose(got, want[:, i], rtol=100 * tolerance, atol=100 * tolerance)


@pytest.mark.parametrize("on", BACKENDS)
@pytest.mark.parametrize("case", CASES)
def test_thresholds(case, on):
    levels, traits, nodes = CASES[case]
    book, *rest = points(levels, **traits)
    symmetric = traits.get("symmetric", False)
    averages = averages_of(BACKENDS[on], book, symmetric, *rest, nodes=gauss_legendre(nodes, 40))
    values, derivatives = reference(book, *rest)
    check(averages, values, derivatives, symmetric)
    hard = jax.vmap(hard_rounding)(book.T, rest[0], rest[2], rest[3])
    for name in ("mean", "square", "response", "potential"):
        np.testing.assert_allclose(getattr(averages.hard, name), getattr(hard, name), rtol=1e-12, atol=1e-13)
    truth = [winner_times_mean(*(x[..., k] for x in (book, *rest))) for k in range(POINTS)]
    np.testing.assert_allclose(averages.crossed, truth, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(jax.jit(jax.vmap(crossed_rounding))(book.T, *rest), truth, rtol=1e-9, atol=1e-9)


def winner_times_mean(levels, curvature, beta, mean, deviation):
    """E of <a> times the most probable level: cell by cell, in panels that shrink towards the thresholds."""
    cuts = curvature * (levels[1:] + levels[:-1]) / 2
    ends = np.concatenate([[min(cuts[0], mean) - 12 * deviation], cuts, [max(cuts[-1], mean) + 12 * deviation]])
    unit, weight = np.polynomial.legendre.leggauss(30)
    halving = np.concatenate([[0.0], 0.5 ** np.arange(16, 0, -1)])
    edges = np.concatenate([halving, 1 - halving[-2::-1]])
    total = 0.0
    for level, low, high in zip(levels, ends[:-1], ends[1:], strict=True):
        at = low + (high - low) * edges
        h = ((at[1:] + at[:-1]) / 2)[:, None] + np.diff(at)[:, None] / 2 * unit
        e = beta * (h[..., None] * levels - curvature * levels**2 / 2)
        p = np.exp(e - e.max(-1, keepdims=True))
        density = np.exp(-(((h - mean) / deviation) ** 2) / 2) / (np.sqrt(2 * np.pi) * deviation)
        total += level * (np.diff(at)[:, None] / 2 * weight * density * (p @ levels) / p.sum(-1)).sum()
    return total


@pytest.mark.parametrize("on", BACKENDS)
def test_centred_fields_need_less(on):
    book, *rest = points(5, symmetric=False)
    rest[2] = 0 * rest[2]
    averages = averages_of(BACKENDS[on], book, False, *rest, nodes=gauss_legendre(40, 40), centred=True)
    assert averages.slopes.mean is None
    check(averages, *reference(book, *rest))


@pytest.mark.parametrize("on", BACKENDS)
@pytest.mark.parametrize(("levels", "symmetric"), [(6, False), (32, True)])
def test_grid(levels, symmetric, on):
    book, *rest = points(levels, even=levels == 32, symmetric=symmetric, coldest=20.0)
    padded = np.pad(book, ((0, -levels % 16), (0, 0)), mode="edge")
    call = partial(grid_averages, error=1e-13, on=BACKENDS[on])
    if on == "jax":
        call = jax.jit(call)
    check(call(Levels(padded, levels, symmetric), *rest), *reference(book, *rest), symmetric)


def test_many_even_levels_need_only_their_neighbours():
    book, curvature, _, mean, deviation = points(32, even=True, symmetric=True)
    gap = book[1] - book[0]
    beta = 0.34 / (curvature * gap**2)  # just cold enough: exp(−0.34 · 15 · 16/2) = exp(−40.8)
    args = curvature, beta, mean, deviation
    averages = averages_of(NUMPY, book, True, *args, nodes=gauss_legendre(28, 40), size=32)
    check(averages, *reference(book, *args), symmetric=True)


@pytest.mark.parametrize("on", BACKENDS)
def test_zero_temperature(on):
    book, curvature, beta, mean, deviation = points(5)

    def three(m, s, c, a):
        r = hard_rounding(a, c, m, s)
        return jnp.stack([r.mean, r.square, r.response])

    args = mean, deviation, curvature, book.T
    values, derivatives = (jax.jit(jax.vmap(f))(*args) for f in (three, jax.jacfwd(three, (0, 1, 2))))
    call = partial(hard_staircase_slopes, on=BACKENDS[on])
    slopes = (jax.jit(call) if on == "jax" else call)(Levels(book, 5, False), curvature, beta, mean, deviation)
    for i, slope in enumerate(slopes):
        np.testing.assert_allclose(slope.value, values[:, i], rtol=1e-13)
        for got, want in zip(slope[1:], derivatives, strict=True):
            np.testing.assert_allclose(got, want[:, i], rtol=1e-11, atol=1e-13)
