"""Stiff equations M y' = A y + s(y) B y with s(y) = s0 + e·y a number: every stage of a step is one linear solve.

The Jacobian is A + s B, block by block, and (B y) eᵀ of rank one (Sherman and Morrison), so a step factorizes blocks that
know nothing of each other, whatever number of them there is; a general library's dense Jacobian would cost its cube.

Source: RODAS, order 4 with an error estimate of order 3, L-stable and stiffly accurate; Hairer and Wanner, Solving Ordinary
Differential Equations II, IV.7.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

GAMMA = 0.25
_A = np.zeros((6, 6))
_A[1, 0] = 1.544
_A[2, :2] = 0.9466785280815826, 0.2557011698983284
_A[3, :3] = 3.314825187068521, 2.896124015972201, 0.9986419139977817
_A[4, :4] = 1.221224509226641, 6.019134481288629, 12.53708332932087, -0.6878860361058950
_A[5] = _A[4]
_A[5, 4] = 1.0
_C = np.zeros((6, 6))
_C[1, 0] = -5.6688
_C[2, :2] = -2.430093356833875, -0.2063599157091915
_C[3, :3] = -0.1073529058151375, -9.594562251023355, -20.47028614809616
_C[4, :4] = 7.496443313967647, -10.24680431464352, -33.99990352819905, 11.70890893206160
_C[5, :5] = 8.083246795921522, -7.981132988064893, -31.52159432874371, 16.31930543123136, -6.058818238834054

_SAFETY, _LEAST, _MOST = 0.9, 0.2, 4.0
"""Of the next step over this one."""


class Flow(NamedTuple):
    """Attributes:
    slope: y -> A y + s(y) B y, before M is divided out.
    mass: y -> M y.
    solver: (y, 1/(h gamma)) -> r -> (M/(h gamma) − J)⁻¹ r.
    size: of an error, in units of what is allowed.
    mended: y with what is kept exactly, whatever rounding has made of it.
    """

    slope: Callable[[Any], Any]
    mass: Callable[[Any], Any]
    solver: Callable[[Any, Array], Callable[[Any], Any]]
    size: Callable[[Any], Array]
    mended: Callable[[Any], Any]


class State(NamedTuple):
    """Attributes: time; y; step: that is tried next; taken: steps, refused ones too; failed: gave up."""

    time: Array
    y: Array
    step: Array
    taken: Array
    failed: Array


def advance(flow: Flow, state: State, until: Array, most: int) -> State:
    """To the time `until`, in steps as long as the error allows."""

    def go_on(state: State):
        return (state.time < until) & (state.taken < most) & ~state.failed

    def one(state: State) -> State:
        left = until - state.time
        step = jax.lax.stop_gradient(jnp.minimum(state.step, left))
        y, error = _step(flow, state.y, step)
        size = jax.lax.stop_gradient(flow.size(error))
        fine = size <= 1  # not of NaN
        factor = jnp.clip(_SAFETY * jnp.where(size > 0, size, 1e-12) ** -0.25, _LEAST, _MOST)
        factor = jnp.where(jnp.isfinite(size), factor, _LEAST)
        last = step >= left
        proposed = step * factor
        # A step cut short to end on time says little about the next.
        proposed = jnp.where(fine & last, jnp.maximum(state.step, proposed), proposed)
        time = jnp.where(fine, jnp.where(last, until, state.time + step), state.time)
        failed = state.time + proposed == state.time
        return State(time, jnp.where(fine, flow.mended(y), state.y), proposed, state.taken + 1, failed & ~fine)

    state = jax.lax.while_loop(go_on, one, state)
    return state._replace(failed=state.failed | (state.time < until))


def _step(flow: Flow, y: Array, h: Array) -> tuple[Array, Array]:
    solve = flow.solver(y, 1 / (h * GAMMA))

    def stage(i, stages):
        a, c = jnp.asarray(_A, y.dtype)[i], jnp.asarray(_C, y.dtype)[i]
        at = y + jnp.tensordot(a, stages, 1)
        return stages.at[i].set(solve(flow.slope(at) + flow.mass(jnp.tensordot(c, stages, 1)) / h))

    stages = jax.lax.fori_loop(0, 6, stage, jnp.zeros((6, *y.shape), y.dtype))
    end = y + jnp.tensordot(jnp.asarray(_A[5], y.dtype), stages, 1)
    return end + stages[5], stages[5]
