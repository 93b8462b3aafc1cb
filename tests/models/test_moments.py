"""`LinearRegression.from_data`: unbiased on simulated rows, and clear about data that cannot do."""

import numpy as np
import pytest

import replicajax as rj
from replicajax.models import whitening


def simulate(rng, rows, features, signal, noise):
    Z = rng.normal(size=(rows, features))
    y = Z @ rng.normal(size=features) * np.sqrt(signal / features) + np.sqrt(noise) * rng.normal(size=rows)
    return Z, y


@pytest.mark.parametrize("whitened", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_moments_are_unbiased(whitened):
    """400 simulated data sets at alpha 2: means within 4 standard errors; correlated features change nothing."""
    rng = np.random.default_rng(1)
    rows, features, signal, noise = 80, 40, 0.7, 0.4
    mixing = np.eye(features) if whitened else rng.normal(size=(features, features)) + 2 * np.eye(features)
    found = []
    for _ in range(400):
        Z, y = simulate(rng, rows, features, signal, noise)
        try:
            task = rj.LinearRegression.from_data(Z @ mixing + (not whitened) * 3.0, y, whitened=whitened)
            found.append([task.signal, task.noise])
        except ValueError:  # an estimate that fell below zero: counted as it would be, so as not to select
            found.append([0.0, np.var(y)])
    found = np.array(found, float)
    z = (found.mean(0) - [signal, noise]) / (found.std(0, ddof=1) / 20)
    assert np.abs(z[0]) <= 4, z
    assert np.abs(z[1]) <= 4, z


def test_alpha_counts_independent_columns():
    rng = np.random.default_rng(2)
    X, y = simulate(rng, 300, 20, 1.0, 0.1)
    X = np.column_stack([X, X[:, 0], np.ones(300)])
    np.testing.assert_allclose(rj.LinearRegression.from_data(X, y).alpha, 15.0)


def test_whitening_whitens():
    rng = np.random.default_rng(3)
    X = rng.normal(size=(200, 6)) @ rng.normal(size=(6, 6)) + 5
    Z = np.asarray(whitening(X)(X))
    np.testing.assert_allclose(Z.T @ Z / 200, np.eye(6), atol=1e-10)
    np.testing.assert_allclose(Z.mean(0), 0, atol=1e-10)


def bad(change):
    X, y = simulate(np.random.default_rng(4), 100, 5, 1.0, 0.1)
    return change(X, y)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda X, y: (X, y[:-1]), r"y must have shape \(100,\), one entry per row of X, got shape \(99,\)"),
        (lambda X, y: (X[0], y), r"X must be a matrix .*, got shape \(5,\)"),
        (lambda X, y: (np.where(X > 2, np.nan, X), y), "X must not be NaN"),
        (lambda X, y: (X, np.full(100, 2.0)), "y must vary, got the constant label 2 in all 100 rows"),
        (lambda X, y: (X[:4], y[:4]), "X must have at least 8 rows .*, got 4"),
        (lambda X, y: (np.ones_like(X), y), "X must have a column that varies, got 5 constant columns"),
        (lambda X, y: (np.random.default_rng(5).normal(size=(10, 40)), y[:10]), "X must have more rows than"),
        (
            lambda X, y: (X, np.random.default_rng(8).normal(size=100)),
            "y must depend linearly on X: the estimated signal",
        ),
    ],
)
def test_bad_data(change, message):
    with pytest.raises(ValueError, match=message):
        rj.LinearRegression.from_data(*bad(change))
