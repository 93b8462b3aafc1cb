"""One step of replica symmetry breaking: reference numbers, limits that are known, identities, and what must be refused."""

from functools import lru_cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import replicajax as rj
from replicajax.numerics import NUMPY
from replicajax.replica import _breaking as breaking
from tests.replica.differences import along, energy_at

TASK = rj.LinearRegression(2.0, 1.0, 0.1)
BOOK = rj.uniform(2, 1.5)
HEAVY = rj.Features.power_law(1.5, 30)


def broken(task, book, beta):
    return rj.solve(task, book, beta, breaking=1)


@pytest.mark.parametrize(
    ("levels", "beta", "y", "f", "m", "q0", "q1", "chi", "tolerance"),
    [
        ([-1.5, -0.5, 0.5, 1.5], np.inf, 12.33620, 0.12818328, 0.85107248, 0.90449785, 0.95795951, 0.08124030, 1e-7),
        ([-1.0, 1.0], np.inf, 3.31436, 0.32766483, 0.69511165, 0.86078381, 1.0, 0.07128599, 1e-7),
        # theory 13 has these two to 3e-7 and to 6e-5 in q0, f to 4e-9 and 8e-7: see `test_stationary_by_sums`
        ([-2.5, 2.5], 1.0, 0.41945558, 1.41660975, 1.21472300, 2.88125500, 6.01946970, 0.23053030, 1e-8),
        ([-5.0, -5 / 3, 5 / 3, 5.0], 5.0, 1.01250308, 0.61370973, 1.10120834, 1.91456523, 2.99076088, 0.13555837, 1e-8),
    ],
)
def test_reference_numbers(levels, beta, y, f, m, q0, q1, chi, tolerance):
    s = broken(TASK, rj.codebook(levels), beta)
    assert s.converged
    assert s.breaking == 1
    ours = s.free_energy, s.overlap, s.outer_overlap, s.inner_overlap, s.susceptibility
    np.testing.assert_allclose(ours, (f, m, q0, q1, chi), rtol=0, atol=tolerance)
    assert float(s.parisi) == pytest.approx(y, rel=1e-6)
    assert abs(float(s.complexity)) < 1e-12


def sums(levels, K, beta, y, variance, c0, c1):
    """E log Z of theory 3 by the trapezoidal rule, for a Gaussian outer field."""
    H, z = np.linspace(-9, 9, 601), np.linspace(-16, 16, 12001)  # the tilt moves z by some y sqrt(c1) a
    outer, inner = (step * np.exp(-(x**2) / 2) / np.sqrt(2 * np.pi) for x, step in ((H, H[1] - H[0]), (z, z[1] - z[0])))
    total = 0.0
    for point, weight in zip(np.sqrt(variance + c0) * H, outer, strict=True):
        h = point + np.sqrt(c1) * z
        e = beta * (h[:, None] * levels - K * levels**2 / 2)
        top = e.max(1)
        phi = (top + np.log(np.exp(e - top[:, None]).sum(1))) / beta
        total += weight * (y * phi.max() + np.log(inner @ np.exp(y * (phi - phi.max()))))
    return total


def potential(x, levels, beta, alpha=2.0, noise=0.1):
    """f of theory 3 at any (m, q0, q1, chi, m_hat, c0, c1, L, y), signal 1, ridge 0; shares no code with the package."""
    m, q0, q1, chi, m_hat, c0, c1, L, y = x
    d, R = q1 - q0, 1 - 2 * m + q0 + noise
    data = np.log1p(chi) / beta + np.log1p(y * d / (1 + chi)) / y + R / (1 + chi + y * d)
    coupling = m_hat * m - L * (q1 + chi / beta) / 2 + ((c0 + c1) * (chi + y * q1) - y * c0 * q0) / 2
    return alpha / 2 * data + coupling - sums(levels, L, beta, y, m_hat**2, c0, c1) / y


