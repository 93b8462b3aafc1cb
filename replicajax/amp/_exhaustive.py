"""Every codeword of a tiny system: averages without sampling error."""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float

from replicajax.amp._heat_bath import checked, energy_of
from replicajax.codebooks import Codebook
from replicajax.models import Loss

_MOST = 2**20
_CHUNK = 2**12


class Exhaustive(eqx.Module):
    """Exact averages under p(w) ∝ exp(−beta H(w)); energies are per weight."""

    weights: Float[Array, " columns"]
    """<w>."""
    energy: Float[Array, ""]
    """<H>/N."""
    self_overlap: Float[Array, ""]
    """<|w|²>/N."""
    free_energy: Float[Array, ""]
    """−log sum exp(−beta H) / (beta N)."""
    entropy: Float[Array, ""]
    """beta (energy − free energy), nats per weight."""
    ground_state: Float[Array, " columns"]
    """The codeword of least H."""
    ground_energy: Float[Array, ""]
    """Its H/N."""


def exhaustive(
    X: ArrayLike,
    y: ArrayLike,
    codebook: Codebook,
    beta: ArrayLike,
    *,
    ridge: ArrayLike = 0.0,
    loss: Loss | None = None,
) -> Exhaustive:
    """Sum over all K^N codewords, at most 2^20 of them.

    Args: as in `gibbs`; beta finite (`ground_state` is the answer at beta = inf).

    Raises:
      TypeError, ValueError: as `gibbs`, and more than 2^20 codewords.
    """
    X, y, levels, beta, ridge, loss = checked(X, y, codebook, beta, ridge, loss)
    K, N = len(codebook), X.shape[1]
    if K**N > _MOST:
        raise ValueError(
            f"X must have few columns: {K} levels and {N} columns make {K}^{N} codewords, the most is 2^20"
        )
    return _exhaustive(X, y, levels, beta, ridge, loss)


@eqx.filter_jit
def _exhaustive(X, y, levels, beta, ridge, loss: Loss) -> Exhaustive:
    N = X.shape[1]
    count = levels.shape[0] ** N
    energy = energy_of(X, y, levels, ridge, loss)
    place = levels.shape[0] ** jnp.arange(N)

    def word(index):
        return levels[index // place % levels.shape[0]]

    def height(index):
        w = word(index)
        return energy.per_weight(w, energy.field(w))

    indices = jnp.arange(count)
    heights = jax.lax.map(height, indices, batch_size=min(_CHUNK, count))
    exponent = -beta * N * heights
    log_partition = jax.nn.logsumexp(exponent)
    p = jnp.exp(exponent - log_partition)

    # Chunks padded with codewords of probability 0.
    padding = -count % _CHUNK
    chunks = jnp.pad(indices, (0, padding)).reshape(-1, _CHUNK), jnp.pad(p, (0, padding)).reshape(-1, _CHUNK)

    def add(total, chunk):
        words = jax.vmap(word)(chunk[0])
        return jax.tree.map(jnp.add, total, (chunk[1] @ words, chunk[1] @ (words**2).mean(1))), None

    (weights, self_overlap), _ = jax.lax.scan(add, (jnp.zeros(N, X.dtype), jnp.zeros_like(beta)), chunks)
    mean, free_energy = p @ heights, -log_partition / (beta * N)
    ground = jnp.argmin(heights)
    return Exhaustive(
        weights, mean, self_overlap, free_energy, beta * (mean - free_energy), word(ground), heights[ground]
    )
