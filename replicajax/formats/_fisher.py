"""From weights to outputs: diagonal Fisher information, and the divergence it predicts.

F_ii = E_x E_{y ~ p(y|x)} (d log p(y|x)/d w_i)²,        KL(p ‖ p') ≈ ½ sum_i F_ii (w_i' − w_i)²        (theory 4.3)
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from replicajax import _checks


def fisher_diagonal(
    logits: Callable[[Any, Array], Array],
    model: Any,
    inputs: Array,
    *,
    key: PRNGKeyArray | None = None,
    draws: int = 1,
    batch: int = 64,
) -> Any:
    """Diagonal Fisher information of a classifier's weights; a pytree like `model`, None where a leaf is no float array.

    Args:
      logits: logits(model, x) for one input x, shape (..., classes); several predictions per input (tokens) add up.
      model: any pytree, an equinox module for one.
      inputs: (examples, ...) to average over.
      key: draws labels from the model (`draws` per input); if None the average over labels is exact, one backward pass a
        class (for one prediction per input).
      batch: examples at a time.

    Raises:
      ValueError: no examples, or logits of several predictions without a key.
    """
    inputs = jnp.asarray(inputs)
    if inputs.ndim == 0 or inputs.shape[0] == 0:
        raise ValueError(f"inputs must hold at least one example, got shape {inputs.shape}")
    batch = min(_checks.integer("batch", batch, 1, 2**20), inputs.shape[0])
    draws = _checks.integer("draws", draws, 1, 2**20)
    weights, rest = eqx.partition(model, eqx.is_inexact_array)
    if key is None and jax.eval_shape(lambda w, x: logits(eqx.combine(w, rest), x), weights, inputs[0]).ndim != 1:
        raise ValueError("key must be given where logits have more axes than classes: labels are then drawn")

    total = jax.tree.map(jnp.zeros_like, weights)
    keys = None if key is None else jax.random.split(key, inputs.shape[0])
    for start in range(0, inputs.shape[0], batch):
        index = np.minimum(np.arange(start, start + batch), inputs.shape[0] - 1)
        live = (np.arange(start, start + batch) < inputs.shape[0]).astype(float)
        of_batch = inputs[index], None if keys is None else keys[index], jnp.asarray(live, float)
        total = _added(total, logits, weights, rest, *of_batch, draws)
    return jax.tree.map(lambda t: t / inputs.shape[0], total)


@eqx.filter_jit
def _added(total: Any, logits: Callable, weights: Any, rest: Any, inputs: Array, keys, live: Array, draws: int) -> Any:
    """To the total, that of the inputs that are `live`."""

    def log_probability(weights, x, label):
        log_p = jax.nn.log_softmax(logits(eqx.combine(weights, rest), x))
        return jnp.take_along_axis(log_p, label[..., None], -1).sum()

    def of_one(x, key):
        """E over labels of the squared gradient, at one input."""
        scores = logits(eqx.combine(weights, rest), x)
        if key is None:
            label, chance = jnp.arange(scores.shape[-1]), jax.nn.softmax(scores)
        else:
            label = jax.random.categorical(key, scores, shape=(draws, *scores.shape[:-1]))
            chance = jnp.full(draws, 1 / draws)
        each = jax.vmap(lambda y: jax.grad(log_probability)(weights, x, y))(label)
        return jax.tree.map(lambda g: jnp.tensordot(chance, g**2, 1), each)

    each = jax.vmap(of_one)(inputs, keys)
    return jax.tree.map(lambda t, g: t + jnp.tensordot(live, g, 1), total, each)


@eqx.filter_jit
def predicted_divergence(fisher: Any, original: Any, quantized: Any) -> Float[Array, ""]:
    """½ sum_i F_ii d_i² in nats, over the leaves that have a Fisher information (None: left out)."""

    def term(f, a, b):
        return 0.0 if f is None else 0.5 * jnp.sum(f * (b - a) ** 2)

    terms = jax.tree.map(term, fisher, original, quantized, is_leaf=lambda x: x is None)
    return jnp.asarray(sum(jax.tree.leaves(terms)))


@jax.jit
def divergence(logits: Array, other: Array) -> Float[Array, ""]:
    """Mean KL(softmax(logits) ‖ softmax(other)) in nats over all but the last axis."""
    p, q = jax.nn.log_softmax(jnp.asarray(logits)), jax.nn.log_softmax(jnp.asarray(other))
    return (jnp.exp(p) * (p - q)).sum(-1).mean()
