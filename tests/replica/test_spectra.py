"""Correlated features and rows of unequal length: reference numbers, limits that are known, simulation."""

from itertools import product

import equinox as eqx
import jax
import numpy as np
import pytest

import replicajax as rj
from replicajax.models import covariance
from replicajax.replica import solve_many

EIGENVALUES, POWER = [0.2, 0.8, 2.0], [1.5, 1.0, 0.5]
ROTATED, ALIGNED = (rj.Features(EIGENVALUES, POWER, axes) for axes in ("rotated", "aligned"))
BOOK = rj.uniform(2, 1.5)
ERRORS = "generalization_error", "gibbs_error", "rounded_error", "test_error", "test_loss", "training_error"
ALL = (
    *ERRORS,
    *(
        "free_energy",
        "entropy",
        "rate",
        "replicon",
        "self_overlap",
        "replica_overlap",
        "susceptibility",
        "label_overlap",
    ),
    *("label_self_overlap", "label_replica_overlap", "label_susceptibility"),
)


@pytest.mark.parametrize(
    ("task", "m", "q", "chi", "error", "f"),
    [
        (
            rj.LinearRegression(2.0, 1.0, 0.1, features=ROTATED),
            0.607671488,
            0.615461927,
            0.681311751,
            0.100118951,
            0.060700234,
        ),
        (
            rj.Classification(3.0, 1.0, 0.2, features=ROTATED),
            0.809874874,
            1.538006391,
            0.913701848,
            0.258329579,
            1.130171286,
        ),
    ],
    ids=["square", "logistic"],
)
def test_reference_numbers(task, m, q, chi, error, f):
    """theory 13."""
    s = rj.solve(task, BOOK, 5.0)
    assert s.converged
    ours = s.label_overlap, s.label_replica_overlap, s.label_susceptibility, s.generalization_error, s.free_energy
    np.testing.assert_allclose(ours, (m, q, chi, error, f), rtol=0, atol=6e-10)


def same(one, other, tolerance=1e-11):
    for name in ALL:
        a, b = float(getattr(one, name)), float(getattr(other, name))
        assert a == b or a == pytest.approx(b, abs=tolerance * (1 + abs(a))), name


@pytest.mark.parametrize("beta", [5.0, np.inf])
@pytest.mark.parametrize("axes", ["rotated", "aligned"])
def test_equal_eigenvalues_are_iid_features(axes, beta):
    """In turned axes the weights see no teacher; in those of Sigma there is a prior for each eigenvalue."""
    plain, spread = (
        rj.LinearRegression(2.0, 1.3, 0.1, 0.05, features=features)
        for features in (None, rj.Features([1.0, 1.0], axes=axes))
    )
    same(rj.solve(plain, BOOK, beta), rj.solve(spread, BOOK, beta))


def test_equal_rows_are_rows_of_one_length():
    plain, spread = (rj.LinearRegression(2.0, 1.3, 0.1, 0.05, rows=rows) for rows in (None, rj.RowLengths([2.0, 2.0])))
    same(rj.solve(plain, BOOK, 5.0), rj.solve(spread, BOOK, 5.0))


def test_rows_of_several_saddle_points():
    """A sharp loss and many rows: of q and chi alone the rows could say several things, as half of these points had them do."""
    grid = np.array(list(product((1.0, 2.0, 4.0), (0.01, 0.1, 0.5), (0.7, 1.5), (1.0, 5.0, 20.0)))).T
    books = eqx.filter_vmap(lambda width: rj.uniform(2, width))(grid[2])
    iid, turned = (
        eqx.filter_vmap(lambda a, n, f=f: rj.LinearRegression(a, 1.0, n, loss=rj.losses.Absolute(), features=f))(
            *grid[:2]
        )
        for f in (None, rj.Features([1.0, 1.0, 1.0]))
    )
    one, other = (solve_many(tasks, books, grid[3]) for tasks in (iid, turned))
    assert one.converged.all()
    assert other.converged.all()
    for name in ALL:
        np.testing.assert_allclose(getattr(one, name), getattr(other, name), rtol=1e-9, atol=1e-9, err_msg=name)


@pytest.mark.slow
def test_classification_of_equal_rows_and_eigenvalues():
    """Through every nested equation, to the numbers of the plain road."""
    tasks = [
        rj.Classification(3.0, 1.0, 0.2, 0.1, loss=rj.losses.Hinge(), **parts)
        for parts in ({}, {"features": rj.Features([1.0, 1.0]), "rows": rj.RowLengths([1.0])})
    ]
    same(*(rj.solve(task, BOOK, 3.0) for task in tasks), tolerance=1e-10)


