"""Scaling laws: what noise costs in model size and data, and the law that exact risks follow (theory 5.3, [S]).

    risk − noise ≈ A M_eff^−(a−1) + B N_eff^−(a−1)/a + floor,        N_eff = N/log2 N        ([Lin et al.] at full precision)

additive noise: G̃ = G + eps I is ridge; what it takes from directions of eigenvalue below eps is as if they were not there,
    so M_eff = min(M, ~eps^(−1/a)).
multiplicative noise: G̃ = (1 + eps) G has G's eigenvectors, so M_eff = M; it leaves floor = (eps/(1 + eps))² v*ᵀGv*.
elementwise noise (floating point as it is) of features that are their own eigenvectors does the same.  After a sketch
    diag G is tr G/M on every feature, but for fluctuations, whatever the direction: it acts like additive eps tr G/M (its
    floor within a factor of 3 of that), so M_eff saturates at about (M/(eps tr G))^(1/a), and the exponent of M drops from
    a − 1 to (a − 1)/a.
"""

from __future__ import annotations

from typing import NamedTuple

import equinox as eqx
import jax.numpy as jnp
import optimistix as optx
from jaxtyping import Array, ArrayLike, Bool, Float

from replicajax import _checks
from replicajax.numerics import bisect
from replicajax.scaling._moments import closes_on_the_diagonal, moments_of
from replicajax.scaling._precision import Precision
from replicajax.scaling._problem import Regression
from replicajax.scaling._risk import sgd_risk, step_limit
from replicajax.scaling._schedule import stage_count


@eqx.filter_jit
def quantization_floor(problem: Regression, precision: Precision) -> Float[Array, ""]:
    """(v° − v*)ᵀ G (v° − v*): risk above that of full precision that no amount of data removes.

    Only errors of the data contribute: those of other sites are noise, which a falling step averages out.
    """
    moments = moments_of(problem, precision)
    shift = moments.limit - moments.target
    return moments.error(moments.outer(shift, shift))


@eqx.filter_jit
def effective_model_size(problem: Regression, precision: Precision) -> Float[Array, ""]:
    """How many of the leading directions, at full precision and with endless data, have the risk of all of them here.

    Where noise only shrinks all weights alike (multiplicative; elementwise without a basis) that is `problem.size`.
    Interpolated between directions in log(count + 1/2), in which the tail of a power law is straight.
    """
    if precision.kind != "additive" and closes_on_the_diagonal(problem, precision):
        return problem.size
    order = jnp.argsort(-problem.eigenvalues)
    explained = (problem.multiplicity * problem.eigenvalues * problem.target**2)[order]
    count = jnp.concatenate([jnp.zeros(1), jnp.cumsum(problem.multiplicity[order])])
    left = problem.approximation + jnp.concatenate([jnp.cumsum(explained[::-1])[::-1], jnp.zeros(1)])
    tiny = jnp.finfo(left.dtype).tiny
    goal = problem.approximation + quantization_floor(problem, precision)
    found = jnp.interp(-jnp.log(goal + tiny), -jnp.log(left + tiny), jnp.log(count + 0.5))
    return jnp.clip(jnp.exp(found) - 0.5, 0.0, problem.size)


def effective_data_size(
    problem: Regression,
    precision: Precision,
    steps: ArrayLike,
    fraction: ArrayLike = 0.5,
    schedule: str = "geometric",
    *,
    batch: ArrayLike = 1.0,
) -> Float[Array, ""]:
    """Steps after which full precision has the bias and variance that these errors have after `steps`.

    Both run at the same fraction of their own step limit, so that a smaller stable step counts as lost data.  Additive noise
    also spares SGD the directions it hides: their bias is `quantization_floor`, not counted here, and this may exceed `steps`.

    Raises:
      ValueError: as `sgd_risk`; NaN is returned where 4 to 10^4 times `steps` do not bracket the answer.
    """
    own, full = (fraction * step_limit(problem, each, batch) for each in (precision, Precision("additive")))
    steps = jnp.asarray(steps, float)
    here = sgd_risk(problem, precision, steps, own, schedule, batch=batch)
    return _steps_to(here.bias + here.variance, 1e4 * steps, problem, full, schedule, jnp.asarray(batch, float))


