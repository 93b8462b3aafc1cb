"""The accuracy expected of given rows of two classes: against its own mean squares, refitting and sampling.  theory 9"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.datasets import load_breast_cancer

import replicajax as rj
from replicajax.models import Deployed
from replicajax.replica import accuracies, accuracy, ridge_accuracy
from replicajax.trials import split

BOOK, BETA = rj.uniform(2, 1.5), 4.0


def rows(count: int, columns: int, seed: int = 0):
    """Correlated rows and labels ±1, more of one than of the other."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(count, columns)) * np.geomspace(0.3, 2, columns)
    y = np.where(X @ rng.normal(size=columns) + rng.normal(size=count) > 0.5, 1.0, -1.0)
    return X, y


def standard(X, y):
    """Centred; and the middle of the labels, which then is not 0."""
    centre = y.mean()
    return X - X.mean(0), y - centre, -centre


@pytest.mark.parametrize(("count", "columns"), [(60, 8), (12, 20)])
@pytest.mark.parametrize("held", [True, False])
def test_squares_of_the_rows_laws_are_the_errors(count, columns, held, monkeypatch):
    X, y, threshold = standard(*rows(count + 15, columns))
    more = (X[count:], y[count:]) if held else ()
    task = rj.GivenData(
        X[:count] / np.sqrt(columns), y[:count], 0.01, *((more[0] / np.sqrt(columns), more[1]) if held else ())
    )
    laws = []
    of = rj.GivenData.row_law

    def kept(*arguments):
        laws.append(of(*arguments))
        return laws[-1]

    monkeypatch.setattr(rj.GivenData, "row_law", kept)
    found = accuracy(task, BOOK, BETA, threshold)
    solution, (law,) = rj.solve(task, BOOK, BETA), laws
    assert task.rows is not None
    for mean, variance, error in (
        (law.mean, law.variance, solution.generalization_error),
        (law.rounded_mean, law.rounded_variance, solution.rounded_error),
    ):
        np.testing.assert_allclose(np.mean((task.rows.y - mean) ** 2 + variance), error, rtol=1e-8)
    assert 0 < found.rounded <= 1


def test_ridge_regression_with_every_row_really_left_out():
    X, y, threshold = standard(*rows(50, 8))
    task = rj.GivenData(X, y)
    right = []
    for row in range(50):
        others = np.arange(50) != row
        x, t = X[others] - X[others].mean(0), y[others] - y[others].mean()
        w = np.linalg.solve(x.T @ x + 3.0 * np.eye(8), x.T @ t)
        predicted = (X[row] - X[others].mean(0)) @ w + y[others].mean()
        right.append((predicted > threshold) == (y[row] > threshold))
    np.testing.assert_allclose(ridge_accuracy(task, 3.0, threshold), np.mean(right), atol=1e-12)


def test_one_point_and_many():
    X, y, threshold = standard(*rows(40, 6))
    task = rj.GivenData(X / 3, y)
    tasks, books, betas = jax.tree.map(lambda x: np.stack([np.asarray(x)] * 2), (task, BOOK, np.asarray(BETA)))
    many, one = accuracies(tasks, books, betas, threshold), accuracy(task, BOOK, BETA, threshold)
    np.testing.assert_allclose(many.mean, one.mean, rtol=1e-12)
    np.testing.assert_allclose(many.rounded, one.rounded, rtol=1e-12)


def test_fine_levels_come_to_ridge_regression():
    """Of a rounding finer than everything else nothing is left but the fit."""
    X, y, threshold = standard(*rows(60, 8))
    fine = accuracy(rj.GivenData(X / 3, y), rj.uniform(4, 3.0), 1e3, threshold)
    np.testing.assert_allclose(fine.mean, ridge_accuracy(rj.GivenData(X / 3, y), 0.0, threshold), atol=0.03)


def test_what_is_refused():
    X, y, _ = standard(*rows(40, 6))
    bare, one = rj.GivenData(X, y).bare(), jnp.ones(())
    with pytest.raises(ValueError, match="its rows"):
        bare.row_law(1.0, 0.0, Deployed(one, one, one))
    with pytest.raises(TypeError, match="task must be a GivenData"):
        accuracy(rj.LinearRegression(2.0), BOOK, BETA)  # type: ignore[arg-type]


@pytest.mark.slow
@pytest.mark.parametrize("training", [60, 200])
def test_sampled_weights_on_held_out_rows(training):
    """Breast cancer: differences of theory and sampling over splits within three standard errors of 0."""
    X, y = load_breast_cancer(return_X_y=True)
    gaps = []
    for seed in range(8):
        parts = split(X, 2.0 * y - 1, training, np.random.default_rng(seed))
        edge = float(parts.standard.labels(0.0))
        task = rj.GivenData(parts.X, parts.y, 0.0, parts.X_test, parts.y_test)
        weights = rj.gibbs(parts.X, parts.y, BOOK, BETA, sweeps=400, key=jax.random.key(seed)).weights
        right = np.mean((parts.X_test @ np.asarray(weights) > edge) == (parts.y_test > edge))
        gaps.append(accuracy(task, BOOK, BETA, edge).mean - right)
    assert abs(np.mean(gaps)) < 3 * np.std(gaps, ddof=1) / np.sqrt(8) + 1e-3
