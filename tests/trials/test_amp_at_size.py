"""AMP at N = 4000 against state evolution, iteration by iteration, across the stable phase (slow)."""

import jax.numpy as jnp
import pytest

import replicajax as rj
from replicajax.distributions import Discrete, GaussBernoulli, Laplace, StudentT

SIZE, INSTANCES = 4000, 20
TERNARY = rj.codebook([-1.2, 0.0, 1.2])
# alpha, noise, ridge, teacher, codebook, beta, design
POINTS = {
    "2 bits": (2.0, 0.1, 0.0, None, rj.uniform(2, 1.5), 5.0, "gaussian"),
    "3 bits": (1.3, 0.05, 0.0, None, rj.uniform(3, 1.7), 12.0, "gaussian"),
    "1 bit, few rows": (0.7, 0.2, 0.0, None, rj.uniform(1, 0.8), 2.0, "gaussian"),
    "1 bit, many rows": (4.0, 0.5, 0.0, None, rj.uniform(1, 1.0), 1.5, "gaussian"),
    "8 bits at the peak": (1.0, 0.1, 0.0, None, rj.uniform(8, 3.0), 20.0, "gaussian"),
    "power levels": (3.0, 0.3, 0.0, None, rj.power(2, 2.0, 1.5), 3.0, "gaussian"),
    "ternary with ridge": (0.5, 0.1, 0.1, None, TERNARY, 4.0, "gaussian"),
    "4 bits, cold": (2.0, 0.1, 0.0, None, rj.uniform(4, 2.5), 40.0, "gaussian"),
    "Laplace": (2.0, 0.1, 0.0, Laplace(), rj.uniform(2, 1.5), 5.0, "gaussian"),
    "Student-t": (1.5, 0.2, 0.0, StudentT(5.0), rj.uniform(3, 2.5), 6.0, "gaussian"),
    "Gauss-Bernoulli": (1.5, 0.1, 0.0, GaussBernoulli(0.3), TERNARY, 4.0, "gaussian"),
    "Bayes-optimal": (1.5, 0.3, 0.0, Discrete(rj.uniform(2, 1.5)), rj.uniform(2, 1.5), 1 / 0.3, "gaussian"),
    "Rademacher": (2.0, 0.1, 0.0, None, rj.uniform(2, 1.5), 5.0, "rademacher"),
    "unit rows": (2.0, 0.1, 0.0, None, rj.uniform(2, 1.5), 5.0, "normalized"),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", POINTS)
def test_each_iteration(name):
    """Each of 10 iterations, and the end, within 4 standard errors plus 5/N; own estimate within 3 % of the truth."""
    alpha, noise, ridge, teacher, book, beta, design = POINTS[name]
    task = rj.LinearRegression(alpha, None, noise, ridge, teacher)
    found = rj.compare(
        task, book, beta, size=SIZE, instances=INSTANCES, design=design, dtype=jnp.float32, seed=sum(map(ord, name))
    )
    print(f"\n{name}\n{found}")
    assert found.solution.stable
    assert found.state_evolution.unique
    # With 8 bits at the peak single instances oscillate, a finite-size effect (see `amp`); the others are compared.
    assert found.amp.converged.mean() >= (0.5 if name == "8 bits at the peak" else 1)
    for score in found.scores():
        assert abs(score.mean - score.theory) < 4 * score.standard_error + 5 / SIZE * score.theory, score
    assert abs(float(found.estimate_ratio.mean()) - 1) < 0.03
