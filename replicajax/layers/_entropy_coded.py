"""GPTQ onto a grid without ends, whose codes are then entropy-coded, every column with its own code.

A normal weight that inherits v is x ~ N(0, 1 + v).  Cell k of a uniform grid, its level the mean c_k, has probability p_k:

    eps = 1 + v − sum_k p_k c_k²,      bits = mean over columns of −sum_k p_k log2 p_k,      err as in `_errors`.

Steps in proportion to 1/sqrt(D), D the price of an error in a column, make every column cost alike, which is reverse
water-filling: at high rate ½ log2(2 pi e/12) = 0.255 bits above the limit, whatever the spectrum ("WaterSIC").
"""

from __future__ import annotations

from typing import final

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float

from replicajax import _checks
from replicajax.distributions import Normal
from replicajax.layers._cost import Cost, density
from replicajax.layers._errors import evolution
from replicajax.layers._feedback import Evolution, Feedback, feedback, needs_damping
from replicajax.layers._laws import Law
from replicajax.layers._layer import Layer
from replicajax.layers._rotation import haar
from replicajax.numerics import bisect, implicit_root, ndtr

STEPS = ("even", "waterfilled")
_REACH, _FINE = 24, 3.0
"""Multiples of the step on each side, for deviations up to so many steps; beyond, what fine grids have, to 1e-16."""
_HALVINGS = 50


@final
class Grid(Law):
    """Cells about all multiples of a step, or of one over the root of the price."""

    step: Float[Array, ""]
    waterfilled: bool = eqx.field(static=True)

    def _steps(self, price: Array) -> Array:
        return self.step / jnp.sqrt(price) if self.waterfilled else self.step

    def _cells(self, v: Array, price: Array) -> tuple[Array, Array, Array]:
        """Deviation over step, and p_k and p_k c_k/deviation of the cells from 0 on, where that is not large."""
        ratio = jnp.sqrt(1 + v) / self._steps(price)
        k = jnp.arange(_REACH + 1.0)
        low, high = ((k + half) / jnp.minimum(ratio, _FINE) for half in (-0.5, 0.5))
        return ratio, ndtr(-low) - ndtr(-high), density(low) - density(high)

    def cost(self, v, price):
        ratio, p, first = self._cells(v, price)
        # The cell about 0 has its mean there.
        filled = p[1:] > jnp.finfo(p.dtype).tiny ** 0.4  # its square is a number
        kept = 2 * jnp.where(filled, first[1:] ** 2 / jnp.where(filled, p[1:], 1.0), 0.0).sum()
        square = jnp.where(ratio < _FINE, (1 + v) * (1 - kept), self._steps(price) ** 2 / 12)
        return Cost(square, jnp.zeros_like(v), jnp.zeros_like(v), square / (1 + v))

    def entropy(self, v: Array, price: Array) -> Array:
        """Of the code, in bits."""
        ratio, p, _ = self._cells(v, price)
        surprise = -p * jnp.log2(jnp.where(p > 0, p, 1.0))
        return jnp.where(ratio < _FINE, 2 * surprise.sum() - surprise[0], jnp.log2(ratio * np.sqrt(2 * np.pi * np.e)))


def entropy_coded_error(
    layer: Layer, bits: ArrayLike, steps: str = "waterfilled", damping: ArrayLike = 0.0
) -> Float[Array, ""]:
    """Relative error of GPTQ with ideal entropy codes of `bits` a weight on average; normal weights.

    Of a rotated layer, in one rotation at random: errors of coarse grids follow the weights, which (2) of `_errors` leaves out.

    Differentiable in bits, damping, H and eigenvalues.

    Args:
      steps: "even", one for all columns, or "waterfilled", in proportion to 1/sqrt(D).
      damping: in units of the mean diagonal of H, >= 0.

    Raises:
      TypeError, ValueError: bad arguments; a layer of other than normal weights; an H without inverse.
    """
    _checks.instance("layer", layer, Layer, "layers.Layer(H)")
    _checks.choice("steps", steps, STEPS)
    bits, damping = _checks.scalar("bits", bits), _checks.nonnegative("damping", damping)
    if layer.given is not None or not isinstance(layer.law, Normal):
        raise ValueError(f"layer must be of normal weights for an entropy code, or rotated, got {layer}")
    found, square = _turned_back(layer, damping), layer.output_square
    log_step, _ = implicit_root(*_CONDITIONS[steps], (found, square, bits))
    error = _coded(found, square, log_step[0], steps == "waterfilled")[0].error
    if not _checks.is_traced(error) and not np.isfinite(error):
        raise ValueError(needs_damping(layer.moment, damping))
    return error


def _turned_back(layer: Layer, damping: Array) -> Feedback:
    H = layer.moment
    if layer.rotated:
        axes = jnp.asarray(haar(layer.inputs, np.random.default_rng(0)), H.dtype)
        H = axes * layer.eigenvalues @ axes.T
    return _feedback(H, damping)


@jax.jit
def _feedback(H: Array, damping: Array) -> Feedback:
    return feedback(H, damping, "natural")


@eqx.filter_jit
def _coded(found: Feedback, square: Array, log_step: Array, waterfilled: bool) -> tuple[Evolution, Array]:
    """With its bits a weight; a step is in units of the mean price."""
    step = jnp.exp(log_step) * (jnp.sqrt(square / found.columns.size) if waterfilled else 1.0)
    grid = Grid(step, waterfilled)
    at = evolution(found, grid, square)
    return at, at.share @ jax.vmap(grid.entropy)(at.inherited, at.price * square)


def _conditions(waterfilled: bool):
    def condition(log_step, _, inputs):
        found, square, bits = inputs
        return jnp.stack([_coded(found, square, log_step[0], waterfilled)[1] - bits])

    @eqx.filter_jit
    def search(inputs):
        def coarse(log_step):
            return condition(log_step[None], None, inputs)[0] > 0

        # A step of sqrt(2 pi e) 2^(−bits), but for what is inherited and for coarse grids.
        fine = -inputs[2] * np.log(2.0)
        low, high = bisect(coarse, fine - 4.0, fine + 6.0, _HALVINGS)
        return jnp.stack([(low + high) / 2]), None

    return search, condition


_CONDITIONS = {"even": _conditions(False), "waterfilled": _conditions(True)}
