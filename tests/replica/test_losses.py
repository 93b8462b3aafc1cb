"""The theory of any loss: reference numbers, a published capacity, derivatives, a loss of the test's own, and simulation."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import replicajax as rj


@pytest.mark.parametrize(
    ("task", "book", "beta", "m", "q", "chi", "error", "f"),
    [
        (
            rj.Classification(3.0, 1.0, 0.2, loss=rj.losses.Logistic()),
            rj.uniform(2, 1.5),
            5.0,
            0.903674732,
            1.362895583,
            1.007779986,
            0.250215907,
            1.103052492,
        ),
        (
            rj.Classification(2.0, 1.0, 0.1, loss=rj.losses.Hinge()),
            rj.uniform(2, 1.2),
            3.0,
            0.657886108,
            0.803858326,
            0.533539138,
            0.253350919,
            0.521180259,
        ),
        (
            rj.Classification(1.0, 1.0, 0.0, loss=rj.losses.Perceptron()),
            rj.uniform(1, 1.0),
            1.0,
            0.469688056,
            0.547259187,
            0.452740813,
            0.281036675,
            -0.084931908,
        ),
    ],
)
def test_reference_numbers(task, book, beta, m, q, chi, error, f):
    """theory 13."""
    s = rj.solve(task, book, beta)
    assert s.converged
    ours = s.label_overlap, s.label_replica_overlap, s.label_susceptibility, s.classification_error, s.free_energy
    np.testing.assert_allclose(ours, (m, q, chi, error, f), rtol=0, atol=6e-10)
    assert float(s.entropy) == pytest.approx(float(beta * (s.training_error - s.free_energy)), abs=1e-10)


def test_capacity_of_binary_weights():
    """Krauth and Mezard 1989: with random labels the entropy of ±1 weights vanishes at alpha 0.8331."""
    task = rj.Classification(1.0, loss=rj.losses.Perceptron(), labels="random")
    alphas = np.linspace(0.80, 0.86, 7)
    entropy = rj.phase_diagram(task, 1, 1.0, width=1.0, axes={"alpha": alphas}).entropy.values
    assert np.interp(0.0, -entropy, alphas) == pytest.approx(0.8331, abs=1e-4)


def test_wide_huber_is_square():
    """Another road to the same numbers: quadrature for closed forms."""
    book = rj.uniform(2, 1.5)
    square, huber = (
        rj.solve(rj.LinearRegression(2.0, 1.0, 0.1, ridge=0.3, loss=loss), book, 5.0)
        for loss in (None, rj.losses.Huber(1e3))
    )
    for name in (
        "generalization_error",
        "rounded_error",
        "training_error",
        "free_energy",
        "entropy",
        "replicon",
        "test_loss",
    ):
        assert float(getattr(huber, name)) == pytest.approx(float(getattr(square, name)), rel=1e-10), name


class Smooth(rj.losses.MarginLoss):
    """A loss that is not in the package: all it takes is its formula."""

    def of_margin(self, s):
        return jnp.sqrt(1 + (1 - s) ** 2) - s / 2


def test_a_loss_of_ones_own():
    task, book, beta = rj.Classification(2.5, 1.7, 0.3, ridge=0.1, loss=Smooth()), rj.uniform(2, 1.8), 4.0
    s = rj.solve(task, book, beta)
    assert s.converged

    def shifted(**change):
        return rj.solve(rj.Classification(2.5, 1.7, 0.3, ridge=0.1, loss=Smooth()), book, change.get("beta", beta))

    h = 1e-4
    up, down = shifted(beta=beta + h), shifted(beta=beta - h)
    energy = ((beta + h) * up.free_energy - (beta - h) * down.free_energy) / (2 * h)
    assert float(s.training_error) == pytest.approx(float(energy), abs=1e-7)

    grid = rj.phase_diagram(
        task,
        2,
        beta,
        axes={"alpha": [2.5 - h, 2.5, 2.5 + h], "width": [1.8 - h, 1.8, 1.8 + h]},
        gradients=["width", "alpha"],
    )
    eg = grid.generalization_error.values
    assert eg[1, 1] == pytest.approx(float(s.generalization_error), abs=1e-12)
    slopes = grid.d_generalization_error_d_alpha.values[1, 1], grid.d_generalization_error_d_width.values[1, 1]
    differences = (eg[2, 1] - eg[0, 1]) / (2 * h), (eg[1, 2] - eg[1, 0]) / (2 * h)
    np.testing.assert_allclose(slopes, differences, atol=1e-7)

    evolved = rj.state_evolution(task, book, beta, steps=20)
    assert float(evolved.limit.generalization_error) == pytest.approx(float(s.generalization_error), abs=1e-10)
    rng = np.random.default_rng(0)
    X, w = rng.normal(size=(500, 200)) / np.sqrt(200), np.sqrt(1.7) * rng.normal(size=200)
    y = np.sign(X @ w + np.sqrt(0.3) * rng.normal(size=500))
    passed = rj.amp(X, y, book, beta, ridge=0.1, loss=Smooth(), teacher=w)
    assert passed.converged
    assert float(passed.test_error) == pytest.approx(float(s.generalization_error), abs=0.05)

    best = rj.optimal_width(task, 2, beta)
    near = [rj.solve(task, rj.uniform(2, float(best.width) * x), beta).generalization_error for x in (0.99, 1.01)]
    assert best.converged
    assert min(near) > best.generalization_error


@pytest.mark.slow
def test_gradients_of_everything():
    """Implicit derivatives inside jit, against differences: loss parameters, levels, numbers of the task, beta."""

    def error(x, levels):
        delta, alpha, noise, beta, ridge = x
        task = rj.LinearRegression(alpha, 1.3, noise, ridge, loss=rj.losses.Huber(delta))
        return rj.solve(task, rj.codebook(levels), beta).generalization_error

    x, levels = jnp.array([0.7, 2.0, 0.1, 5.0, 0.2]), jnp.array([-1.4, -0.3, 0.6, 1.5])
    slopes = jnp.concatenate(jax.jit(jax.grad(error, (0, 1)))(x, levels))
    both, h = jnp.concatenate([x, levels]), 1e-4

    def at(z):
        return float(error(z[:5], z[5:]))

    differences = [(at(both.at[i].add(h)) - at(both.at[i].add(-h))) / (2 * h) for i in range(both.size)]
    np.testing.assert_allclose(slopes, differences, rtol=1e-5, atol=1e-7)


def gibbs(X, y, loss, levels, beta, sweeps, rng):
    """Heat bath in numpy; mean of the energy and of the weights after half of the sweeps."""
    n, N = X.shape
    w = rng.choice(levels, N)
    u = X @ w
    mean, energies = np.zeros(N), []
    for sweep in range(sweeps):
        for i in rng.permutation(N):
            trial = u[:, None] + X[:, i, None] * (levels - w[i])
            E = beta * loss(y[:, None], trial).sum(0)
            p = np.exp(-(E - E.min()))
            new = rng.choice(levels, p=p / p.sum())
            u += X[:, i] * (new - w[i])
            w[i] = new
        if sweep >= sweeps // 3:
            mean += w
            energies.append(loss(y, u).sum() / N)
    return mean / len(energies), np.mean(energies)


LOSSES = {
    "logistic": lambda y, u: np.logaddexp(0, -y * u),
    "hinge": lambda y, u: np.maximum(0, 1 - y * u),
    "absolute": lambda y, u: np.abs(y - u),
    "huber": lambda y, u: np.where(np.abs(y - u) < 0.7, (y - u) ** 2 / 2, 0.7 * (np.abs(y - u) - 0.35)),
}
SIMULATED = [
    ("logistic", rj.Classification(3.0, 1.0, 0.2, loss=rj.losses.Logistic()), 2.0),
    ("hinge", rj.Classification(2.0, 1.0, 0.1, loss=rj.losses.Hinge()), 2.0),
    ("huber", rj.LinearRegression(3.0, 1.0, 0.3, loss=rj.losses.Huber(0.7)), 3.0),
    ("absolute", rj.LinearRegression(2.5, 1.0, 0.3, loss=rj.losses.Absolute()), 2.0),
]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "task", "beta"), SIMULATED)
def test_heat_bath(name, task, beta):
    """Error of the mean predictor and energy of a heat bath that shares no code: |z| <= 3."""
    loss, rng, N, draws = LOSSES[name], np.random.default_rng(3), 400, 6
    levels = np.linspace(-1.5, 1.5, 4)
    s = rj.solve(task, rj.codebook(levels), beta)
    n = round(float(task.alpha) * N)
    errors, energies = [], []
    for _ in range(draws):
        X, teacher = rng.normal(size=(n, N)) / np.sqrt(N), rng.normal(size=N)
        y = X @ teacher + np.sqrt(float(task.noise)) * rng.normal(size=n)
        classes = isinstance(task, rj.Classification)
        mean, energy = gibbs(X, np.sign(y) if classes else y, loss, levels, beta, 150, rng)
        m, q = teacher @ mean / N, mean @ mean / N
        rho = teacher @ teacher / N
        errors.append(np.arccos(m / np.sqrt(q * (rho + float(task.noise)))) / np.pi if classes else rho - 2 * m + q)
        energies.append(energy)
    for values, theory in ((errors, s.generalization_error), (energies, s.training_error)):
        z = (np.mean(values) - float(theory)) / (np.std(values, ddof=1) / np.sqrt(draws))
        assert abs(z) < 3, (z, np.mean(values), theory)


@pytest.mark.parametrize(
    "ask",
    [
        lambda task: rj.solve(task, rj.uniform(2, 1.0), np.inf),
        lambda task: rj.optimal_width(task, 2, np.inf),
        lambda task: rj.phase_diagram(task, 2, width=1.0, axes={"beta": [1.0, np.inf]}),
    ],
)
def test_cold_is_refused(ask):
    with pytest.raises(ValueError, match=r"beta must be finite for perceptron loss \(margin 0\), which knows no other"):
        ask(rj.Classification(2.0, loss=rj.losses.Perceptron()))


def test_what_knows_the_square_loss_only_says_so():
    with pytest.raises(ValueError, match="task must have the square loss for .*, got huber loss"):
        rj.optimal_bits(rj.LinearRegression(2.0, loss=rj.losses.Huber(0.5)), 1.0)


def test_state_evolution_of_blurred_levels_ends_at_the_saddle_point():
    """256 levels closer than the thermal width: no nearest thirty are enough."""
    task, book = rj.LinearRegression(1.0, noise=0.1), rj.uniform(8, 3.0)
    limit = rj.state_evolution(task, book, 20.0).limit
    assert float(limit.generalization_error) == pytest.approx(
        float(rj.solve(task, book, 20.0).generalization_error), rel=1e-9
    )
