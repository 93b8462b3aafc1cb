"""State evolution of GPTQ on weights that are known.

Within the range of the levels an error of rounding is as good as noise.  Beyond it is not: it is what x exceeds the range by,
and the columns after it are moved to take it back.  Where columns differ in scale (massive activations) that drives some
rows out of range again and again, until few rows make most of the loss.  So rows that exceed their range most are followed
one by one, by a mean mu and a variance v of their own: with x = w + mu + N(0, v) and m = E[x − Q(x); x out of range],

    mu_j −= m_i R_ij,      v_j += (E (x_i − Q(x_i))² − m_i²) R_ij²,      R_ij = U_ij/U_ii,
    loss = mᵀ R H Rᵀ m + sum_i (E (x_i − Q(x_i))² − m_i²) (R H Rᵀ)_ii,                                                   (3)

and the others share one v, by (1) of `_errors` (without gain) with eps the mean over their weights in each column.
"""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from replicajax.layers._cost import rounding_cost
from replicajax.layers._feedback import Evolution, feedback
from replicajax.layers._layer import Layer

_FOLLOWED = 8, 192
"""One row in so many, up to so many."""
_SAMPLED = 512
"""Of the other rows, evenly over how far they exceed their range."""


@eqx.filter_jit
def rows_evolution(
    layer: Layer, scales: Float[Array, "outputs inputs"], levels: Float[Array, " levels"], damping: Array, order: str
) -> Evolution:
    W, found = layer.weights, feedback(layer.moment, damping, order)
    assert W is not None
    price, squares = found.price, jnp.mean(W**2, axis=1)
    some = jnp.where(squares > 0, squares, 1.0)
    share = squares / squares.sum()
    # Columns first, in units of the RMS of the row.
    w, s = ((x / jnp.sqrt(some)[:, None]).T[found.columns] for x in (W, scales))
    s = jnp.where(s == 0, 1.0, s)
    low, high = levels[0] - jnp.diff(levels)[0] / 2, levels[-1] + jnp.diff(levels)[-1] / 2
    excess = s**2 * jnp.maximum(jnp.maximum(w / s - high, low - w / s), 0.0) ** 2
    by_excess = jnp.argsort(-share * (price @ excess))
    every, most = _FOLLOWED
    count = min(max(every, min(most, -(-share.size // every))), share.size)
    one, others = by_excess[:count], by_excess[count:]
    rest = others[:: max(1, -(-others.size // _SAMPLED))]
    of_one, of_rest, whole = share[one], share[rest], share[others].sum()
    of_rest *= whole / jnp.maximum(of_rest.sum(), jnp.finfo(whole.dtype).tiny)
    safe = jnp.maximum(whole, jnp.finfo(whole.dtype).tiny)

    @jax.checkpoint
    def step(state: Any, at: Any) -> Any:
        i, row, w, s = at
        mu, own, v = state
        u = rounding_cost(levels, (w[one] + mu[i]) / s[one], own[i] / s[one] ** 2)
        m, square = s[one] * u.overload, s[one] ** 2 * u.square
        spread = jnp.maximum(square - m**2, 0.0)
        each = rounding_cost(levels, w[rest] / s[rest], v[i] / s[rest] ** 2)
        e = s[rest] ** 2 * each.square @ of_rest
        state = mu - jnp.outer(row, m), own + jnp.outer(row**2, spread), v + row**2 * e / safe
        inherited = (mu[i] ** 2 + own[i]) @ of_one + v[i] * whole
        clipped = u.clipped @ of_one + each.clipped @ of_rest
        return state, (square @ of_one + e, spread @ of_one + e, inherited, clipped, m)

    nothing = jnp.zeros((layer.inputs, count), W.dtype)
    begun = nothing, nothing, nothing[:, 0]
    _, (e, noise, v, clipped, m) = jax.lax.scan(step, begun, (jnp.arange(layer.inputs), found.share, w, s))
    loss = noise @ price + found.loss(m) @ of_one
    e, v, cost, clipped = (x[found.back] for x in (e, v, price / layer.output_square, clipped))
    each = jnp.full_like(v, 1 / layer.inputs)
    return Evolution(loss / layer.output_square, e, v, cost, clipped, each, 1 - noise @ price / loss)
