"""One step of breaking for losses other than the square one: its potential by plain sums, the square loss that nobody told of
its closed forms, identities, and differences."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import norm

import replicajax as rj
from replicajax.replica._breaking import Broken, _search, seen
from tests.replica.differences import along, energy_at

BOOK = rj.uniform(2, 1.5)
ALIGNED = rj.Features([0.3, 1.7], axes="aligned")
ROTATED = rj.Features([0.3, 1.0, 2.0], [1.5, 1.0, 0.5])
TASKS = {
    "hinge": rj.Classification(3.0, noise=0.2, ridge=0.1, loss=rj.losses.Hinge()),
    "absolute": rj.LinearRegression(2.0, noise=0.1, loss=rj.losses.Absolute()),
    "logistic": rj.Classification(3.0, noise=0.2),
    "hinge, rotated": rj.Classification(2.0, noise=0.2, ridge=0.1, loss=rj.losses.Hinge(), features=ROTATED),
    "huber, aligned": rj.LinearRegression(2.0, 1.5, 0.1, loss=rj.losses.Huber(0.5), features=ALIGNED),
}


class Quadratic(rj.losses.ResidualLoss):
    """The square loss, by quadrature."""

    def of_residual(self, r):
        return r**2 / 2


def broken(task, book, beta):
    return rj.solve(task, book, beta, breaking=1)


@pytest.mark.parametrize("beta", [None, 5.0])
def test_a_channel_within_a_channel_is_that_of_the_square_loss(beta):
    closed, summed = (rj.LinearRegression(2.0, 1.0, 0.1, loss=loss) for loss in (None, Quadratic()))
    at = [jnp.asarray(x) for x in (0.7, 0.8, 0.95, 0.1, 3.3)]
    heat = None if beta is None else jnp.asarray(beta)
    ours, theirs = (jax.jit(lambda *x, task=task: seen(jnp, task, *x, heat))(*at) for task in (summed, closed))
    for name in "potential", "complexity", "entropy", "L", "replicon":
        np.testing.assert_allclose(getattr(ours, name), getattr(theirs, name), rtol=1e-12, atol=1e-13, err_msg=name)
    for name in "m_hat", "chi_hat", "L", "replicon":
        np.testing.assert_allclose(getattr(ours.outer, name), getattr(theirs.outer, name), rtol=1e-12, err_msg=name)


@pytest.mark.parametrize("beta", [None, pytest.param(20.0, marks=pytest.mark.slow)])
def test_and_so_it_is_in_rotated_axes(beta):
    closed, summed = (rj.LinearRegression(2.0, 1.0, 0.1, loss=loss, features=ROTATED) for loss in (None, Quadratic()))
    at = [jnp.asarray(x) for x in (0.0, 0.87, 0.95, 0.04, 12.0)]
    heat = None if beta is None else jnp.asarray(beta)

    @jax.jit
    def asked(L, M, c0, rows):
        felt = Broken(jnp.log(L), jnp.log(L / M - 1), jnp.log(c0), jnp.log(at[-1]), log_rows=jnp.log(rows))
        return seen(jnp, summed, *at, heat, felt)

    ours = asked(2.0, 1.0, 1.0, 1.0)
    for _ in range(60):
        ours = asked(ours.L, ours.outer.L, ours.outer.chi_hat, ours.rows)
    theirs = seen(jnp, closed, *at, heat)
    for name in "potential", "complexity", "entropy", "L", "replicon":
        np.testing.assert_allclose(getattr(ours, name), getattr(theirs, name), rtol=1e-11, atol=1e-12, err_msg=name)
    for name in "chi_hat", "L", "replicon":
        np.testing.assert_allclose(getattr(ours.outer, name), getattr(theirs.outer, name), rtol=1e-11, err_msg=name)


def moreau(name, x, chi):
    """Least of (u − x)²/(2 chi) + ell, of margins x for the hinge, of residuals for |x|."""
    if name == "hinge":
        return np.where(x > 1, 0.0, np.where(x < 1 - chi, 1 - x - chi / 2, (1 - x) ** 2 / (2 * chi)))
    return np.where(np.abs(x) < chi, x**2 / (2 * chi), np.abs(x) - chi / 2)


def potential(name, x, levels, alpha, noise, ridge):
    """f of theory 8 at beta = inf and any (m, q0, q1, chi, m_hat, c0, c1, L, y), signal 1; shares no code with the package."""
    m, q0, q1, chi, m_hat, c0, c1, L, y = x
    z = outer = np.linspace(-9, 9, 401)
    p = np.exp(-(outer**2) / 2) * (outer[1] - outer[0]) / np.sqrt(2 * np.pi)
    if name == "hinge":
        v0 = np.sqrt(q0) * outer
        chance = 2 * norm.cdf(m / q0 * v0 / np.sqrt(1 - m**2 / q0 + noise))
    else:
        v0, chance = np.sqrt(1 - 2 * m + q0 + noise) * outer, 1.0
    # Over z1 between the places where the envelope bends, and far enough to both sides.
    bends = [1 - chi, 1] if name == "hinge" else [-chi, chi]
    edges = np.clip([(b - v0) / np.sqrt(q1 - q0) for b in bends], -14, 14)
    edges = np.vstack([np.full_like(v0, -14), edges, np.full_like(v0, 14)])[..., None]
    unit, weight = np.polynomial.legendre.leggauss(100)
    half = (edges[1:] - edges[:-1]) / 2
    inner = edges[:-1] + half * (1 + unit)
    cost = -y * moreau(name, v0[:, None] + np.sqrt(q1 - q0) * inner, chi) - inner**2 / 2
    top = cost.max((0, 2))
    total = (np.exp(cost - top[:, None]) * half * weight).sum((0, 2)) / np.sqrt(2 * np.pi)
    rows = -alpha / y * (chance * p) @ (top + np.log(total))
    # The closed inner average of theory 8.
    K, h = L + ridge, np.sqrt(m_hat**2 + c0) * z[:, None]
    ends = np.concatenate([[-np.inf], K * (levels[1:] + levels[:-1]) / 2, [np.inf]])
    shift, width = h + y * c1 * levels, np.sqrt(c1)
    cell = norm.cdf((ends[1:] - shift) / width) - norm.cdf((ends[:-1] - shift) / width)
    power = y * (h * levels - K * levels**2 / 2) + y**2 * c1 * levels**2 / 2
    top = power.max(1)
    weights = p @ (top + np.log((np.exp(power - top[:, None]) * cell).sum(1))) / y
    return rows + m_hat * m - L * q1 / 2 + ((c0 + c1) * (chi + y * q1) - y * c0 * q0) / 2 - weights


@pytest.mark.parametrize("name", ["hinge", pytest.param("absolute", marks=pytest.mark.slow)])
def test_stationary_by_sums(name):
    """In all nine, by differences; f and the errors are those of the place."""
    task, levels = TASKS[name], np.asarray(BOOK.levels)
    s = broken(task, BOOK, np.inf)
    assert s.converged
    m_hat, total, L = (float(x) for x in s.fields)
    y, m, q1 = float(s.parisi), float(s.overlap), float(s.inner_overlap)
    c0 = float(jnp.exp(_search(True, (task, BOOK, jnp.asarray(jnp.inf)))[0][2]))
    rest = float(task.alpha), float(task.noise), float(task.ridge)

    x = np.array([m, float(s.outer_overlap), q1, float(s.susceptibility), m_hat, c0, total - c0, L, y])

    def slope(k, step):
        moved = [x * (1 + sign * step * (np.arange(9) == k)) for sign in (1, -1)]
        return (potential(name, moved[0], levels, *rest) - potential(name, moved[1], levels, *rest)) / (2 * step)

    assert potential(name, x, levels, *rest) == pytest.approx(float(s.free_energy), abs=1e-8)
    found = np.array([(4 * slope(k, 1e-4) - slope(k, 2e-4)) / 3 for k in range(9)])
    print(found)
    assert np.abs(found).max() < 1e-7
    assert float(s.training_error) == pytest.approx(float(s.free_energy), abs=1e-12)
    scale = 1 + float(task.noise)
    expected = np.arccos(m / np.sqrt(q1 * scale)) / np.pi if name == "hinge" else 1 - 2 * m + q1
    assert float(s.state_error) == pytest.approx(expected, abs=1e-12)


def task_of(name, kind, rng):
    rest = {
        "alpha": rng.uniform(1.5, 5),
        "noise": np.exp(rng.uniform(np.log(0.05), 0)),
        "ridge": rng.choice([0.0, 0.2]),
    }
    if kind in ("aligned", "rotated"):
        rest["features"] = rj.Features(np.exp(rng.uniform(-1, 1, 3)), np.exp(rng.uniform(-1, 1, 3)), kind)
    if kind == "lengths":
        rest["rows"] = rj.RowLengths.student_t(float(rng.uniform(4, 9)), 8)
    if name in ("hinge", "logistic"):
        return rj.Classification(loss=getattr(rj.losses, name.title())(), **rest)
    return rj.LinearRegression(loss={"absolute": rj.losses.Absolute(), "huber": rj.losses.Huber(0.5)}[name], **rest)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["iid", "aligned", "rotated", "lengths"])
@pytest.mark.parametrize("name", ["hinge", "logistic", "absolute", "huber"])
def test_random_broken_points(name, kind):
    """96 tasks at zero temperature: all are found, above RS, and states are closer within than between."""
    rng = np.random.default_rng(len(name) + len(kind))
    for _ in range(6):
        task, book = task_of(name, kind, rng), rj.uniform(int(rng.integers(1, 3)), rng.uniform(1.0, 2.5))
        rs, s = (rj.solve(task, book, np.inf, breaking=b) for b in (0, 1))
        assert rs.converged
        assert s.converged, (task, book)
        assert float(s.free_energy) > float(rs.free_energy)
        assert s.outer_overlap < s.inner_overlap


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "beta"), [("hinge", 60.0), ("logistic", 300.0), ("huber, aligned", 60.0), ("hinge, rotated", 60.0)]
)
def test_energy_is_the_derivative_of_beta_f(name, beta):
    task = TASKS[name]
    s = broken(task, BOOK, beta)
    assert s.converged
    slope = energy_at(lambda beta: float(broken(task, BOOK, beta).free_energy), beta)
    assert slope == pytest.approx(float(s.training_error), abs=1e-8)
    assert float(s.entropy) == pytest.approx(beta * float(s.training_error - s.free_energy), abs=1e-9 * beta)
    cold = broken(task, BOOK, np.inf)
    assert float(cold.free_energy) == pytest.approx(float(s.free_energy), abs=5 / beta**2 + 0.5 / beta)


@pytest.mark.slow
@pytest.mark.parametrize("beta", [np.inf, 60.0])
def test_gradients_are_those_of_differences(beta):
    def observables(theta):
        alpha, noise, delta, levels = theta
        task = rj.LinearRegression(alpha, 1.5, noise, loss=rj.losses.Huber(delta))
        s = broken(task, rj.codebook(levels), beta)
        return jnp.stack([s.generalization_error, s.free_energy, s.parisi, s.training_error, s.outer_replicon])

    theta = 2.0, 0.1, 0.5, BOOK.levels
    direction = 0.7, 0.2, 0.4, jnp.asarray([-0.3, 0.1, 0.2, 0.5])
    slope, differences = along(observables, theta, direction)
    np.testing.assert_allclose(slope, differences, rtol=1e-6, atol=1e-8)


@pytest.mark.slow
def test_sweeps_and_best_width():
    task = TASKS["hinge"]
    widths = [1.0, 1.5, 2.0]
    d = rj.phase_diagram(task, 2, np.inf, axes={"width": widths}, breaking="auto", gradients=["width"])
    assert d.breaking.values.tolist() == [1, 1, 1]
    s, *near = (broken(task, rj.uniform(2, w), np.inf) for w in (1.5, 1.5 - 1e-4, 1.5 + 1e-4))
    for name in ("generalization_error", "free_energy", "parisi", "state_error"):
        assert float(d[name][1]) == pytest.approx(float(getattr(s, name)), rel=1e-8), name
    difference = float(near[1].generalization_error - near[0].generalization_error) / 2e-4
    assert float(d.d_generalization_error_d_width[1]) == pytest.approx(difference, rel=1e-6)
    best = rj.optimal_width(task, 2, np.inf, breaking=1)
    assert best.converged
    around = [
        float(broken(task, rj.uniform(2, best.width * f), np.inf).generalization_error) for f in (0.98, 1.0, 1.02)
    ]
    assert around[1] == min(around)


def test_stable_points_stay_symmetric():
    task = TASKS["hinge"]
    rs, s = (rj.solve(task, BOOK, 1.0, breaking=b) for b in (0, "auto"))
    assert rs.stable
    assert s.breaking == 0
    assert s.free_energy == rs.free_energy


def test_what_is_refused():
    with pytest.raises(ValueError, match="beta must be finite for perceptron loss"):
        rj.solve(rj.Classification(1.0, loss=rj.losses.Perceptron()), BOOK, np.inf, breaking=1)
