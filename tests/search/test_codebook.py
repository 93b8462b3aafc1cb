"""Learned codebooks: minima that other searches confirm, limits that are known, and gains that instances show."""

import jax
import numpy as np
import pytest
from scipy.optimize import minimize

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
    ):
        with pytest.raises(ValueError, match=message):
            rj.optimal_codebook(**({"task": TASK, "levels": 4, "beta": 5.0} | change))  # pyright: ignore
    with pytest.raises(TypeError, match="task must be"):
        rj.optimal_codebook(1.0, 4, 5.0)  # pyright: ignore


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
    for _ in range(4):  # its simplex collapses too soon with four levels
        found = minimize(of, start, method="Nelder-Mead", options={"xatol": 1e-9, "fatol": 1e-15, "maxiter": 2000})
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
def test_the_frontier():
    """Its points by Gibbs sampling: error, entropy of the usage, and the length of an actual Huffman code."""
    found = rj.rate_frontier(TASK, 5.0, levels=(2, 3, 4), weights=(0.0, 0.01, 0.05))
    assert found.converged.all()
    assert found.hull.any()
    order = np.argsort(found.bits[found.hull])
    assert (np.diff(found.generalization_error[found.hull][order]) < 0).all()
    assert (found.generalization_error > found.unquantized).all()
    for i in np.flatnonzero(found.hull):
        book, errors, rates, lengths = rj.codebook(found.codebooks[i]), [], [], []
        for seed in range(12):
            X, y, w = rj.draw(TASK, 400, jax.random.key(seed))
            sample = rj.gibbs(X, y, book, 5.0, sweeps=2000, key=jax.random.key(100 + seed))
            errors.append(np.mean((np.asarray(sample.weights) - np.asarray(w)) ** 2))
            # The last state of a chain is a set of weights to store.
            stored = np.asarray(sample.final)
            codes = np.abs(stored[..., None] - np.asarray(book.levels)).argmin(-1)
            usage = np.bincount(codes.ravel(), minlength=len(book)) / codes.size
            some = usage[usage > 0]
            rates.append(-np.sum(some * np.log2(some)))
            lengths.append(usage @ np.asarray(huffman_lengths(usage)))
        for name, drawn, expected in (("error", errors, found.generalization_error[i]), ("bits", rates, found.bits[i])):
            mean, spread = np.mean(drawn), np.std(drawn, ddof=1) / len(drawn) ** 0.5
            print(f"{len(book)} levels, {name}: {mean:.4f} ± {spread:.4f}, predicted {expected:.4f}")
            assert abs(mean - expected) < 3 * spread + 2 / 400
        assert (np.array(rates) <= np.array(lengths) + 1e-12).all()
        assert (np.array(lengths) < np.array(rates) + 1).all()
