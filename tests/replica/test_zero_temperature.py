"""beta = inf for any loss: a plain iteration with proximal points, its own neighbourhood, differences, and scikit-learn."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import norm
from sklearn.linear_model import LogisticRegression, Ridge

import replicajax as rj

WIDTH = 1.5
LEVELS = np.linspace(-WIDTH, WIDTH, 4)
TASKS = {
    "square": rj.LinearRegression(2.0, 1.5, 0.1, 0.1),
    "hinge": rj.Classification(3.0, noise=0.2, ridge=0.1, loss=rj.losses.Hinge()),
    "absolute": rj.LinearRegression(2.0, noise=0.1, loss=rj.losses.Absolute()),
    "huber": rj.LinearRegression(2.0, 1.5, 0.1, loss=rj.losses.Huber(0.5)),
    "logistic, aligned": rj.Classification(
        3.0, noise=0.2, features=rj.Features([0.3, 1.7], axes="aligned"), rows=rj.RowLengths([0.5, 1.5])
    ),
    "logistic, rotated": rj.Classification(3.0, noise=0.2, features=rj.Features([0.2, 2.0])),
}


def hinge(y, v, chi):
    """Proximal point."""
    s = y * v
    return y * np.where(s > 1, s, np.where(s < 1 - chi, s + chi, 1.0))


def absolute(y, v, chi):
    r = y - v
    return y - np.sign(r) * np.maximum(np.abs(r) - chi, 0)


def iterated(name, task):
    """theory 1.1 and 7.1 by damped iteration on grids, 1e-6 at best: (m, q, chi)."""
    alpha, noise, ridge, signal = (float(getattr(task, n)) for n in ("alpha", "noise", "ridge", "signal"))
    x = (np.arange(60_000) + 0.5) / 60_000
    x = norm.ppf(x)  # midpoints of equal probability
    m, q, chi = 0.5, 0.6, 0.5
    for _ in range(400):
        if name == "hinge":
            v, scale = np.sqrt(q) * x, np.sqrt(signal - m**2 / q + noise)
            u = hinge(1.0, v, chi)
            slope = (v - u) / chi
            L = alpha * 2 * np.mean(norm.cdf(m / q * v / scale) * ((u == 1) / chi))
            chi_hat = alpha * 2 * np.mean(norm.cdf(m / q * v / scale) * slope**2)
            m_hat = -alpha * 2 * np.mean(norm.pdf(m / q * v / scale) / scale * slope)
        else:
            r = np.sqrt(signal - 2 * m + q + noise) * x
            slope = (absolute(r, 0.0, chi) - 0.0) / chi
            L = alpha * np.mean(np.abs(r) < chi) / chi
            chi_hat, m_hat = alpha * np.mean(slope**2), L
        deviation = np.sqrt(m_hat**2 * signal + chi_hat)
        h = deviation * x
        a = LEVELS[np.searchsorted((LEVELS[1:] + LEVELS[:-1]) / 2, h / (L + ridge))]
        edges = (L + ridge) * (LEVELS[1:] + LEVELS[:-1]) / 2
        response = np.diff(LEVELS) @ norm.pdf(edges / deviation) / deviation
        new = np.array([signal * m_hat * response, np.mean(a**2), response])
        m, q, chi = (np.array([m, q, chi]) + new) / 2
    return m, q, chi


@pytest.mark.parametrize("name", ["hinge", "absolute"])
def test_plain_iteration(name):
    s = rj.solve(TASKS[name], rj.uniform(2, WIDTH), jnp.inf)
    assert s.converged
    assert s.entropy == -np.inf  # rows held at a kink
    ours = s.overlap, s.replica_overlap, s.susceptibility
    np.testing.assert_allclose(ours, iterated(name, TASKS[name]), rtol=2e-5)


@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.slow) if "rotated" in n else n for n in TASKS])
def test_it_is_the_limit(name):
    """Of the finite temperatures: what is left at beta falls as 1/beta, to where two of them point."""
    task, book = TASKS[name], rj.uniform(2, WIDTH)
    cold = rj.solve(task, book, jnp.inf)
    near, nearer = (rj.solve(task, book, beta) for beta in (3e4, 1.2e5))
    assert all(s.converged for s in (cold, near, nearer))
    for what in ("generalization_error", "overlap", "susceptibility", "training_error", "free_energy"):
        at, a, b = (float(getattr(s, what)) for s in (cold, near, nearer))
        assert abs(b - at) < 2e-4 * abs(at)
        # 1/beta, with a logarithm in what kinks leave of the free energy.
        assert abs(b - at) < 0.4 * abs(a - at) + 1e-9, what
    assert float(cold.free_energy) == pytest.approx(float(cold.training_error), abs=1e-12)
    assert not cold.stable


@pytest.mark.parametrize("name", ["square", "hinge", "huber"])
def test_gradients(name):
    """By the implicit function theorem, though the second derivative of the envelope jumps; against differences."""
    task = TASKS[name]

    def observables(at):
        task, width = at
        s = rj.solve(task, rj.uniform(2, width), jnp.inf)
        return jnp.stack([s.generalization_error, s.free_energy, s.susceptibility])

    numbers, rest = eqx.partition((task, jnp.asarray(WIDTH)), eqx.is_inexact_array)
    rng = np.random.default_rng(3)
    direction = jax.tree.map(lambda x: np.asarray(x) * rng.uniform(0.5, 1.5, np.shape(x)), numbers)
    of = jax.jit(lambda x, v: jax.jvp(lambda n: observables(eqx.combine(n, rest)), (x,), (v,)))
    _, slope = of(numbers, direction)
    step = 1e-4
    up, down = (
        observables(eqx.combine(jax.tree.map(lambda x, v, s=s: x + s * step * v, numbers, direction), rest))
        for s in (1, -1)
    )
    np.testing.assert_allclose(slope, (up - down) / (2 * step), rtol=1e-6, atol=1e-7)


def test_best_width_and_sweep():
    task = TASKS["hinge"]
    best = rj.optimal_width(task, 2, jnp.inf)
    assert best.converged
    assert not best.at_edge
    widths = float(best.width) * np.array([0.9, 1.0, 1.1])
    sweep = rj.phase_diagram(task, 2, jnp.inf, axes={"width": widths}, gradients=["width", "alpha"])
    eg = sweep.generalization_error.values
    assert sweep.converged.all()
    assert eg[1] < min(eg[0], eg[2])
    assert eg[1] == pytest.approx(float(best.generalization_error), rel=1e-12)
    assert abs(sweep.d_generalization_error_d_width.values[1]) < 1e-9


@pytest.mark.parametrize("loss", ["logistic", "square"])
@pytest.mark.parametrize("beta", [np.inf, 1e4])
def test_fine_wide_levels_are_those_of_scikit_learn(loss, beta):
    """256 levels 0.06 apart cannot be told from real weights: the same fit by another library, on drawn rows."""
    ridge, N, draws = 0.5, 300, 16
    make = rj.Classification if loss == "logistic" else rj.LinearRegression
    task = make(3.0, noise=0.2, ridge=ridge)
    s = rj.solve(task, rj.uniform(8, 8.0), beta)
    assert s.converged
    model = (
        LogisticRegression(C=1 / ridge, fit_intercept=False, tol=1e-8, max_iter=500)
        if loss == "logistic"
        else Ridge(alpha=ridge, fit_intercept=False)
    )
    found = []
    for k in range(draws):
        X, y, teacher = (np.asarray(x) for x in rj.draw(task, N, jax.random.key(k))[:3])
        w = model.fit(X, y).coef_.ravel()
        u, m, q = X @ w, w @ teacher / N, w @ w / N
        cost = np.logaddexp(0, -y * u) if loss == "logistic" else (y - u) ** 2 / 2
        found.append([m, q, cost.sum() / N + ridge * q / 2])
    mean, error = np.mean(found, 0), np.std(found, 0, ddof=1) / np.sqrt(draws)
    z = (mean - np.array([s.overlap, s.replica_overlap, s.training_error], float)) / error
    assert (np.abs(z) < 3).all(), z
    assert (error < 0.02).all()


@pytest.mark.optimized
def test_message_passing_follows_state_evolution():
    """GAMP with proximal points, before it fails to settle."""
    task, book = TASKS["hinge"], rj.uniform(2, WIDTH)
    start = rj.models.Order(0.0, 0.0, 0.7)  # at 1 all rows would be at a bend
    theory = rj.state_evolution(task, book, jnp.inf, steps=4, start=start)
    m, known = [], {"ridge": task.ridge, "damping": 0.0, "steps": 4}
    for k in range(8):
        X, y, teacher = rj.draw(task, 1000, jax.random.key(k))[:3]
        run = rj.amp(X, y, book, jnp.inf, loss=task.loss, susceptibility=0.7, **known, teacher=teacher)
        m.append(run.trajectory.overlap)
    z = (np.mean(m, 0) - theory.overlap) / (np.std(m, 0, ddof=1) / np.sqrt(8) + 1e-12)
    assert (np.abs(z[1:]) < 4).all(), z


def test_inf_that_is_traced():
    """State evolution takes it; a solution says that it cannot."""
    task, book, start = TASKS["hinge"], rj.uniform(2, WIDTH), rj.models.Order(0.0, 0.0, 0.7)

    def overlap(beta):
        return rj.state_evolution(task, book, beta, steps=3, start=start).overlap

    np.testing.assert_allclose(jax.jit(overlap)(jnp.inf), overlap(jnp.inf), atol=1e-12)
    assert not jax.jit(lambda beta: rj.solve(task, book, beta).converged)(jnp.inf)
    assert jax.jit(lambda: rj.solve(task, book, jnp.inf).converged)()


def test_a_loss_of_both_numbers():
    class Fair(rj.losses.Loss):
        def __call__(self, y, u):
            return jnp.log(jnp.cosh(y - u)) + 0.1 * u**2

    task = rj.LinearRegression(2.0, noise=0.1, loss=Fair())

    def error(width, beta=jnp.inf):
        return rj.solve(task, rj.uniform(2, width), beta).generalization_error

    # What is left falls as 1/beta.
    cold = error(WIDTH)
    assert float(error(WIDTH, 1e4) - cold) == pytest.approx(float(error(WIDTH, 1e3) - cold) / 10, rel=0.02)
    step = 1e-5
    difference = (error(WIDTH + step) - error(WIDTH - step)) / (2 * step)
    assert float(jax.grad(error)(WIDTH)) == pytest.approx(float(difference), rel=1e-7)
