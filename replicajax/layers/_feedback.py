"""How the error of a column comes back in later ones: U upper, UᵀU = (H + damping mean diag H)⁻¹, the columns in some order.

Column j > i takes back e_i U_ij/U_ii of the error e_i, and what is left of it costs e_i²/U_ii² in the damped metric,
e_i² (U H Uᵀ)_ii/U_ii² in that of H itself.  theory 10
"""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax.scipy.linalg import solve_triangular
from jaxtyping import Array, ArrayLike, Float

from replicajax import _checks

ORDERS = ("natural", "descending")


class Evolution(NamedTuple):
    """State evolution of GPTQ, in the order of the layer's columns, or of a rotated layer as they are met; variances are in
    units of the mean square of a row."""

    error: Float[Array, ""]
    """Relative, of the outputs."""
    rounding: Float[Array, " columns"]
    """e_i."""
    inherited: Float[Array, " columns"]
    """v_i."""
    price: Float[Array, " columns"]
    """1/U_ii², of E wᵀHw, or what stands for it (times `share`): of a law, error is the sum of rounding times price."""
    clipped: Float[Array, " columns"]
    """Share of the weights beyond the outer levels by more than half their gap."""
    share: Float[Array, " columns"]
    """Of the columns that an entry stands for."""
    overloaded: Float[Array, ""]
    """Share of the error of weights out of range, where rows are followed; of a law NaN."""


class Feedback(NamedTuple):
    """In the order of rounding."""

    columns: Array
    """Which column is where."""
    share: Float[Array, "n n"]
    """U_ij/U_ii."""
    moment: Float[Array, "n n"]
    """H."""

    @property
    def price(self) -> Float[Array, " n"]:
        """(U H Uᵀ)_ii/U_ii²."""
        return jnp.sum((self.share @ self.moment) * self.share, axis=1)

    def loss(self, e: Float[Array, "n rows"]) -> Float[Array, " rows"]:
        """(ŵ − w)ᵀ H (ŵ − w) of given errors: eᵀ R H Rᵀ e, R = U over its diagonal."""
        off = self.share.T @ e
        return jnp.sum(off * (self.moment @ off), axis=0)

    @property
    def back(self) -> Array:
        """To the order of the layer."""
        return jnp.argsort(self.columns)


def feedback(H: Float[Array, "n n"], damping: ArrayLike, order: str) -> Feedback:
    """Not a number where the damped H has no inverse."""
    columns, H, L = factor(H, damping, order)
    U = solve_triangular(L, jnp.eye(H.shape[0], dtype=H.dtype), lower=False)
    return Feedback(columns, U / jnp.diag(U)[:, None], H)


def factor(H: Float[Array, "n n"], damping: ArrayLike, order: str) -> tuple[Array, Array, Array]:
    """Columns in their order, H in it, and its L: upper, with L Lᵀ the damped H and U its inverse."""
    columns = jnp.argsort(-jnp.diag(H), stable=True) if order == "descending" else jnp.arange(H.shape[0])
    H = H[columns][:, columns]
    damped = H + damping * jnp.mean(jnp.diag(H)) * jnp.eye(H.shape[0], dtype=H.dtype)
    return columns, H, jnp.linalg.cholesky(damped[::-1, ::-1])[::-1, ::-1]


def response(share: Float[Array, "n n"], gain: Float[Array, " n"]) -> Float[Array, "n n"]:
    """Gᵀ of errors that follow what they inherit: (1 + Rᵀk) Gᵀ = Rᵀ strictly below the diagonal."""
    later = jnp.triu(share, 1).T
    return solve_triangular(jnp.eye(gain.size, dtype=gain.dtype) + later * gain, later, lower=True, unit_diagonal=True)


def needs_damping(H: Array, damping: ArrayLike) -> str:
    """Why H has no inverse."""
    seen = np.asarray(H if H.ndim == 1 else jnp.diag(H))
    dead = np.flatnonzero(seen == 0)
    why = f"{dead.size} inputs that are always 0, the first {dead[0]}" if dead.size else "fewer directions than inputs"
    return f"damping must be larger for an H of {why}, got {_checks.brief(damping)}"
