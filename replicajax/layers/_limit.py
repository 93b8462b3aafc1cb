"""What no code of so many bits a weight goes below: reverse water-filling.  theory 10

err = mean min(theta, λ)/mean λ      at      bits = mean max(0, ½ log2(λ/theta)).
"""

from __future__ import annotations

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float

from replicajax import _checks
from replicajax.layers._layer import Layer


def rate_limit(layer: Layer, bits: ArrayLike) -> Float[Array, ""]:
    """Least error of that many bits a weight, for normal weights, of any code; weights of another law may go lower.

    Raises:
      TypeError, ValueError: not a layer; bits not a positive number.
    """
    _checks.instance("layer", layer, Layer, "layers.Layer(H)")
    return _rate_limit(layer, _checks.scalar("bits", bits))


@eqx.filter_jit
def _rate_limit(layer: Layer, bits: Array) -> Float[Array, ""]:
    eigenvalues, logs, count = _descending(layer)
    # Of the k largest alone the water stands here; it stands highest where k is right.
    theta = jnp.exp(jnp.max((jnp.cumsum(logs) - 2 * layer.inputs * bits * np.log(2.0)) / count))
    return jnp.minimum(theta, eigenvalues).sum() / layer.output_square


def rate_needed(layer: Layer, error: ArrayLike) -> Float[Array, ""]:
    """Bits a weight at which `rate_limit` is that error; 0 if nothing need be said.

    Raises:
      TypeError, ValueError: not a layer; an error that is not positive.
    """
    _checks.instance("layer", layer, Layer, "layers.Layer(H)")
    return _rate_needed(layer, _checks.scalar("error", error))


@eqx.filter_jit
def _rate_needed(layer: Layer, error: Array) -> Float[Array, ""]:
    eigenvalues, logs, count = _descending(layer)
    whole = error * layer.output_square
    rest = jnp.sum(eigenvalues) - jnp.cumsum(eigenvalues)  # of all but the k largest, which are under water
    theta = (whole - rest) / count
    right = (theta > 0) & (theta <= eigenvalues) & (theta >= jnp.append(eigenvalues[1:], 0.0))
    k = jnp.argmax(right)
    bits = (jnp.cumsum(logs)[k] - count[k] * jnp.log(jnp.where(right, theta, 1.0)[k])) / (
        2 * np.log(2.0) * layer.inputs
    )
    return jnp.where(whole < jnp.sum(eigenvalues), bits, 0.0)


def _descending(layer: Layer) -> tuple[Array, Array, Array]:
    eigenvalues = -jnp.sort(-layer.eigenvalues)
    positive = eigenvalues > 0
    logs = jnp.where(positive, jnp.log(jnp.where(positive, eigenvalues, 1.0)), -jnp.inf)
    return eigenvalues, logs, 1 + jnp.arange(eigenvalues.size)
