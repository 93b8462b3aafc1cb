"""Relative errors of a layer's outputs, E (ŵ − w)ᵀ H (ŵ − w) / E wᵀHw, without quantizing anything.  theory 10

GPTQ rounds column after column and moves what is left to undo the error.  With U upper, UᵀU = H⁻¹ and R_ij = U_ij/U_ii,
column i is rounded with an error e_i = eps(v_i) that costs e_i/U_ii², of which column j > i inherits G_ij times: R_ij times,
but for what errors between the two take back, as far as they follow what they inherit, by a gain k_i = E d(x − Q(x))/dx,

    v_j = sum_{i<j} (e_i − k_i² v_i) G_ij²,     (1 + Rᵀk) Gᵀ = Rᵀ strictly below the diagonal,     loss = sum_i e_i/U_ii².  (1)

The gain counts at 1 or 2 bits; theory 10 has none.  Without it, turned at random, all depends on the eigenvalues alone.  With a
fraction c of the columns left and S(c) from c = mean λ/(λ + S),

    D = c/mean 1/(λ + S),      dv/dlog D = eps(v) from v = 0 at c = 1,      loss = ∫_0^1 D eps(v) dc,                    (2)

since the b of theory 10 is mean λ/(λ+S) mean 1/(λ+S)² / [mean 1/(λ+S) mean λ/(λ+S)²] − 1, so that b dc/c is −dlog D: what a
column inherits knows only how much D has grown, from the harmonic mean of the spectrum to the mean.

Weights that are known have a third, rotated too: see `_rows`.

Damping factors H + delta instead; the loss in H itself has (U H Uᵀ)_ii for 1 in (1), and D − delta (1 + b) for D in (2).
"""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float

from replicajax import _checks
from replicajax.codebooks import Codebook
from replicajax.formats import BlockFormat
from replicajax.layers._feedback import ORDERS, Evolution, Feedback, feedback, needs_damping, response
from replicajax.layers._laws import Law, law_of
from replicajax.layers._layer import Layer
from replicajax.layers._nearest import output_error, round_to_nearest
from replicajax.layers._rotation import turned_weights
from replicajax.layers._rows import rows_evolution
from replicajax.layers._scales import as_format, weight_scales

_STEPS = 512
"""Of Runge and Kutta, along log S."""
_SWEEPS = 3
"""Of (1), each with the gains that the last one found."""
_BEYOND = 12.0
"""How far beyond the spectrum log S goes: what is left is e to the minus that, of the loss."""


def rounding_error(layer: Layer, fmt: Codebook | BlockFormat) -> Float[Array, ""]:
    """Of rounding every weight to the nearest level: sum_i H_ii eps(0) of a law, the very errors of weights that are known.

    Args:
      fmt: a block format, or levels in units of the RMS of each row.

    Raises:
      TypeError, ValueError: not a layer or format; a format that needs the weights.
    """
    _checks.instance("layer", layer, Layer, "layers.Layer(H)")
    fmt, layer = as_format(fmt), _as_rounded(layer)
    if layer.given is not None:
        return output_error(round_to_nearest(layer.given, fmt), layer.given, layer.moment)
    return law_of(layer, fmt).alone().square * layer.trace / layer.output_square


def gptq_error(
    layer: Layer, fmt: Codebook | BlockFormat, damping: ArrayLike = 0.01, order: str = "natural"
) -> Float[Array, ""]:
    """Of GPTQ (LDLQ, Babai's nearest plane): (1); (2) for a rotated layer; (3), (4) for known weights, turned or not.

    Differentiable in levels, multiplier, H and eigenvalues.  Weights that are known are turned once, as `gptq` does with
    rotate="orthogonal".  (2) is of infinitely many inputs, without gain: some percent off at 2 bits, more at 1, where a layer
    of an H that was turned says better.

    Args:
      fmt: a block format, or levels in units of the RMS of each row.
      damping: added to the diagonal of H, in units of its mean, >= 0.
      order: of the columns: "natural", or "descending" by the diagonal of H.  Of no consequence in turned axes.

    Raises:
      TypeError, ValueError: bad arguments, a format that needs the weights, or an H that has no inverse without damping.
    """
    return gptq_evolution(layer, fmt, damping, order).error


