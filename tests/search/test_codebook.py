"""Learned codebooks: minima that other searches confirm, limits that are known, and gains that instances show."""

import jax
import numpy as np
import pytest
from scipy.optimize import LinearConstraint, minimize

import replicajax as rj
from replicajax.formats import Laplace, Normal, huffman_lengths, lloyd_max

TASK = rj.LinearRegression(2.0, 1.0, 0.1)
LAPLACE = rj.LinearRegression(2.0, 1.0, 0.1, teacher=Laplace())
TASKS = [
    (TASK, 2, 5.0),
    (TASK, 4, 5.0),
    (TASK, 8, 20.0),
    (TASK, 4, np.inf),
    (LAPLACE, 4, 5.0),
    (LAPLACE, 8, 10.0),
    (LAPLACE, 2, np.inf),
    (rj.LinearRegression(4.0, 1.0, 0.3), 3, np.inf),
]


def error(task, levels, beta):
    found = rj.solve(task, rj.codebook(levels), beta)
    return float(found.generalization_error) if found.converged else np.inf


@pytest.fixture(scope="module")
def best():
    return rj.optimal_codebook(TASK, 4, 5.0)


def test_a_minimum(best):
    assert best.converged
    assert float(np.abs(best.gradient).max()) < 1e-7
    assert best.curvature > 0
    assert best.spare == 0
    np.testing.assert_allclose(best.levels, -best.levels[::-1], rtol=1e-14)
    assert best.generalization_error < rj.optimal_width(TASK, 2, 5.0).generalization_error
    # Levels found by Nelder and Mead from elsewhere.
    found = minimize(
        lambda h: error(TASK, np.sort([-h[1], -h[0], h[0], h[1]]), 5.0) if h[1] > h[0] > 0 else np.inf,
        [0.4, 1.2],
        method="Nelder-Mead",
        options={"xatol": 1e-9, "fatol": 1e-15},
    )
    np.testing.assert_allclose(best.levels[2:], found.x, atol=1e-6)
    assert float(best.generalization_error) == pytest.approx(found.fun, abs=1e-12)
    h = 1e-4
    for k in range(4):  # in levels, one at a time
        up, down = (error(TASK, np.asarray(best.levels) + s * h * (np.arange(4) == k), 5.0) for s in (1, -1))
        assert (up - down) / (2 * h) == pytest.approx(float(best.gradient[k]), abs=1e-7)


@pytest.mark.slow
def test_symmetry_is_found_and_not_assumed(best):
    free = rj.optimal_codebook(TASK, 4, 5.0, symmetric=False, start=np.array([-1.6, -0.2, 0.9, 1.9]))
    assert free.converged
    np.testing.assert_allclose(free.levels, best.levels, atol=1e-7)


@pytest.mark.slow
def test_derivatives_in_the_task():
    def last(alpha):
        return rj.optimal_codebook(rj.LinearRegression(alpha, 1.0, 0.1), 4, 5.0).levels[-1]

    slope, h = jax.grad(last)(2.0), 1e-4
    assert float(slope) == pytest.approx(float(last(2 + h) - last(2 - h)) / (2 * h), rel=1e-5)
    with pytest.raises(TypeError, match="searches with numbers"):
        jax.jit(last)(2.0)


@pytest.mark.slow
def test_many_rows_make_lloyd_and_max():
    """Weights are known then, and only rounded: levels are Lloyd's, off by 1/alpha."""
    rounding = np.asarray(lloyd_max(Normal(), 2).levels)
    off = []
    for alpha in (1e2, 1e3, 1e4):
        best = rj.optimal_codebook(rj.LinearRegression(alpha, 1.0, 1e-3), 4, 1e4)
        assert best.converged
        off.append(np.abs(np.asarray(best.levels) - rounding).max())
    assert off[-1] < 2e-5
    np.testing.assert_allclose(np.divide(off[:-1], off[1:]), 10, rtol=0.15)


