"""Any number of steps of constant size at once.

The diagonal C of E(v − v°)(v − v°)ᵀ and mu = E v − v° follow a fixed affine map (theory 5.2),

    C <- C − delta C + b (own·C) + h mu + h' (k·mu) + e,        mu <- (1 − step G̃) mu,

diagonal plus rank one.  So its generating function is known in closed form (Sherman and Morrison), at O(M) a point, and
n steps are an inverse z transform, with z = exp(s/n) on a parabola around the negative real axis:

    C_n = (1/2 pi i) int dz z^n Ĉ(z),        (z − A) Ĉ(z) = C_0 + e/(z − 1) + [forcing of mu_0/(z − rho)].

35 points give 1e-14 of C_0 for every n from 64 on, real n too; fewer steps are taken one by one.  The parabola asks for
poles on the positive real axis only: step · G̃ <= 1, and stability.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

FEW = 64
_VERTEX, _SPACING, _POINTS = 4.0, 0.18, 18
_U = _SPACING * np.arange(_POINTS)
_S = _VERTEX * (1 + 1j * _U) ** 2
# ds = 2 i vertex (1 + iu) du; the lower half is the complex conjugate.
_W = _SPACING * np.exp(_S) * _VERTEX * (1 + 1j * _U) / np.pi * np.where(_U == 0, 1.0, 2.0)


class Sums(NamedTuple):
    """Of the iterates that are averaged, S = sum (v − v°): E S, and the diagonals of E S (v − v°)ᵀ and of E S Sᵀ."""

    mean: Float[Array, " M"]
    last: Float[Array, " M"]
    square: Float[Array, " M"]


class State(NamedTuple):
    C: Float[Array, " M"]
    mu: Float[Array, " M"]
    sums: Sums | None


class AffineMap(NamedTuple):
    """One step; `own` and `k` include how many directions there are of each."""

    delta: Array
    b: Array
    own: Array
    h: Array
    h_trace: Array
    k: Array
    k_square: Array
    e: Array
    decay: Array
    """step G̃."""


def advance(state: State, step: AffineMap, n: Array) -> State:
    """n steps, real n >= FEW."""
    if state.sums is None:
        C = _inverse(lambda zm1: _transform(state, step, zm1), n)
        return State(C, _power(step.decay, n) * state.mu, None)
    sums = state.sums

    def all_transforms(zm1):
        C = _transform(state, step, zm1)
        pole = zm1 + step.decay  # z − rho
        later = (zm1 + 1) * C - state.C  # of C_{t+1}
        last = (sums.last + later) / pole
        square = (sums.square + 2 * (1 - step.decay) * last + later) / zm1
        mean = (sums.mean + (1 - step.decay) * state.mu / pole) / zm1
        return jnp.stack([C, last, square, mean])

    C, last, square, mean = _inverse(all_transforms, n)
    return State(C, _power(step.decay, n) * state.mu, Sums(mean, last, square))


def _transform(state: State, step: AffineMap, zm1):
    """Ĉ at z = 1 + zm1."""
    mean = state.mu / (zm1 + step.decay)
    source = state.C + step.e / zm1 + step.h * mean + step.h_trace * (step.k @ mean) + step.b * (step.k_square @ mean)
    pole = zm1 + step.delta
    alone = source / pole
    return alone + step.b / pole * (step.own @ alone) / (1 - step.own @ (step.b / pole))


def _inverse(transform, n):
    def at(s, w):
        z = jnp.exp(s / n)
        return jnp.real(w * z / n * transform(jnp.expm1(s / n)))

    number = np.result_type(np.dtype(n.dtype), np.complex64)
    return jax.vmap(at)(jnp.asarray(_S.astype(number)), jnp.asarray(_W.astype(number))).sum(0)


def _power(decay, n):
    """(1 − decay)^n where decay <= 1."""
    return jnp.exp(n * jnp.log1p(-jnp.minimum(decay, 1 - 1e-30)))