def gptq_evolution(
    layer: Layer, fmt: Codebook | BlockFormat, damping: ArrayLike = 0.01, order: str = "natural"
) -> Evolution:
    """What `gptq_error` is the end of, column by column; arguments and errors as there."""
    _checks.instance("layer", layer, Layer, "layers.Layer(H)")
    fmt, damping = as_format(fmt), _checks.nonnegative("damping", damping)
    _checks.choice("order", order, ORDERS)
    layer = _as_rounded(layer)
    if layer.given is not None:
        scales, levels = weight_scales(layer.given, fmt), jnp.asarray(fmt.codebook.levels, layer.given.dtype)
        found = rows_evolution(layer, scales, levels, damping, order)
    elif layer.rotated:
        found = turned_evolution(layer, law_of(layer, fmt).tabulated(), damping)
    else:
        found = _evolution(layer, law_of(layer, fmt).tabulated(), damping, order)
    if not _checks.is_traced(found.error) and not np.isfinite(found.error):
        raise ValueError(needs_damping(layer.moment, damping))
    return found


def _as_rounded(layer: Layer) -> Layer:
    return turned_weights(layer) if layer.rotated and layer.weights is not None else layer


@eqx.filter_jit
def _evolution(layer: Layer, law: Law, damping: Array, order: str) -> Evolution:
    return evolution(feedback(layer.moment, damping, order), law, layer.output_square)


def evolution(found: Feedback, law: Law, output_square: Array) -> Evolution:
    """(1)."""
    price, inputs = found.price, found.columns.size
    columns = jnp.arange(inputs)
    nothing = jnp.zeros_like(price)

    @jax.checkpoint
    def step(v, at):
        i, felt, D = at
        cost = law.cost(v[i], D)
        return v + (cost.square - cost.gain**2 * v[i]) * felt**2, (cost.square, v[i], cost.clipped, cost.gain)

    def sweep(gain):
        return jax.lax.scan(step, nothing, (columns, response(found.share, gain).T, price))[1]

    gain = jax.vmap(lambda D: law.cost(jnp.zeros_like(D), D).gain)(price)
    for _ in range(_SWEEPS):
        e, v, clipped, gain = sweep(gain)
    e, v, clipped, price = (x[found.back] for x in (e, v, clipped, price / output_square))
    share = jnp.full_like(e, 1 / inputs)
    return Evolution(e @ price, e, v, price, clipped, share, jnp.full_like(e[0], jnp.nan))


@eqx.filter_jit
def turned_evolution(layer: Layer, law: Law, damping: Array) -> Evolution:
    """(2)."""
    eigenvalues = layer.eigenvalues
    delta = damping * eigenvalues.mean()
    damped = eigenvalues + delta
    least, most = (jax.lax.stop_gradient(jnp.log(x)) for x in (damped.min(), damped.max()))
    S = jnp.exp(jnp.linspace(least - _BEYOND, most + _BEYOND, 2 * _STEPS + 1))[:, None]
    left, all_of = damped / (damped + S), 1 / (damped + S)
    c, A0 = left.mean(1), all_of.mean(1)
    K, M1 = (all_of**2).mean(1), (left * all_of).mean(1)
    D, b = c / A0, c * K / (A0 * M1) - 1
    price = D - delta * (1 + b)

    def step(v, at):
        length, before, after = at
        middle = jnp.sqrt(before * after)
        k1 = law.cost(v, before).square
        k2 = law.cost(v + length * k1 / 2, middle).square
        k3 = law.cost(v + length * k2 / 2, middle).square
        k4 = law.cost(v + length * k3, after).square
        return v + length * (k1 + 2 * k2 + 2 * k3 + k4) / 6, v

    last, v = jax.lax.scan(step, jnp.zeros((), S.dtype), (jnp.diff(jnp.log(D)), price[:-1], price[1:]))
    v = jnp.append(v, last)
    cost = jax.vmap(law.cost)(v, price)
    # −dc = mean λ/(λ + S)² dS, by Simpson's rule in log S, and what is left at its ends.
    weight = np.tile([2.0, 4.0], _STEPS + 1)[: 2 * _STEPS + 1]
    weight[[0, -1]] = 1.0
    h = (most - least + 2 * _BEYOND) / (2 * _STEPS)
    share = (h / 3 * weight * M1 * S[:, 0]).at[0].add(1 - c[0]).at[-1].add(c[-1])
    price = share * price * layer.inputs / layer.output_square
    return Evolution(cost.square @ price, cost.square, v, price, cost.clipped, share, jnp.full_like(c[0], jnp.nan))