@pytest.mark.slow
def test_expensive_bits():
    """Outer levels are given up, and nothing is NaN: what is left does what a codebook of two levels does."""
    two = rj.optimal_width(TASK, 1, 5.0)
    dear = rj.optimal_codebook(TASK, 4, 5.0, rate_weight=100.0)
    assert dear.spare == 2
    assert float(dear.rate) == pytest.approx(1.0, abs=1e-6)
    assert float(dear.generalization_error) == pytest.approx(float(two.generalization_error), rel=1e-5)
    assert "a codebook of 2 does as well" in str(dear)
    cheap = rj.optimal_codebook(TASK, 4, 5.0, rate_weight=0.05)
    assert cheap.converged
    assert cheap.rate < rj.optimal_codebook(TASK, 4, 5.0).rate


@pytest.mark.slow
def test_one_step_of_breaking():
    """At beta = inf: better than the best uniform codebook, and flat in every level by differences of `solve`."""
    best = rj.optimal_codebook(TASK, 4, np.inf, breaking=1)
    assert best.converged
    assert best.solution.breaking == 1
    assert best.generalization_error < rj.optimal_width(TASK, 2, np.inf, breaking=1).generalization_error

    def at(levels):
        return float(rj.solve(TASK, rj.codebook(levels), np.inf, breaking=1).generalization_error)

    assert float(best.generalization_error) == pytest.approx(at(best.levels), rel=1e-9)
    h, levels = 1e-3, np.asarray(best.levels)
    for k in (2, 3):
        aside = h * ((np.arange(4) == k) * 1.0 - (np.arange(4) == 3 - k))
        assert abs(at(levels + aside) - at(levels - aside)) / (2 * h) < 1e-6
        assert min(at(levels + aside), at(levels - aside)) > at(levels)


@pytest.mark.slow
def test_nothing_found_is_told():
    """The measure holds together here: one step of breaking has no solution at any codebook."""
    found = rj.optimal_codebook(TASK, 4, 5.0, breaking=1)
    assert not found.converged
    assert np.isnan(found.gradient).all()
    assert np.isfinite(found.levels).all()


def test_bad_requests():
    for change, message in (
        ({"levels": 1}, "levels must be"),
        ({"levels": 1000}, "levels must be"),
        ({"rate_weight": -1.0}, "rate_weight must be"),
        ({"breaking": 2}, "breaking must be"),
        ({"breaking": 1, "rate_weight": 0.1}, "rate_weight must be 0 with breaking=1"),
        ({"start": [1.0, 0.0, 2.0, 3.0]}, "levels must be strictly increasing"),
        ({"start": [0.0, 1.0]}, "start must have 4 levels, got 2"),
        ({"start": [1.0, 2.0, np.nan, 4.0]}, "start must"),
        ({"constraints": LinearConstraint(np.eye(3), 0, 1)}, "A of 4 columns"),
        ({"constraints": LinearConstraint(np.eye(4)[0], np.inf, np.inf)}, "bounds that numbers can keep"),
        ({"constraints": LinearConstraint(np.eye(4), 2, 1)}, "increasing levels, and they leave none"),
        ({"constraints": LinearConstraint(np.eye(4)[0], 1, 2)}, "increasing levels, and they leave none"),
        ({"constraints": LinearConstraint([[0, 0, -1, 1]], 0, 0)}, "increasing levels, and they leave none"),
    ):
        with pytest.raises(ValueError, match=message):
            rj.optimal_codebook(**({"task": TASK, "levels": 4, "beta": 5.0} | change))  # pyright: ignore
    with pytest.raises(TypeError, match="constraints must be scipy.optimize.LinearConstraint"):
        rj.optimal_codebook(TASK, 4, 5.0, constraints="tight")  # pyright: ignore
    with pytest.raises(TypeError, match="task must be"):
        rj.optimal_codebook(1.0, 4, 5.0)  # pyright: ignore


