"""260 random tasks over losses, spectra, row lengths and teachers: the saddle point is one, its derivatives are right.

alpha 0.3 to 5, noise 1e-2 to 1, ridge 0 to 1, 1 to 4 bits, width 0.4 to 3, beta 0.3 to 300, eigenvalues 0.05 to 5.
"""

from functools import lru_cache

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import replicajax as rj
from replicajax.distributions import Discrete, Laplace
from replicajax.replica import solve_many

LOSSES = {
    "square": lambda **rest: rj.LinearRegression(loss=rj.losses.Square(), **rest),
    "huber": lambda **rest: rj.LinearRegression(loss=rj.losses.Huber(0.5), **rest),
    "logistic": lambda **rest: rj.Classification(loss=rj.losses.Logistic(), **rest),
    "hinge": lambda **rest: rj.Classification(loss=rj.losses.Hinge(), **rest),
    "absolute": lambda **rest: rj.LinearRegression(loss=rj.losses.Absolute(), **rest),
}
KINDS = "iid", "rotated", "aligned", "lengths"
EACH = 13
CASES = [(loss, kind) for loss in LOSSES for kind in KINDS]
FAST = {("square", "rotated"), ("square", "aligned"), ("hinge", "aligned")}


def every_case(fast):
    """All cases, and these in the fast suite."""
    cases = [case if case in fast else pytest.param(*case, marks=pytest.mark.slow) for case in CASES]
    return pytest.mark.parametrize(("loss", "kind"), cases)


STENCIL = np.array([-3, -2, -1, 0, 1, 2, 3])
WEIGHTS = np.array([-1, 9, -45, 0, 45, -9, 1]) / 60
STEP = 2e-3


def one(rng: np.random.Generator, loss: str, kind: str):
    def log_uniform(low, high, *shape):
        return np.exp(rng.uniform(np.log(low), np.log(high), *shape))

    rest = {
        "alpha": rng.uniform(0.3, 5),
        "signal": 1.0,
        "noise": log_uniform(1e-2, 1),
        "ridge": rng.choice([0.0, 0.1, 1.0]),
    }
    if kind in ("rotated", "aligned"):
        rest["features"] = rj.Features(log_uniform(0.05, 5, 3), log_uniform(0.2, 2, 3), kind, log_uniform(0.3, 1, 3))
    if kind == "lengths":
        rest["rows"] = rj.RowLengths.student_t(float(rng.uniform(3, 9)), 12)
    if kind == "aligned":
        rest["teacher"] = Laplace()
    if kind == "lengths":
        rest["teacher"] = Discrete(rj.codebook([-1.0, 1.0]))
    return LOSSES[loss](**rest)


@lru_cache
def problems(loss: str, kind: str):
    rng = np.random.default_rng(CASES.index((loss, kind)))
    tasks = [one(rng, loss, kind) for _ in range(EACH)]
    width, beta = rng.uniform(0.4, 3, EACH), np.exp(rng.uniform(np.log(0.3), np.log(300), EACH))
    levels = width[:, None] * np.linspace(-1, 1, 2 ** [1, 2, 3, 4][CASES.index((loss, kind)) % 4])
    return jax.tree.map(lambda *x: np.stack(x), *tasks), levels, beta


def solved(tasks, levels, beta):
    books = eqx.filter_vmap(rj.codebook)(levels)
    return solve_many(tasks, books, beta)


@lru_cache
def along_beta(loss: str, kind: str):
    """Solutions at the betas of the stencil: (stencil, tasks)."""
    tasks, levels, beta = problems(loss, kind)
    betas = (beta * (1 + STEP * STENCIL[:, None])).ravel()
    many = jax.tree.map(lambda x: np.tile(x, (len(STENCIL),) + (1,) * (x.ndim - 1)), (tasks, levels))
    found = solved(*many, betas)
    return jax.tree.map(lambda x: np.asarray(x).reshape(len(STENCIL), EACH, *x.shape[1:]), found)


