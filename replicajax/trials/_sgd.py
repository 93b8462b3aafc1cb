"""Actual one-pass SGD with quantizers, many runs at once: what theory 5.2 is compared with.

    v <- v + step · (1/B) sum over the batch of ũ · Qo( ỹ − Qa(ũ·Qp(v)) ),    ũ = Qd(u),  ỹ = Ql(y)

Quantizers are Gaussian dither of the covariance that a `Precision` states, or actual stochastic rounding to a grid.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from replicajax import _checks
from replicajax.scaling import SITES, Precision, Regression, Schedule, step_factors

Quantizer = Callable[[PRNGKeyArray, Array], Array]


class SimulatedRisk(NamedTuple):
    """Over independent runs: the risk E (y − u·v)² of the last weights, exact given them, noise included."""

    mean: float
    error: float
    """Standard error of the mean."""
    runs: Float[Array, " runs"]


class IntegerGrid(eqx.Module):
    """Stochastic rounding to the 2^bits numbers spaced evenly from −reach to reach; what lies beyond goes to the end."""

    bits: Float[Array, ""]
    reach: Float[Array, ""]

    def __call__(self, key: PRNGKeyArray, x: Array) -> Array:
        step = 2 * self.reach / (jnp.exp2(self.bits) - 1)
        place = (jnp.clip(x, -self.reach, self.reach) + self.reach) / step
        return step * jnp.floor(place + jax.random.uniform(key, jnp.shape(x), jnp.result_type(x))) - self.reach


class FloatGrid(eqx.Module):
    """Stochastic rounding to `mantissa_bits` of mantissa, exponents of any size."""

    mantissa_bits: Float[Array, ""]

    def __call__(self, key: PRNGKeyArray, x: Array) -> Array:
        exponent = jnp.floor(jnp.log2(jnp.maximum(jnp.abs(x), 1e-300)))
        step = jnp.exp2(exponent - self.mantissa_bits)
        return step * jnp.floor(x / step + jax.random.uniform(key, jnp.shape(x), jnp.result_type(x)))


class Dither(eqx.Module):
    """Gaussian error of the covariance of theory 5.1; a vector is what the last axis holds."""

    kind: str = eqx.field(static=True)
    variance: Float[Array, ""]

    def __call__(self, key: PRNGKeyArray, x: Array) -> Array:
        x = jnp.asarray(x)
        shape = x.shape[:-1] + (1,) if self.kind == "multiplicative" and x.ndim else x.shape
        error = jnp.sqrt(self.variance) * jax.random.normal(key, shape, x.dtype)
        return x + error if self.kind == "additive" else x * (1 + error)


def dither(precision: Precision) -> dict[str, Quantizer]:
    """The quantizers that a `Precision` describes."""
    return {site: _of_samples(Dither(precision.kind, getattr(precision, site)), site) for site in SITES}


def _of_samples(quantizer: Dither, site: str) -> Quantizer:
    """Labels, activations and gradients are numbers: each sample of a batch has its own error."""
    if site in ("data", "parameter") or quantizer.kind == "additive":
        return quantizer
    return Dither("elementwise", quantizer.variance)


def simulate_sgd(
    problem: Regression,
    quantizers: Precision | Mapping[str, Quantizer],
    steps: int,
    step_size: float,
    schedule: Schedule = "geometric",
    *,
    batch: int = 1,
    average: float = 0.0,
    runs: int = 400,
    key: PRNGKeyArray | None = None,
) -> SimulatedRisk:
    """Mean risk of `runs` independent runs from v = 0, arguments as in `scaling.sgd_risk`.

    Args:
      quantizers: a Precision, for Gaussian dither; or by site ("data", "label", "parameter", "activation", "output")
        functions (key, x) -> x̃ such as `IntegerGrid(4, 3.0)`; a site left out is exact.

    Raises:
      TypeError, ValueError: not a problem, an unknown site, steps, batch or runs not whole numbers, multiplicities not 1.
    """
    _checks.instance("problem", problem, Regression, "scaling.power_law(100, 1.5)")
    if not bool((problem.multiplicity == 1).all()):
        raise ValueError("problem must have multiplicity 1 throughout to be simulated")
    steps, batch, runs = (
        _checks.integer(name, value, 1, 10**9) for name, value in (("steps", steps), ("batch", batch), ("runs", runs))
    )
    _checks.fraction("average", average)
    if isinstance(quantizers, Precision):
        quantizers = dither(quantizers)
    for site in quantizers:
        _checks.choice("quantizers", site, SITES)
    sites = {site: quantizers.get(site, _exact) for site in SITES}
    each = step_factors(schedule, steps) * _checks.scalar("step_size", step_size)
    key = jax.random.key(0) if key is None else key
    tail = int(np.ceil(average * steps))
    risks = _simulate(problem, sites, each, batch, tail, jax.random.split(key, runs))
    return SimulatedRisk(float(risks.mean()), float(risks.std(ddof=1) / np.sqrt(runs)), risks)


def _exact(key: PRNGKeyArray, x: Array) -> Array:
    del key
    return x


@eqx.filter_jit
def _simulate(problem, sites, each, batch: int, tail: int, keys) -> Array:
    basis = jnp.eye(problem.target.size) if problem.basis is None else problem.basis
    root = basis * jnp.sqrt(problem.eigenvalues)
    target = basis @ problem.target

    def run(key):
        def one(carry, at):
            v, mean = carry
            t, step = at
            for_u, for_r, *rest = jax.random.split(jax.random.fold_in(key, t), 7)
            data, label, parameter, activation, output = rest
            u = jax.random.normal(for_u, (batch, target.size), target.dtype) @ root.T
            y = u @ target + jnp.sqrt(problem.residual) * jax.random.normal(for_r, (batch,), target.dtype)
            u = sites["data"](data, u)
            prediction = sites["activation"](activation, u @ sites["parameter"](parameter, v))
            rest = sites["output"](output, sites["label"](label, y) - prediction)
            v = v + step * (rest @ u) / batch
            return (v, mean + jnp.where(t >= each.size - tail, v, 0.0)), None

        zero = jnp.zeros_like(target)
        (v, mean), _ = jax.lax.scan(one, (zero, zero), (jnp.arange(each.size), each))
        away = root.T @ ((mean / tail if tail else v) - target)
        return problem.residual + away @ away

    return jax.vmap(run)(keys)