def test_constraints(best):
    """Even levels are the uniform codebook; a bound that does not bind changes nothing; one that does is met."""
    even = LinearConstraint([[1.0, -2.0, 1.0, 0.0]], 0.0, 0.0)
    found, uniform = rj.optimal_codebook(TASK, 4, 5.0, constraints=even), rj.optimal_width(TASK, 2, 5.0)
    assert found.converged
    np.testing.assert_allclose(found.levels, float(uniform.width) * np.linspace(-1, 1, 4), atol=1e-8)
    assert float(found.generalization_error) == pytest.approx(float(uniform.generalization_error), rel=1e-12)
    wide = rj.optimal_codebook(TASK, 4, 5.0, constraints=LinearConstraint(np.eye(4), -3.0, 3.0))
    assert wide.converged
    np.testing.assert_allclose(wide.levels, best.levels, atol=1e-8)
    outer = LinearConstraint(np.eye(4)[3], -np.inf, 1.5)
    narrow = rj.optimal_codebook(TASK, 4, 5.0, constraints=[outer])
    assert narrow.converged
    assert float(narrow.levels[3]) == pytest.approx(1.5, abs=1e-10)
    assert narrow.gradient[3] < -1e-3  # further out would be better
    inner = minimize(
        lambda h: error(TASK, [-1.5, -h[0], h[0], 1.5], 5.0), [0.4], method="Nelder-Mead", options={"xatol": 1e-9}
    )
    assert float(narrow.levels[2]) == pytest.approx(inner.x[0], abs=1e-6)
    # All of them held: nothing is free.
    held = rj.optimal_codebook(TASK, 4, 5.0, constraints=LinearConstraint(np.eye(4)[2:], [0.5, 1.5], [0.5, 1.5]))
    assert held.converged
    np.testing.assert_allclose(held.levels, [-1.5, -0.5, 0.5, 1.5], atol=1e-10)
    # One level is 0, whatever the others are.
    zero = rj.optimal_codebook(TASK, 4, 5.0, symmetric=False, constraints=LinearConstraint(np.eye(4)[1], 0.0, 0.0))
    assert zero.converged
    assert abs(float(zero.levels[1])) < 1e-10
    assert zero.generalization_error > best.generalization_error


@pytest.mark.parametrize(
    ("count", "symmetric", "constraints", "family", "start"),
    [
        (5, True, LinearConstraint(np.diff(np.eye(5), 2, axis=0), 0, 0), lambda x: x[0] * np.arange(-2, 3), [1.0]),
        (3, True, LinearConstraint([[1, 1, 1]], 0, 0), lambda x: x[0] * np.arange(-1, 2), [1.0]),
        (3, True, LinearConstraint([[0, 0, 0], [0, 0, 1]], [0, -5], [0, 5]), lambda x: x[0] * np.arange(-1, 2), [1.0]),
        (3, False, [LinearConstraint([[1, 1, 1]], 0.5, 0.5)] * 2, lambda x: [x[0], x[1], 0.5 - x[0] - x[1]], [-1, 0.1]),
        (3, False, LinearConstraint(np.eye(3), 0.1, np.inf), lambda x: [0.1, x[0], x[1]], [0.5, 1.5]),
    ],
    ids=["said twice by symmetry", "always so", "of nothing", "said twice", "one-sided"],
)
def test_unusual_constraints(count, symmetric, constraints, family, start):
    """Against a search of what they leave free."""
    found = rj.optimal_codebook(TASK, count, 5.0, symmetric=symmetric, constraints=constraints)
    assert found.converged

    def of(x):
        return error(TASK, family(x), 5.0) if (np.diff(family(x)) > 0).all() else np.inf

    best = minimize(of, start, method="Nelder-Mead", options={"xatol": 1e-7, "fatol": 1e-13})
    np.testing.assert_allclose(found.levels, family(best.x), atol=1e-6)


def test_levels_that_must_nearly_meet():
    found = rj.optimal_codebook(TASK, 3, 5.0, symmetric=False, constraints=LinearConstraint([[0, -1, 1]], 1e-5, 1e-5))
    assert found.converged
    assert found.spare == 1
    assert found.levels[2] - found.levels[1] == pytest.approx(1e-5, rel=1e-6)
    tight = rj.optimal_codebook(TASK, 2, 5.0, constraints=LinearConstraint(np.eye(2), -1e-6, 1e-6))
    assert tight.converged
    np.testing.assert_allclose(tight.levels, [-1e-6, 1e-6], rtol=1e-6)


