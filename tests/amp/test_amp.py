"""AMP against a line-by-line transcription in numpy, its variants, and what it refuses."""

import jax
import jax.numpy as jnp
import lineax as lx
import numpy as np
import pytest
from scipy.stats import norm

import replicajax as rj
from replicajax.amp._amp import round_off

BOOK = rj.uniform(2, 1.5)
TASK = rj.LinearRegression(2.0, 1.0, 0.1, 0.05)


@pytest.fixture(scope="module")
def instance():
    return rj.draw(TASK, 300, jax.random.key(4))


def transcript(X, y, levels, beta, ridge, w0, steps, damping=0.0):
    """Theory section 2, as it stands there; returns (|w0 − a|²/N, mean (y − omega)², V, |a|²/N) of each iteration."""
    X, y, levels, w0 = (np.asarray(x) for x in (X, y, levels, w0))
    a, V, g, log = np.zeros(X.shape[1]), 1.0, 0.0, []
    for _ in range(steps + 1):
        omega = X @ a - V * g
        log.append((np.mean((w0 - a) ** 2), np.mean((y - omega) ** 2), V, np.mean(a**2)))
        g, A = (y - omega) / (1 + V), len(y) / len(a) / (1 + V)
        h = X.T @ g + A * a
        p = np.exp(beta * (h[:, None] * levels - (A + ridge) * levels**2 / 2))
        p /= p.sum(1, keepdims=True)
        mean = p @ levels
        response = beta * np.mean(p @ levels**2 - mean**2)
        a, V = damping * a + (1 - damping) * mean, damping * V + (1 - damping) * response
    return np.array(log).T


@pytest.mark.parametrize(("beta", "damping"), [(5.0, 0.0), (2.0, 0.3)])
def test_against_transcript(instance, beta, damping):
    X, y, w0 = instance
    found = rj.amp(X, y, BOOK, beta, ridge=0.05, steps=15, tolerance=0.0, damping=damping, teacher=w0)
    t = found.trajectory
    got = [t.generalization_error, t.test_error, t.susceptibility, t.self_overlap]
    np.testing.assert_allclose(got, transcript(X, y, BOOK.levels, beta, 0.05, w0, 15, damping), rtol=1e-9)
    assert found.steps == 15
    np.testing.assert_allclose(t.overlap[-1], jnp.mean(w0 * found.weights), rtol=1e-12)
    np.testing.assert_allclose(t.test_error[-1], found.test_error)


def test_zero_temperature_rounds(instance):
    """First iteration by hand: h = Xᵀ y / 2, A = 1, each weight the level nearest to h / (A + ridge)."""
    X, y, w0 = instance
    found = rj.amp(X, y, BOOK, jnp.inf, ridge=0.05, steps=1, teacher=w0)
    h = np.asarray(X.T @ y / 2)
    nearest = np.argmin(np.abs(h[:, None] / 1.05 - np.asarray(BOOK.levels)), axis=1)
    np.testing.assert_array_equal(found.codes, nearest)
    np.testing.assert_array_equal(found.weights, BOOK.levels[nearest])


@pytest.mark.parametrize("atoms", [[0.0], [-1.5, -0.5, 0.5, 1.5], [0.0, 0.0, 2.5]])
def test_mean_slope_of_the_staircase(atoms):
    """sum_k D_k p(t_k) from samples of a Gaussian mixture whose density is known: bias within 1 %, scatter within 2 %."""
    noise, slopes, atoms = 0.4, [], np.array(atoms)
    rng = np.random.default_rng(0)
    for _ in range(12):
        h = rng.choice(atoms, 20_000) + noise * rng.normal(size=20_000)
        slopes.append(float(round_off(jnp.asarray(h), noise**2, jnp.array(1.1), BOOK.levels)[2]))
    exact = sum(norm.pdf(1.1 * t, loc=atoms, scale=noise).mean() for t in (-1.0, 0.0, 1.0))
    assert abs(np.mean(slopes) / exact - 1) < 0.01
    assert np.std(slopes) / exact < 0.02