@pytest.mark.optimized
@every_case(FAST)
def test_energy_is_the_derivative_of_beta_f(loss, kind):
    s, beta = along_beta(loss, kind), problems(loss, kind)[2]
    assert s.converged.all()
    slope = WEIGHTS @ (s.beta * s.free_energy) / (STEP * beta)
    middle = jax.tree.map(lambda x: x[3], s)
    scale = 1 + np.abs(middle.training_error)
    np.testing.assert_allclose(slope / scale, middle.training_error / scale, rtol=0, atol=1e-7)
    entropy = beta * (middle.training_error - middle.free_energy)
    np.testing.assert_array_less(np.abs(middle.entropy - entropy), 1e-10 * (1 + beta * scale))


@lru_cache
def frozen(loss: str, kind: str):
    """At beta = inf, next to it, and which points interpolate there: their response grows like beta."""
    tasks, levels, _ = problems(loss, kind)
    cold, near = (solved(tasks, levels, np.full(EACH, beta)) for beta in (np.inf, 1e5))
    return cold, near, near.converged & (near.label_susceptibility > 1e3)


@every_case({("square", "rotated"), ("hinge", "aligned")})
def test_zero_temperature_is_the_limit(loss, kind):
    cold, near, interpolates = frozen(loss, kind)
    assert cold.converged.all()
    assert (interpolates == cold.interpolates).all()
    same = cold.converged & near.converged
    assert same.sum() >= EACH - 2
    for what in ("generalization_error", "training_error", "free_energy"):
        at, limit = (getattr(s, what)[same] for s in (near, cold))
        np.testing.assert_allclose(at, limit, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("heat", ["warm", "cold"])
@every_case({("square", "rotated")})
def test_implicit_gradient_is_that_of_differences(loss, kind, heat):
    """Of eg and beta f, along random directions in everything at once: loss, spectrum, teacher, levels, alpha, noise, beta."""
    tasks, levels, beta = problems(loss, kind)
    rng = np.random.default_rng(7)
    chosen = np.argsort(beta)[:: EACH // 3][:4]
    if heat == "cold":
        chosen = np.flatnonzero(~frozen(loss, kind)[2])[:3]
        beta = np.ones(EACH)  # a number that plays no part
    numbers, rest = eqx.partition(jax.tree.map(lambda x: jnp.asarray(x[chosen]), tasks), eqx.is_inexact_array)
    theta = numbers, jnp.asarray(levels[chosen]), jnp.asarray(beta[chosen])
    direction = jax.tree.map(lambda x: x * rng.uniform(0.5, 1.5, x.shape), theta)  # relative, so that all stay in range

    def observables(theta):
        numbers, levels, beta = theta
        s = rj.solve(eqx.combine(numbers, rest), rj.codebook(levels), jnp.inf if heat == "cold" else beta)
        return jnp.stack([s.generalization_error, beta * s.free_energy])

    implicit = jax.jit(jax.vmap(lambda x, v: jax.jvp(observables, (x,), (v,))[1]))(theta, direction)

    # Thresholds move with the levels, and steps of <a> are as wide as temperature makes them.
    step = 1e-3 / (1 + (heat == "warm") * theta[2] * jnp.abs(theta[1]).max(1) ** 2 / 20)

    def moved(steps):
        along = jax.tree.map(lambda v: (v.T * (steps * step)).T, direction)
        numbers, levels, beta = jax.tree.map(lambda x, v: np.asarray(x + v), theta, along)
        s = solved(eqx.combine(numbers, rest), levels, np.full_like(beta, np.inf) if heat == "cold" else beta)
        assert s.converged.all()
        return np.stack([s.generalization_error, beta * s.free_energy], -1)

    differences = sum(w * moved(k) for k, w in zip(STENCIL, WEIGHTS, strict=True) if k) / step[:, None]
    scale = 1 + np.abs(differences)
    np.testing.assert_array_less(np.abs(implicit - differences), 1e-6 * scale)
