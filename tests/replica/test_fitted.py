"""beta = inf where codewords fit every row: of the loss a constraint is left, and chi is infinite."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import replicajax as rj
from replicajax.losses import Absolute, Exact, Hinge, Huber, Perceptron, Quantile

SPECTRUM = [0.3, 0.7, 2.0], [0.4, 0.3, 0.3]
ROTATED, ALIGNED = (rj.Features(*SPECTRUM, axes=axes) for axes in ("rotated", "aligned"))
LENGTHS = rj.RowLengths.student_t(5.0, 12)
HINGE = rj.Classification(0.31, 1.0, 0.12, 0.1, loss=Hinge())
TASKS = {
    "hinge, ridge": (HINGE, rj.uniform(1, 2.8)),
    "square, rotated": (rj.LinearRegression(0.5, 1.0, 0.1, features=ROTATED), rj.uniform(2, 1.5)),
    "hinge, aligned": (rj.Classification(0.3, 1.0, 0.1, loss=Hinge(), features=ALIGNED), rj.uniform(3, 2.0)),
    "hinge, rotated": (rj.Classification(0.3, 1.0, 0.1, loss=Hinge(), features=ROTATED), rj.uniform(2, 2.0)),
    "hinge, lengths": (rj.Classification(0.3, 1.0, 0.1, loss=Hinge(), rows=LENGTHS), rj.uniform(2, 2.0)),
    "huber, rotated": (rj.LinearRegression(0.5, 1.0, 0.1, loss=Huber(0.5), features=ROTATED), rj.uniform(2, 1.5)),
    "square, lengths": (rj.LinearRegression(0.5, 1.0, 0.1, rows=LENGTHS), rj.uniform(4, 2.5)),
    "absolute, aligned": (rj.LinearRegression(0.5, 1.0, 0.1, loss=Absolute(), features=ALIGNED), rj.uniform(2, 1.5)),
}
FAST = ("hinge, ridge",)
SAME = [
    "generalization_error",
    "gibbs_error",
    "rounded_error",
    "test_loss",
    "training_error",
    "overlap",
    "self_overlap",
    "replica_overlap",
    "label_overlap",
    "label_self_overlap",
    "label_replica_overlap",
    "replicon",
    "usage",
]


@pytest.mark.parametrize("name", [n if n in FAST else pytest.param(n, marks=pytest.mark.slow) for n in TASKS])
def test_it_is_the_limit(name):
    """Which theory at finite beta, loss and all, comes to."""
    task, book = TASKS[name]
    cold = rj.solve(task, book, jnp.inf)
    assert cold.converged
    assert cold.interpolates
    assert np.isposinf(cold.susceptibility)
    for beta, close in (1e3, 1e-2), (1e5, 1e-4):
        warm = rj.solve(task, book, beta)
        assert warm.converged
        assert not warm.interpolates
        for what in SAME:
            got, limit = (np.asarray(getattr(s, what)) for s in (warm, cold))
            np.testing.assert_allclose(got, limit, rtol=close, atol=close, err_msg=what)
    if isinstance(task, rj.Classification):  # there are such words, and so many
        assert float(cold.entropy) == pytest.approx(float(warm.entropy), abs=1e-3)
    else:
        assert np.isneginf(cold.entropy)


@pytest.mark.slow
@pytest.mark.parametrize("loss", [Huber(0.5), Absolute(), Quantile(0.3)], ids=str)
def test_what_is_fitted_exactly_has_the_theory_of_the_square_loss(loss):
    """With its own closed forms."""
    book = rj.uniform(2, 1.8)
    want, found = (rj.solve(rj.LinearRegression(0.4, 1.0, 0.1, loss=x), book, jnp.inf) for x in (None, loss))
    assert found.converged
    assert found.interpolates
    for what in [x for x in SAME if x != "test_loss"]:
        np.testing.assert_allclose(getattr(found, what), getattr(want, what), rtol=1e-9, atol=1e-10, err_msg=what)
    exact = rj.solve(rj.LinearRegression(0.4, 1.0, 0.1, loss=Exact()), book, 3.0)  # whatever the temperature
    assert float(exact.generalization_error) == pytest.approx(float(want.generalization_error), abs=1e-9)


def test_a_margin_kept_is_a_perceptron():
    found = rj.solve(HINGE, rj.uniform(1, 2.8), jnp.inf)
    bare = rj.Classification(0.31, 1.0, 0.12, loss=Perceptron(1.0))
    want = rj.solve(bare, rj.uniform(1, 2.8), 3.0)  # whatever the temperature
    for what in "generalization_error", "entropy", "self_overlap", "replica_overlap", "replicon":
        np.testing.assert_allclose(getattr(found, what), getattr(want, what), rtol=1e-9, err_msg=what)
    near = rj.solve(HINGE, rj.uniform(1, 2.8), 1e5)
    assert float(near.generalization_error) == pytest.approx(float(want.generalization_error), abs=1e-5)
    assert float(near.entropy) == pytest.approx(float(want.entropy), abs=1e-4)


@pytest.mark.parametrize("what", ["generalization_error", "entropy"])
def test_implicit_gradients_are_those_of_differences(what):
    def observable(x):
        task = rj.Classification(x[0], 1.0, x[1], loss=Hinge())
        return getattr(rj.solve(task, rj.codebook(x[2:]), jnp.inf), what)

    x, h = jnp.array([0.31, 0.12, -2.8, 2.6]), 1e-4
    steps = h * jnp.eye(x.size)
    differences = [(observable(x + d) - observable(x - d)) / (2 * h) for d in steps]
    np.testing.assert_allclose(jax.grad(observable)(x), differences, rtol=1e-6, atol=1e-9)


@pytest.mark.slow
def test_second_derivatives_and_what_jit_does_not_look_for():
    def error(width):
        task = rj.Classification(0.31, 1.0, 0.12, loss=Hinge())
        return rj.solve(task, rj.codebook(width * jnp.array([-1.0, 0.93])), jnp.inf)

    h, slope = 1e-4, jax.grad(lambda width: error(width).generalization_error)
    difference = (slope(2.8 + h) - slope(2.8 - h)) / (2 * h)
    assert float(jax.jacfwd(slope)(2.8)) == pytest.approx(float(difference), rel=1e-6)
    assert not jax.jit(lambda width: error(width).converged)(2.8)


@pytest.mark.parametrize("names", [["width", "ridge"], pytest.param(["alpha"], marks=pytest.mark.slow)], ids=str)
def test_sweep_across_the_capacity(names):
    """Few rows are fitted, many are not, and derivatives are those of the errors on either side."""
    alphas, h = np.array([0.2, 0.4, 3.0]), 1e-4
    around, widths = np.sort(np.concatenate([alphas - h, alphas, alphas + h])), [2.8 - h, 2.8, 2.8 + h]
    task = rj.Classification(0.31, 1.0, 0.12, loss=Hinge())
    found = rj.phase_diagram(task, 1, jnp.inf, axes={"alpha": around, "width": widths}, gradients=names)
    assert found.converged.all()
    np.testing.assert_array_equal(found.interpolates[1::3, 1], [True, True, False])
    error = found.generalization_error.values
    differences = {"width": error[1::3, 2] - error[1::3, 0], "alpha": error[2::3, 1] - error[::3, 1]}
    for name in names:
        slope = found[f"d_generalization_error_d_{name}"].values[1::3, 1]
        if name in differences:
            np.testing.assert_allclose(slope, differences[name] / (2 * h), rtol=1e-5, atol=1e-8)
        else:
            assert (slope[:2] == 0).all()  # all words are as long


class Cautious(rj.losses.MarginLoss):
    """A hinge without its corner."""

    def of_margin(self, s):
        return jnp.maximum(0.0, 1 - s) ** 2


class Named(Cautious):
    @property
    def hard(self):
        return Perceptron(1.0)


@pytest.mark.slow
def test_a_loss_of_ones_own_names_its_constraint():
    """Or does not settle."""
    book = rj.uniform(1, 2.8)
    cautious, named, hinge = (
        rj.solve(rj.Classification(0.31, 1.0, 0.12, loss=loss), book, jnp.inf)
        for loss in (Cautious(), Named(), Hinge())
    )
    assert not cautious.converged
    assert named.converged
    assert float(named.generalization_error) == pytest.approx(float(hinge.generalization_error), abs=1e-12)


@pytest.mark.slow
def test_words_that_keep_the_margin_counted():
    """All 2^N of them, on drawn rows; error and number per weight, extrapolated linearly in 1/N from 8, 12 and 16 weights."""
    alpha, noise, width, rng = 0.25, 0.12, 2.8, np.random.default_rng(0)
    means, errors, sizes = [], [], np.array([8, 12, 16])
    for inputs, draws in zip(sizes, (60_000, 30_000, 8_000), strict=True):
        words = width * (2.0 * ((np.arange(2**inputs)[:, None] >> np.arange(inputs)) & 1) - 1)
        found = []
        for _ in range(draws):
            truth, X = rng.normal(size=inputs), rng.normal(size=(round(alpha * inputs), inputs)) / np.sqrt(inputs)
            y = np.where(X @ truth + np.sqrt(noise) * rng.normal(size=len(X)) > 0, 1.0, -1.0)
            loss = np.maximum(0, 1 - words @ (X.T * y)).sum(1)
            best = words[loss <= loss.min() + 1e-12]
            w = best.mean(0)
            aligned = truth @ w / np.sqrt(w @ w * (truth @ truth + inputs * noise))
            found.append((np.arccos(np.clip(aligned, -1, 1)) / np.pi, np.log(len(best)) / inputs))
        means.append(np.mean(found, 0))
        errors.append(np.std(found, 0) / np.sqrt(draws))
    task = rj.Classification(alpha, 1.0, noise, loss=Hinge())
    theory = rj.solve(task, rj.uniform(1, width), jnp.inf)
    for k, expected in enumerate((theory.generalization_error, theory.entropy)):
        value, error = np.array(means)[:, k], np.array(errors)[:, k]
        design = np.vander(1 / sizes, 2, increasing=True) / error[:, None]
        covariance = np.linalg.inv(design.T @ design)
        limit = (covariance @ design.T @ (value / error))[0]
        assert abs(limit - float(expected)) < 3 * np.sqrt(covariance[0, 0])
