"""The theory of given rows (theory 9) against differences, rows really left out, Gibbs sampling and ridge regression."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import ortho_group
from sklearn.datasets import load_diabetes
from sklearn.linear_model import Ridge

import replicajax as rj
from replicajax.replica import solve_many, solve_with_slopes

BETA = 4.0


def table(rows: int, columns: int, seed: int = 0, test: int = 30):
    """Correlated columns of unequal sizes, rows of unequal lengths."""
    rng = np.random.default_rng(seed)
    sizes, w = np.exp(rng.normal(size=columns)) / np.sqrt(columns), rng.normal(size=columns)
    X = rng.standard_t(4, size=(rows + test, columns)) @ ortho_group.rvs(columns, random_state=seed) * sizes
    y = X @ w + 0.3 * rng.normal(size=rows + test)
    return X[:rows], y[:rows], X[rows:], y[rows:]


def task_of(rows: int, held_out: bool) -> rj.GivenData:
    X, y, X_test, y_test = table(rows, 20)
    return rj.GivenData(X, y, 0.1, X_test, y_test) if held_out else rj.GivenData(X, y, 0.1)


CASES = pytest.mark.parametrize(("rows", "held_out"), [(40, True), (40, False), (12, True), (12, False)])
WIDTH = 1.7


def solve(task, log_width=0.0, beta=BETA):
    return rj.solve(task, rj.uniform(2, WIDTH * jnp.exp(log_width)), beta)


def slope(f, h=1e-3):
    return (8 * (f(h) - f(-h)) - (f(2 * h) - f(-2 * h))) / (12 * h)


@CASES
def test_energy_and_entropy_follow_from_the_free_energy(rows, held_out):
    task = task_of(rows, held_out)
    s = solve(task)
    assert s.converged
    beta_f = slope(lambda h: (BETA + h) * float(solve(task, beta=BETA + h).free_energy))
    assert beta_f == pytest.approx(float(s.training_error), abs=1e-9)
    assert float(s.entropy) == pytest.approx(BETA * float(s.training_error - s.free_energy), abs=1e-12)


@CASES
def test_free_energy_is_stationary(rows, held_out):
    task = task_of(rows, held_out)
    s = solve(task)
    order = rj.models.Order(jnp.zeros(()), s.replica_overlap, s.susceptibility)
    gradient = jax.jit(jax.grad(lambda x: rj.models.free_energy(task, s.codebook, s.beta, *x)))((order, s.fields))
    assert max(abs(float(x)) for x in jax.tree.leaves(gradient[0][1:])) <= 1e-10
    assert max(abs(float(x)) for x in gradient[1]) <= 1e-10


def with_part(task, name, h, k=3):
    value = getattr(task, name)
    return eqx.tree_at(lambda t: getattr(t, name), task, value + h if not value.ndim else value.at[k].add(h))


@pytest.mark.parametrize("held_out", [True, False])
def test_derivatives_are_those_of_differences(held_out):
    """Of the error of the mean and of the rounded weights; those that come with a batch, and those inside jit."""
    task = task_of(12, held_out)
    problem = jax.tree.map(lambda x: np.asarray(x)[None], (task, rj.uniform(2, WIDTH), jnp.asarray(BETA)))
    _, slopes = solve_with_slopes(*problem)

    names = "ridge", "eigenvalues", "projections"

    def moved(x):
        """The problem with log width, beta, ridge, and one eigenvalue and projection, changed by x."""
        changed = task
        for name, h in zip(names, x[2:], strict=True):
            changed = with_part(changed, name, h)
        return changed, x[0], BETA + x[1]

    def errors(x):
        s = solve(*moved(x))
        return jnp.stack([s.generalization_error, s.rounded_error])

    slopes_of = jax.jit(jax.jacfwd(errors))(jnp.zeros(5))
    for k in range(5):
        axis = np.eye(5)[k]
        wanted = slope(lambda h, axis=axis: np.asarray(errors(h * axis)))
        np.testing.assert_allclose(slopes_of[:, k], wanted, rtol=1e-6, atol=1e-8)
    assert float(slopes.log_width[0]) == pytest.approx(float(slopes_of[0, 0]), rel=1e-9)
    assert float(slopes.ridge[0]) == pytest.approx(float(slopes_of[0, 2]), rel=1e-9)


@pytest.mark.parametrize(("rows", "columns"), [(60, 12), (90, 60)])
def test_leave_one_out_is_leaving_out(rows, columns):
    """The theory of all rows but one, tested on that one: the same up to the share of a row in n."""
    X, y, *_ = table(rows, columns, seed=1)
    book = rj.uniform(2, 1.5)
    found = rj.solve(rj.GivenData(X, y), book, 2.0)
    names = "generalization_error", "gibbs_error", "rounded_error"
    each = []
    for k in range(rows):
        rest = np.delete(np.arange(rows), k)
        s = rj.solve(rj.GivenData(X[rest], y[rest], 0.0, X[k : k + 1], y[k : k + 1]), book, 2.0)
        each.append([float(getattr(s, name)) for name in names])
    for name, left_out in zip(names, np.mean(each, 0), strict=True):
        assert float(getattr(found, name)) == pytest.approx(left_out, rel=1.5 / np.sqrt(rows * columns)), name


def sampled(X, y, X_test, y_test, book, beta, turns=16):
    """Errors of the mean, of a sample and of most probable levels, and the energy: by Gibbs sampling in turned axes."""
    levels, every = np.asarray(book.levels), []
    for turn in range(turns):
        axes = ortho_group.rvs(X.shape[1], random_state=turn)
        g = rj.gibbs(X @ axes, y, book, beta, sweeps=120, chains=200, key=jax.random.key(turn))
        final = np.asarray(g.final)
        usage = np.isclose(final[:, :, None], levels).mean(0)
        predicted = X_test @ axes @ np.column_stack([g.weights, levels[usage.argmax(1)], final.T])
        errors = ((y_test[:, None] - predicted) ** 2).mean(0)
        every.append([errors[0], errors[2:].mean(), errors[1], float(g.energy)])
    return np.mean(every, 0), np.std(every, 0, ddof=1) / np.sqrt(turns)


@pytest.mark.optimized
@pytest.mark.parametrize(("rows", "bits", "width"), [(40, 3, 1.5), (12, 2, 1.2)])
def test_gibbs_sampling_agrees(rows, bits, width):
    X, y, X_test, y_test = table(rows, 16, seed=2)
    book = rj.uniform(bits, width)
    s = rj.solve(rj.GivenData(X, y, 0.0, X_test, y_test), book, 2.0)
    assert s.stable
    assert s.entropy > 0.4
    theory = [float(x) for x in (s.generalization_error, s.gibbs_error, s.rounded_error, s.training_error)]
    mean, error = sampled(X, y, X_test, y_test, book, 2.0)
    assert (np.abs(mean - theory) <= 3 * error).all(), (mean - theory) / error


def test_fine_codebook_is_ridge_regression():
    """Levels so wide and fine that nothing is quantized leave the ridge of the task alone."""
    X, y = load_diabetes(return_X_y=True)
    X, y = X[:200] * 10, (y[:200] - y[:200].mean()) / y.std()
    task = rj.GivenData(X[:150], y[:150], 0.3, X[150:], y[150:])
    fitted = Ridge(0.3, fit_intercept=False).fit(X[:150], y[:150])
    error = np.mean((fitted.predict(X[150:]) - y[150:]) ** 2)
    assert float(rj.ridge_regression(task).generalization_error) == pytest.approx(error, rel=1e-10)
    s = rj.solve(task, rj.uniform(8, 20.0), 1e3)
    assert float(s.generalization_error) == pytest.approx(error, rel=1e-3)


def test_optimal_ridge_is_that_of_rows_left_out():
    X, y, *_ = table(50, 8, seed=3)
    task = rj.GivenData(X, y)
    best = float(rj.optimal_ridge(task))

    def left_out(ridge):
        fits = (Ridge(ridge, fit_intercept=False).fit(np.delete(X, k, 0), np.delete(y, k)) for k in range(50))
        return np.mean([(y[k] - fit.predict(X[k : k + 1])[0]) ** 2 for k, fit in enumerate(fits)])

    error = float(rj.ridge_regression(task, best).generalization_error)
    assert error == pytest.approx(left_out(best), rel=1e-8)
    assert error < min(left_out(2 * best), left_out(best / 2)) + 1e-12


def test_gaussian_rows_are_the_theory_of_gaussian_rows():
    """Section 1, from 12 draws of N = 300; its replicon is 1 − alpha chi²/(1 + chi)² times that of given rows."""
    task, book, beta, size = rj.LinearRegression(2.0, 1.0, 0.2), rj.uniform(2, 1.5), 2.0, 300
    s = rj.solve(task, book, beta)
    names = "generalization_error", "gibbs_error", "rounded_error", "training_error", "entropy"
    every = []
    for seed in range(12):
        draw = rj.draw(task, size, jax.random.key(seed))
        fresh = np.eye(size)  # whose mean square error is |w0 − w|²/N
        found = rj.solve(rj.GivenData(draw.X, draw.y, 0.0, fresh, draw.weights), book, beta)
        chi = float(found.susceptibility)
        replicon = float(found.replicon) * (1 - 2.0 * chi**2 / (1 + chi) ** 2)
        every.append([float(getattr(found, name)) for name in names] + [replicon])
    theory = np.array([float(getattr(s, name)) for name in names] + [float(s.replicon)])
    mean, error = np.mean(every, 0), np.std(every, 0, ddof=1) / np.sqrt(len(every))
    assert (np.abs(mean - theory) <= 3 * error + 2 / 400).all(), (mean - theory) / error
    assert (error <= 0.04 * theory).all()


def test_null_directions_are_counted_once():
    """Fewer rows than columns: one eigenvalue 0 for all null directions is what each on its own would be."""
    X, y, X_test, y_test = table(12, 20)
    task = rj.GivenData(X, y, 0.0, X_test, y_test)
    assert task.eigenvalues.shape == (13,)
    assert float(task.share[-1]) == pytest.approx(8 / 20)
    values, V = np.linalg.eigh(X.T @ X)
    b = V.T @ X.T @ y
    s = solve(task)
    z, kappa = effective(values, b, float(s.replica_overlap), float(s.susceptibility))
    u = V @ (b / (values + z))
    error = np.mean((y_test - X_test @ u) ** 2) + kappa * ((X_test @ V) ** 2 / (values + z) ** 2).sum(1).mean()
    assert float(s.generalization_error) == pytest.approx(error, rel=1e-9)


def effective(values, b, q, chi):
    low, high = -values.min() + 1e-9, 1e6
    for _ in range(200):
        z = (low + high) / 2
        low, high = (z, high) if np.mean(1 / (values + z)) > chi else (low, z)
    return z, (q - np.mean(b**2 / (values + z) ** 2)) / np.mean((values + z) ** -2.0)


def test_compiled_and_not_are_the_same_and_tables_share_programs(programs):
    def batch(rows, columns):
        X, y, *rest = table(rows, columns)
        task = rj.GivenData(X, y, 0.1, *rest)
        widths = np.linspace(0.5, 4, 6)
        books = eqx.tree_at(lambda b: b.levels, rj.uniform(2, 1.0), widths[:, None] * np.linspace(-1, 1, 4))
        return (
            jax.tree.map(lambda x: np.broadcast_to(np.asarray(x), (6, *np.shape(x))), task),
            books,
            np.full(6, BETA),
        )

    problem, larger = batch(40, 20), batch(300, 33)
    one, other = (solve_many(*problem, compiled=flag) for flag in (False, True))
    for name in "generalization_error", "rounded_error", "free_energy", "replicon":
        np.testing.assert_allclose(getattr(one, name), getattr(other, name), rtol=1e-10)
    with programs() as count:
        solve_many(*larger, compiled=True)
    assert count() == 0


def test_best_width_and_sweep():
    X, y = load_diabetes(return_X_y=True)
    task = rj.GivenData.standardized(X, y)
    beta = 1 / task.noise
    best = rj.optimal_width(task, 2, beta)
    assert best.converged
    scan = rj.phase_diagram(task, 2, beta, axes={"width": np.linspace(0.5, 3, 60) * float(best.width)})
    assert float(scan.generalization_error.min()) >= float(best.generalization_error) - 1e-12
    assert float(scan.generalization_error.min()) <= float(best.generalization_error) * 1.001
    curve = rj.optimal_bits(task, beta, bits=(1, 2, 3))
    assert curve.best in (1, 2, 3)
    assert "rows left out one by one" in str(best)
    with pytest.raises(ValueError, match="classification_error is that of a Classification, got GivenData"):
        _ = best.solution.classification_error


def test_gradients_of_a_sweep_and_its_store(tmp_path):
    """Along beta by implicit derivatives, along ridge and width with the solution; other rows are another sweep."""
    X, y, *rest = table(40, 20)
    task = rj.GivenData(X, y, 0.1, *rest)
    names, axes = ["beta", "ridge", "width"], {"width": [1.5, WIDTH, 1.9], "ridge": [0.1, 0.2]}

    def sweep(task):
        return rj.phase_diagram(task, 2, BETA, axes=axes, gradients=names, store=tmp_path / "sweep").load()

    one, other = sweep(task), sweep(task)
    wanted = {
        "beta": slope(lambda h: float(solve(task, beta=BETA + h).generalization_error)),
        "ridge": slope(lambda h: float(solve(with_part(task, "ridge", h)).generalization_error)),
        "width": slope(lambda h: float(solve(task, h).generalization_error)) / WIDTH,
    }
    for name in names:
        found = one[f"d_generalization_error_d_{name}"].sel(width=WIDTH, ridge=0.1)
        assert float(found) == pytest.approx(wanted[name], rel=1e-6)
        np.testing.assert_array_equal(
            one[f"d_generalization_error_d_{name}"], other[f"d_generalization_error_d_{name}"]
        )
    with pytest.raises(ValueError, match="holds a different sweep"):
        sweep(rj.GivenData(2 * X, y, 0.1, *rest))


def test_held_out_rows_touch_nothing_of_the_training():
    X, y = load_diabetes(return_X_y=True)
    X_test, y_test = X[300:].copy(), y[300:].copy()
    one = rj.GivenData.standardized(X[:300], y[:300], 0.0, X_test, y_test)
    X_test[0] *= 100
    y_test[0] = 1e4
    other = rj.GivenData.standardized(X[:300], y[:300], 0.0, X_test, y_test)
    for name in "eigenvalues", "projections", "residual", "signal", "noise":
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
    assert float(solve(one).training_error) == float(solve(other).training_error)
    assert float(solve(one).generalization_error) != float(solve(other).generalization_error)


def test_columns_of_very_different_size_are_all_used():
    """Rescaled by anything they are the same task; one that varies in a single row is not used, nor one that does not."""
    X, y, *_ = table(60, 6)
    one = rj.GivenData.standardized(X, y)
    spike = np.zeros(60)
    spike[7] = 1.0
    scaled = np.column_stack([X * 10.0 ** np.arange(-9, 9, 3) + 1e-3, spike, np.full(60, 1e-5)])
    other = rj.GivenData.standardized(scaled, 1e3 + 1e-2 * y)
    np.testing.assert_allclose(other.eigenvalues, one.eigenvalues, rtol=1e-6)
    assert float(solve(other).generalization_error) == pytest.approx(float(solve(one).generalization_error), rel=1e-5)


@pytest.mark.parametrize(("rows", "columns"), [(9, 14), (15, 40), (30, 8)])
def test_single_precision_counts_the_mean_of_rows_left_out_too(rows, columns):
    """In float32, JAX's default: rounding must not hide that rows were centred."""
    rng = np.random.default_rng(rows)
    X = rng.normal(size=(rows, columns))
    y = X @ rng.normal(size=columns) + rng.normal(size=rows)
    errors = []
    for flag in (False, True):
        with jax.enable_x64(flag):
            task = rj.GivenData.standardized(X + 1e6, y - 1e6)
            assert task.rows is not None
            assert task.rows.centred
            assert not rj.GivenData(X, y).rows.centred  # type: ignore[union-attr]
            s = rj.solve(task, rj.uniform(2, 1.5), 30.0)
            errors.append([float(x) for x in (s.generalization_error, s.rounded_error, s.training_error)])
    np.testing.assert_allclose(*errors, rtol=2e-4)


