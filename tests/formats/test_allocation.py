"""Bits and Fisher information: against brute force, an independent optimiser, and closed forms."""

import itertools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import minimize

import replicajax as rj

f = rj.formats
RNG = np.random.default_rng(4)


def instance(tensors):
    return RNG.integers(100, 10000, tensors), np.exp(RNG.normal(size=tensors)), np.exp(2 * RNG.normal(size=tensors))


def test_closed_form_without_clamps():
    n, rms, fisher = instance(6)
    bits = f.allocate_bits(n, rms, fisher, 8.0, 0.01, 30.0)
    np.testing.assert_allclose(n @ bits / n.sum(), 8.0, rtol=1e-13)
    np.testing.assert_allclose(np.diff(bits - np.log2(rms) - np.log2(fisher) / 2), 0, atol=1e-12)


def test_water_filling_against_an_optimiser():
    """SLSQP on the divergence itself, where clamps bind on both sides."""
    for _ in range(5):
        n, rms, fisher = instance(7)
        bits = np.asarray(f.allocate_bits(n, rms, fisher, 3.0, 2.0, 4.5))
        assert ((bits == 2.0) | (bits == 4.5)).any()
        np.testing.assert_allclose(n @ bits / n.sum(), 3.0, rtol=1e-13)
        weight = n * fisher * rms**2 / (n * fisher * rms**2).sum()
        found = minimize(
            lambda b, w=weight: np.log(w @ 4.0**-b),
            np.full(7, 3.0),
            method="SLSQP",
            bounds=[(2.0, 4.5)] * 7,
            constraints={"type": "eq", "fun": lambda b, n=n: n @ b / n.sum() - 3.0},
            options={"ftol": 1e-14, "maxiter": 500},
        )
        np.testing.assert_allclose(np.log(weight @ 4.0**-bits), found.fun, atol=1e-7)


def test_whole_bits_by_brute_force():
    for _ in range(5):
        n, rms, fisher = instance(5)
        bits = np.asarray(f.allocate_bits(n, rms, fisher, 3.2, 1, 6, whole=True))
        assert n @ bits <= 3.2 * n.sum()
        cost = min(
            (n * fisher * rms**2) @ 4.0 ** -np.array(b)
            for b in itertools.product(range(1, 7), repeat=5)
            if n @ np.array(b) <= 3.2 * n.sum()
        )
        np.testing.assert_allclose((n * fisher * rms**2) @ 4.0**-bits, cost, rtol=1e-9)


def test_extremes_and_gradient():
    n = np.array([100, 200, 300])
    # What has no RMS or no Fisher information gets the minimum; the third the rest, (2400 − 300)/300.
    np.testing.assert_allclose(f.allocate_bits(n, [0.0, 1.0, 1.0], [1.0, 0.0, 1.0], 4.0), [1.0, 1.0, 7.0])
    np.testing.assert_allclose(f.allocate_bits(n, [1.0, 2.0, 3.0], None, 8.0), 8.0)
    np.testing.assert_allclose(f.allocate_bits(n, [1.0, 2.0, 3.0], None, 1.0), 1.0)
    gradient = jax.jacobian(lambda r: f.allocate_bits(n, r, None, 4.0))(jnp.array([1.0, 2.0, 3.0]))
    step = 1e-6
    difference = (f.allocate_bits(n, [1.0 + step, 2.0, 3.0]) - f.allocate_bits(n, [1.0 - step, 2.0, 3.0])) / (2 * step)
    np.testing.assert_allclose(gradient[:, 0], difference, rtol=1e-7)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"counts": [0, 1]}, "counts must be positive"),
        ({"rms": [1.0]}, r"rms must have shape \(2,\)"),
        ({"rms": [-1.0, 1.0]}, "rms must be finite and not negative"),
        ({"fisher": [np.nan, 1.0]}, "fisher must not be NaN"),
        ({"mean_bits": 9.0}, "mean_bits must lie between minimum and maximum"),
        ({"minimum": 5.0, "maximum": 4.0}, "mean_bits must lie between"),
        ({"counts": [], "rms": []}, "counts must be a vector"),
        ({"minimum": 3.2, "mean_bits": 3.5, "whole": True}, "no whole number of bits"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        f.allocate_bits(**({"counts": [1, 2], "rms": [1.0, 1.0]} | arguments))


class Softmax(eqx.Module):
    weight: jax.Array
    name: str = "a leaf that is no array"


def test_fisher_of_logistic_regression(programs):
    """F of weight W_cj is E_x p_c (1 − p_c) x_j²; exactly, and by drawing labels."""
    x = jax.random.normal(jax.random.key(0), (500, 3))
    model = Softmax(jax.random.normal(jax.random.key(1), (4, 3)))

    def logits(model, x):
        return model.weight @ x

    p = jax.nn.softmax(x @ model.weight.T)
    want = jnp.einsum("nc,nj->cj", p * (1 - p), x**2) / 500
    exact = f.fisher_diagonal(logits, model, x, batch=64)
    np.testing.assert_allclose(exact.weight, want, rtol=1e-10)
    with programs() as compiled:
        f.fisher_diagonal(logits, Softmax(2 * model.weight), x, batch=64)
    assert compiled() <= 1  # 2 times the weights
    drawn = f.fisher_diagonal(logits, model, x, key=jax.random.key(2), draws=200, batch=100)
    np.testing.assert_allclose(drawn.weight, want, rtol=0.1)


def test_predicted_divergence_is_the_second_derivative():
    """Small changes of the weights: KL → ½ d' F d; with one weight changed F is its diagonal."""
    x = jax.random.normal(jax.random.key(0), (200, 3))
    model = Softmax(jax.random.normal(jax.random.key(1), (4, 3)))
    logits = lambda model, x: model.weight @ x  # noqa: E731
    fisher = f.fisher_diagonal(logits, model, x)
    other = eqx.tree_at(lambda m: m.weight, model, model.weight.at[1, 2].add(1e-4))
    measured = f.divergence(x @ model.weight.T, x @ other.weight.T)
    np.testing.assert_allclose(f.predicted_divergence(fisher, model, other), measured, rtol=1e-3)


def test_several_predictions_need_a_key():
    with pytest.raises(ValueError, match="key must be given"):
        f.fisher_diagonal(lambda w, x: w * x, jnp.ones(3), jnp.ones((5, 2, 3)))
    with pytest.raises(ValueError, match="at least one example"):
        f.fisher_diagonal(lambda w, x: w * x, jnp.ones(3), jnp.ones((0, 3)))
