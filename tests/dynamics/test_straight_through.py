"""Straight-through training: the theory against other schemes, the actual algorithm, and laws it must obey."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.linalg import solve_banded
from scipy.optimize import minimize
from scipy.stats import norm

import replicajax as rj
from replicajax import distributions
from replicajax.trials import simulate_straight_through

d = rj.dynamics
BOOK = rj.uniform(2, 2.0)
TIMES = np.array([5.0, 10.0, 15.0, 17.5, 20.0])


def finite_volumes(levels, levels_x, step, noise, teacher, times, cells, dt, end=9.0):
    """Exponential fitting, faces on thresholds, Crank–Nicolson after implicit steps: no code in common."""
    levels, levels_x = np.asarray(levels), np.asarray(levels_x)
    cuts, x = (levels[1:] + levels[:-1]) / 2, np.linspace(-10, 10, 400_001)
    phi_x = levels_x[np.searchsorted((levels_x[1:] + levels_x[:-1]) / 2, x)]
    p_x = norm.pdf(x) / norm.pdf(x).sum()
    k1, k2 = p_x @ (x * phi_x), p_x @ phi_x**2
    edges = np.concatenate([[-end], cuts, [end]])
    counts = np.maximum(np.round(cells * np.diff(edges) / (2 * end)).astype(int), 8)
    faces = np.concatenate(
        [np.linspace(a, b, n, endpoint=False) for a, b, n in zip(edges, edges[1:], counts, strict=False)]
    )
    faces = np.append(faces, end)
    middle, size = (faces[1:] + faces[:-1]) / 2, np.diff(faces)
    phi = levels[np.searchsorted(cuts, middle)]
    mass = np.diff(norm.cdf(faces))
    mass /= mass.sum()
    # Between two middles the potential climbs half a cell at either slope.
    climb = (k2 * phi - k1 * teacher) * size / 2
    climb, gap = climb[1:] + climb[:-1], np.diff(middle)

    def error():
        return k2 * (mass @ phi**2) - 2 * k1 * teacher * (mass @ phi) + teacher**2

    def rates(eps):
        heat = step**2 * k2 * eps / 2
        u = step * climb / heat
        to_right = heat / gap * np.where(np.abs(u) < 1e-8, 1 - u / 2, u / np.expm1(np.clip(u, -500, 500)))
        return to_right / size[:-1], (to_right * np.exp(np.clip(u, -500, 500))) / size[1:]

    found, now, previous = [], 0.0, error()
    for until in times:
        while now < until - 1e-12:
            eps = error() + noise
            ahead = eps + (eps - previous) / 2 if now > 0 else eps  # at half a step
            right, left = rates(ahead)
            previous = eps
            parts = 4 if now == 0 else 1
            for _ in range(parts):
                weight = 1.0 if parts > 1 else 0.5
                h = dt / parts
                matrix = np.zeros((3, mass.size))
                out = np.append(right, 0) + np.insert(left, 0, 0)
                matrix[1] = 1 + weight * h * out
                matrix[0, 1:], matrix[2, :-1] = -weight * h * left, -weight * h * right
                net = np.insert(right * mass[:-1], 0, 0) + np.append(left * mass[1:], 0) - out * mass
                mass = solve_banded((1, 1), matrix, mass + (1 - weight) * h * net)
            now += dt
        found.append(error())
    return np.array(found)


@pytest.fixture(scope="module")
def course():
    return d.straight_through(weights=BOOK, inputs=BOOK, step=0.2, noise=0.0, teacher=1.0, times=TIMES)


def test_another_scheme_has_the_same_errors(course):
    coarse, fine = (
        finite_volumes(BOOK.levels, BOOK.levels, 0.2, 0.0, 1.0, TIMES[:3], cells, 0.01) for cells in (1500, 3000)
    )
    # Their error is of second order in the size of cells.
    np.testing.assert_allclose(course.generalization_error[:3], (4 * fine - coarse) / 3, rtol=2e-5)


def test_reference_numbers(course):
    """theory 11: simulated, d = 2000, 24 runs, with their standard errors."""
    simulated = np.array([0.4689, 0.2668, 0.2905, 0.3105, 0.3313])
    errors = np.array([0.0046, 0.0021, 0.0018, 0.0019, 0.0021])
    assert (np.abs(course.generalization_error - simulated) < 3 * errors).all()
    assert course.converged.all()


def test_finer_elements_and_shorter_steps_change_nothing(course):
    fine = d.straight_through(BOOK, BOOK, times=TIMES, refine=2, tolerance=1e-9)
    np.testing.assert_allclose(course.generalization_error, fine.generalization_error, rtol=1e-6)
    w = np.linspace(-3, 3, 301)
    np.testing.assert_allclose(course.cumulative(w), fine.cumulative(w), atol=2e-6)


def test_mass_and_levels(course):
    w = np.array([-30.0, 30.0])
    np.testing.assert_allclose(course.cumulative(w), [[0, 1]] * 5, atol=1e-12)
    w = np.linspace(-6, 6, 4001)
    below = np.asarray(course.cumulative(w))
    assert (np.diff(below, axis=1) > -1e-7).all()
    np.testing.assert_allclose(np.diff(below, axis=1), np.asarray(course.density(w[1:] - 0.0015)) * 0.003, atol=2e-4)
    p = np.asarray(course.level_probabilities())
    x = np.linspace(-10, 10, 400_001)
    phi = np.asarray(BOOK.levels)[np.searchsorted([-4 / 3, 0, 4 / 3], x)]
    weight = norm.pdf(x) / norm.pdf(x).sum()
    k1, k2 = weight @ (x * phi), weight @ phi**2
    levels = np.asarray(BOOK.levels)
    np.testing.assert_allclose(course.generalization_error, k2 * p @ levels**2 - 2 * k1 * p @ levels + 1, rtol=1e-5)


@pytest.mark.parametrize(
    ("teacher", "noise", "ridge", "clip"),
    [(1.0, 0.0, 0.0, None), ((0.5, -1.2), 0.1, 0.0, None), (1.0, 0.2, 0.3, None), ((0.4, 3.5), 0.1, 0.0, 2.5)],
)
def test_training_ends_where_nothing_moves(teacher, noise, ridge, clip):
    found = d.straight_through(BOOK, BOOK, 0.2, noise, teacher, [300.0, 900.0], ridge=ridge, clip=clip)
    ends = found.stationary
    assert ends.generalization_error == pytest.approx(float(found.generalization_error[-1]), rel=1e-8)
    w = np.linspace(-2.4, 2.4, 399)
    np.testing.assert_allclose(found.density(w)[-1], ends.density(w), rtol=1e-3, atol=2e-4)
    assert ends.confined == bool(found.confined) == (clip is None)


def test_weights_that_drift_away(course):
    """The range is too short for the teacher: the error settles on saturated levels, no law of the weights is stationary."""
    found = d.straight_through(rj.uniform(2, 0.5), BOOK, 0.2, 0.0, 1.0, [50.0, 200.0])
    assert not found.confined
    assert np.isnan(found.stationary.generalization_error)
    assert found.converged[0]  # later the bump of those on their way is too narrow for the line it is on, and flagged
    x = np.linspace(-10, 10, 400_001)
    phi = np.asarray(BOOK.levels)[np.searchsorted([-4 / 3, 0, 4 / 3], x)]
    weight = norm.pdf(x) / norm.pdf(x).sum()
    saturated = weight @ phi**2 * 0.25 - weight @ (x * phi) + 1
    assert float(found.generalization_error[-1]) == pytest.approx(saturated, rel=1e-5)
    with pytest.raises(ValueError, match="no law is stationary"):
        found.stationary.density(np.zeros(1))


def test_derivatives(course):
    def end(width, step, noise, ridge, start, teacher):
        found = d.straight_through(
            rj.uniform(2, width), BOOK, step, noise, teacher, [1.0, 3.0], ridge=ridge, start=start
        )
        return found.generalization_error @ jnp.array([1.0, 2.0])

    at = (2.0, 0.2, 0.1, 0.05, 0.8, jnp.array([0.7, -1.1]))
    slopes = jax.grad(end, tuple(range(6)))(*at)
    assert all(np.abs(slope).min() > 1e-3 for slope in slopes)
    h, rng = 1e-4, np.random.default_rng(0)
    for _ in range(2):  # of all at once, in directions drawn: none can be wrong unseen
        way = [rng.normal(size=np.shape(x)) for x in at]
        up, down = ([x + s * h * w for x, w in zip(at, way, strict=True)] for s in (1, -1))
        along = sum(float(np.sum(slope * w)) for slope, w in zip(slopes, way, strict=True))
        assert along == pytest.approx(float(end(*up) - end(*down)) / (2 * h), rel=1e-5)
    _, forward = jax.jvp(lambda width: end(width, *at[1:]), (2.0,), (1.0,))
    assert float(forward) == pytest.approx(float(slopes[0]), rel=1e-9)


@pytest.mark.slow
def test_a_law_of_teachers_is_many_values():
    """Normal weights to learn: a sum over evenly spaced values is exact for what is smooth in them."""
    values = np.linspace(-6, 6, 61)
    p = norm.pdf(values) / norm.pdf(values).sum()
    law = d.straight_through(BOOK, BOOK, 0.2, 0.1, distributions.Normal(), [6.0])
    many = d.straight_through(BOOK, BOOK, 0.2, 0.1, distributions.Discrete(rj.codebook(values), p), [6.0])
    np.testing.assert_allclose(law.generalization_error, many.generalization_error, atol=2e-4)
    assert float(d.straight_through(BOOK, BOOK, 0.2, 0.1, distributions.Normal(), [1e-9]).generalization_error[0]) > 1
    atoms = d.straight_through(BOOK, BOOK, 0.2, 0.1, distributions.Discrete(rj.codebook([-0.5, 1.5])), [4.0, 12.0])
    two = d.straight_through(BOOK, BOOK, 0.2, 0.1, [-0.5, 1.5], [4.0, 12.0])
    np.testing.assert_allclose(atoms.generalization_error, two.generalization_error, rtol=1e-9)


def test_schedules():
    """Nothing before a change knows of it; after it, training ends where the shorter step ends."""
    plain = d.straight_through(BOOK, BOOK, 0.2, 0.1, 1.0, [5.0, 10.0])
    changed = d.straight_through(BOOK, BOOK, 0.2, 0.1, 1.0, [5.0, 10.0, 3000.0], schedule=[(7.5, 0.5), (400.0, 0.25)])
    assert float(changed.generalization_error[0]) == pytest.approx(float(plain.generalization_error[0]), rel=1e-6)
    assert float(changed.generalization_error[1]) != pytest.approx(float(plain.generalization_error[1]), rel=1e-3)
    alone = d.straight_through(BOOK, BOOK, 0.05, 0.1, 1.0, [3000.0]).stationary.generalization_error
    assert float(changed.generalization_error[2]) == pytest.approx(alone, rel=1e-6)
    assert changed.stationary.generalization_error == pytest.approx(alone, rel=1e-12)


def test_plateaus_are_longer_for_longer_ranges():
    """[T]: weights that start near 0 wait, level after level, until they reach a threshold."""
    times = np.linspace(0.25, 60.0, 240)
    found = [
        d.straight_through(rj.uniform(2, r), BOOK, 0.05, times=times, start=0.05) for r in (0.8, 0.9, 1.0, 1.1, 1.2)
    ]
    lengths, drops = ([getattr(x, name) for x in found] for name in ("plateau_length", "drop_time"))
    assert (np.diff(lengths) > 1).all()
    assert (np.diff(drops) > 1.5).all()


def test_actual_training():
    times = np.array([1.0, 2.0, 4.0])
    for k, settings in enumerate(
        (
            {"noise": 0.3, "teacher": (0.5, -1.2), "ridge": 0.2, "start": (0.3, 0.5)},
            {"noise": 0.1, "teacher": (1.0, 2.6), "clip": 1.6, "start": 0.5},
        )
    ):
        theory = d.straight_through(BOOK, BOOK, 0.3, times=times, **settings)
        key = jax.random.key(k, impl="rbg")
        run = simulate_straight_through(key, BOOK, BOOK, 0.3, times=times, dimension=300, runs=16, **settings)
        assert (np.abs(run.mean - theory.generalization_error) < 3.5 * run.error).all()


def test_nothing_compiles_again(programs):
    d.straight_through(BOOK, BOOK, 0.2, 0.1, 1.0, TIMES)
    with programs() as count:
        d.straight_through(rj.uniform(2, 1.3), rj.uniform(3, 2.0), 0.1, 0.2, 1.4, TIMES * 2, ridge=0.1, start=0.3)
    assert count() <= 1  # moments of another number of input levels


def test_float32():
    exact = d.straight_through(BOOK, BOOK, times=TIMES).generalization_error
    with jax.enable_x64(False):
        found = d.straight_through(rj.uniform(2, 2.0), rj.uniform(2, 2.0), times=TIMES)
        assert found.generalization_error.dtype == jnp.float32
    np.testing.assert_allclose(found.generalization_error, exact, rtol=1e-3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"times": [2.0, 1.0]}, "times must be increasing"),
        ({"times": []}, "times must be increasing"),
        ({"step": 0.0}, "step must be positive"),
        ({"step": np.nan}, "step must not be NaN"),
        ({"noise": -1.0}, "noise must be finite and not negative"),
        ({"start": 0.0}, "start must be positive"),
        ({"clip": 1.0}, "clip must be beyond the thresholds"),
        ({"clip": -1.0}, "clip must be a positive number or None"),
        ({"schedule": [(5.0, 0.0)]}, "schedule must have positive factors"),
        ({"schedule": [(5.0, 0.1), (4.0, 0.1)]}, "schedule must have increasing times"),
        ({"schedule": [5.0]}, "schedule must be pairs"),
        ({"teacher": np.nan}, "teacher must"),
        ({"refine": 0}, "refine must be"),
        ({"ridge": -1.0}, "ridge must be finite and not negative"),
    ],
)
def test_bad_requests(change: dict[str, Any], message: str):
    with pytest.raises(ValueError, match=message):
        d.straight_through(BOOK, BOOK, **change)  # pyright: ignore[reportArgumentType]


def test_kinds_that_are_refused():
    with pytest.raises(TypeError, match="weights must be a Codebook"):
        d.straight_through(0.5)  # pyright: ignore[reportArgumentType]
    with pytest.raises(TypeError, match="inputs must be a Codebook"):
        d.straight_through(BOOK, 0.5)  # pyright: ignore[reportArgumentType]


@pytest.mark.slow
def test_the_best_training():
    """Its gradient vanishes, another search finds nothing better, and more bits are never worse."""
    best = d.optimal_training(10.0, [1, 2], BOOK, noise=0.1)
    assert best.converged
    assert best.of_bits[2] <= best.of_bits[1]
    at = np.log([best.width, best.step])

    def error(x):
        book = rj.uniform(best.bits, np.exp(x[0]))
        return float(d.straight_through(book, BOOK, np.exp(x[1]), 0.1, times=[10.0]).generalization_error[0])

    assert error(at) == pytest.approx(best.generalization_error, rel=1e-9)
    found = minimize(error, at + 0.2, method="Nelder-Mead", options={"xatol": 1e-6, "fatol": 1e-11})
    assert best.generalization_error <= found.fun + 1e-8
    law = d.optimal_training(10.0, 2, BOOK, noise=0.1, teacher=distributions.Normal())
    assert law.converged
    with pytest.raises(ValueError, match="time must be a positive number"):
        d.optimal_training(0.0)
    with pytest.raises(ValueError, match="bits must be"):
        d.optimal_training(1.0, 0)


@pytest.mark.slow
def test_the_setting_of_the_paper():
    """d = 3000, w* = 1, range 2, 2 bits both: density on histogram at four times, 1 % critical value of Kolmogorov."""
    times, runs = np.array([10.0, 25.0, 50.0, 100.0]), 2
    theory = d.straight_through(BOOK, BOOK, 0.2, times=times)
    key = jax.random.key(0, impl="rbg")
    run = simulate_straight_through(key, BOOK, BOOK, 0.2, times=times, dimension=3000, runs=runs)
    for k in range(times.size):
        w = np.sort(np.asarray(run.weights[k], float).ravel())
        below = np.asarray(theory.cumulative(w))[k]
        steps = np.arange(w.size + 1) / w.size
        distance = max(np.abs(below - steps[1:]).max(), np.abs(below - steps[:-1]).max())
        print(f"time {times[k]:.0f}: distance {distance:.4f}, critical {1.628 / w.size**0.5:.4f}")
        assert distance < 1.628 / w.size**0.5


_SETTINGS = [
    (1, 0.8, 2, 2.0, 0.2, 0.0, 1.0),
    (1, 1.2, 3, 2.5, 0.1, 0.2, (0.5, 1.0)),
    (2, 1.0, 2, 2.0, 0.2, 0.0, 1.0),
    (2, 1.5, 1, 1.0, 0.3, 0.1, 1.0),
    (2, 2.0, None, 0.0, 0.2, 0.1, 1.0),
    (2, 2.5, 2, 1.5, 0.1, 0.3, (-1.0, 0.3, 1.2)),
    (3, 2.0, 2, 2.0, 0.2, 0.0, 1.0),
    (3, 3.0, 3, 3.0, 0.4, 0.1, 0.7),
    (3, 1.5, 4, 3.0, 0.2, 0.5, distributions.Normal()),
    (2, 2.0, 2, 2.0, 0.3, 0.1, distributions.Normal()),
    (2, 2.0, 2, 2.0, 0.2, 0.1, distributions.Laplace()),
    (4, 2.5, 4, 3.0, 0.2, 0.1, distributions.Discrete(rj.codebook([-1.0, 0.2, 1.5]))),
]


@pytest.mark.slow
@pytest.mark.parametrize("setting", _SETTINGS)
def test_errors_at_fifty_times(setting):
    bits, width, bits_x, width_x, step, noise, teacher = setting
    book, book_x = rj.uniform(bits, width), None if bits_x is None else rj.uniform(bits_x, width_x)
    times = np.linspace(0.3, 15.0, 50)
    theory = d.straight_through(book, book_x, step, noise, teacher, times)
    key = jax.random.key(1, impl="rbg")
    run = simulate_straight_through(key, book, book_x, step, noise, teacher, times, dimension=1000, runs=24)
    z = np.asarray((run.mean - theory.generalization_error) / run.error)
    print(f"largest {np.abs(z).max():.2f} standard errors, {np.mean(np.abs(z) < 3):.0%} within 3")
    assert np.sum(np.abs(z) < 3) >= 40
    assert np.abs(z).max() < 5
