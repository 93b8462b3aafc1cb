"""Message passing, its state evolution, samplers and sums for any loss."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import replicajax as rj

TASKS = {
    "logistic": (rj.Classification(3.0, 1.0, 0.2, loss=rj.losses.Logistic()), 2.0),
    "hinge": (rj.Classification(2.0, 1.0, 0.1, loss=rj.losses.Hinge()), 2.0),
    "huber": (rj.LinearRegression(3.0, 1.0, 0.3, loss=rj.losses.Huber(0.7)), 3.0),
}
BOOK = rj.uniform(2, 1.5)


def draw(task, size: int, seed: int):
    rng = np.random.default_rng(seed)
    rows = round(float(task.alpha) * size)
    X, w = rng.normal(size=(rows, size)) / np.sqrt(size), rng.normal(size=size)
    y = X @ w + np.sqrt(float(task.noise)) * rng.normal(size=rows)
    return X, np.sign(y) if isinstance(task, rj.Classification) else y, w


hinge_alone = pytest.mark.parametrize(
    "name", ["hinge", *(pytest.param(name, marks=pytest.mark.slow) for name in ("logistic", "huber"))]
)
"""In the fast suite: one loss, whose quadrature has a kink."""


@hinge_alone
def test_state_evolution_ends_at_the_saddle_point(name, programs):
    task, beta = TASKS[name]
    found, s = rj.state_evolution(task, BOOK, beta, steps=60), rj.solve(task, BOOK, beta)
    assert found.unique
    assert float(found.limit.generalization_error) == pytest.approx(float(s.generalization_error), abs=1e-11)
    assert float(found.generalization_error[-1]) == pytest.approx(float(s.generalization_error), abs=1e-9)
    assert float(found.generalization_error[0]) == pytest.approx(0.5 if name != "huber" else 1.0)
    with programs() as compiled:
        rj.state_evolution(task, BOOK, beta / 2, steps=60)
    assert not compiled()


def instance(task, beta, size: int, seed: int, steps: int):
    X, y, w = draw(task, size, seed)
    found = rj.amp(X, y, BOOK, beta, loss=task.loss, steps=steps, tolerance=0.0, teacher=w)
    log = found.trajectory
    return np.stack([log.overlap, log.self_overlap, log.susceptibility, log.test_error])


def on_state_evolution(name: str, size: int, instances: int, steps: int = 10):
    """z-scores of overlap, |a|²/N and V at each iteration, and of the estimated test error after the first."""
    task, beta = TASKS[name]
    se = rj.state_evolution(task, BOOK, beta, steps=steps)
    theory = np.stack([se.overlap, se.replica_overlap, se.susceptibility, se.test_error])[:, 1:]
    every = np.stack([instance(task, beta, size, seed, steps) for seed in range(instances)])[..., 1:]
    mean, error = every.mean(0), every.std(0, ddof=1) / np.sqrt(instances)
    return (mean - theory) / error, error / theory


@hinge_alone
def test_amp_is_on_state_evolution(name):
    z, error = on_state_evolution(name, 500, 8)
    assert np.abs(z).max() < 4  # the largest of 40
    assert error.max() < 0.03


@pytest.mark.slow
@pytest.mark.parametrize("name", ["logistic", "hinge"])
def test_amp_is_on_state_evolution_at_size(name):
    z, error = on_state_evolution(name, 4000, 20)
    print(np.round(z, 2))
    assert np.abs(z).max() < 4
    assert error.max() < 0.01


def test_estimated_errors_are_those_of_fresh_rows():
    task, beta = TASKS["hinge"]
    X, y, w = draw(task, 1000, 0)
    found = rj.amp(X, y, BOOK, beta, loss=task.loss)
    assert found.converged
    fresh = np.random.default_rng(1).normal(size=(20000, 1000)) / np.sqrt(1000)
    labels = np.sign(fresh @ w + np.sqrt(0.1) * np.random.default_rng(2).normal(size=20000))
    for estimate, weights in ((found.test_error, found.weights), (found.rounded_test_error, found.quantized)):
        assert float(estimate) == pytest.approx(np.mean(labels * (fresh @ np.asarray(weights)) < 0), abs=0.03)


@pytest.mark.parametrize("name", ["hinge", pytest.param("logistic", marks=pytest.mark.slow)])
def test_gibbs_samples_what_sums_say(name):
    """8 weights: every codeword by a sum in numpy, by `exhaustive`, and sampled."""
    task, beta = TASKS[name]
    X, y, _ = draw(task, 8, 1)
    levels = np.asarray(BOOK.levels)
    words = levels[np.stack(np.meshgrid(*[range(4)] * 8, indexing="ij"), -1).reshape(-1, 8)]
    margins = y * (words @ X.T)
    losses = np.logaddexp(0, -margins) if name == "logistic" else np.maximum(0, 1 - margins)
    height = losses.sum(1) + 0.3 * (words**2).sum(1) / 2
    p = np.exp(-beta * (height - height.min()))
    p /= p.sum()
    exact = rj.exhaustive(X, y, BOOK, beta, ridge=0.3, loss=task.loss)
    np.testing.assert_allclose(exact.weights, p @ words, atol=1e-10)
    assert float(exact.energy) == pytest.approx(p @ height / 8, rel=1e-10)
    sample = rj.gibbs(X, y, BOOK, beta, ridge=0.3, loss=task.loss, sweeps=4000, chains=8)
    error = np.asarray(sample.chain_weights).std(0, ddof=1) / np.sqrt(8)
    assert (np.abs(sample.weights - exact.weights) / error).max() < 4.5
    assert float(sample.energy) == pytest.approx(float(exact.energy), rel=0.02)
    tempered = rj.parallel_tempering(X, y, BOOK, beta, ridge=0.3, loss=task.loss, temperatures=4, sweeps=1000)
    assert float(tempered.energy[-1]) == pytest.approx(float(exact.energy), rel=0.03)
    assert float(tempered.lowest_energy) == pytest.approx(float(exact.ground_energy), rel=1e-9)


def test_square_loss_given_as_such_is_the_default():
    task = rj.LinearRegression(2.0, 1.0, 0.1)
    X, y, _ = draw(task, 60, 0)
    one, other = (rj.amp(X, y, BOOK, 2.0, loss=loss) for loss in (None, rj.losses.Square()))
    np.testing.assert_array_equal(one.weights, other.weights)
    huber = rj.amp(X, y, BOOK, 2.0, loss=rj.losses.Huber(1000.0))
    np.testing.assert_allclose(one.weights, huber.weights, atol=1e-7)


@pytest.mark.parametrize("call", [rj.amp, rj.gibbs, rj.exhaustive])
def test_labels_that_a_loss_does_not_know(call):
    X = np.random.default_rng(0).normal(size=(16, 4)) / 2
    with pytest.raises(ValueError, match="y must be labels ±1 for logistic loss"):
        call(X, np.arange(16.0) % 2, rj.uniform(1, 1.0), 1.0, loss=rj.losses.Logistic())
    with pytest.raises(TypeError, match="loss must be a Loss such as"):
        call(X, np.ones(16), rj.uniform(1, 1.0), 1.0, loss="logistic")


def test_cold_message_passing_is_refused():
    X = np.random.default_rng(0).normal(size=(16, 4)) / 2
    with pytest.raises(
        ValueError, match=r"beta must be finite for perceptron loss \(margin 0\), which knows no other, got inf"
    ):
        rj.amp(X, jnp.ones(16), rj.uniform(1, 1.0), jnp.inf, loss=rj.losses.Perceptron())


def test_temperatures_by_vmap():
    task, _ = TASKS["hinge"]
    X, y, _ = draw(task, 100, 0)

    def weights(beta):
        return rj.amp(X, y, BOOK, beta, loss=task.loss).weights

    betas = jnp.array([0.5, 1.5])
    for beta, found in zip(betas, jax.vmap(weights)(betas), strict=True):
        np.testing.assert_allclose(found, weights(beta), atol=1e-6)
