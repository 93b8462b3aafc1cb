"""What `solve` promises besides numbers: limits, dtypes, batching, compilation, printing, refusals."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import replicajax as rj

TASK = rj.LinearRegression(alpha=2.0, signal=1.0, noise=0.1)
BOOK = rj.uniform(2, 1.5)


@pytest.mark.parametrize(("alpha", "ridge"), [(3.0, 0.0), (1.5, 0.2), (0.5, 0.3)])
def test_ridge_limit(alpha, ridge):
    """8 bits, wide and cold, is ridge regression (the temperature still smooths over gaps of 0.04)."""
    task = rj.LinearRegression(alpha, 1.0, 0.1, ridge)
    s = rj.solve(task, rj.uniform(8, 5.0), 1e3)
    unquantized = rj.ridge_regression(task)
    assert s.converged
    np.testing.assert_allclose(s.generalization_error, unquantized.generalization_error, atol=1e-4)
    np.testing.assert_allclose(s.overlap, unquantized.overlap, atol=1e-4)


def test_zero_temperature_is_the_limit_of_low_temperature():
    cold = rj.solve(TASK, BOOK, jnp.inf)
    gaps = [abs(rj.solve(TASK, BOOK, b).generalization_error - cold.generalization_error) for b in (1e4, 1e5, 1e6)]
    assert gaps[2] < 2e-6
    # eg(beta) − eg(inf) = −chi/beta + ..., the fluctuations that averaging over the Gibbs measure removes.
    np.testing.assert_allclose([gaps[0] / gaps[1], gaps[1] / gaps[2]], 10, rtol=0.01)


@pytest.mark.parametrize("ridge", [0.0, 0.05])
def test_interpolation_is_the_limit_of_low_temperature(ridge):
    """Few rows and a wide codebook: chi runs off as beta (Q − q), and Q, q, m, eg have limits."""
    task, book = rj.LinearRegression(0.3, 1.0, 0.05, ridge), rj.uniform(2, 4.0)
    limit, warm = rj.solve(task, book, jnp.inf), rj.solve(task, book, 1e6)
    assert limit.converged
    assert limit.interpolates
    assert not warm.interpolates
    assert jnp.isposinf(limit.susceptibility)
    assert jnp.isneginf(limit.entropy)
    for name in ("overlap", "self_overlap", "replica_overlap", "generalization_error", "gibbs_error", "training_error"):
        np.testing.assert_allclose(getattr(limit, name), getattr(warm, name), rtol=2e-5, atol=2e-6, err_msg=name)
    np.testing.assert_allclose(limit.replicon, warm.replicon, rtol=1e-4)


@pytest.mark.slow
def test_interpolation_has_implicit_derivatives():
    def eg(width):
        return rj.solve(rj.LinearRegression(0.4, 1.0, 0.1), rj.uniform(2, width), jnp.inf).generalization_error

    h = 1e-4
    np.testing.assert_allclose(jax.grad(eg)(3.0), (eg(3.0 + h) - eg(3.0 - h)) / (2 * h), rtol=1e-6)


@pytest.mark.slow
def test_second_derivatives():
    def eg(width):
        return rj.solve(TASK, rj.uniform(2, width), 5.0).generalization_error

    h = 1e-4
    difference = (jax.grad(eg)(1.5 + h) - jax.grad(eg)(1.5 - h)) / (2 * h)
    np.testing.assert_allclose(jax.jacfwd(jax.grad(eg))(1.5), difference, rtol=1e-7)


def test_nothing_is_compiled(programs):
    """Whatever the values, the number of levels, the temperature and the teacher's numbers."""
    laplace = rj.distributions.Laplace()
    rj.solve(rj.LinearRegression(1.0, teacher=laplace), BOOK, 1.0)  # the law's mixture is a program of its own
    with programs() as count:
        for alpha, noise, width, beta in ((1.0, 0.2, 0.5, 3.0), (2.5, 0.0, 1.5, 300.0), (0.7, 1.0, 2.0, np.inf)):
            task = rj.LinearRegression(alpha, 1.0, noise)
            for bits in (1, 2, 5):
                rj.solve(task, rj.power(bits, width, 1.1), beta)
        rj.solve(TASK, rj.codebook([-3.0, 0.0, 0.1, 9.0]), 1)
        rj.solve(rj.LinearRegression(2.0, 0.3, 0.1, teacher=laplace), rj.uniform(3, 1.0), 7.0)
    assert count() == 0


