"""`solve`: a task, a codebook and a temperature in, a `Solution` out."""

from __future__ import annotations

from dataclasses import replace

import jax
import numpy as np
from jaxtyping import ArrayLike

from replicajax import _checks
from replicajax.codebooks import Codebook
from replicajax.models import Task, with_limit
from replicajax.replica._batch import solve_many
from replicajax.replica._breaking import allowed_steps, broken_solution
from replicajax.replica._saddle import solution
from replicajax.replica._solution import Solution


def solve(
    task: Task, codebook: Codebook, beta: ArrayLike, *, breaking: int | str = 0, max_steps: int = 10_000
) -> Solution:
    """Solution of learning `task` with weights in `codebook` at inverse temperature `beta`.

    Differentiable, forwards and backwards and twice, in every field of the task, every level and beta (implicit function
    theorem); `jax.vmap` and `jax.jit` apply.  Outside a transformation nothing is compiled; inside one, only another number
    of levels is another program.  Where several saddle points exist (cold, few rows, few bits) one of them is returned:
    `state_evolution` tells.  In float64 order parameters are good to about 1e-12, in float32 to rounding outside a
    transformation and to about 1e-5 inside one.

    Args:
      task: the learning problem.
      codebook: the levels a weight may take.
      beta: inverse temperature of p(w) ∝ exp(−beta H(w)), > 0; `jnp.inf` is empirical risk minimisation.  Losses other than
        the square one have to be told so: a traced beta that is inf does not converge, nor does, inside a transformation,
        what such a loss leaves of codewords that fit every row (`Loss.hard`).
      breaking: 0, replica symmetry; 1, one step of its breaking (beta = inf must then not be traced): not converged where
        the measure does not fall apart; "auto", one step where replica symmetry is unstable or has negative entropy, and one
        is found (inside a transformation, where that is not known, 0).
      max_steps: map evaluations beyond which `converged` is False.

    Raises:
      TypeError, ValueError: an argument of the wrong kind, NaN, or beta <= 0.  Failure to converge raises nothing.

    Source: theory 1.1 to 1.3, [Q]; 3 and 8 for the breaking.
    """
    _checks.instance("task", task, Task, "LinearRegression(alpha=2.0)")
    _checks.instance("codebook", codebook, Codebook, "uniform(bits=2, width=1.5)")
    given, beta = beta, _checks.positive("beta", beta, infinite=True)
    # A number is one also inside jit.
    cold = None if _checks.is_traced(given) else bool(np.isinf(np.asarray(given)).all())
    if beta.ndim:
        raise ValueError(f"beta must be a single number (use jax.vmap for many), got shape {beta.shape}")
    with_limit(task, beta)
    most = _checks.integer("max_steps", max_steps, 1, 10**6)
    problem = task, codebook, beta
    allowed_steps(breaking)
    if breaking == 1:
        return broken_solution(problem, bool(cold)).capped(most)
    if _checks.is_traced(problem):
        return solution(problem, cold, None).capped(most)
    found = jax.tree.map(lambda x: x[0], solve_many(*jax.tree.map(lambda x: np.asarray(x)[None], problem), alone=True))
    wrong = not found.stable or found.entropy < 0
    if breaking == "auto" and wrong:
        broken = broken_solution(problem, bool(cold)).capped(most)
        if broken.converged:
            return broken
    soon = found.converged & (found.steps <= most)
    return jax.device_put(replace(found, task=task, codebook=codebook, converged=soon))