def test_fixed_point_and_status(instance):
    """At convergence one more iteration changes nothing; entries after the end repeat it; too few steps are reported."""
    X, y, w0 = instance
    found = rj.amp(X, y, BOOK, 5.0, ridge=0.05, teacher=w0)
    assert found.converged
    assert 5 < found.steps < 200
    assert "converged after" in str(found)
    t = found.trajectory
    assert (t.test_error[int(found.steps) :] == found.test_error).all()
    long = transcript(X, y, BOOK.levels, 5.0, 0.05, w0, 200)
    np.testing.assert_allclose(t.generalization_error[-1], long[0, -1], rtol=1e-6)
    short = rj.amp(X, y, BOOK, 5.0, steps=3)
    assert not short.converged
    assert "NOT CONVERGED after 3 iterations" in str(short)
    assert jnp.isnan(short.trajectory.overlap).all()


def test_codes_and_rounded_error(instance):
    """`quantized` holds only levels, the nearest to h/(A + ridge); its estimated error is that of fresh rows."""
    X, y, w0 = instance
    found = rj.amp(X, y, BOOK, 5.0, ridge=0.05)
    np.testing.assert_array_equal(found.quantized, BOOK.levels[found.codes])
    truth = float(jnp.mean((found.quantized - w0) ** 2)) + 0.1
    assert abs(float(found.rounded_test_error) / truth - 1) < 4 * np.sqrt(2 / 600 + 2 / 300)
    hard = rj.amp(X, y, BOOK, jnp.inf, ridge=0.05, steps=4)
    np.testing.assert_array_equal(hard.weights, hard.quantized)
    np.testing.assert_allclose(hard.test_error, hard.rounded_test_error)


