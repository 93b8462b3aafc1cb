"""Exhaustive sums against plain numpy, and replica exchange against them."""

from itertools import product

import jax
import numpy as np
import pytest

import replicajax as rj

BOOK = rj.codebook([-1.2, 0.1, 0.9])


@pytest.fixture(scope="module")
def instance():
    return rj.draw(rj.LinearRegression(1.5, 1.0, 0.1), 7, jax.random.key(1))


def test_against_numpy(instance):
    X, y, _ = (np.asarray(x) for x in instance)
    words = np.array(list(product(BOOK.levels.tolist(), repeat=7)))
    H = ((y - words @ X.T) ** 2).sum(1) / 2 + 0.3 * (words**2).sum(1) / 2
    beta = 4.0
    p = np.exp(-beta * H)
    Z, p = p.sum(), p / p.sum()
    found = rj.exhaustive(X, y, BOOK, beta, ridge=0.3)
    np.testing.assert_allclose(found.weights, p @ words, rtol=1e-10)
    np.testing.assert_allclose(found.energy, p @ H / 7, rtol=1e-12)
    np.testing.assert_allclose(found.self_overlap, p @ (words**2).mean(1), rtol=1e-12)
    np.testing.assert_allclose(found.free_energy, -np.log(Z) / beta / 7, rtol=1e-12)
    np.testing.assert_allclose(found.entropy, -(p @ np.log(p)) / 7, rtol=1e-10)
    np.testing.assert_allclose(found.ground_state, words[np.argmin(H)])
    np.testing.assert_allclose(found.ground_energy, H.min() / 7, rtol=1e-12)


def test_replica_exchange_at_every_temperature(instance):
    """Cold (beta 40): each rung's energy within 5 standard errors over chains, and the ground state found."""
    X, y, _ = instance
    found = rj.parallel_tempering(X, y, BOOK, 40.0, ridge=0.3, temperatures=5, sweeps=3000, burn_in=500, chains=12)
    np.testing.assert_allclose(found.betas[0], 2.0)
    assert found.betas[-1] == 40.0
    assert (np.diff(found.betas) > 0).all()
    scatter = np.asarray(found.chain_energy).std(0, ddof=1) / np.sqrt(12)
    for i, beta in enumerate(found.betas):
        exact = rj.exhaustive(X, y, BOOK, beta, ridge=0.3)
        assert abs(float(found.energy[i] - exact.energy)) < 5 * scatter[i]
        assert np.abs(np.asarray(found.weights[i] - exact.weights)).max() < 0.03
    np.testing.assert_allclose(found.lowest, exact.ground_state)
    np.testing.assert_allclose(found.lowest_energy, exact.ground_energy, rtol=1e-12)
    assert (found.swap_rate > 0.2).all()
    assert np.ptp(found.swap_rate) < 0.15  # the ladder evens them out
    assert found.energy_spread.max() < 1.05
    assert "R-hat" in str(found)


def test_refusals(instance):
    X, y, _ = instance
    with pytest.raises(ValueError, match=r"3 levels and 14 columns make 3\^14 codewords, the most is 2\^20"):
        rj.exhaustive(np.ones((3, 14)), np.ones(3), BOOK, 1.0)
    with pytest.raises(ValueError, match="hottest must be below beta = 1 "):
        rj.parallel_tempering(X, y, BOOK, 1.0, hottest=1.0)
    with pytest.raises(ValueError, match="temperatures must be a whole number from 2"):
        rj.parallel_tempering(X, y, BOOK, 1.0, temperatures=1)
    with pytest.raises(ValueError, match="beta must be positive and finite, got inf"):
        rj.parallel_tempering(X, y, BOOK, np.inf)
