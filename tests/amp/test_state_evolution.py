"""State evolution: one iteration by Monte Carlo, its limit against `solve`, several fixed points, derivatives."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import replicajax as rj
from replicajax.distributions import Discrete, Laplace
from replicajax.models import Order

BOOK = rj.uniform(2, 1.5)
TASK = rj.LinearRegression(2.0, 1.0, 0.1)


@pytest.mark.parametrize("beta", [5.0, np.inf])
def test_scalar_channel_by_sampling(beta):
    """Three iterations of h = L w0 + sqrt(chi_hat) z, a = <a>_h with 4e6 draws in numpy, Laplace teacher: 4 standard errors."""
    alpha, noise, signal, ridge = 1.5, 0.2, 0.8, 0.1
    task = rj.LinearRegression(alpha, signal, noise, ridge, Laplace())
    se = rj.state_evolution(task, BOOK, beta, 3)
    rng = np.random.default_rng(0)
    levels = np.asarray(BOOK.levels)
    for t in range(3):
        m, q, V = (float(x[t]) for x in (se.overlap, se.replica_overlap, se.susceptibility))
        w0, z = rng.laplace(scale=np.sqrt(signal / 2), size=4_000_000), rng.normal(size=4_000_000)
        L, R = alpha / (1 + V), signal - 2 * m + q + noise
        h = L * w0 + np.sqrt(alpha * R) / (1 + V) * z
        if np.isinf(beta):
            a = levels[np.searchsorted((L + ridge) * (levels[1:] + levels[:-1]) / 2, h)]
            response = None
        else:
            weights = [np.exp(beta * (h * x - (L + ridge) * x**2 / 2)) for x in levels]
            total = sum(weights)
            a = sum(p * x for p, x in zip(weights, levels, strict=True)) / total
            response = beta * (sum(p * x**2 for p, x in zip(weights, levels, strict=True)) / total - a**2)
        pairs = [(w0 * a, se.overlap), (a**2, se.replica_overlap), (response, se.susceptibility)]
        for values, predicted in pairs:
            if values is not None:
                z_score = (values.mean() - float(predicted[t + 1])) / (values.std() / 2000)
                assert abs(z_score) < 4


def test_limit_is_the_solution():
    """60 random tasks: wherever the fixed point is unique and stable, every limit is `solve`'s to 1e-9."""
    rng = np.random.default_rng(1)
    n = 60
    values = {
        "alpha": rng.uniform(0.3, 4, n),
        "signal": rng.uniform(0.3, 3, n),
        "noise": rng.uniform(0.01, 1, n),
        "width": rng.uniform(0.5, 3, n),
        "beta": np.exp(rng.uniform(-1, 3, n)),
    }

    tasks = [
        rj.LinearRegression(a, s, v, 0.02)
        for a, s, v in zip(*(values[k] for k in ("alpha", "signal", "noise")), strict=True)
    ]
    problems = list(zip(tasks, (rj.uniform(2, w) for w in values["width"]), values["beta"], strict=True))

    def many(results):
        return jax.tree.map(lambda *x: np.stack(x), *results)

    s, se = many(rj.solve(*p) for p in problems), many(rj.state_evolution(*p, 1) for p in problems)
    clear = np.asarray(se.unique & s.stable & s.converged)
    assert clear.sum() > 40
    for limit in (se.limit, se.hot, se.informed):
        assert limit.converged[clear].all()
        for found, exact in zip(limit.order, (s.overlap, s.replica_overlap, s.susceptibility), strict=True):
            np.testing.assert_allclose(found[clear], exact[clear], rtol=1e-9, atol=1e-9)
        np.testing.assert_allclose(limit.generalization_error[clear], s.generalization_error[clear], atol=1e-9)


def test_several_fixed_points_are_reported():
    """Binary teacher, binary weights, little noise: AMP from nothing stays far from the teacher, from the teacher near it."""
    book = rj.uniform(1, 1.0)
    task = rj.LinearRegression(0.55, None, 0.002, teacher=Discrete(book))
    se = rj.state_evolution(task, book, 500.0, 60)
    assert not se.unique
    assert se.limit.converged
    assert se.informed.converged
    assert se.limit.generalization_error > 0.2
    assert se.informed.generalization_error < 1e-3
    assert "SEVERAL FIXED POINTS" in str(se)
    informed = rj.state_evolution(task, book, 500.0, 60, start="informed")
    np.testing.assert_allclose(informed.limit.generalization_error, se.informed.generalization_error, atol=1e-12)
    assert informed.generalization_error[0] == 0
    assert "one fixed point" in str(rj.state_evolution(TASK, rj.uniform(1, 1.0), 0.5, 12))


@pytest.mark.slow
def test_trajectory_is_the_iterated_map_and_starts_anywhere():
    se = rj.state_evolution(TASK, BOOK, 5.0, 8)
    assert se.overlap.shape == (9,)
    np.testing.assert_allclose(se.generalization_error[0], 1.0)
    resumed = rj.state_evolution(
        TASK, BOOK, 5.0, 5, start=Order(se.overlap[3], se.replica_overlap[3], se.susceptibility[3])
    )
    np.testing.assert_allclose(resumed.generalization_error, se.generalization_error[3:], rtol=1e-12)
    np.testing.assert_allclose(se.test_error, se.generalization_error + 0.1)


@pytest.mark.slow
def test_derivatives():
    """Of an iterate and of the limit, in the width; the limit's agrees with `solve`'s."""

    def errors(width):
        se = rj.state_evolution(TASK, rj.uniform(2, width), 5.0, 8)
        return jnp.stack([se.generalization_error[4], se.limit.generalization_error])

    jacobian, values = jax.jit(jax.jacrev(errors)), jax.jit(errors)
    h = 1e-5
    np.testing.assert_allclose(jacobian(1.5), (values(1.5 + h) - values(1.5 - h)) / (2 * h), rtol=1e-7)
    np.testing.assert_allclose(jacobian(1.5)[1], -0.1007751457, rtol=1e-8)


def test_failure_is_reported():
    se = rj.state_evolution(TASK, BOOK, 5.0, 8, max_steps=5)
    assert not se.limit.converged
    assert not se.unique
    assert "NOT CONVERGED" in str(se)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"beta": 0.0}, "beta must be positive, got 0"),
        ({"beta": np.ones(2)}, "beta must be a single number"),
        ({"steps": 0}, "steps must be a whole number from 1"),
        ({"start": "cold"}, "start must be one of uninformed, informed, got 'cold'"),
        ({"start": Order(1.0, 0.5, 0.0)}, "start must have m² at most rho·q, got m = 1, q = 0.5"),
        ({"start": Order(0.0, -0.5, 0.0)}, "start.q must be finite and not negative"),
    ],
)
def test_bad_arguments(change, message):
    with pytest.raises(ValueError, match=message):
        rj.state_evolution(**{"task": TASK, "codebook": BOOK, "beta": 5.0, **change})
