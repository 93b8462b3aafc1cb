"""The unquantized baseline against simulated ridge regression, and at its exactly known points."""

import jax
import numpy as np
import pytest

import replicajax as rj


@pytest.mark.parametrize(("alpha", "ridge"), [(2.0, 0.3), (0.6, 0.2), (0.5, 0.0), (3.0, 0.0)])
def test_against_simulation(alpha, ridge):
    """Finite-size ridge regression, N = 400: within 4 standard errors plus 2/N of its value."""
    rng = np.random.default_rng(0)
    N, runs, noise = 400, 40, 0.2
    errors = []
    for _ in range(runs):
        X = rng.normal(size=(int(alpha * N), N)) / np.sqrt(N)
        w0 = rng.normal(size=N)
        y = X @ w0 + np.sqrt(noise) * rng.normal(size=len(X))
        w = (
            X.T @ np.linalg.solve(X @ X.T, y)
            if ridge == 0 and alpha < 1
            else (np.linalg.solve(X.T @ X + ridge * np.eye(N), X.T @ y))
        )
        errors.append(np.mean((w - w0) ** 2))
    theory = float(rj.ridge_regression(rj.LinearRegression(alpha, 1.0, noise, ridge)).generalization_error)
    mean, error = np.mean(errors), np.std(errors, ddof=1) / np.sqrt(runs)
    assert abs(mean - theory) <= 4 * error + 2 / N * theory, f"z = {(mean - theory) / error:.2f}"


def test_least_squares_in_closed_form():
    """alpha > 1 without ridge: eg = noise/(alpha − 1)."""
    eg = rj.ridge_regression(rj.LinearRegression(3.0, 1.0, 0.2)).generalization_error
    np.testing.assert_allclose(eg, 0.1, rtol=1e-12)


def test_optimal_ridge_is_optimal():
    task = rj.LinearRegression(1.3, 2.0, 0.5)
    slope = jax.grad(lambda r: rj.ridge_regression(task, r).generalization_error)(rj.optimal_ridge(task))
    np.testing.assert_allclose(slope, 0, atol=1e-12)
