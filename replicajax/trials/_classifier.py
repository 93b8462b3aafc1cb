"""A small transformer that reads scikit-learn's digits: a trained model to put weight formats on trial."""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray

from replicajax import _checks

_PATCH, _WIDTH, _HEADS, _BLOCKS = 2, 32, 4, 2
_TRAINING = 1347
"""Of 1797 images; the others are held out."""
_BATCH, _EPOCHS, _RATE = 64, 20, 3e-3


class _Block(eqx.Module):
    """x + attention(norm(x)), then x + mlp(norm(x))."""

    before_attention: eqx.nn.LayerNorm
    attention: eqx.nn.MultiheadAttention
    before_mlp: eqx.nn.LayerNorm
    up: eqx.nn.Linear
    down: eqx.nn.Linear

    def __init__(self, key: PRNGKeyArray):
        attend, widen, narrow = jax.random.split(key, 3)
        self.before_attention, self.before_mlp = eqx.nn.LayerNorm(_WIDTH), eqx.nn.LayerNorm(_WIDTH)
        self.attention = eqx.nn.MultiheadAttention(_HEADS, _WIDTH, key=attend)
        self.up = eqx.nn.Linear(_WIDTH, 2 * _WIDTH, key=widen)
        self.down = eqx.nn.Linear(2 * _WIDTH, _WIDTH, key=narrow)

    def __call__(self, x: Float[Array, "tokens width"]) -> Float[Array, "tokens width"]:
        normed = jax.vmap(self.before_attention)(x)
        x = x + self.attention(normed, normed, normed)
        return x + jax.vmap(lambda token: self.down(jax.nn.gelu(self.up(self.before_mlp(token)))))(x)


class DigitsTransformer(eqx.Module):
    """Sixteen 2 × 2 patches of an image as tokens, two blocks of attention, the mean token to ten logits."""

    embed: eqx.nn.Linear
    position: Float[Array, "tokens width"]
    blocks: list[_Block]
    norm: eqx.nn.LayerNorm
    head: eqx.nn.Linear

    def __init__(self, key: PRNGKeyArray):
        embed, position, head, *blocks = jax.random.split(key, 3 + _BLOCKS)
        self.embed = eqx.nn.Linear(_PATCH**2, _WIDTH, key=embed)
        self.position = 0.1 * jax.random.normal(position, ((8 // _PATCH) ** 2, _WIDTH))
        self.blocks = [_Block(block) for block in blocks]
        self.norm = eqx.nn.LayerNorm(_WIDTH)
        self.head = eqx.nn.Linear(_WIDTH, 10, key=head)

    def __call__(self, image: Float[Array, "8 8"]) -> Float[Array, " 10"]:
        side = 8 // _PATCH
        patches = image.reshape(side, _PATCH, side, _PATCH).swapaxes(1, 2).reshape(side**2, _PATCH**2)
        tokens = jax.vmap(self.embed)(patches) + self.position
        for block in self.blocks:
            tokens = block(tokens)
        return self.head(self.norm(tokens.mean(0)))


class TrainedModel(eqx.Module):
    """A classifier, and images it has not seen."""

    model: DigitsTransformer
    inputs: Float[Array, "held_out 8 8"]
    """Pixels between 0 and 1."""
    labels: Int[Array, " held_out"]
    accuracy: Float[Array, ""]
    """On the images held out."""
    training_accuracy: Float[Array, ""]

    @staticmethod
    def logits(model: DigitsTransformer, image: Float[Array, "8 8"]) -> Float[Array, " 10"]:
        """As `formats.fisher_diagonal` takes it."""
        return model(image)


def train_digits(seed: int = 0) -> TrainedModel:
    """Train a transformer of 18 000 weights on 1347 random digits (20 epochs of Adam; seconds), test on the other 450.

    Raises:
      ValueError: a seed that is no whole number from 0.
    """
    from sklearn.datasets import load_digits  # here, and optax below: both take long to import

    seed = _checks.integer("seed", seed, 0, 2**31 - 1)
    for_rows, for_model, for_batches = jax.random.split(jax.random.key(seed), 3)
    images, labels = (np.asarray(x) for x in load_digits(return_X_y=True))
    order = np.asarray(jax.random.permutation(for_rows, len(labels)))
    X, y = jnp.asarray(images[order].reshape(-1, 8, 8) / 16), jnp.asarray(labels[order])
    seen, held_out = slice(0, _TRAINING), slice(_TRAINING, None)
    whole = _TRAINING // _BATCH * _BATCH
    shuffled = [jax.random.permutation(key, _TRAINING)[:whole] for key in jax.random.split(for_batches, _EPOCHS)]
    model = _optimize(DigitsTransformer(for_model), X[seen], y[seen], jnp.stack(shuffled).reshape(-1, _BATCH))
    right = _answers(model, X) == y
    return TrainedModel(model, X[held_out], y[held_out], right[held_out].mean(), right[seen].mean())


@eqx.filter_jit
def _optimize(model: DigitsTransformer, X: Array, y: Array, batches: Int[Array, "steps batch"]) -> DigitsTransformer:
    """One step of Adam a batch; the rate falls to 0 as a cosine."""
    import optax

    weights, rest = eqx.partition(model, eqx.is_inexact_array)
    adam = optax.adam(optax.cosine_decay_schedule(_RATE, batches.shape[0]))

    def loss(weights, rows):
        scores = jax.vmap(eqx.combine(weights, rest))(X[rows])
        return optax.softmax_cross_entropy_with_integer_labels(scores, y[rows]).mean()

    def step(carry, rows):
        weights, state = carry
        update, state = adam.update(jax.grad(loss)(weights, rows), state)
        return (eqx.apply_updates(weights, update), state), None

    (weights, _), _ = jax.lax.scan(step, (weights, adam.init(weights)), batches)
    return eqx.combine(weights, rest)


@eqx.filter_jit
def _answers(model: DigitsTransformer, X: Array) -> Int[Array, " images"]:
    return jax.vmap(model)(X).argmax(-1)
