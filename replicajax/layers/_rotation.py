"""Random rotations of a layer's inputs: W x = (W R)(Rᵀx), and what is quantized is W R, whose every weight is nearly normal."""

from __future__ import annotations

from typing import NamedTuple

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from scipy.linalg import hadamard

from replicajax.layers._layer import Layer

ROTATIONS = ("hadamard", "orthogonal")


def haar(size: int, rng: np.random.Generator) -> Float[np.ndarray, "size size"]:
    """An orthogonal matrix, all alike likely."""
    Q, R = np.linalg.qr(rng.normal(size=(size, size)))
    return Q * np.sign(np.diag(R))


class Rotation(NamedTuple):
    """R = diag(signs) (A ⊗ B), A of Hadamard over its root and B orthogonal: a product for every power of two in the inputs."""

    signs: Float[Array, " inputs"]
    outer: Float[Array, "power power"]
    inner: Float[Array, "rest rest"]

    @classmethod
    def drawn(cls, kind: str, inputs: int, seed: int, dtype) -> Rotation:
        """Haar-distributed if "orthogonal"; "hadamard" takes n log n signs from the largest power of two in the inputs."""
        rng = np.random.default_rng(seed)
        power = inputs & -inputs if kind == "hadamard" else 1
        rest = inputs // power
        inner = haar(rest, rng)
        signs = rng.choice([-1.0, 1.0], inputs)
        return cls(*(jnp.asarray(x, dtype) for x in (signs, hadamard(power) / np.sqrt(power), inner)))

    @eqx.filter_jit
    def turned(self, W: Float[Array, "outputs inputs"]) -> Float[Array, "outputs inputs"]:
        """W R."""
        parts = (W * self.signs).reshape(-1, self.outer.shape[0], self.inner.shape[0])
        return jnp.einsum("opr,pq,rs->oqs", parts, self.outer, self.inner, optimize=True).reshape(W.shape)

    @eqx.filter_jit
    def back(self, W: Float[Array, "outputs inputs"]) -> Float[Array, "outputs inputs"]:
        """W Rᵀ."""
        parts = W.reshape(-1, self.outer.shape[0], self.inner.shape[0])
        turned = jnp.einsum("oqs,pq,rs->opr", parts, self.outer, self.inner, optimize=True)
        return turned.reshape(W.shape) * self.signs

    def conjugated(self, H: Float[Array, "inputs inputs"]) -> Float[Array, "inputs inputs"]:
        """Rᵀ H R."""
        turned = self.turned(self.turned(H).T)
        return (turned + turned.T) / 2


def turned_weights(layer: Layer, seed: int = 0) -> Layer:
    """What is rounded of a layer of known weights that is rotated: W R and RᵀHR, R the one that `gptq` draws by the seed."""
    return _turned(layer, Rotation.drawn("orthogonal", layer.inputs, seed, layer.moment.dtype))


@eqx.filter_jit
def _turned(layer: Layer, rotation: Rotation) -> Layer:
    assert layer.weights is not None
    return Layer(rotation.conjugated(layer.moment), weights=rotation.turned(layer.weights))
