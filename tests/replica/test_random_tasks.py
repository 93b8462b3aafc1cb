"""200 random tasks (those of 2 bits in the fast suite): the saddle point is one, its derivatives are right.

alpha 0.2 to 6, noise 1e-3 to 2, bits 1 to 6, width 0.2 to 5, beta 0.3 to 3000 and (one in seven) infinite.
"""

from functools import lru_cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import replicajax as rj
from replicajax.models import Order, free_energy
from replicajax.replica import solve_many

TASKS = 200
STEP = 1e-3
"""Of differences, relative."""


def draw(rng: np.random.Generator, count: int):
    def log_uniform(low, high):
        return np.exp(rng.uniform(np.log(low), np.log(high), count))

    beta = np.where(rng.random(count) < 1 / 7, np.inf, log_uniform(0.3, 3000))
    return rng.uniform(0.2, 6, count), log_uniform(1e-3, 2), rng.uniform(0.2, 5, count), beta


def groups():
    """The tasks by bits: [alpha, noise, beta, level_1 ... level_K] a row."""
    rng = np.random.default_rng(2024)
    counts = np.bincount(rng.integers(0, 6, TASKS), minlength=6)
    found = {}
    for bits, count in enumerate(counts, start=1):
        alpha, noise, width, beta = draw(rng, count)
        levels = width[:, None] * np.linspace(-1, 1, 2**bits)
        found[bits] = np.column_stack([alpha, noise, beta, levels])
    return found


GROUPS = groups()
every_width = pytest.mark.parametrize("bits", [2, *(pytest.param(b, marks=pytest.mark.slow) for b in (1, 3, 4, 5, 6))])


def unpack(theta):
    return rj.LinearRegression(theta[0], 1.0, theta[1], 0.0), rj.codebook(theta[3:]), theta[2]


@jax.jit
@jax.vmap
def everything(theta):
    """The solution, the gradient of f in its six arguments, and that of (eg, beta f) in theta through the solve."""

    def observables(theta):
        task, book, beta = unpack(theta)
        s = rj.solve(task, book, beta)
        finite = jnp.where(jnp.isinf(beta), 1.0, beta)
        return jnp.stack([s.generalization_error, finite * s.free_energy]), s

    (d_eg, d_beta_f), s = jax.jacrev(observables, has_aux=True)(theta)
    order = Order(s.overlap, s.replica_overlap, s.susceptibility)
    slope = jax.grad(lambda x: free_energy(s.task, s.codebook, s.beta, *x))((order, s.fields))
    return s, jnp.stack(jax.tree.leaves(slope)), d_eg, d_beta_f[2]


@lru_cache
def results(bits: int):
    return jax.tree.map(np.asarray, everything(GROUPS[bits]))


@every_width
def test_converged(bits):
    flags = results(bits)[0].converged
    assert flags.size == len(GROUPS[bits])
    assert flags.all()


@every_width
def test_gradient_of_the_free_energy_vanishes(bits):
    s, slope, *_ = results(bits)
    proper = s.converged & ~s.interpolates
    assert np.abs(slope[proper]).max() <= 1e-8


@every_width
def test_energy_is_the_derivative_of_beta_f(bits):
    s, _, _, d_beta_f = results(bits)
    kept = s.converged & np.isfinite(s.beta)
    np.testing.assert_allclose(d_beta_f[kept], s.training_error[kept], rtol=0, atol=1e-7)


@every_width
def test_entropy_is_beta_times_energy_less_free_energy(bits):
    """The package leaves out what cancels; the plain difference is good to 1e-11 of what is subtracted."""
    s, *_ = results(bits)
    kept = s.converged & np.isfinite(s.beta)
    entropy, beta, e, f = (x[kept] for x in (s.entropy, s.beta, s.training_error, s.free_energy))
    lost = 1e-11 * beta * (np.abs(e) + np.abs(f)) + 1e-11
    worst = np.argmax(np.abs(entropy - beta * (e - f)) / lost)
    assert abs(entropy - beta * (e - f))[worst] <= lost[worst], f"{entropy[worst]} at {GROUPS[bits][kept][worst][:4]}"


@every_width
def test_rate_is_at_most_the_bits(bits):
    s, *_ = results(bits)
    assert (s.rate >= 0).all()
    assert (s.rate <= bits + 1e-12).all()


@every_width
def test_implicit_gradient_is_that_of_differences(bits):
    """To 1e-5 relative; or to 1e-9 of eg per relative change of the parameter, where differences keep no more digits.

    Along alpha, noise, beta, width and every level (two random ones from 4 bits on).
    """
    s, _, exact, _ = results(bits)
    theta, exact, eg = GROUPS[bits][s.converged], exact[s.converged], s.generalization_error[s.converged]
    levels = theta[:, 3:]
    size = np.abs(levels).max(axis=1)
    rng = np.random.default_rng(bits)
    chosen = range(2**bits) if bits <= 3 else rng.choice(2**bits, 2, replace=False)
    axes = {
        f"level {k}": (np.eye(theta.shape[1])[3 + k] * np.ones_like(theta), size / 2**bits * 3 * STEP) for k in chosen
    }
    axes["alpha"] = (np.eye(theta.shape[1])[0] * np.ones_like(theta), theta[:, 0] * STEP)
    axes["noise"] = (np.eye(theta.shape[1])[1] * np.ones_like(theta), theta[:, 1] * STEP)
    axes["beta"] = (
        np.eye(theta.shape[1])[2] * np.ones_like(theta),
        np.where(np.isinf(theta[:, 2]), 0, theta[:, 2]) * STEP,
    )
    axes["width"] = (np.concatenate([np.zeros_like(theta[:, :3]), levels / size[:, None]], axis=1), size * STEP)
    for name, (direction, h) in axes.items():
        used = h > 0
        floor = 1e-4 * eg[used] * STEP / h[used]
        difference = differences(theta[used], direction[used], h[used], floor)
        implicit = (exact * np.where(used[:, None], direction, 0)).sum(1)[used]
        scale = np.maximum(np.abs(difference), floor)
        error = np.abs(implicit - difference) / scale
        worst = int(error.argmax())
        assert error[worst] <= 1e-5, (
            f"{name}: {implicit[worst]} against {difference[worst]} at {theta[used][worst][:4]}"
        )


def differences(theta, direction, h, floor):
    """Of sixth order, taken again with four times the step where the fourth order shows that rounding bounds them."""

    def both(theta, direction, h):
        odd = [step(theta, direction, h, k) - step(theta, direction, h, -k) for k in (1, 2, 3)]
        fourth = (8 * odd[0] - odd[1]) / (12 * h)
        sixth = (45 * odd[0] - 9 * odd[1] + odd[2]) / (60 * h)
        return sixth, np.abs(sixth - fourth)

    best, doubt = both(theta, direction, h)
    again = doubt > 1e-6 * np.maximum(np.abs(best), floor)
    if again.any():
        wider, its_doubt = both(theta[again], direction[again], 4 * h[again])
        best[again] = np.where(its_doubt < doubt[again], wider, best[again])
    return best


def step(theta, direction, h, by):
    moved = theta + by * h[:, None] * direction
    tasks, books, betas = jax.vmap(unpack)(moved)
    return solve_many(tasks, books, betas).generalization_error