@pytest.mark.slow
def test_derivatives_within_constraints():
    outer = LinearConstraint(np.eye(4)[3], -np.inf, 1.5)

    def inner(alpha):
        return rj.optimal_codebook(rj.LinearRegression(alpha, 1.0, 0.1), 4, 5.0, constraints=outer).levels[2]

    slope, h = jax.grad(inner)(2.0), 1e-4
    assert float(slope) == pytest.approx(float(inner(2 + h) - inner(2 - h)) / (2 * h), rel=1e-5)


@pytest.mark.slow
def test_units(best):
    """A teacher of another size has other units, and nothing else."""
    for unit in (1e-6, 1e6):
        other = rj.optimal_codebook(rj.LinearRegression(2.0, unit, 0.1 * unit), 4, 5.0 / unit)
        assert other.converged
        np.testing.assert_allclose(np.asarray(other.levels) / unit**0.5, best.levels, rtol=1e-8)
        even = LinearConstraint([[1.0, -2.0, 1.0, 0.0]], 0.0, 0.0)
        within = rj.optimal_codebook(rj.LinearRegression(2.0, unit, 0.1 * unit), 4, 5.0 / unit, constraints=even)
        assert within.converged
        np.testing.assert_allclose(np.diff(within.levels, 2), 0, atol=1e-10 * unit**0.5)


def _rows():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(200, 50)) * np.arange(1, 51) ** -0.3
    return rj.GivenData(X, X @ rng.normal(size=50) + 0.3 * rng.normal(size=200))


@pytest.mark.slow
@pytest.mark.parametrize(
    "task",
    [
        rj.Classification(3.0, noise=0.2),
        rj.LinearRegression(2.0, 1.0, 0.1, loss=rj.losses.Huber(1.0)),
        rj.LinearRegression(2.0, noise=0.1, features=rj.Features([0.2, 0.8, 2.0])),
        rj.LinearRegression(2.0, noise=0.1, features=rj.Features([0.2, 0.8, 2.0], axes="aligned")),
        _rows,
    ],
    ids=["logistic", "Huber", "rotated features", "aligned features", "given data"],
)
def test_other_tasks(task):
    """By `solve`: flat in every level, and nothing near is better, the best uniform codebook neither."""
    task = task() if callable(task) else task
    best = rj.optimal_codebook(task, 4, 5.0)
    assert best.converged
    levels, least, h = np.asarray(best.levels), float(best.generalization_error), 3e-4
    assert error(task, levels, 5.0) == pytest.approx(least, rel=1e-10)
    for k in (2, 3):
        aside = h * levels[3] * ((np.arange(4) == k) * 1.0 - (np.arange(4) == 3 - k))
        up, down = error(task, levels + aside, 5.0), error(task, levels - aside, 5.0)
        assert abs(up - down) < 3e-3 * (up + down - 2 * least)
        assert min(up, down) > least
    assert least < rj.optimal_width(task, 2, 5.0).generalization_error


