"""The harness at small size: its numbers are those of the parts, its table has every row."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import replicajax as rj
from replicajax.distributions import GaussBernoulli

BOOK = rj.uniform(2, 1.5)
TASK = rj.LinearRegression(2.0, 1.0, 0.1, teacher=GaussBernoulli(0.5))


@pytest.fixture(scope="module")
def found():
    return rj.compare(TASK, BOOK, 5.0, size=400, instances=12, sampler="gibbs", sweeps=60, design="rademacher", seed=2)


@pytest.mark.optimized
def test_within_error_bars(found):
    """Another teacher and another design: theory holds at every iteration (4 standard errors plus 5/N)."""
    scores = found.scores()
    assert len(scores) == 11 + 5 + 2
    for s in scores:
        assert abs(s.mean - s.theory) < 4 * s.standard_error + 5 / 400 * s.theory, s
    # Sampling and message passing see the same instances: their errors agree far better than either with theory.
    np.testing.assert_allclose(found.sampled.errors, found.amp.errors[:, -1], rtol=0.1)


def test_reproducible_from_the_parts(found):
    key, _ = jax.random.split(jax.random.fold_in(jax.random.key(2), 3))
    X, y, w0 = rj.draw(TASK, 400, key, design="rademacher")
    alone = rj.amp(X, y, BOOK, 5.0)
    np.testing.assert_allclose(found.amp.errors[3, -1], jnp.mean((alone.weights - w0) ** 2), rtol=1e-6)
    assert found.amp.converged.all()


def test_table(found):
    text = str(found)
    for part in (
        "12 instances of 400 weights, rademacher design; AMP converged on 12",
        "sampled energy",
        "R-hat",
        "stable",
    ):
        assert part in text


def test_refusals():
    with pytest.raises(ValueError, match="sampler must be one of none, gibbs, tempering, got 'metropolis'"):
        rj.compare(TASK, BOOK, 5.0, sampler="metropolis")
    with pytest.raises(ValueError, match="beta must be positive and finite, got inf"):
        rj.compare(TASK, BOOK, np.inf, sampler="gibbs")
    with pytest.raises(ValueError, match="instances must be a whole number from 2"):
        rj.compare(TASK, BOOK, 5.0, instances=1)