@pytest.mark.parametrize("features", [ROTATED, ALIGNED], ids=["rotated", "aligned"])
def test_scale_of_features_is_a_scale_of_weights(features):
    """Features twice as large with weights half as large are the same predictions."""
    task = rj.LinearRegression(2.0, 1.0, 0.1, 0.3, features=features)
    doubled = rj.Features(4 * features.eigenvalues, features.teacher, features.axes)
    other = rj.LinearRegression(2.0, 0.25, 0.1, 1.2, features=doubled)
    one, two = rj.solve(task, BOOK, 5.0), rj.solve(other, rj.uniform(2, 0.75), 5.0)
    for name in ("generalization_error", "rounded_error", "training_error", "entropy", "replicon", "label_overlap"):
        assert float(getattr(one, name)) == pytest.approx(float(getattr(two, name)), rel=1e-10), name


def test_fine_levels_are_ridge_regression():
    """8 bits at beta 1e4 over a wide range: the closed form, in either axes."""
    for features in (ROTATED, ALIGNED):
        task = rj.LinearRegression(2.0, 1.0, 0.1, 0.3, features=features)
        s, exact = rj.solve(task, rj.uniform(8, 6.0), 1e5), rj.ridge_regression(task)
        assert float(s.generalization_error) == pytest.approx(float(exact.generalization_error), abs=3e-4)
        assert float(s.overlap) == pytest.approx(float(exact.overlap), rel=1e-3)
        assert float(s.self_overlap) == pytest.approx(float(exact.self_overlap), rel=1e-3)


@pytest.mark.parametrize("ridge", [0.0, 0.3])
def test_ridge_regression_of_correlated_features(programs, ridge):
    task = rj.LinearRegression(0.5, 1.0, 0.1, ridge, features=ROTATED)
    errors = []
    for seed in range(8):
        key = jax.random.key(seed)
        X, y, w = map(np.asarray, rj.draw(task, 400, key))
        fit = (
            np.linalg.lstsq(X, y, rcond=None)[0]
            if ridge == 0
            else np.linalg.solve(X.T @ X + ridge * np.eye(400), X.T @ y)
        )
        errors.append((fit - w) @ np.asarray(covariance(task, 400, key)) @ (fit - w) / 400)
    z = (np.mean(errors) - float(rj.ridge_regression(task).generalization_error)) / (
        np.std(errors, ddof=1) / np.sqrt(8)
    )
    assert abs(z) < 3.5
    least = rj.optimal_ridge(task)
    with programs() as compiled:
        near = [float(rj.ridge_regression(task, float(least) * f).generalization_error) for f in (0.98, 1.0, 1.02)]
    assert near[1] == min(near)
    assert not compiled()


def sampled(task, book, beta, size: int, instances: int, sweeps: int):
    """z-scores of error and energy per weight, theory less Gibbs sampling, and the error bars relative to them."""
    s = rj.solve(task, book, beta)
    assert s.converged
    assert s.stable
    assert s.entropy > 0.2
    out = []
    for seed in range(instances):
        key = jax.random.key(seed)
        X, y, w = rj.draw(task, size, key)
        sigma = covariance(task, size, key)
        g = rj.gibbs(X, y, book, beta, ridge=task.ridge, loss=task.loss, sweeps=sweeps, chains=4, key=key)
        one, two, three, four = g.chain_weights  # products of different chains know nothing of the noise of few sweeps
        q = (one @ sigma @ two + three @ sigma @ four) / (2 * size)
        m, rho = w @ sigma @ g.weights / size, w @ sigma @ w / size
        error = rho - 2 * m + q if isinstance(task, rj.LinearRegression) else task.error(m, q)
        out.append((float(error), float(g.energy)))
    mean, deviation = np.mean(out, 0), np.std(out, 0, ddof=1) / np.sqrt(instances)
    theory = np.array([s.generalization_error, s.training_error])
    return (theory - mean) / deviation, deviation / theory


@pytest.mark.optimized
@pytest.mark.parametrize("features", [ROTATED, ALIGNED], ids=["rotated", "aligned"])
def test_sampling_agrees(features):
    z, error = sampled(rj.LinearRegression(2.0, 1.0, 0.1, features=features), BOOK, 3.0, 200, 14, 100)
    assert np.abs(z).max() < 3.5
    assert error.max() < 0.05