def test_linear_operator(instance):
    """Matrix-free: a function for X w, its transpose by linear transposition."""
    X, y, _ = instance
    operator = lx.FunctionLinearOperator(lambda w: X @ w, jax.ShapeDtypeStruct((300,), X.dtype))
    free, dense = (rj.amp(A, y, BOOK, 5.0, steps=12) for A in (operator, X))
    np.testing.assert_allclose(free.weights, dense.weights, rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(free.test_error, dense.test_error, rtol=1e-10)
    with pytest.raises(ValueError, match="row_norms must be False for a linear operator"):
        rj.amp(operator, y, BOOK, 5.0, row_norms=True)


def test_batches_over_instances_codebooks_and_temperatures(instance):
    """One row of a batch is what it would be alone, also when its neighbour needs more iterations."""
    X, y, _ = instance
    books = jax.vmap(lambda w: rj.uniform(2, w))(jnp.array([1.0, 1.5]))
    over_books = jax.vmap(lambda book: rj.amp(X, y, book, 5.0))(books)
    betas = jnp.array([0.5, 5.0])
    Xs, ys = jnp.stack([X, X[::-1, ::-1]]), jnp.stack([y, 2 * y])
    both = jax.vmap(lambda X, y, b: rj.amp(X, y, BOOK, b))(Xs, ys, betas)
    alone = rj.amp(X, y, BOOK, 5.0)
    np.testing.assert_allclose(over_books.weights[1], alone.weights, atol=1e-12)
    for i in range(2):
        one = rj.amp(Xs[i], ys[i], BOOK, betas[i])
        assert both.steps[i] == one.steps
        np.testing.assert_allclose(both.weights[i], one.weights, atol=1e-12)
        np.testing.assert_allclose(both.trajectory.test_error[i], one.trajectory.test_error, rtol=1e-10)
    assert both.steps[0] != both.steps[1]
    assert "2 of 2 converged" in str(both)


@pytest.mark.slow
def test_rows_of_unequal_length():
    """Lengths spread by a factor of 6: with `row_norms` AMP agrees with Gibbs sampling and estimates its error, else not."""
    w0 = jax.random.normal(jax.random.key(1), (400,))
    X = rj.draw(TASK, 400, jax.random.key(4)).X
    length = jnp.exp(jax.random.normal(jax.random.key(2), (800,)) * 0.9)
    X = X * jnp.sqrt(length / length.mean())[:, None]
    y = X @ w0 + jnp.sqrt(0.1) * jax.random.normal(jax.random.key(3), (800,))
    found = rj.amp(X, y, BOOK, 5.0, row_norms=True)
    sampled = rj.gibbs(X, y, BOOK, 5.0, sweeps=400)
    assert found.converged
    assert found.replicon > 0.2
    error, truth = (float(jnp.mean((w - w0) ** 2)) for w in (found.weights, sampled.weights))
    assert abs(error / truth - 1) < 0.05
    assert abs(float(found.test_error) / (error + 0.1) - 1) < 0.15
    plain = rj.amp(X, y, BOOK, 5.0, teacher=w0)
    assert not (plain.converged and plain.trajectory.generalization_error[-1] < 1.2 * truth)


@pytest.mark.slow
def test_replicon_of_the_data(instance):
    """Positive in the stable phase, and near the theory's; negative where damping holds what would not stay."""
    X, y, _ = instance
    stable = rj.amp(X, y, BOOK, 5.0, ridge=0.05)
    assert abs(float(stable.replicon) - float(rj.solve(TASK, BOOK, 5.0).replicon)) < 0.1
    held = rj.amp(X, y, rj.uniform(2, 3.0), 30.0, damping=0.9, steps=2000)
    assert held.replicon < 0
    assert "UNSTABLE" in str(held)
    assert jnp.isneginf(rj.amp(X, y, BOOK, jnp.inf, steps=2).replicon)


def test_single_precision(instance):
    X, y, _ = instance
    single = rj.amp(X.astype(jnp.float32), y.astype(jnp.float32), BOOK, 5.0)
    assert {x.dtype for x in (single.weights, single.test_error)} == {jnp.dtype("float32")}
    assert single.converged
    np.testing.assert_allclose(single.weights, rj.amp(X, y, BOOK, 5.0).weights, atol=2e-3)


def test_start_at_the_teacher(instance):
    """Different starts, one fixed point (stable and unique here)."""
    X, y, w0 = instance
    informed = rj.amp(X, y, BOOK, 5.0, start=w0, susceptibility=0.0, teacher=w0)
    assert informed.trajectory.generalization_error[0] == 0
    np.testing.assert_allclose(informed.weights, rj.amp(X, y, BOOK, 5.0).weights, atol=1e-6)


GOOD = np.array([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [1.0, 1.0]]) / np.sqrt(2)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"y": np.zeros(3)}, r"y must have shape \(4,\), one entry per row of X, got shape \(3,\)"),
        ({"X": np.zeros(4)}, r"X must be a matrix \(rows, columns\)"),
        ({"X": np.where(np.eye(4)[:, :2] > 0, np.nan, GOOD)}, "X must not be NaN"),
        ({"X": np.full((4, 2), np.inf)}, "X must be finite"),
        ({"y": [0.0, np.nan, 0.0, 0.0]}, "y must not be NaN"),
        ({"beta": -1.0}, "beta must be positive, got -1"),
        ({"beta": np.ones(2)}, "beta, ridge, damping and susceptibility must be single numbers"),
        ({"ridge": -0.1}, "ridge must be finite and not negative"),
        ({"steps": 0}, "steps must be a whole number from 1"),
        ({"damping": 1.0}, "damping must be below 1, got 1"),
        ({"start": np.zeros(3)}, r"start must have shape \(2,\), one entry per column of X"),
        ({"teacher": np.zeros(3)}, r"teacher must have shape \(2,\), one entry per column of X"),
        ({"susceptibility": np.nan}, "susceptibility must not be NaN"),
        ({"tolerance": -1.0}, "tolerance must be finite and not negative"),
    ],
)
def test_bad_arguments(change, message):
    arguments = {"X": GOOD, "y": np.zeros(4), "codebook": rj.uniform(1, 1.0), "beta": 1.0, **change}
    with pytest.raises(ValueError, match=message):
        rj.amp(**arguments)


def test_unnormalised_design(instance):
    X, y, _ = instance
    with pytest.raises(
        ValueError, match=r"X must have entries of variance 1/columns, got mean square \d+\.?\d*/columns"
    ):
        rj.amp(X * np.sqrt(300), y, BOOK, 5.0)
    with pytest.raises(TypeError, match="codebook must be a Codebook"):
        rj.amp(X, y, [-1.0, 1.0], 5.0)
