"""Random tasks over the whole range of what may be asked, against quadrature that shares no code with the solver's.

alpha 1e-3 to 1e4, signal 1e-12 to 1e12, noise 0 to 1e6 of it, ridge, beta·signal 1e-8 to 1e16 and inf, 2 to 16 levels, uniform,
clustered, one-sided.  A solution is right to 1e-9 (in float32: 1e-4), or says that it did not converge.

The truth: at the (L, t) found, E <a>² and beta E Var by Gauss-Legendre panels that double in width away from each threshold,
and from the residual of the saddle point one Newton step, whose Jacobian is by differences of the same quadrature.
"""

from functools import lru_cache

import equinox as eqx
import jax
import numpy as np
import pytest
from scipy.special import ndtr

import replicajax as rj
from replicajax.replica import solve_many

NODES, WEIGHTS = np.polynomial.legendre.leggauss(12)


def draw(count: int, levels: int, seed: int):
    """Tasks, books, betas with a leading axis."""
    rng = np.random.default_rng(seed)

    def log_uniform(low, high):
        return 10 ** rng.uniform(low, high, count)

    signal = log_uniform(-12, 12)
    noise = signal * np.where(rng.random(count) < 0.15, 0.0, log_uniform(-6, 6))
    ridge = np.where(rng.random(count) < 0.5, 0.0, log_uniform(-4, 3))
    beta = np.where(rng.random(count) < 1 / 6, np.inf, log_uniform(-8, 16) / signal)
    kind = rng.integers(0, 3, count)
    even = np.linspace(-1, 1, levels)
    loose = np.sort(rng.normal(size=(count, levels)), 1)
    groups = np.sort(np.linspace(-1, 1, max(2, levels // 3))[np.arange(levels) % max(2, levels // 3)] + 1e-3 * loose, 1)
    book = np.where((kind == 0)[:, None], even, np.where((kind == 1)[:, None], groups, np.sort(np.abs(loose), 1)))
    book = book + 1e-6 * np.arange(levels)  # strictly increasing
    book *= (np.sqrt(signal) * log_uniform(-1, 0.8))[:, None]
    task, one = rj.LinearRegression(1.0), rj.codebook(np.arange(levels, dtype=float))
    tasks, books = jax.tree.map(lambda x: np.broadcast_to(np.asarray(x), (count, *np.shape(x))).copy(), (task, one))
    values = log_uniform(-3, 4), signal, noise, ridge
    tasks = eqx.tree_at(lambda t: (t.alpha, t.signal, t.noise, t.ridge), tasks, values)
    return tasks, eqx.tree_at(lambda b: b.levels, books, book), beta


def averages(levels, c, beta, s):
    """E <a>² and beta E Var(a) over h ~ N(0, s²)."""
    thresholds, gaps = c * (levels[1:] + levels[:-1]) / 2, np.diff(levels)
    if np.isinf(beta):
        z = thresholds / s
        P = np.diff(np.concatenate([[0.0], ndtr(z), [1.0]]))
        P = np.where(np.concatenate([[-1.0], z]) > 0, -np.diff(np.concatenate([[1.0], ndtr(-z), [0.0]])), P)
        return P @ levels**2, gaps @ np.exp(-(z**2) / 2) / np.sqrt(2 * np.pi) / s
    total_q = total_v = 0.0
    for t, threshold in enumerate(thresholds):
        for side in (1, -1):
            w, lost = (t + 1, t) if side > 0 else (t, t + 1)
            beyond = w + side
            end = c * abs(levels[beyond] - levels[lost]) / 4 if 0 <= beyond < len(levels) else np.inf
            end = min(end, 10 * s + abs(threshold))
            finest = min(end, s, np.pi / (beta * (levels[-1] - levels[0]))) / 8
            if end <= 0 or finest <= 0:
                continue
            edges = np.concatenate([[0.0], finest * 2.0 ** np.arange(1 + max(0, np.ceil(np.log2(end / finest))))])
            edges = np.minimum(edges, end)
            inside = side * (s * np.arange(-10, 10.5, 0.5) - threshold)  # where the Gaussian is
            edges = np.unique(np.concatenate([edges, inside[(inside > 0) & (inside < end)]]))
            half = np.diff(edges)[:, None] / 2
            x = (edges[:-1, None] + half * (1 + NODES)).ravel()
            weight = (
                (half * WEIGHTS).ravel() * np.exp(-(((threshold + side * x) / s) ** 2) / 2) / (s * np.sqrt(2 * np.pi))
            )
            rise = levels - levels[w]
            e = beta * rise * (c * ((levels[w] + levels[lost]) / 2 - (levels[w] + levels) / 2) + side * x[:, None])
            p = np.exp(e - e.max(1, keepdims=True))
            p /= p.sum(1, keepdims=True)
            mean = p @ rise
            total_q += weight @ (levels[w] + mean) ** 2
            total_v += beta * weight @ (p * (rise - mean[:, None]) ** 2).sum(1)
    return total_q, total_v


def correction(alpha, noise, ridge, beta, levels, hard, log_L, log_t) -> float:
    """Of the generalisation error, in units of the signal (which is 1 here)."""
    c0, b, unit = (ridge, beta, 1.0) if not hard else (0.0, 1.0, 0.0)

    def both(x):
        L, t = np.exp(x)
        q, chi = averages(levels, L + c0, b, L * np.sqrt(1 + t))
        R = 1 - 2 * L * chi + q + noise
        return np.array([x[0] + np.log((unit + chi) / alpha), x[1] - np.log(R / alpha)]), 1 - 2 * L * chi + q

    x, h = np.array([log_L, log_t]), 1e-4
    F, eg = both(x)
    columns = [(both(x + h * e), both(x - h * e)) for e in np.eye(2)]
    J = np.stack([(up[0] - down[0]) / (2 * h) for up, down in columns], 1)
    slope = np.array([(up[1] - down[1]) / (2 * h) for up, down in columns])
    return eg - slope @ np.linalg.solve(J, F)


@lru_cache
def solved(levels: int, count: int):
    batch = draw(count, levels, levels)
    return batch, solve_many(*batch, compiled=False)


def check(levels: int, count: int) -> None:
    (tasks, books, betas), found = solved(levels, count)
    assert found.converged.mean() > 0.99, f"{(~found.converged).sum()} of {count} not converged"
    worst = []
    for i in np.flatnonzero(found.converged):
        signal = tasks.signal[i]
        if found.interpolates[i] and tasks.ridge[i] > 0:
            continue  # only codewords of least |a| are left, which is a limit
        unit = signal if found.interpolates[i] else 1.0
        L, t = found.fields.L[i] * unit, found.fields.chi_hat[i] / found.fields.L[i] ** 2 / signal
        with np.errstate(all="ignore"):
            truth = correction(
                tasks.alpha[i],
                tasks.noise[i] / signal,
                tasks.ridge[i],
                betas[i] * signal,
                books.levels[i] / np.sqrt(signal),
                bool(found.interpolates[i]),
                np.log(L),
                np.log(t),
            )
        ours = found.generalization_error[i] / signal
        worst.append((abs(ours - truth) / (1 + abs(truth)), i))
    error, i = max(worst)
    assert error < 1e-9, (
        error,
        tasks.alpha[i],
        tasks.noise[i] / tasks.signal[i],
        tasks.ridge[i],
        betas[i] * tasks.signal[i],
    )


@pytest.mark.parametrize("levels", [2, 5])
def test_right_or_flagged(levels):
    check(levels, 60)


@pytest.mark.slow
@pytest.mark.parametrize(("levels", "count"), [(2, 500), (3, 400), (4, 400), (8, 400), (16, 300)])
def test_right_or_flagged_at_length(levels, count):
    check(levels, count)


@pytest.mark.parametrize(("levels", "count"), [(4, 150), pytest.param(4, 2000, marks=pytest.mark.slow)])
def test_compiled_or_not_the_answer_is_one(levels, count):
    """`solve` and `phase_diagram` are these two."""
    batch, here = solved(levels, count)
    there = solve_many(*batch, compiled=True)
    both = here.converged & there.converged
    assert both.mean() > 0.99
    gap = np.abs(here.generalization_error - there.generalization_error) / (batch[0].signal + here.generalization_error)
    assert gap[both].max() < 1e-9


@pytest.mark.parametrize(("levels", "count"), [(4, 150), pytest.param(4, 2000, marks=pytest.mark.slow)])
def test_single_precision(levels, count):
    """Right to 1e-4 of the problem as float32 states it, or flagged."""
    batch = jax.tree.map(lambda x: np.asarray(x, np.float32), draw(count, levels, 7))
    keep = np.isfinite(batch[2]) & (batch[2] > 0) | np.isinf(batch[2])
    single = solve_many(*jax.tree.map(lambda x: x[keep], batch))
    double = solve_many(*jax.tree.map(lambda x: np.asarray(x[keep], np.float64), batch))
    assert single.generalization_error.dtype == np.float32
    both = single.converged & double.converged
    assert both.mean() > 0.99
    gap = np.abs(single.generalization_error - double.generalization_error)
    assert (gap / (batch[0].signal[keep] + double.generalization_error))[both].max() < 1e-4
