"""State evolution of GPTQ on weights that are known.

Within the range of the levels an error of rounding is as good as noise.  Beyond it is not: it is what x exceeds the range by,
and the columns after it are moved to take it back.  Where columns differ in scale (massive activations) that drives some
rows out of range again and again, until few rows make most of the loss.  So rows that exceed their range most are followed
one by one, by a mean mu and a variance v of their own: with x = w + mu + N(0, v) and m = E[x − Q(x); x out of range],

    mu_j −= m_i R_ij,      v_j += (E (x_i − Q(x_i))² − m_i² − k_i² v_i) G_ij²,      R_ij = U_ij/U_ii,
    loss = mᵀ R H Rᵀ m + sum_i (E (x_i − Q(x_i))² − m_i²) (R H Rᵀ)_ii,                                                   (3)

with gain k and response G as in (1) of `_errors`.  The others share one v.  Where levels are few their errors follow the
weights, by kappa = E (x − Q) w/E w², and weights that lean on loud or quiet directions of H lend that to what is inherited:

    mu = −Gᵀ (kappa w) for every row,      v_j += E (x_i − Q(x_i) − kappa_i w_i − k_i (x_i − w_i))² G_ij²,               (4)

E over rows and N(0, v); kappa and k are those of the sweep before.
"""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from replicajax.layers._cost import cost_and_bias, rounding_cost
from replicajax.layers._feedback import Evolution, feedback, response
from replicajax.layers._layer import Layer
from replicajax.layers._nearest import nearest

_FOLLOWED = 8, 192
"""One row in so many, up to so many."""
_SAMPLED = 512
"""Of the other rows, evenly over how far they exceed their range."""
_SWEEPS = 2


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
    whole = share[others].sum()

    shared, k, felt = _together(levels, found.share, w[:, rest], s[:, rest], share[rest])
    own, m = _alone(levels, found.share, felt, k, w[:, one], s[:, one], share[one])
    square, inherited, clipped = (a + whole * b for a, b in zip(own[:3], shared, strict=True))
    noise = own[3] + whole * shared[0]
    loss = noise @ price + found.loss(m) @ share[one]
    e, v, cost, clipped = (x[found.back] for x in (square, inherited, price / layer.output_square, clipped))
    each = jnp.full_like(v, 1 / layer.inputs)
    return Evolution(loss / layer.output_square, e, v, cost, clipped, each, 1 - noise @ price / loss)


def _together(levels: Array, R: Array, w: Array, s: Array, share: Array) -> tuple[tuple[Array, ...], Array, Array]:
    """(4): mean square, inherited and clipped of every column, its gain k, and Gᵀ; no rows have none."""
    share = share / jnp.maximum(share.sum(), jnp.finfo(w.dtype).tiny)

    @jax.checkpoint
    def step(v, at):
        i, felt, w, s, mu, kappa, k = at
        u, var = (w + mu) / s, v[i] / s**2
        cost, bias = cost_and_bias(levels, u, var)
        square, like = s**2 * cost.square, kappa * w + k * mu
        noise = (square - 2 * (like * s * bias + k * v[i] * cost.gain) + like**2 + k**2 * v[i]) @ share
        found = square @ share, v[i] + mu**2 @ share, cost.clipped @ share
        return v + felt**2 * noise, (found, _follows(s * bias - k * mu, w, share), cost.gain @ share)

    def sweep(gains, _):
        kappa, k = gains
        felt = response(R, k)
        at = jnp.arange(k.size), felt.T, w, s, -felt @ (kappa[:, None] * w), kappa, k
        found, kappa, k = jax.lax.scan(step, jnp.zeros_like(k), at)[1]
        return (kappa, k), (found, felt)

    kappa = _follows(w - nearest(w, s, levels), w, share)
    (_, k), of_sweeps = jax.lax.scan(sweep, (kappa, kappa), length=_SWEEPS)
    found, felt = jax.tree.map(lambda x: x[-1], of_sweeps)
    return found, k, felt


def _follows(bias: Array, w: Array, share: Array) -> Array:
    return (bias * w) @ share / jnp.maximum(w**2 @ share, jnp.finfo(w.dtype).tiny)


def _alone(levels: Array, R: Array, felt: Array, k: Array, w: Array, s: Array, share: Array) -> tuple[Any, Array]:
    """(3): sums over rows of what each adds to the mean square, inherited, clipped and noise of every column, and m."""

    @jax.checkpoint
    def step(state, at):
        i, row, felt, w, s, k = at
        mu, v = state
        cost = rounding_cost(levels, (w + mu[i]) / s, v[i] / s**2)
        m, square = s * cost.overload, s**2 * cost.square
        noise = jnp.maximum(square - m**2, 0.0)
        found = square @ share, (mu[i] ** 2 + v[i]) @ share, cost.clipped @ share, noise @ share
        left = jnp.maximum(noise - k**2 * v[i], 0.0)
        return (mu - jnp.outer(row, m), v + jnp.outer(felt**2, left)), (found, m)

    nothing = jnp.zeros_like(w)
    return jax.lax.scan(step, (nothing, nothing), (jnp.arange(k.size), R, felt.T, w, s, k))[1]
