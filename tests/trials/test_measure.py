"""Measured against predicted: simulated rows that fit the theory, and real ones in rotated axes."""

import numpy as np
import pytest
from sklearn.datasets import load_digits

import replicajax as rj
from replicajax.trials import measure_widths, split, train


def test_prediction_on_digits():
    """At 2 bits, error by error: within three standard errors of its difference from the theory of the same split."""
    X, y = load_digits(return_X_y=True)
    task = rj.GivenData.standardized(X, y)
    widths = np.array([0.5, 1.0, 1.5, 2.0]) * np.sqrt(float(task.signal))
    found = measure_widths(X, y, 2, widths, 2.0, alpha=3.0, splits=6, sweeps=400)
    assert found.training_rows == 180
    difference = found.errors / found.theory - 1
    mean, error = difference.mean(0), difference.std(0, ddof=1) / np.sqrt(6)
    assert (np.abs(mean) <= 3 * error).all(), (mean, error)
    assert (error < 0.02).all()
    best = found.theory.mean(0).argmin()
    assert abs(int(found.error.argmin()) - int(best)) <= 1
    assert (found.ridge_errors < found.errors.min(1) + 0.1).all()


def test_numbers_of_held_out_rows_play_no_part():
    """An outlier among them changes its own error and nothing else."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(60, 5))
    y = X[:, 0] + 0.3 * rng.normal(size=60)
    one = split(X, y, 40, np.random.default_rng(1))
    last = np.random.default_rng(1).permutation(60)[-1]
    X[last], y[last] = 1e6, -1e6
    other = split(X, y, 40, np.random.default_rng(1))
    for name in "X", "y", "axes":
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
    np.testing.assert_array_equal(one.X_test[:-1], other.X_test[:-1])
    assert one.y_test[-1] != other.y_test[-1]


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"alpha": 20.0}, "alpha must leave at least 8 of the 60 rows to test on and 2 to train on, got alpha 20"),
        ({"alpha": 0.0}, "alpha must be positive"),
        ({"alpha": 2.0, "splits": 1}, "splits must be a whole number from 2"),
        ({"alpha": 2.0, "beta": np.inf}, "beta must be positive and finite, got inf"),
    ],
)
def test_bad_arguments(kwargs, message):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(60, 5))
    arguments = {"beta": 1.0, **kwargs}
    with pytest.raises(ValueError, match=message):
        measure_widths(X, X[:, 0], 1, [1.0], **arguments)


@pytest.mark.parametrize("rows", [200, 300])
@pytest.mark.slow
def test_predicted_errors_hold_on_fresh_rows(rows):
    """100 Gaussian columns, noise .3, ten tables: what is predicted of the written model from the rows it was trained on
    against its error on 3000 fresh rows."""
    differences, spread = [], []
    for seed in range(10):
        rng = np.random.default_rng(seed)
        w, X = rng.normal(size=100) / 10, rng.normal(size=(rows + 3000, 100))
        y = X @ w + np.sqrt(0.3) * rng.normal(size=rows + 3000)
        table = X[:rows], y[:rows]
        task = rj.GivenData.standardized(*table)
        book = rj.uniform(3, 1.5 * np.sqrt(float(task.signal)))
        found = train(*table, book, 1 / task.noise, seed=seed, sweeps=400)
        fresh = np.asarray(found.predict(X[rows:]))
        differences.append(float(found.left_out.rounded_error) * found.y_scale**2 - np.mean((y[rows:] - fresh) ** 2))
        spread.append(np.mean((y[rows:] - fresh) ** 2))
    mean, error = np.mean(differences), np.std(differences, ddof=1) / np.sqrt(10)
    assert abs(mean) <= 3 * error, (mean, error)
    assert error < 0.1 * np.mean(spread)