WIDE = rj.Features.power_law(1.0, 40, teacher=-0.5)
POINTS = {
    "square rotated": rj.LinearRegression(2.0, 1.0, 0.1, features=ROTATED),
    "square power law": rj.LinearRegression(1.0, 1.0, 0.2, features=WIDE),
    "square aligned": rj.LinearRegression(2.0, 1.0, 0.1, 0.2, teacher=rj.distributions.Laplace(), features=ALIGNED),
    "square, unequal rows": rj.LinearRegression(2.0, 1.0, 0.1, rows=rj.RowLengths.student_t(5.0)),
    "square rotated, unequal rows": rj.LinearRegression(
        2.0, 1.0, 0.1, features=ROTATED, rows=rj.RowLengths.student_t(5.0)
    ),
    "huber rotated": rj.LinearRegression(2.0, 1.0, 0.1, loss=rj.losses.Huber(0.7), features=ROTATED),
    "huber aligned": rj.LinearRegression(2.0, 1.0, 0.1, loss=rj.losses.Huber(0.7), features=ALIGNED),
    "logistic rotated": rj.Classification(2.0, 1.0, 0.1, features=ROTATED),
    "logistic aligned": rj.Classification(2.0, 1.0, 0.1, features=ALIGNED),
    "hinge, unequal rows": rj.Classification(2.0, 1.0, 0.1, loss=rj.losses.Hinge(), rows=rj.RowLengths.student_t(5.0)),
    "absolute rotated, little noise": rj.LinearRegression(4.0, 1.0, 0.01, loss=rj.losses.Absolute(), features=ROTATED),
}
WARM = {"absolute rotated, little noise": 1.0}


@pytest.mark.slow
@pytest.mark.parametrize("name", POINTS)
def test_sampling_agrees_at_size(name):
    task = POINTS[name]
    instances, sweeps = (60, 300) if task.in_closed_form else (30, 150) if name in WARM else (20, 200)
    z, error = sampled(task, BOOK, WARM.get(name, 3.0), 400, instances, sweeps)
    print(name, "z", np.round(z, 2), "relative errors", np.round(error, 4))
    assert np.abs(z).max() < 3
    assert error.max() < 0.04


@pytest.mark.slow
def test_gradient_of_the_best_width_in_the_spectrum():
    """A width found by gradients moves with the exponent of the spectrum as by differences."""

    def width(exponent):
        return rj.optimal_width(
            rj.LinearRegression(2.0, 1.0, 0.1, features=rj.Features.power_law(exponent, 8)), 2, 5.0
        ).width

    slope, h = float(jax.grad(width)(0.8)), 1e-3
    assert slope == pytest.approx(float(width(0.8 + h) - width(0.8 - h)) / (2 * h), rel=1e-5)


def test_sweep_of_features():
    """A grid, its gradients, and one point of it; stores tell spectra apart."""
    task = rj.LinearRegression(2.0, 1.0, 0.1, features=ROTATED)
    d = rj.phase_diagram(task, 2, 5.0, axes={"alpha": [1.0, 2.0], "width": [1.0, 1.5]}, gradients=["width", "alpha"])
    s = rj.solve(task, BOOK, 5.0)
    at = d.sel(alpha=2.0, width=1.5)
    assert float(at.generalization_error) == pytest.approx(float(s.generalization_error), rel=1e-12)
    slope = jax.grad(lambda w: rj.solve(task, rj.codebook(w * BOOK.levels), 5.0).generalization_error)(1.0) / 1.5
    assert float(at.d_generalization_error_d_width) == pytest.approx(float(slope), rel=1e-8)
    assert task.kind != rj.LinearRegression(2.0, 1.0, 0.1, features=ALIGNED).kind
    assert task.kind != rj.LinearRegression(2.0, 1.0, 0.1, features=rj.Features(EIGENVALUES)).kind


def test_what_knows_no_turned_features_says_so():
    with pytest.raises(ValueError, match='task must have iid features or axes="aligned"'):
        rj.state_evolution(rj.LinearRegression(2.0, features=ROTATED), BOOK, 2.0)
    with pytest.raises(ValueError, match="teacher must be left out in rotated axes"):
        rj.LinearRegression(2.0, features=ROTATED, teacher=rj.distributions.Laplace())


def test_state_evolution_in_aligned_axes_ends_at_the_saddle_point():
    task = rj.LinearRegression(2.0, 1.0, 0.1, features=ALIGNED)
    s, end = rj.solve(task, BOOK, 3.0), rj.state_evolution(task, BOOK, 3.0).limit
    assert float(end.order.m) == pytest.approx(float(s.label_overlap), abs=1e-11)
    assert float(end.generalization_error) == pytest.approx(float(s.generalization_error), abs=1e-11)