@eqx.filter_jit
def _steps_to(
    goal: Array, most: Array, problem: Regression, step: ArrayLike, schedule: str, batch: Array
) -> Float[Array, ""]:
    """At full precision, between 4 and `most`."""

    def left(log_steps):
        risk = sgd_risk(problem, Precision("additive"), jnp.exp(log_steps), step, schedule, batch=batch)
        return jnp.log(risk.bias + risk.variance) - jnp.log(goal)

    low, high = jnp.log(4.0), jnp.log(most)
    found, _ = bisect(lambda x: left(x) > 0, low, high, 50)
    return jnp.where((left(low) >= 0) & (left(high) <= 0), jnp.exp(found), jnp.nan)


class Law(NamedTuple):
    """excess = model_constant · M^−model_exponent + data_constant · N_eff^−data_exponent + floor."""

    model_constant: Float[Array, ""]
    model_exponent: Float[Array, ""]
    data_constant: Float[Array, ""]
    data_exponent: Float[Array, ""]
    floor: Float[Array, ""]
    error: Float[Array, ""]
    """Root mean square of log(law/excess) over the points it was fitted to."""
    converged: Bool[Array, ""]

    def excess(self, size: ArrayLike, steps: ArrayLike) -> Float[Array, "..."]:
        """Risk less noise; size and steps broadcast."""
        size, steps = jnp.asarray(size), jnp.asarray(steps)
        data = self.data_constant * effective_steps(steps) ** -self.data_exponent
        return self.model_constant * size**-self.model_exponent + data + self.floor


def effective_steps(steps: ArrayLike) -> Float[Array, "..."]:
    """N_eff = N/floor(log2 N), the length of a stage of the geometric schedule."""
    steps = jnp.asarray(steps, float)
    return steps / stage_count(steps)


def fit_law(size: ArrayLike, steps: ArrayLike, excess: ArrayLike, *, floor: bool = False) -> Law:
    """Constants and exponents by least squares in log excess (Levenberg and Marquardt); `floor` fits one too.

    Args:
      size, steps, excess: vectors of one length: M (or `effective_model_size`), N and exact or measured risk less noise.

    Raises:
      ValueError: lengths that differ, fewer points than constants, entries not positive.
    """
    M, N, risk = (
        _checks.positive(name, x).ravel() for name, x in (("size", size), ("steps", steps), ("excess", excess))
    )
    unknowns = 5 if floor else 4
    if not M.size == N.size == risk.size or M.size < unknowns:
        raise ValueError(
            f"size, steps and excess must have one length, at least {unknowns}, got {M.size}, {N.size} and {risk.size}"
        )
    # From where each term alone would explain the point where the other is least.
    start = [jnp.log(risk.min() * M.max() ** 0.5), -0.7, jnp.log(risk.min() * effective_steps(N).max() ** 0.5), -0.7]
    start += [jnp.log(risk.min() / 10)] if floor else []
    return _fit(M, N, risk, jnp.stack([jnp.asarray(x, M.dtype) for x in start]))


@eqx.filter_jit
def _fit(M, N, risk, start) -> Law:
    def law(x):
        floor = jnp.exp(x[4]) if x.size == 5 else jnp.zeros(())
        return Law(jnp.exp(x[0]), jnp.exp(x[1]), jnp.exp(x[2]), jnp.exp(x[3]), floor, jnp.zeros(()), jnp.array(True))

    def residual(x, _):
        return jnp.log(law(x).excess(M, N)) - jnp.log(risk)

    solver = optx.LevenbergMarquardt(rtol=1e-10, atol=1e-12)
    found = optx.least_squares(residual, solver, start, max_steps=2000, throw=False)
    error = jnp.sqrt(jnp.mean(residual(found.value, None) ** 2))
    return law(found.value)._replace(error=error, converged=found.result == optx.RESULTS.successful)
