"""Annealed coordinate descent: the strong baseline, which takes its time.

Every weight is drawn again with probability exp(−beta ΔE) over all levels, E = ½ (ŵ − w)ᵀ H (ŵ − w) in units of its row's mean
square and the mean eigenvalue of H, while beta grows; at the end it goes where E falls.
"""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float

from replicajax import _checks
from replicajax.codebooks import Codebook
from replicajax.formats import BlockFormat
from replicajax.layers._layer import Layer, in_floats
from replicajax.layers._nearest import nearest
from replicajax.layers._scales import as_format, weight_scales

_HOT, _COLD = 1.0, 300.0
"""beta of the first and last sweep, over that at which a step of the levels is as good as noise."""
_DESCENT = 10
"""Sweeps at zero temperature."""


def anneal(
    W: ArrayLike, H: ArrayLike, fmt: Codebook | BlockFormat, sweeps: int = 300, seed: int = 0
) -> Float[Array, "outputs inputs"]:
    """W with every weight on a level, by so many sweeps over all columns of all rows at once.

    Args:
      W: (outputs, inputs); H: (inputs, inputs), second moment of the inputs.
      fmt: a block format, whose scales are those of W, or levels in units of the RMS of each row.

    Raises:
      TypeError, ValueError: bad arguments.
    """
    fmt, sweeps = as_format(fmt), _checks.integer("sweeps", sweeps, 1, 10**7)
    weights = in_floats(_checks.matrix("W", W))
    layer, scales = Layer(H, weights=weights), weight_scales(weights, fmt)
    return _anneal(weights, layer.moment, scales, fmt.codebook.levels, sweeps, jax.random.key(seed))


@partial(jax.jit, static_argnums=4)
def _anneal(W: Array, H: Array, scales: Array, levels: Array, sweeps: int, key: Array) -> Array:
    levels, n = levels.astype(W.dtype), W.shape[1]
    units = jnp.mean(W**2, axis=1) * jnp.trace(H) / n
    units = jnp.where(units > 0, units, 1.0)
    # Error of a weight that is rounded, in those units.
    rounding = jnp.mean((scales * jnp.diff(levels).mean()) ** 2) / jnp.mean(W**2) / 12
    betas = jnp.geomspace(_HOT, _COLD, sweeps) / rounding
    betas = jnp.concatenate([betas, jnp.full(_DESCENT, jnp.inf)])

    def column(state, at):
        off, field, key = state  # ŵ − w and H (ŵ − w), columns first
        i, beta = at
        key, now = jax.random.split(key)
        change = scales[:, i, None] * levels - W[:, i, None] - off[i][:, None]
        energy = (field[i][:, None] * change + H[i, i] / 2 * change**2) / units[:, None]
        noise = jax.random.gumbel(now, energy.shape, energy.dtype)
        drawn = jnp.argmin(energy - noise / beta, axis=1)
        change = jnp.take_along_axis(change, drawn[:, None], 1)[:, 0]
        return (off.at[i].add(change), field + jnp.outer(H[i], change), key), None

    def sweep(state, beta):
        return jax.lax.scan(column, state, (jnp.arange(n), jnp.full(n, beta)))[0], None

    first = nearest(W, scales, levels) - W
    (off, _, _), _ = jax.lax.scan(sweep, (first.T, H @ first.T, key), betas)
    # To the levels themselves, of which sums of changes are a rounding error away.
    return nearest(W + off.T, scales, levels)