@pytest.mark.slow
@pytest.mark.parametrize(("levels", "beta"), [([-2.5, 2.5], 1.0), ([-5.0, -5 / 3, 5 / 3, 5.0], 5.0)])
def test_stationary_by_sums(levels, beta):
    """In all nine, by differences of plain sums: where theory 13 is not."""
    s = broken(TASK, rj.codebook(levels), beta)
    m_hat, total, L = (float(x) for x in s.fields)
    y = float(s.parisi)
    c1 = (L - m_hat) / y
    at = np.array(
        [*map(float, (s.overlap, s.outer_overlap, s.inner_overlap, s.susceptibility)), m_hat, total - c1, c1, L, y]
    )

    def slope(k, step):
        moved = [at * (1 + sign * step * (np.arange(9) == k)) for sign in (1, -1)]
        return (potential(moved[0], np.array(levels), beta) - potential(moved[1], np.array(levels), beta)) / (2 * step)

    gradient = np.array([(4 * slope(k, 1e-3) - slope(k, 2e-3)) / 3 for k in range(9)])
    print(gradient)
    assert np.abs(gradient).max() < 1e-8
    assert potential(at, np.array(levels), beta) == pytest.approx(float(s.free_energy), abs=1e-10)


def test_sherrington_kirkpatrick():
    """±1 weights, no signal, many rows: ground state energy −0.7652 of one step, −0.7979 without (theory 3)."""
    alphas = np.array([4e4, 1.6e5, 6.4e5])
    tasks = [rj.LinearRegression(alpha, 1e-10) for alpha in alphas]
    for solve, energy in ((broken, -0.7652), (rj.solve, -np.sqrt(2 / np.pi))):
        found = [solve(task, rj.uniform(1, 1.0), np.inf) for task in tasks]
        assert all(s.converged for s in found)
        scaled = [(float(s.free_energy) - alpha / 2) / np.sqrt(alpha) for s, alpha in zip(found, alphas, strict=True)]
        limit = np.polyfit(alphas**-0.5, scaled, 2)[-1]
        assert limit == pytest.approx(energy, abs=3e-4)
    last = broken(tasks[-1], rj.uniform(1, 1.0), np.inf)
    assert float(last.parisi) * np.sqrt(alphas[-1]) == pytest.approx(1.36, abs=0.01)
    assert float(last.outer_overlap) == pytest.approx(0.476, abs=0.003)


@pytest.mark.parametrize("y", [0.7, 2.0, 4.0])
def test_one_state_is_replica_symmetry(y):
    """At q1 = q0, whatever the Parisi parameter; f, being stationary, to second order in the difference."""
    s = rj.solve(TASK, BOOK, 5.0)
    levels, beta = np.asarray(BOOK.levels), np.float64(5.0)
    task = jax.tree.map(np.asarray, TASK)
    at = breaking.Broken(
        *(np.float64(x) for x in (np.log(s.fields.L), np.log(1e-7), np.log(s.fields.chi_hat), np.log(y)))
    )
    found, residual = breaking.within(NUMPY, task, breaking._law(task), levels, beta, at, cold=False)
    assert found.free_energy == pytest.approx(float(s.free_energy), abs=1e-10)
    for ours, rs in (
        (found.m, s.overlap),
        (found.q1, s.replica_overlap),
        (found.chi, s.susceptibility),
        (found.entropy, s.entropy),
    ):
        assert ours == pytest.approx(float(rs), abs=3e-7)
    np.testing.assert_allclose(residual, 0, atol=3e-7)


KINDS = "iid", "laplace", "rotated", "aligned", "lengths", "given"


@lru_cache
def given():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(60, 50)) * np.arange(1, 51) ** -0.3
    return rj.GivenData.standardized(X, X @ rng.normal(size=50) / 5 + 0.5 * rng.normal(size=60))


def task_of(kind, rng):
    if kind == "given":
        return given()
    rest = {
        "alpha": rng.uniform(0.8, 4),
        "signal": 1.0,
        "noise": np.exp(rng.uniform(np.log(0.02), 0)),
        "ridge": rng.choice([0.0, 0.2]),
    }
    if kind in ("rotated", "aligned"):
        rest["features"] = rj.Features(np.exp(rng.uniform(-2, 1, 3)), np.exp(rng.uniform(-1, 1, 3)), kind)
    if kind == "lengths":
        rest["rows"] = rj.RowLengths.student_t(float(rng.uniform(3, 9)), 12)
    if kind == "laplace":
        rest["teacher"] = rj.distributions.Laplace()
    return rj.LinearRegression(**rest)


