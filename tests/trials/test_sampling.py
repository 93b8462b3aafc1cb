"""Samplers against theory: agreement where replica symmetry is stable, the discrepancy it must have where not (slow)."""

import jax.numpy as jnp
import numpy as np
import pytest

import replicajax as rj
from replicajax.distributions import Discrete, Laplace

STABLE = {
    "2 bits": (2.0, 0.1, 0.0, None, rj.uniform(2, 1.5), 5.0),
    "3 bits": (1.3, 0.05, 0.0, None, rj.uniform(3, 1.7), 12.0),
    "1 bit": (4.0, 0.5, 0.0, None, rj.uniform(1, 1.0), 1.5),
    "ternary with ridge": (0.5, 0.1, 0.1, None, rj.codebook([-1.2, 0.0, 1.2]), 4.0),
    "power levels": (3.0, 0.3, 0.0, None, rj.power(2, 2.0, 1.5), 3.0),
    "Laplace": (2.0, 0.1, 0.0, Laplace(), rj.uniform(2, 1.5), 5.0),
    "Bayes-optimal": (1.5, 0.3, 0.0, Discrete(rj.uniform(2, 1.5)), rj.uniform(2, 1.5), 1 / 0.3),
}
UNSTABLE = {
    "1 bit, wide": (2.0, 0.1, rj.uniform(1, 2.5), 1.0),
    "2 bits, wide": (2.0, 0.1, rj.uniform(2, 5.0), 5.0),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", STABLE)
def test_sampling_agrees_where_stable(name):
    """Energy and error of Gibbs samples at N = 800 within 4 standard errors plus 5/N of theory."""
    alpha, noise, ridge, teacher, book, beta = STABLE[name]
    task, size = rj.LinearRegression(alpha, None, noise, ridge, teacher), 800
    found = rj.compare(
        task, book, beta, size=size, instances=24, sampler="gibbs", sweeps=300, seed=sum(map(ord, name)), iterations=1
    )
    print(f"\n{name}\n{found}")
    assert found.solution.stable
    assert found.sampled.spreads.max() < 1.1
    for score in found.scores()[-2:]:
        assert abs(score.mean - score.theory) < 4 * score.standard_error + 5 / size * abs(score.theory), score


@pytest.mark.slow
@pytest.mark.parametrize("name", UNSTABLE)
def test_replica_symmetry_fails_where_unstable(name):
    """Replica exchange at N = 32 to 128, extrapolated in N^(−2/3): the true energy lies above the RS one, significantly."""
    alpha, noise, book, beta = UNSTABLE[name]
    task, sizes = rj.LinearRegression(alpha, 1.0, noise), [32, 64, 128]
    theory = rj.solve(task, book, jnp.asarray(beta))
    energies, errors = [], []
    for size in sizes:
        effort = {"instances": 40, "sampler": "tempering", "sweeps": 500, "temperatures": 12}
        found = rj.compare(task, book, beta, size=size, iterations=1, seed=7, **effort)
        *_, error, energy = found.scores()
        assert np.median(found.sampled.spreads) < 1.05
        energies.append((energy.mean, energy.standard_error))
        errors.append((error.mean, error.standard_error))
        print(f"{name}, N {size}: energy {energies[-1]}, eg {errors[-1]}, R-hat {np.median(found.sampled.spreads):.3f}")
    z = {}
    for label, values, rs in (
        ("energy", energies, theory.training_error),
        ("eg", errors, theory.generalization_error),
    ):
        mean, se = np.array(values).T
        A = np.stack([np.ones(3), np.array(sizes) ** (-2 / 3)], axis=1) / se[:, None]
        covariance = np.linalg.inv(A.T @ A)
        limit, deviation = (covariance @ A.T @ (mean / se))[0], np.sqrt(covariance[0, 0])
        z[label] = (limit - float(rs)) / deviation
        print(f"{name} {label}: RS {float(rs):.5f}, N → inf {limit:.5f} ± {deviation:.5f}, z {z[label]:.1f}")
    print(f"replicon {float(theory.replicon):.3f}, RS entropy {float(theory.entropy):.3f}")
    assert not theory.stable
    assert z["energy"] > 4
