"""The sampler against exhaustive enumeration of every codeword, in plain numpy."""

from itertools import product

import jax
import numpy as np
import pytest

import replicajax as rj


@pytest.mark.parametrize(("levels", "N", "ridge"), [([-1.0, 1.0], 10, 0.0), ([-1.2, 0.1, 0.9], 7, 0.3)])
def test_against_enumeration(levels, N, ridge):
    rng = np.random.default_rng(1)
    X = rng.normal(size=(2 * N, N)) / np.sqrt(N)
    y = X @ rng.normal(size=N) + 0.3 * rng.normal(size=2 * N)
    beta = 2.0
    words = np.array(list(product(levels, repeat=N)))
    H = ((y - words @ X.T) ** 2).sum(1) / 2 + ridge * (words**2).sum(1) / 2
    p = np.exp(-beta * (H - H.min()))
    p /= p.sum()

    sample = rj.gibbs(X, y, rj.codebook(levels), beta, ridge=ridge, sweeps=4000, chains=16, key=jax.random.key(3))
    error = np.asarray(sample.chain_weights).std(0, ddof=1) / 4
    z = (np.asarray(sample.weights) - p @ words) / error
    assert np.abs(z).max() < 5, z
    energy_error = np.asarray(sample.chain_energy).std(ddof=1) / 4
    assert abs(float(sample.energy) - p @ H / N) < 5 * energy_error
    assert sample.energy_spread < 1.01
    assert np.isin(np.asarray(sample.final), levels).all()


@pytest.mark.optimized
def test_agrees_with_the_theory():
    """N = 300 in the stable phase: energy and mean error of 6 instances within 4 standard errors plus 2/N."""
    N, alpha, noise, beta = 300, 2.0, 0.1, 5.0
    book = rj.uniform(2, 1.5)
    rng = np.random.default_rng(2)
    errors, energies = [], []
    for i in range(6):
        X = rng.normal(size=(int(alpha * N), N)) / np.sqrt(N)
        w0 = rng.normal(size=N)
        y = X @ w0 + np.sqrt(noise) * rng.normal(size=len(X))
        s = rj.gibbs(X, y, book, beta, sweeps=150, annealing=60, key=jax.random.key(i))
        errors.append(np.mean((s.weights - w0) ** 2))
        energies.append(float(s.energy))
    theory = rj.solve(rj.LinearRegression(alpha, 1.0, noise), book, beta)
    for name, values, value in (
        ("eg", errors, theory.generalization_error),
        ("energy", energies, theory.training_error),
    ):
        scatter = np.std(values, ddof=1) / np.sqrt(len(values))
        z = (np.mean(values) - float(value)) / scatter
        assert abs(np.mean(values) - float(value)) < 4 * scatter + 2 / N * float(value), f"{name}: z = {z:.2f}"


@pytest.mark.slow
def test_batches_over_instances():
    """One row of a vmapped batch is what it would be alone."""
    instances = [rj.draw(rj.LinearRegression(2.0, 1.0, 0.1), 12, jax.random.key(i)) for i in range(2)]
    Xs, ys = np.stack([i.X for i in instances]), np.stack([i.y for i in instances])
    keys = jax.random.split(jax.random.key(5), 2)

    def sample(X, y, key):
        return rj.gibbs(X, y, rj.uniform(2, 1.5), 5.0, sweeps=20, key=key)

    batch, alone = jax.vmap(sample)(Xs, ys, keys), sample(Xs[1], ys[1], keys[1])
    np.testing.assert_allclose(batch.weights[1], alone.weights, atol=1e-12)
    assert "of shape (2,)" in str(batch)
    assert "R-hat" in str(alone)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"y": np.zeros(3)}, r"y must have shape \(4,\), one entry per row of X, got shape \(3,\)"),
        ({"X": np.full((4, 2), np.nan)}, "X must not be NaN"),
        ({"beta": np.inf}, "beta must be positive and finite, got inf"),
        ({"beta": 0.0}, "beta must be positive and finite, got 0.0"),
        ({"sweeps": 0}, "sweeps must be a whole number from 1"),
        ({"chains": 1}, "chains must be a whole number from 2"),
    ],
)
def test_bad_arguments(change, message):
    arguments = {"X": np.eye(4)[:, :2], "y": np.zeros(4), "codebook": rj.uniform(1, 1.0), "beta": 1.0, **change}
    with pytest.raises(ValueError, match=message):
        rj.gibbs(**arguments)


def test_trapped_chains_are_said():
    """Six equal columns: only the sum of the weights matters, and a single flip changes it: chains freeze apart."""
    X, y, book = np.ones((12, 6)), np.zeros(12), rj.codebook([-1.0, 1.0])
    trapped = rj.gibbs(X, y, book, 5.0)
    exact = rj.exhaustive(X, y, book, 5.0)
    assert np.abs(trapped.weights - exact.weights).max() > 0.2
    assert trapped.energy_spread < 1.1
    assert not trapped.mixed
    assert "CHAINS DISAGREE" in str(trapped)
    fine = rj.gibbs(X, y, book, 0.05)
    assert fine.mixed
    assert "DISAGREE" not in str(fine)
    frozen = rj.gibbs(np.eye(6), np.ones(6), book, 50.0)
    assert frozen.mixed
