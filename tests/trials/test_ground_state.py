"""Ground states of drawn instances: against every codeword, and one step of breaking against them (slow)."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import replicajax as rj
from figures._ground_states import best_width
from replicajax.amp import lowest_codeword
from replicajax.trials import Estimate, extrapolate, ground_state
from replicajax.trials._controls import Drawn, controlled_mean, controls

BOOK = rj.uniform(2, 1.5)
TASK = rj.LinearRegression(2.0, 1.0, 0.1)
SPECTRUM = rj.Features([0.2, 0.8, 2.0], [1.5, 1.0, 0.5])


@pytest.mark.parametrize(
    ("task", "book", "size"),
    [
        (rj.LinearRegression(1.5, 1.0, 0.1, 0.05, features=SPECTRUM), rj.uniform(2, 1.5), 6),
        (rj.Classification(2.0), rj.uniform(1, 1.0), 10),
    ],
    ids=["square", "logistic"],
)
def test_search_finds_the_ground_state(task, book, size):
    """Of 16 instances, as every codeword tried says."""
    X, y, _ = jax.vmap(lambda k: rj.draw(task, size, k))(jax.random.split(jax.random.key(1), 16))
    extra = {"ridge": task.ridge, "loss": task.loss}
    found = jax.vmap(lambda X, y: lowest_codeword(X, y, book, sweeps=60, **extra))(X, y)
    assert (found.agreement == 1).all()
    for i in range(16):
        every = rj.exhaustive(X[i], y[i], book, 1.0, **extra)
        np.testing.assert_allclose(found.energy[i], every.ground_energy, rtol=1e-4, atol=1e-6)
        np.testing.assert_array_equal(found.weights[i], every.ground_state)


@pytest.mark.parametrize(
    "task",
    [
        rj.LinearRegression(1.5, 2.0, 0.3, teacher=rj.distributions.Laplace()),
        rj.LinearRegression(1.5, 1.0, 0.3, features=SPECTRUM, rows=rj.RowLengths([0.5, 1.5])),
        rj.Classification(2.0, features=rj.Features([0.5, 1.5], axes="aligned")),
    ],
    ids=["Laplace", "rotated, rows of two lengths", "labels"],
)
def test_controls_have_mean_zero(task):
    keys = jax.random.split(jax.random.key(3), 4000)
    make = jax.jit(jax.vmap(lambda k: (*rj.draw(task, 12, k), rj.models.covariance(task, 12, k))))
    drawn = Drawn(*(np.asarray(x, float) for x in make(keys)))
    known = controls(task, BOOK, drawn)
    assert known.shape[1] == {"LinearRegression": 11, "Classification": 4}[type(task).__name__]
    z = known.mean(0) / (known.std(0) / np.sqrt(len(known)))
    assert np.abs(z).max() < 4, z
    values = known @ np.ones(known.shape[1]) + np.random.default_rng(0).normal(size=len(known)) / 10
    assert controlled_mean(values, known).standard_error == pytest.approx(0.1 / np.sqrt(4000), rel=0.05)


def test_extrapolation():
    """Exact for either power, with the difference between the two in the error."""
    sizes = 20, 40, 80
    for power in -1.0, -2 / 3:
        found = extrapolate(sizes, [Estimate(0.3 + 2 * n**power, 1e-6) for n in sizes])
        which = found.fits[0 if power == -1 else 1]
        assert which.mean == pytest.approx(0.3)
        assert abs(found.z(0.3)) == pytest.approx(1, rel=1e-3)


def test_harness():
    """At small size: its instances are those of `draw`, its errors those of their codewords; it prints itself."""
    found = ground_state(TASK, BOOK, sizes=(6, 8), instances=16)
    assert found.enumerated.exact == 1
    for at in found.trials:
        assert at.agreement == 1
        key = jax.random.fold_in(jax.random.fold_in(jax.random.key(0), at.size), 3)
        X, y, teacher = rj.draw(TASK, at.size, jax.random.split(key)[0])
        every = rj.exhaustive(X, y, BOOK, 1.0)
        np.testing.assert_allclose(at.energies[3], every.ground_energy, rtol=1e-4)
        np.testing.assert_allclose(at.errors[3], jnp.mean((teacher - every.ground_state) ** 2), rtol=1e-4)
    assert found.reliable
    for part in "energy at N = inf", "exact on 1 of 16 instances of 8 weights", "agreed":
        assert part in str(found)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"sizes": (20,)}, r"sizes must be at least two different numbers, to extrapolate from, got \[20\]"),
        ({"instances": (8, 8)}, "instances must be one number, or one for each of 3 sizes, got 2"),
        ({"instances": 1}, "instances must be a whole number from 2"),
        ({"sweeps": 0}, "sweeps must be a whole number from 1"),
        ({"searches": 1}, "searches must be a whole number from 2"),
    ],
)
def test_bad_arguments(kwargs, message):
    with pytest.raises(ValueError, match=message):
        ground_state(TASK, BOOK, **kwargs)


def test_bad_task():
    with pytest.raises(TypeError, match="task must be a Taught such as"):
        ground_state(rj.GivenData(np.eye(3), np.ones(3)), BOOK)


IID = {"sizes": (24, 48, 96), "instances": (1024, 512, 192)}
SMALL = {"sizes": (16, 32, 64), "instances": (1024, 512, 192)}
# task, codebook, effort
POINTS = {
    "2 bits": (TASK, BOOK, IID),
    "1 bit": (TASK, rj.uniform(1, 1.0), IID),
    "few rows": (rj.LinearRegression(1.2, 1.0, 0.1), rj.uniform(2, 1.2), IID),
    "3 bits": (rj.LinearRegression(2.0, 1.0, 0.3), rj.uniform(3, 1.8), IID),
    "three eigenvalues": (
        rj.LinearRegression(2.0, 1.0, 0.1, features=SPECTRUM),
        BOOK,
        {"sizes": (12, 24, 36), "instances": (4096, 2048, 768), "sweeps": (100, 300, 700)},
    ),
    "absolute": (rj.LinearRegression(2.0, noise=0.1, loss=rj.losses.Absolute()), rj.uniform(1, 1.0), SMALL),
    "hinge": (rj.Classification(1.5, noise=0.2, loss=rj.losses.Hinge()), rj.uniform(1, 4.0), SMALL),
    "logistic": (rj.Classification(2.0, noise=0.2), rj.uniform(1, 4.0), SMALL),
    "power law": (
        rj.LinearRegression(2.0, 1.0, 0.1, features=rj.Features.power_law(1.0, 30)),
        BOOK,
        {"sizes": (30, 60), "instances": (512, 256), "sweeps": (400, 2000)},
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", POINTS)
def test_one_step_of_breaking(name):
    """Energy and error at zero temperature: those of one step within 3 standard errors; the energy of RS beyond, where the
    two theories are apart by 4 (not so with few rows or 3 bits, where this study cannot tell one from the other)."""
    task, book, effort = POINTS[name]
    found = ground_state(task, book, **effort)
    print(f"\n{name}\n{found}")
    z, energies = {}, []
    for theory in (rj.solve(task, book, jnp.inf, breaking=steps) for steps in (1, 0)):
        energy, error = float(theory.training_error), float(theory.generalization_error)
        energies.append(energy)
        z[int(theory.breaking)] = found.energy.z(energy), found.error.z(error)
        print(
            f"  {'one step' if theory.breaking else 'RS':<10s} energy {energy:.6f} (z {found.energy.z(energy):5.2f}), "
            f"eg {error:.5f} (z {found.error.z(error):5.2f})"
        )
    assert found.reliable
    assert found.enumerated.exact == 1
    assert np.abs(z[1]).max() < 3
    if energies[0] - energies[1] > 4 * found.energy.standard_error:
        assert z[0][0] > 3


@pytest.mark.slow
@pytest.mark.parametrize("bits", [1, 2, 3])
def test_best_width_of_ground_states(bits):
    """256 instances of 100 weights at seven widths, the same at each: where their mean error is least, by a cubic in log
    width, one step says within 5 %."""
    predicted = float(rj.optimal_width(TASK, bits, jnp.inf, breaking=1).width)
    symmetric = float(rj.optimal_width(TASK, bits, jnp.inf).width)
    found = best_width(TASK, bits, predicted)
    print(f"\n{bits} bits: one step {predicted:.4f}, RS {symmetric:.4f}; of ground states {found}")
    assert found.agreed > 0.9
    assert found.standard_error < 0.025 * predicted
    assert abs(found.width / predicted - 1) < 0.05