@pytest.mark.slow
def test_single_precision(best):
    """JAX's default; and a task made in it, asked in double precision."""
    with jax.enable_x64(False):
        task = rj.LinearRegression(2.0, 1.0, 0.1)
        single = rj.optimal_codebook(task, 4, 5.0)
        assert single.converged
        np.testing.assert_allclose(single.levels, best.levels, atol=1e-5)
    mixed = rj.optimal_codebook(task, 4, 5.0)
    assert mixed.converged
    np.testing.assert_allclose(mixed.levels, best.levels, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize(("task", "count", "beta"), TASKS)
def test_no_codebook_is_better(task, count, beta):
    best = rj.optimal_codebook(task, count, beta)
    assert best.converged
    assert float(np.abs(best.gradient).max()) <= 1e-7
    assert best.curvature > 0
    least = float(best.generalization_error)
    grid = np.linspace(-1, 1, count)
    for exponent in (0.6, 0.8, 1.0, 1.2, 1.5):
        widths = np.geomspace(0.3, 5.0, 40)
        assert min(error(task, w * np.sign(grid) * np.abs(grid) ** exponent, beta) for w in widths) >= least - 1e-12
    half = count // 2
    middle = np.zeros(count % 2)

    def of(h):
        if not (np.diff(h, prepend=0.0) > 0).all():
            return np.inf
        return error(task, np.concatenate([-h[::-1], middle, h]), beta)

    start = np.asarray(best.levels)[-half:] * np.linspace(0.9, 1.1, half)
    asked = {"xatol": 1e-8, "fatol": 1e-13, "maxiter": 1000}
    for _ in range(3):  # its simplex collapses too soon with four levels
        found = minimize(of, start, method="Nelder-Mead", options=asked)
        start = found.x
    np.testing.assert_allclose(np.asarray(best.levels)[-half:], found.x, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize(("task", "count", "beta"), [(TASK, 4, 5.0), (TASK, 8, 5.0), (LAPLACE, 4, 5.0)])
def test_gains_on_instances(task, count, beta):
    """What AMP gains by the learned levels over the best uniform ones, N = 4000, 24 instances drawn alike."""
    best = rj.optimal_codebook(task, count, beta)
    uniform = rj.optimal_width(task, int(np.log2(count)), beta)
    books = best.codebook, rj.uniform(int(np.log2(count)), float(uniform.width))
    learned, plain = (_amp_errors(task, book, beta) for book in books)
    gain, expected = plain - learned, float(uniform.generalization_error - best.generalization_error)
    spread = gain.std(ddof=1) / gain.size**0.5
    print(f"gain {gain.mean():.5f} ± {spread:.5f}, predicted {expected:.5f}")
    assert gain.mean() > 0
    assert abs(gain.mean() - expected) < 3 * spread


def _amp_errors(task, book, beta):
    errors = []
    for seed in range(24):
        X, y, w = rj.draw(task, 4000, jax.random.key(seed))
        found = rj.amp(X, y, book, beta)
        errors.append(float(np.mean((np.asarray(found.weights) - np.asarray(w)) ** 2)))
    return np.array(errors)


@pytest.mark.slow
@pytest.mark.parametrize(("task", "beta"), [(TASK, 5.0), (rj.LinearRegression(4.0, 1.0, 0.3), 3.0), (LAPLACE, 5.0)])
def test_the_frontier(task, beta):
    """Its points by Gibbs sampling: error, entropy of the weights to be stored, and the length of an actual Huffman code."""
    found = rj.rate_frontier(task, beta, levels=(2, 3, 4), weights=(0.0, 0.01, 0.05))
    assert found.converged.all()
    assert found.hull.any()
    order = np.argsort(found.bits[found.hull])
    assert (np.diff(found.generalization_error[found.hull][order]) < 0).all()
    assert (found.generalization_error > found.unquantized).all()
    drawn = [rj.draw(task, 400, jax.random.key(seed)) for seed in range(32)]
    for i in np.flatnonzero(found.hull):
        book, errors, usages = rj.codebook(found.codebooks[i]), [], []
        for seed, (X, y, w) in enumerate(drawn):
            sample = rj.gibbs(X, y, book, beta, sweeps=1500, key=jax.random.key(100 + seed))
            assert sample.mixed
            # Of two chains, whose own noise is independent: the square of one's mean has it in.
            off = np.asarray(sample.chain_weights) - np.asarray(w)
            pairs = off @ off.T / w.size
            errors.append(pairs[~np.eye(len(off), dtype=bool)].mean())
            # The last state of a chain is a set of weights to store; all are stored by one code.
            codes = np.abs(np.asarray(sample.final)[..., None] - np.asarray(book.levels)).argmin(-1)
            usages.append(np.bincount(codes.ravel(), minlength=len(book)) / codes.size)
        whole = len(usages) * rate(np.mean(usages, 0))
        each = [whole - (len(usages) - 1) * rate(np.mean(np.delete(usages, k, 0), 0)) for k in range(len(usages))]
        for name, seen, expected in (("error", errors, found.generalization_error[i]), ("bits", each, found.bits[i])):
            mean, spread = np.mean(seen), np.std(seen, ddof=1) / len(seen) ** 0.5
            print(f"{len(book)} levels, {name}: {mean:.5f} ± {spread:.5f}, predicted {expected:.5f}")
            assert abs(mean - expected) < 3 * spread
        usage = np.mean(usages, 0)
        length = usage @ np.asarray(huffman_lengths(usage))
        assert rate(usage) <= length + 1e-12 < rate(usage) + 1


def rate(usage):
    some = usage[usage > 0]
    return -np.sum(some * np.log2(some))
