"""Newton's method that falls back on plain iteration: quadratic where it can be, safe where it must be.

A saddle point is a fixed point y = map(y).  Newton's method on a residual that vanishes there takes a handful of steps
from a decent start but can leave the basin; plain iteration (Picard; state evolution, for a replica theory) is slow but
walks to the fixed point that the physics selects.  The residual may be any well-conditioned function with the same
zeros as map(y) − y.  A Newton step that does not shrink it is undone, and replaced by 1, 2, 4, ... plain iterations.
"""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import optimistix as optx
from jaxtyping import Array, Bool, Float, Int

_CLOSER = 0.9
"""An iterate moves at most this fraction of the way to a bound."""


class _State(eqx.Module):
    best: Float[Array, " n"]
    plain: Float[Array, " n"]  # map(best)
    error: Float[Array, ""]  # of best, in units of the tolerance
    picard: Int[Array, ""]  # plain iterations still to do
    patience: Int[Array, ""]  # how many the next failure costs


class NewtonPicard(optx.AbstractRootFinder):
    """Root finder for `fn(y) -> (residual, map(y))`: a real vector, and where plain iteration would go from it.

    `options` may hold `lower` and `upper`, open bounds that every iterate respects.  Converged when
    max |residual_i| / (atol + rtol |y_i|) < 1; the answer is one Newton step beyond that, with an error of about rtol².
    """

    rtol: float
    atol: float
    norm: Any = eqx.field(static=True, default=optx.max_norm)

    def init(self, fn, y, args, options, f_struct, aux_struct, tags) -> _State:
        del fn, args, options, f_struct, aux_struct, tags
        one = jnp.array(1)
        return _State(y, y, jnp.array(jnp.inf, y.dtype), picard=one, patience=one)

    def step(self, fn, y, args, options, state: _State, tags):
        def both(y):
            residual, plain = fn(y, args)
            return residual, (residual, plain)

        jacobian, (residual, plain) = jax.jacfwd(both, has_aux=True)(y)
        newton = y - jnp.linalg.solve(jacobian, residual)
        sound = jnp.isfinite(newton).all()
        # In units of the smaller iterate: running off to infinity must not look like progress.
        error = self.norm(residual / (self.atol + self.rtol * jnp.minimum(jnp.abs(y), jnp.abs(state.best))))
        error = jnp.where(jnp.isfinite(error), error, jnp.inf)

        iterating = state.picard > 0
        accepted = iterating | (error < state.error)
        best = jnp.where(accepted, y, state.best)
        plain = jnp.where(accepted, plain, state.plain)
        use_newton = accepted & sound & ((state.picard <= 1) | (error < 1))
        picard = jnp.where(use_newton, 0, jnp.where(iterating, state.picard - 1, state.patience))
        state = _State(
            best=best,
            plain=plain,
            error=jnp.where(accepted, error, state.error),
            picard=jnp.maximum(picard, jnp.where(use_newton, 0, 1)),
            patience=jnp.where(accepted, state.patience, 2 * state.patience),
        )
        return _inside(best, jnp.where(use_newton, newton, plain), options), state, plain

    def terminate(self, fn, y, args, options, state: _State, tags) -> tuple[Bool[Array, ""], optx.RESULTS]:
        del fn, y, args, options, tags
        return state.error < 1, optx.RESULTS.successful

    def postprocess(self, fn, y, aux, args, options, state: _State, tags, result):
        del fn, args, options, tags
        return jnp.where(state.error < 1, y, state.best), aux, {"error": state.error}


def _inside(y, target, options):
    lower, upper = options.get("lower", -jnp.inf), options.get("upper", jnp.inf)
    target = jnp.where(jnp.isfinite(target), target, y)
    return jnp.clip(target, y + _CLOSER * (lower - y), y + _CLOSER * (upper - y))


def solve_fixed_point(fn, start: Float[Array, " n"], args, *, lower, upper, max_steps: int = 512) -> optx.Solution:
    """Root of `fn(y, args) -> (residual, map(y))` with implicit derivatives; never raises, see `.result`.

    The tolerance is eps^0.6 of the dtype (4e-10 in float64, 7e-5 in float32), and the answer one Newton step better.
    """
    eps = float(jnp.finfo(start.dtype).eps)
    return optx.root_find(
        fn,
        NewtonPicard(rtol=eps**0.6, atol=eps**0.8),
        start,
        args,
        options={"lower": lower, "upper": upper},
        has_aux=True,
        max_steps=max_steps,
        throw=False,
    )
