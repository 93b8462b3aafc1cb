"""`solve`: a task, a codebook and a temperature in, a `Solution` out."""

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import ArrayLike

from replicajax import _checks
from replicajax.codebooks import Codebook
from replicajax.models import LinearRegression
from replicajax.replica._saddle import find_saddle
from replicajax.replica._solution import Solution, describe


def solve(task: LinearRegression, codebook: Codebook, beta: ArrayLike, *, max_steps: int = 512) -> Solution:
    """Replica-symmetric solution of learning `task` with weights in `codebook` at inverse temperature `beta`.

    Differentiable, forwards and backwards and twice, in every field of the task, every level and beta (implicit function
    theorem); `jax.vmap` and `jax.jit` apply.  Values never trigger a recompilation, only the number of levels does.
    Where several saddle points exist (cold, few rows, few bits) one of them is returned: `state_evolution` tells.
    In float64 order parameters are good to about 1e-12, in float32 to about 1e-5.

    Args:
      task: the learning problem.
      codebook: the levels a weight may take.
      beta: inverse temperature of p(w) ∝ exp(−beta H(w)), > 0; `jnp.inf` is empirical risk minimisation, in closed form.
      max_steps: map evaluations after which the solution is returned with `converged` False.

    Raises:
      TypeError, ValueError: an argument of the wrong kind, NaN, or beta <= 0.  Failure to converge raises nothing.

    Source: theory 1.1 to 1.3, [Q].
    """
    _checks.instance("task", task, LinearRegression, "LinearRegression(alpha=2.0)")
    _checks.instance("codebook", codebook, Codebook, "uniform(bits=2, width=1.5)")
    beta = _checks.positive("beta", beta, infinite=True)
    if beta.ndim:
        raise ValueError(f"beta must be a single number (use jax.vmap for many), got shape {beta.shape}")
    return _solve(task, codebook, beta, _checks.integer("max_steps", max_steps, 1, 10**6))


@eqx.filter_jit
def _solve(task, codebook, beta, max_steps: int) -> Solution:
    dtype = jnp.result_type(task.alpha, task.signal, task.noise, task.ridge, codebook.levels, beta)
    beta = beta.astype(dtype)
    return describe(task, codebook, beta, find_saddle(task, codebook, beta, max_steps))
