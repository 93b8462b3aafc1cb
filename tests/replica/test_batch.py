"""Batches against `solve` inside a transformation, which shares no line of the quadrature."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import replicajax as rj
from replicajax.replica import slopes_many, solve_many

OBSERVABLES = [
    name for name in rj.sweep.OBSERVABLES if name not in ("entropy", "stable", "interpolates", "converged", "steps")
]
OBSERVABLES.remove("susceptibility")  # infinite where it interpolates


def random_batch(points, shape, seed=0, *, cold=False, teacher=None, ridge=True):
    """Tasks, books and betas; levels are width * shape."""
    rng = np.random.default_rng(seed)

    def between(low, high):
        return np.exp(rng.uniform(np.log(low), np.log(high), points))

    alpha, noise, width = between(0.3, 6), between(1e-2, 1), between(0.4, 4)
    signal = between(0.3, 3)
    ridges = np.where(rng.uniform(size=points) < 0.5, 0.0, between(1e-2, 1)) if ridge else np.zeros(points)
    tasks = jax.vmap(lambda *a: rj.LinearRegression(*a, teacher))(alpha, signal, noise, ridges)
    books = jax.vmap(lambda w, s: rj.codebook(w * jnp.sqrt(s) * jnp.asarray(shape)))(width, signal)
    return tasks, books, np.full(points, np.inf) if cold else between(0.5, 300) / signal


@eqx.filter_jit
def one_by_one(tasks, books, betas):
    return jax.lax.map(lambda problem: rj.solve(*problem), (tasks, books, jnp.asarray(betas)))


def check(found, want):
    assert found.converged.all()
    assert np.asarray(want.converged).all()
    np.testing.assert_array_equal(found.interpolates, want.interpolates)
    for name in OBSERVABLES:
        np.testing.assert_allclose(getattr(found, name), getattr(want, name), rtol=1e-9, atol=1e-9, err_msg=name)
    np.testing.assert_allclose(found.entropy, want.entropy, rtol=1e-8, atol=1e-8)
    np.testing.assert_allclose(found.usage, want.usage, atol=1e-9)


@pytest.mark.parametrize("cold", [False, True])
@pytest.mark.parametrize("shape", [pytest.param("2 bits", marks=pytest.mark.slow), "3 levels, none opposite another"])
def test_agrees_with_solve(shape, cold):
    levels = np.linspace(-1, 1, 4) if shape == "2 bits" else [-1.0, -0.1, 0.7]
    batch = random_batch(64, levels, cold=cold)
    found = solve_many(*batch)
    check(found, one_by_one(*batch))
    assert found.interpolates.any() == cold


@pytest.mark.slow
@pytest.mark.parametrize(
    "teacher", [rj.distributions.GaussBernoulli(0.3), rj.distributions.Discrete(rj.uniform(1, 1.0))]
)
def test_other_teachers(teacher):
    batch = random_batch(32, [-1.0, 1.0], seed=3, teacher=teacher, ridge=False)
    found = solve_many(*batch)
    want = one_by_one(*batch)
    # Few bits have several saddle points; where the two solvers meet they must agree on everything.
    same = np.abs(found.generalization_error - want.generalization_error) < 1e-6
    assert same.mean() > 0.9
    check(*jax.tree.map(lambda x: np.asarray(x)[same], (found, want)))


@pytest.mark.slow
@pytest.mark.parametrize("bits", [5, 8])
def test_many_levels(bits):
    """Five bits by thresholds and by the grid of fields, depending on the temperature; eight mostly by the latter."""
    task, book = rj.LinearRegression(1.5, 1.0, 0.1), rj.uniform(bits, 3.0)
    betas = np.array([2.0, 400.0])
    many = jax.tree.map(lambda x: np.stack([np.asarray(x)] * betas.size), (task, book))
    found = solve_many(*many, betas)
    want = jax.tree.map(lambda *x: np.stack(x), *(rj.solve(task, book, beta) for beta in betas))
    check(found, want)


@pytest.mark.slow
def test_a_point_does_not_depend_on_its_neighbours():
    tasks, books, betas = random_batch(200, np.linspace(-1, 1, 4), seed=7)
    order = np.random.default_rng(0).permutation(200)
    shuffled = jax.tree.map(lambda x: np.asarray(x)[order], (tasks, books, betas))
    first, second = solve_many(tasks, books, betas), solve_many(*shuffled)
    for name in (*OBSERVABLES, "steps"):
        np.testing.assert_array_equal(getattr(first, name)[order], getattr(second, name), err_msg=name)


@pytest.mark.slow
def test_follows_one_branch():
    """Where 1 or 2 bits have several saddle points, Newton's way may not cross a fold: eg along a fine grid of alpha either
    moves smoothly or jumps once, where state evolution does."""
    for bits, width, beta, alphas, jumps in ((1, 2.0, 20.0, (0.749, 0.775), 0), (2, 5.0, 50.0, (0.965, 0.979), 1)):
        alpha = np.linspace(*alphas, 60)
        tasks = jax.vmap(lambda a: rj.LinearRegression(a, 1.0, 0.1))(alpha)
        books = jax.tree.map(lambda x: np.stack([np.asarray(x)] * 60), rj.uniform(bits, width))
        found = solve_many(tasks, books, np.full(60, beta))
        assert found.converged.all()
        steps = np.abs(np.diff(found.generalization_error))
        assert (steps > 10 * np.median(steps)).sum() == jumps


@pytest.mark.slow
def test_cold_with_ridge():
    """A codebook with a threshold at 0 interpolates in spite of ridge, others do not; with `solve`, one by one."""
    tasks, books, betas = random_batch(32, np.linspace(-1, 1, 4), seed=11, cold=True)
    rows = np.geomspace(0.02, 1.0, 32)
    batch = eqx.tree_at(lambda t: (t.alpha, t.ridge), tasks, (rows, np.full(32, 0.05))), books, betas
    found = solve_many(*batch)
    check(found, one_by_one(*batch))
    assert found.interpolates.any()
    assert not found.interpolates.all()


@pytest.mark.slow
def test_uneven_levels_by_the_hundred():
    """More than 16 levels that are not evenly spaced go through the grid of fields."""
    book = rj.power(5, 2.0, 1.5)
    tasks = jax.vmap(lambda a: rj.LinearRegression(a, 1.0, 0.1))(np.array([0.8, 2.0]))
    books = jax.tree.map(lambda x: np.stack([np.asarray(x)] * 2), book)
    batch = tasks, books, np.array([5.0, 80.0])
    check(solve_many(*batch), one_by_one(*batch))


@pytest.mark.slow
@pytest.mark.parametrize("beta", [20.0, np.inf])
def test_slopes_are_those_of_solve(beta):
    """alpha 0.5 interpolates at beta = inf, alpha 2 does not."""
    alphas = np.array([0.5, 2.0])
    tasks = jax.vmap(lambda a: rj.LinearRegression(a, 1.0, 0.1, 0.0))(alphas)
    books = jax.tree.map(lambda x: np.stack([np.asarray(x)] * 2), rj.uniform(2, 2.0))
    found = solve_many(tasks, books, np.full(2, beta))
    still = jax.tree.map(np.zeros_like, (found.task, found.codebook, found.beta))
    by_alpha = eqx.tree_at(lambda d: d[0].alpha, still, np.ones(2))
    by_width = eqx.tree_at(lambda d: d[1].levels, still, np.asarray(books.levels) / 2.0)

    def eg(alpha, width):
        return rj.solve(rj.LinearRegression(alpha, 1.0, 0.1), rj.uniform(2, width), beta).generalization_error

    gradients = jax.jit(jax.vmap(jax.grad(eg, (0, 1)), in_axes=(0, None)))(alphas, 2.0)
    for direction, want in zip((by_alpha, by_width), gradients, strict=True):
        np.testing.assert_allclose(slopes_many(found, direction), want, rtol=1e-9, atol=1e-11)

    # Second derivatives, and those of the replicon, against differences of first ones.
    step = 1e-4
    ahead, behind = (
        solve_many(eqx.tree_at(lambda t: t.alpha, tasks, alphas + s), books, np.full(2, beta)) for s in (step, -step)
    )
    mixed = (slopes_many(ahead, by_width) - slopes_many(behind, by_width)) / (2 * step)
    np.testing.assert_allclose(slopes_many(found, by_alpha, by_width), mixed, rtol=1e-5)
    if np.isfinite(beta):
        difference = (ahead.replicon - behind.replicon) / (2 * step)
        np.testing.assert_allclose(slopes_many(found, by_alpha, of="replicon"), difference, rtol=1e-6)


@pytest.mark.slow
def test_float32():
    with jax.enable_x64(False):
        tasks, books, betas = random_batch(32, np.linspace(-1, 1, 4), seed=5)
        inputs = jax.tree.map(lambda x: np.asarray(x, np.float32), (tasks, books, betas))
        single = solve_many(*inputs)
    assert single.generalization_error.dtype == np.float32
    double = solve_many(*jax.tree.map(lambda x: np.asarray(x, np.float64), inputs))
    assert single.converged.mean() > 0.9
    gap = np.abs(single.generalization_error - double.generalization_error)[single.converged]
    assert gap.max() < 1e-4
