"""Measured against predicted: simulated rows that fit the theory, and real ones in rotated axes."""

import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.datasets import load_digits

import replicajax as rj
from replicajax.trials import measure_widths


def test_prediction_on_digits():
    """Best width to one grid step, and the error itself to 6 %, at 2 bits."""
    X, y = load_digits(return_X_y=True)
    y = (y - y.mean()) / y.std()
    found = rj.LinearRegression.from_data(X, y)
    task = rj.LinearRegression(3.0, found.signal, found.noise)
    beta, unit = 1 / task.noise, float(jnp.sqrt(task.signal))
    widths = np.array([0.5, 1.0, 1.5, 2.0, 3.0])
    held_out = measure_widths(X, y, 2, widths * unit, beta, alpha=3.0, splits=6, sweeps=200)
    predicted = np.array([float(rj.solve(task, rj.uniform(2, w * unit), beta).test_error) for w in widths])
    assert widths[predicted.argmin()] == 1.5
    assert abs(int(np.argmin(held_out.error)) - int(predicted.argmin())) <= 1
    near = slice(0, 4)
    np.testing.assert_allclose(held_out.error[near], predicted[near], rtol=0.06, atol=4 * held_out.standard_error.max())


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"alpha": 20.0}, "alpha must leave at least 8 of the 60 rows to test on, got alpha 20"),
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