def test_cold_interpolation_keeps_its_digits():
    """Fewer rows than columns, ever colder: residual and 1 − h vanish together, energy falls as 1/beta."""
    rng = np.random.default_rng(3)
    X = rng.normal(size=(10, 30))
    y = X @ rng.normal(size=30)
    task = rj.GivenData(X, y)
    found = [rj.solve(task, rj.uniform(3, 3.0), beta) for beta in (1e6, 1e9, 1e12, 1e15)]
    assert all(s.converged for s in found)
    np.testing.assert_allclose([s.generalization_error for s in found[1:]], found[-1].generalization_error, rtol=1e-6)
    heat = [float(s.beta * s.training_error) for s in found]
    np.testing.assert_allclose(heat[1:], heat[-1], rtol=1e-4)


def test_ridgeless_regression_is_the_least_norm():
    rng = np.random.default_rng(0)
    for X in (rng.normal(size=(50, 5)), rng.normal(size=(50, 4))[:, [0, 1, 2, 3, 0]], rng.normal(size=(10, 30))):
        y = X @ np.ones(X.shape[1]) + 0.1 * rng.normal(size=len(X))
        X_test, y_test = rng.normal(size=(7, X.shape[1])), rng.normal(size=7)
        wanted = np.mean((y_test - X_test @ np.linalg.pinv(X) @ y) ** 2)
        held_out = rj.ridge_regression(rj.GivenData(X, y, 0.0, X_test, y_test))
        assert float(held_out.generalization_error) == pytest.approx(wanted, rel=1e-8)
        every = []
        for k in range(len(y)):
            rest = np.delete(np.arange(len(y)), k)
            every.append((y[k] - X[k] @ np.linalg.pinv(X[rest]) @ y[rest]) ** 2)
        left_out = rj.ridge_regression(rj.GivenData(X, y))
        assert float(left_out.generalization_error) == pytest.approx(np.mean(every), rel=1e-6)


