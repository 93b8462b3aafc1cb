"""A layer as its quantization sees it: the second moment of its inputs, and how its weights are distributed."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float

from replicajax import _checks
from replicajax.distributions import Normal, Symmetric


class Layer(eqx.Module):
    """Outputs W x, with H = E x xᵀ; what is quantized are the rows of W, each in units of its own RMS.

    Attributes:
      moment: H, (inputs, inputs); its eigenvalues, (inputs,), where `rotated`.
      law: how a weight is distributed, whatever its units; where `rotated` every law is Normal.
      weights: (outputs, inputs) themselves; None if only their law is known.
      rotated: inputs and weights are turned at random before W is quantized.
    """

    moment: Float[Array, "..."]
    law: Symmetric
    weights: Float[Array, "outputs inputs"] | None
    rotated: bool = eqx.field(static=True)

    def __init__(
        self,
        H: ArrayLike,
        law: Symmetric | None = None,
        weights: ArrayLike | None = None,
        rotated: bool = False,
    ):
        """Normal weights if neither a law nor weights are given.

        Raises ValueError, TypeError: H that is no second moment (not square, not symmetric, negative, infinite, all 0), weights
        with another number of inputs, all 0, or both a law and weights.
        """
        H = in_floats(_checks.finite("H", H))
        self.rotated = bool(rotated)
        if H.ndim != 2 - (H.ndim == 1 and self.rotated) or H.size == 0 or H.shape[0] != H.shape[-1]:
            wanted = "(inputs, inputs)" + (" or eigenvalues (inputs,)" if self.rotated else "")
            raise ValueError(f"H must be {wanted}, got shape {H.shape}")
        if law is not None and weights is not None:
            raise ValueError("either law or weights must be given, got both")
        law = Normal() if law is None else law
        _checks.instance("law", law, Symmetric, "formats.Normal()")
        self.law = Normal() if self.rotated else law
        self.weights = None
        if weights is not None:
            if H.ndim == 1:
                raise ValueError(
                    f"H must be (inputs, inputs) where weights are given, got eigenvalues, shape {H.shape}"
                )
            W = in_floats(_checks.finite("weights", weights))
            if W.ndim != 2 or W.shape[1] != H.shape[0] or not W.shape[0]:
                raise ValueError(f"weights must be (outputs, {H.shape[0]}) as H has it, got shape {W.shape}")
            if not _checks.is_traced(W) and not np.asarray(W).any():
                raise ValueError("weights must not be 0 throughout")
            self.weights = W
        if not _checks.is_traced(H):
            H = in_floats(_checks.second_moment("H", np.asarray(H)))
        self.moment = H

    @property
    def inputs(self) -> int:
        return self.moment.shape[0]

    @property
    def eigenvalues(self) -> Float[Array, " inputs"]:
        """Of H."""
        return self.moment if self.moment.ndim == 1 else jnp.maximum(jnp.linalg.eigvalsh(self.moment), 0.0)

    @property
    def given(self) -> Float[Array, "outputs inputs"] | None:
        """The very numbers that are rounded, where they are known."""
        return None if self.rotated else self.weights

    @property
    def trace(self) -> Float[Array, ""]:
        return self.moment.sum() if self.moment.ndim == 1 else jnp.trace(self.moment)

    @property
    def output_square(self) -> Float[Array, ""]:
        """E wᵀHw of a row of weights of mean square 1: tr H, unless the weights say another."""
        if self.weights is None:
            return self.trace
        return jnp.sum((self.weights @ self.moment) * self.weights) / jnp.mean(self.weights**2, axis=1).sum()

    def __str__(self) -> str:
        what = f"{self.law} weights" if self.weights is None else f"{self.weights.shape[0]} outputs"
        return f"layer of {self.inputs} inputs, {what}{', rotated' if self.rotated else ''}"


def in_floats(x: Any) -> Array:
    """Of JAX's default precision, whatever the file had: weights and moments meet in sums."""
    dtype = jnp.result_type(float)
    return x.astype(dtype) if _checks.is_traced(x) else jnp.asarray(np.asarray(x).astype(dtype), dtype)