@pytest.mark.parametrize("kind", [*KINDS[:1], *(pytest.param(kind, marks=pytest.mark.slow) for kind in KINDS[1:])])
def test_random_broken_points(kind):
    """Zero temperature, and low ones: found, no lower than RS, stationary: d(beta f)/d beta = e, df/dwidth by the envelope."""
    rng = np.random.default_rng(KINDS.index(kind))
    missed = 0
    for k in range(9):
        task, bits = task_of(kind, rng), int(rng.integers(1, 3))
        book = rj.uniform(bits, rng.uniform(0.6, 2.5) * float(task.signal) ** 0.5)
        beta = np.inf if k % 2 else float(np.exp(rng.uniform(np.log(30), np.log(300))))
        rs, s = (rj.solve(task, book, beta, breaking=b) for b in (0, "auto"))
        if np.isinf(beta):
            missed += not s.breaking
        if not s.breaking:
            assert rs.stable or np.isinf(beta) or not broken(task, book, beta).converged
            continue
        assert s.converged
        assert float(s.free_energy) >= float(rs.free_energy) - 1e-9
        assert s.outer_overlap < s.inner_overlap
        if np.isinf(beta):
            continue
        slope = energy_at(lambda beta, task=task, book=book: float(broken(task, book, beta).free_energy), beta)
        assert slope == pytest.approx(float(s.training_error), abs=1e-7)
        assert float(s.entropy) == pytest.approx(beta * float(s.training_error - s.free_energy), abs=1e-9 * beta)
    assert not missed


def test_stable_points_stay_symmetric():
    rng, stable = np.random.default_rng(5), 0
    while stable < 100:
        task = rj.LinearRegression(rng.uniform(0.5, 4), 1.0, rng.uniform(0.05, 1))
        book = rj.uniform(2, rng.uniform(1, 2))
        rs, s = (rj.solve(task, book, 2.0, breaking=b) for b in (0, "auto"))
        if rs.stable and rs.entropy >= 0:
            stable += 1
            assert s.breaking == 0
            assert s.free_energy == rs.free_energy


def test_frozen_measures_stop_cooling():
    """A heavy spectrum in turned axes freezes as the random energy model does: states are single words, f is constant."""
    task = rj.LinearRegression(2.0, 1.0, 0.1, features=HEAVY)
    cold, cool = (broken(task, BOOK, beta) for beta in (np.inf, 40.0))
    assert cold.converged
    assert cool.converged
    assert float(cool.free_energy) == pytest.approx(float(cold.free_energy), abs=2e-5)
    assert float(cool.inner_overlap) == pytest.approx(float(cool.self_overlap), rel=1e-3)
    assert cold.outer_replicon > 0
    assert float(cool.parisi) == pytest.approx(float(cold.parisi), rel=1e-3)
    assert float(rj.solve(task, BOOK, 40.0).entropy) < -0.05


ROTATED = rj.Features([0.3, 1.0, 2.0])


@pytest.mark.parametrize(
    ("features", "beta"),
    [(None, np.inf), (ROTATED, np.inf), (None, 8.0), pytest.param(ROTATED, 8.0, marks=pytest.mark.slow)],
)
def test_gradients_are_those_of_differences(beta, features):
    book = rj.uniform(2, 1.5 if np.isinf(beta) else 4.0)

    def observables(theta):
        alpha, noise, levels = theta
        s = rj.solve(rj.LinearRegression(alpha, 1.0, noise, features=features), rj.codebook(levels), beta, breaking=1)
        return jnp.stack([s.generalization_error, s.free_energy, s.parisi, s.training_error, s.outer_replicon])

    theta = 2.0, 0.1, book.levels
    direction = 0.7, 0.2, jnp.asarray([-0.3, 0.1, 0.2, 0.5])
    slope, differences = along(observables, theta, direction)
    np.testing.assert_allclose(slope, differences, rtol=1e-6, atol=1e-8)