def test_raw_columns_of_very_different_size():
    """Eight decades apart: the small one explains the label."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(80, 2)) * [1e8, 1.0]
    y = X[:, 1] + 0.01 * rng.normal(size=80)
    task = rj.GivenData(X, y)
    assert task.eigenvalues.min() > 0
    assert float(rj.ridge_regression(task).generalization_error) == pytest.approx(1e-4, rel=0.5)


GOOD = np.arange(12.0).reshape(4, 3) % 5


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((GOOD, np.ones(3)), r"y must have shape \(4,\), one entry per row of X, got shape \(3,\)"),
        ((GOOD[0], np.ones(3)), r"X must be a matrix \(rows, columns\)"),
        ((GOOD * np.nan, np.ones(4)), "X must not be NaN"),
        ((GOOD, np.full(4, np.inf)), "y must be finite"),
        ((0 * GOOD, np.ones(4)), "X must not be all zeros: there is nothing to learn"),
        ((GOOD, np.zeros(4)), "y must not be all zeros"),
        ((GOOD[:1], np.ones(1)), "X must have at least 2 rows, got 1"),
        ((GOOD * 1e200, np.ones(4)), "X must have entries of a size between"),
        ((GOOD, np.full(4, 1e-200)), "y must have entries of a size between"),
        ((np.ma.masked_equal(GOOD, 1.0), np.ones(4)), "X must not have masked entries"),
        ((GOOD, np.ones(4), [1.0, 2.0]), "ridge must be a single number"),
        ((GOOD, np.ones(4), -1.0), "ridge must be finite and not negative"),
        ((GOOD, np.ones(4), 0.0, GOOD), "X_test and y_test go together, got X_test alone"),
        ((GOOD, np.ones(4), 0.0, GOOD[:, :2], np.ones(4)), "X_test must have the 3 columns of X, got 2"),
    ],
)
def test_bad_rows(arguments, message):
    with pytest.raises((ValueError, TypeError), match=message):
        rj.GivenData(*arguments)


def test_traced_rows_are_refused():
    with pytest.raises(TypeError, match="X and y must have values, not be traced"):
        jax.jit(lambda X: rj.GivenData(X, np.ones(4)).residual)(GOOD)


def test_zero_temperature_is_the_limit_of_low_ones():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(80, 20))
    task = rj.GivenData(X / np.sqrt(20), X @ rng.normal(size=20) + rng.normal(size=80))
    cold, cool, warm = (rj.solve(task, rj.uniform(2, 1.5), beta) for beta in (jnp.inf, 2e5, 1e5))
    assert cold.converged
    for name in ("generalization_error", "training_error", "free_energy", "rounded_error", "susceptibility"):
        limit = 2 * float(getattr(cool, name)) - float(getattr(warm, name))  # corrections are of first order in 1/beta
        assert float(getattr(cold, name)) == pytest.approx(limit, rel=1e-7), name


def test_what_is_not_known_of_given_data_is_refused():
    with pytest.raises(ValueError, match="y must vary"):
        rj.GivenData.standardized(GOOD, np.ones(4))
    with pytest.raises(ValueError, match="X must have a column that varies in two rows"):
        rj.GivenData.standardized(np.ones((4, 3)), np.arange(4.0))
