"""The optimal width: a minimum by every check, also where there are two, where it is flat, and at the limit of stability."""

from functools import lru_cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import minimize_scalar

import replicajax as rj


@lru_cache
def best(alpha, noise, bits, beta, require_stable=False):
    return rj.optimal_width(rj.LinearRegression(alpha, 1.0, noise), bits, beta, require_stable=require_stable)


def eg(alpha, noise, bits, beta):
    task = rj.LinearRegression(alpha, 1.0, noise)
    return lambda w: float(rj.solve(task, rj.uniform(bits, w), beta).generalization_error)


@pytest.mark.slow
@pytest.mark.parametrize("case", [(2.0, 0.1, 2, 20.0), (0.9, 0.3, 2, np.inf), (4.0, 0.01, 1, 2.0)])
def test_minimum_by_golden_section(case):
    found = best(*case)
    check = minimize_scalar(eg(*case), bounds=(found.width / 1.3, found.width * 1.3), options={"xatol": 1e-9})
    assert found.converged
    np.testing.assert_allclose(found.width, check.x, rtol=1e-6)
    np.testing.assert_allclose(found.generalization_error, check.fun, rtol=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("case", "other"),
    [
        ((0.7711, 0.09714, 1, 5.628), 0.873),
        ((0.2628, 0.14244, 1, 221.793), 0.364),
        ((0.2559, 0.43957, 1, 184.114), 7.284),
    ],
    ids=["deeper second", "far second", "nearly equal"],
)
def test_several_minima(case, other):
    """One bit below alpha = 1: a narrow and a wide minimum; the lower one is found, whichever it is."""
    found = best(*case)
    trap = minimize_scalar(eg(*case), bounds=(other / 1.15, other * 1.15))
    assert found.minima >= 2
    assert abs(np.log(found.width / trap.x)) > 0.5
    assert found.generalization_error < trap.fun


def test_flat_bottom():
    """A high temperature: the bottom is broad, and the slope at the width found still vanishes."""
    found = best(2.0, 0.1, 2, 1.0)
    f = eg(2.0, 0.1, 2, 1.0)
    h = 1e-4 * float(found.width)
    assert abs(f(float(found.width) + h) - f(float(found.width) - h)) < 1e-11
    assert f(float(found.width)) <= min(f(0.8 * float(found.width)), f(1.25 * float(found.width)))


def test_falling_to_the_end_of_the_range_is_said():
    """Very hot: only levels beyond the range would outweigh the temperature."""
    found = best(2.0, 0.1, 2, 0.01)
    assert found.at_edge
    assert "end of the searched range" in str(found)


@pytest.mark.slow
def test_implicit_derivative_of_the_optimum():
    def width(noise):
        return rj.optimal_width(rj.LinearRegression(2.0, 1.0, noise), 2, 20.0).width

    h = 1e-4
    _, derivative = jax.jvp(width, (0.1,), (1.0,))
    np.testing.assert_allclose(derivative, (width(0.1 + h) - width(0.1 - h)) / (2 * h), rtol=1e-5)


@pytest.mark.slow
def test_require_stable_stops_where_the_replicon_vanishes():
    task = rj.LinearRegression(2.0, 1.0, 0.1)
    free = best(2.0, 0.1, 2, 30.0)
    held = best(2.0, 0.1, 2, 30.0, True)
    assert not free.solution.stable
    assert held.converged
    assert held.at_stability_limit
    assert held.solution.stable
    assert abs(held.solution.replicon) < 1e-9
    assert held.generalization_error > free.generalization_error
    wider = rj.solve(task, rj.uniform(2, float(held.width) * 1.001), 30.0)
    assert not wider.stable
    assert wider.generalization_error < held.generalization_error


@pytest.mark.slow
def test_implicit_derivative_of_the_limit_of_stability():
    def limit(noise):
        return rj.optimal_width(rj.LinearRegression(2.0, 1.0, noise), 2, 30.0, require_stable=True).width

    h = 1e-4
    np.testing.assert_allclose(jax.grad(limit)(0.1), (limit(0.1 + h) - limit(0.1 - h)) / (2 * h), rtol=1e-4)


@pytest.mark.slow
def test_no_stable_width_at_zero_temperature():
    found = best(2.0, 0.1, 2, np.inf, True)
    assert not found.converged
    assert jnp.isnan(found.width)
    assert "none in the searched range is stable" in str(found)


def test_scale_of_the_teacher():
    """Signal 4 instead of 1, noise and 1/beta with it: every width doubles."""
    one = best(2.0, 0.1, 2, 20.0)
    four = rj.optimal_width(rj.LinearRegression(2.0, 4.0, 0.4), 2, 5.0)
    np.testing.assert_allclose(four.width, 2 * one.width, rtol=1e-9)


@pytest.mark.slow
def test_bits_curve():
    task = rj.LinearRegression(2.0, 1.0, 0.1)
    curve = rj.optimal_bits(task, 20.0, bits=(1, 2), factor=3.0)
    assert curve.best == 2
    assert curve.ratio[0] > 3 > curve.ratio[1] > 1
    np.testing.assert_allclose(curve.unquantized_error, rj.ridge_regression(task, 0.1).generalization_error)
    assert rj.optimal_bits(task, 20.0, bits=(1, 2), factor=1.0).best is None
    assert "<- cheapest" in str(curve)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda t: rj.optimal_width(t, 0, 1.0), "bits must be a whole number from 1 to 8, got 0"),
        (lambda t: rj.optimal_width(t, 2, -1.0), "beta must be positive, got -1.0"),
        (lambda t: rj.optimal_bits(t, 1.0, factor=0.5), "factor must be at least 1, got 0.5"),
        (lambda t: rj.optimal_bits(t, 1.0, bits=[]), "bits must name at least one bit width"),
    ],
)
def test_bad_arguments(make, message):
    with pytest.raises(ValueError, match=message):
        make(rj.LinearRegression(2.0))