def test_sweeps_and_single_points_agree():
    axes = {"alpha": [1.0, 2.0, 3.0], "width": [1.0, 1.5, 2.0], "beta": [2.0, np.inf]}
    d = rj.phase_diagram(TASK, 2, axes=axes, breaking="auto", gradients=["width", "noise"])
    assert d.attrs["breaking"] == "auto"
    assert (d.converged).all()
    for k in ((0, 0, 0), (1, 1, 1), (2, 0, 1)):
        alpha, width, beta = (values[i] for values, i in zip(axes.values(), k, strict=True))
        s = rj.solve(rj.LinearRegression(alpha, 1.0, 0.1), rj.uniform(2, width), beta, breaking="auto")
        assert int(d.breaking[k]) == int(s.breaking)
        for name in ("generalization_error", "free_energy", "parisi", "inner_overlap", "outer_overlap"):
            assert float(d[name][k]) == pytest.approx(float(getattr(s, name)), rel=1e-8), name
    h = 1e-4
    e = [float(broken(TASK, rj.uniform(2, 1.5 + i * h), np.inf).generalization_error) for i in (-1, 1)]
    assert float(d.d_generalization_error_d_width[1, 1, 1]) == pytest.approx((e[1] - e[0]) / (2 * h), rel=1e-6)
    with pytest.raises(ValueError, match="optimum is that of replica symmetry: breaking must be 0 with it, got 1"):
        rj.phase_diagram(TASK, 2, axes=axes, breaking=1, optimum="width")


def test_best_width_at_zero_temperature():
    best, rs = (rj.optimal_width(TASK, 2, np.inf, breaking=b) for b in (1, 0))
    assert best.converged
    near = [float(broken(TASK, rj.uniform(2, best.width * f), np.inf).generalization_error) for f in (0.99, 1.0, 1.01)]
    assert near[1] == min(near)
    assert near[1] == pytest.approx(float(best.generalization_error), rel=1e-9)
    assert float(best.width) > 1.03 * float(rs.width)  # RS takes it 5 % too narrow
    with jax.enable_x64(False):
        single = rj.optimal_width(rj.LinearRegression(2.0, 1.0, 0.1), 2, np.inf, breaking=1)
    assert single.width.dtype == jnp.float32
    assert float(single.width) == pytest.approx(float(best.width), rel=1e-4)


@pytest.mark.slow
def test_best_width_has_a_derivative():
    def width(noise):
        return rj.optimal_width(rj.LinearRegression(2.0, 1.0, noise), 2, np.inf, breaking=1).width

    h = 1e-3
    difference = (width(0.1 - 2 * h) - 8 * width(0.1 - h) + 8 * width(0.1 + h) - width(0.1 + 2 * h)) / (12 * h)
    assert float(jax.grad(width)(0.1)) == pytest.approx(float(difference), rel=1e-6)


def test_stored_sweeps_know_their_breaking(tmp_path):
    axes, store = {"width": [1.0, 1.5]}, tmp_path / "sweep"
    kept, plain = (rj.phase_diagram(TASK, 2, np.inf, axes=axes, breaking="auto", store=s) for s in (store, None))
    np.testing.assert_array_equal(kept.free_energy, plain.free_energy)
    assert kept.breaking.values.tolist() == [1, 1]
    with pytest.raises(ValueError, match="holds a different sweep"):
        rj.phase_diagram(TASK, 2, np.inf, axes=axes, store=store)


def test_what_is_refused():
    with pytest.raises(ValueError, match='breaking must be 0, 1 or "auto", got 2'):
        rj.solve(TASK, BOOK, 2.0, breaking=2)
    with pytest.raises(ValueError, match='breaking must be 0, 1 or "auto", got 2'):
        rj.phase_diagram(TASK, 2, 2.0, width=1.0, axes={"alpha": [1.0]}, breaking=2)
    with pytest.raises(ValueError, match="breaking must be 0 with it"):
        rj.optimal_width(TASK, 2, 2.0, breaking=1, require_stable=True)
    with pytest.raises(TypeError, match='breaking="auto" has no derivatives'):
        jax.grad(lambda noise: rj.optimal_width(rj.LinearRegression(2.0, 1.0, noise), 2, 2.0, breaking="auto").width)(
            0.1
        )


def test_auto_inside_a_transformation_is_symmetric():
    """Documented: whether it breaks is not known there."""
    inside = jax.jit(lambda beta: rj.solve(TASK, BOOK, beta, breaking="auto").breaking)(300.0)
    assert int(inside) == 0
    assert int(rj.solve(TASK, BOOK, 300.0, breaking="auto").breaking) == 1


def test_no_states_is_said():
    s = broken(TASK, BOOK, 1.0)
    assert not s.converged
    assert "NOT CONVERGED" in str(s)


def test_print():
    text = str(broken(TASK, BOOK, np.inf))
    assert "one step of replica symmetry breaking" in text
    assert "Parisi parameter" in text
    assert "unstable: one step is not the equilibrium" in text