def test_gradient_compiles_once():
    count = 0

    def eg(width):
        nonlocal count
        count += 1
        return rj.solve(TASK, rj.uniform(2, width), 5.0).generalization_error

    gradient = jax.jit(jax.grad(eg))
    values = [gradient(w) for w in (1.0, 1.5, 2.0)]
    assert count == 1
    assert len({float(v) for v in values}) == 3


def test_vmap_agrees_with_one_at_a_time():
    widths, betas = jnp.array([0.5, 1.5, 3.0]), jnp.array([5.0, jnp.inf, 100.0])
    batch = jax.vmap(lambda w, b: rj.solve(TASK, rj.uniform(2, w), b))(widths, betas)
    single = [rj.solve(TASK, rj.uniform(2, w), b) for w, b in zip(widths, betas, strict=True)]
    np.testing.assert_allclose(batch.generalization_error, [s.generalization_error for s in single], rtol=1e-12)
    assert "3 of 3 converged" in str(batch)


def test_float32():
    task, book = jax.tree.map(lambda x: x.astype(jnp.float32), (TASK, BOOK))
    s = rj.solve(task, book, jnp.float32(5.0))
    assert s.generalization_error.dtype == jnp.float32
    assert s.converged
    np.testing.assert_allclose(s.generalization_error, 0.152793449, rtol=1e-5)


def test_too_few_steps_are_reported():
    s = rj.solve(TASK, BOOK, 5.0, max_steps=1)
    assert not s.converged
    assert "NOT CONVERGED" in str(s)


def test_prints_as_a_table():
    text = str(rj.solve(TASK, BOOK, 5.0))
    assert "generalization error" in text
    assert "0.152793449" in text
    assert "stable" in text
    assert "negative, RS cannot be right" in str(rj.solve(TASK, BOOK, jnp.inf))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: rj.LinearRegression(alpha=0.0), "alpha must be positive and finite, got 0.0"),
        (lambda: rj.LinearRegression(alpha=-1.0), "alpha must be positive and finite, got -1.0"),
        (lambda: rj.LinearRegression(1.0, signal=0.0), "signal must be positive and finite, got 0.0 .*is a variance"),
        (
            lambda: rj.LinearRegression(1.0, noise=-0.1),
            "noise must be finite and not negative, got -0.1 .*is a variance",
        ),
        (lambda: rj.LinearRegression(1.0, ridge=-1.0), "ridge must be finite and not negative, got -1.0"),
        (lambda: rj.LinearRegression(float("nan")), "alpha must not be NaN, got nan"),
        (lambda: rj.solve(TASK, BOOK, 0.0), "beta must be positive, got 0.0"),
        (lambda: rj.solve(TASK, BOOK, np.nan), "beta must not be NaN"),
        (lambda: rj.solve(TASK, BOOK, [1.0, 2.0]), r"beta must be a single number .*, got shape \(2,\)"),
        (lambda: rj.solve(TASK, BOOK, 1.0, max_steps=0), "max_steps must be a whole number from 1 .*, got 0"),
    ],
)
def test_bad_values(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: rj.solve("task", BOOK, 1.0), "task must be a Task such as .*, got str"),
        (lambda: rj.solve(TASK, [0.0, 1.0], 1.0), "codebook must be a Codebook such as uniform.*, got list"),
        (lambda: rj.LinearRegression("two"), "alpha must be a real number .*, got 'two'"),
        (lambda: rj.LinearRegression(1.0, noise=1j), "noise must be a real number .*, got 1j"),
    ],
)
def test_bad_kinds(make, message):
    with pytest.raises(TypeError, match=message):
        make()
