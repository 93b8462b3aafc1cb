"""GPTQ itself, whose errors `_errors` predicts.

With H = L Lᵀ, L upper, a row whose columns are off by d = ŵ − w loses |Lᵀd|², column after column

    sum_i L_ii² (d_i + sum_{j<i} d_j L_ji/L_ii)²:                                                                   (1)

each is rounded so that its own term is least, to the level nearest to w_i − sum_j d_j L_ji/L_ii.  This is what undoing
errors by rows of U = L^(-1) comes to, without U.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float

from replicajax import _checks
from replicajax.codebooks import Codebook
from replicajax.distributions import thresholds
from replicajax.formats import BlockFormat, QuantizedTensor
from replicajax.formats._double import DoubleScales
from replicajax.formats._tensor import packed_tensor, stored_scales
from replicajax.layers._feedback import ORDERS, factor, needs_damping
from replicajax.layers._layer import Layer, in_floats
from replicajax.layers._rotation import ROTATIONS, Rotation
from replicajax.layers._scales import as_format, block_of, weight_scales

_BLOCKS = 128, 8, 1
"""Columns that are rounded before others hear of it, by a matrix product: blocks, blocks of those, and one by one."""
_TILES = 8
"""Of the later columns; those that hold none are left alone."""


def gptq(
    W: ArrayLike,
    H: ArrayLike,
    fmt: Codebook | BlockFormat,
    damping: ArrayLike = 0.01,
    order: str = "natural",
    rotate: str | None = None,
    seed: int = 0,
) -> Float[Array, "outputs inputs"]:
    """W with every weight on a level, column after column, later columns taking back the error of earlier ones.

    Args:
      W: (outputs, inputs); H: (inputs, inputs), second moment of the inputs.
      fmt: a block format, whose scales are those of W as it is, or levels in units of the RMS of each row.
      damping, order: as in `gptq_error`.
      rotate: "hadamard" or "orthogonal": rounded in axes turned at random (by `seed`), and turned back.

    Raises:
      TypeError, ValueError: bad arguments, or an H that has no inverse without damping.

    Source: Frantar et al., arXiv 2210.17323; LDLQ, Chee et al., arXiv 2307.13304.
    """
    W, H, fmt, rotation = _request(W, H, fmt, order, rotate, seed)
    scales = weight_scales(W, fmt) if fmt.scale_format is None else _spread(W, fmt)[0]
    rounded = _rounded(W, H, fmt, scales, damping, order)[0]
    return rounded if rotation is None else rotation.back(rounded)


def gptq_tensor(
    W: ArrayLike,
    H: ArrayLike,
    fmt: Codebook | BlockFormat,
    damping: ArrayLike = 0.01,
    order: str = "natural",
) -> QuantizedTensor:
    """The same, packed: codes, scales as they are stored (in fp32 unless the format says another), an exact count of bits."""
    dtype = np.asarray(W).dtype
    W, H, fmt, _ = _request(W, H, fmt, order, None, 0)
    scales, stored = _spread(W, fmt)
    codes = np.asarray(_rounded(W, H, fmt, scales, damping, order)[1])
    return packed_tensor(fmt, dtype if dtype.kind != "i" else np.dtype(np.float32), codes, *stored)


def _request(W, H, fmt, order, rotate, seed) -> tuple[Array, Array, BlockFormat, Rotation | None]:
    fmt = as_format(fmt)
    W = in_floats(_checks.matrix("W", W))
    layer = Layer(H, weights=W)
    _checks.choice("order", order, ORDERS)
    if rotate is None:
        return W, layer.moment, fmt, None
    _checks.choice("rotate", rotate, ROTATIONS)
    rotation = Rotation.drawn(rotate, layer.inputs, seed, W.dtype)
    return rotation.turned(W), rotation.conjugated(layer.moment), fmt, rotation


def _spread(W: Array, fmt: BlockFormat) -> tuple[Array, tuple[np.ndarray | DoubleScales, float, int]]:
    """To every weight its scale as it is stored; and what is stored."""
    block, stored = block_of(fmt, W.shape), stored_scales(np.asarray(W), fmt)
    scales, unit, _ = stored
    of_weights = np.repeat(scales.astype(np.float64) * unit, block).reshape(W.shape)
    return jnp.asarray(of_weights.astype(W.dtype)), stored


def _rounded(W: Array, H: Array, fmt: BlockFormat, scales: Array, damping: Any, order: str) -> tuple[Array, Array]:
    found, codes = _gptq(W, H, fmt.codebook.levels, scales, _checks.nonnegative("damping", damping), order)
    if not _checks.is_traced(found) and not np.isfinite(found[0, -1]):
        raise ValueError(needs_damping(H, damping))
    return found, codes


def _taught(wanted: Array, later: Array, each: Array, first: Array) -> Array:
    """What columns from `first` on make of errors before them."""
    size = len(later)
    if size == 1:  # slow as a product of matrices
        return wanted - later[0][:, None] * each
    if size < _BLOCKS[0]:
        return wanted - later.T @ each
    tile = len(wanted) // _TILES

    def teach(i, wanted):
        rows = jax.lax.dynamic_slice_in_dim(wanted, i * tile, tile)
        rows -= jax.lax.dynamic_slice_in_dim(later, i * tile, tile, 1).T @ each
        return jax.lax.dynamic_update_slice_in_dim(wanted, rows, i * tile, 0)

    return jax.lax.fori_loop(first // tile, _TILES, teach, wanted)


@partial(jax.jit, static_argnames="order")
def _gptq(W: Array, H: Array, levels: Array, scales: Array, damping: Array, order: str) -> tuple[Array, Array]:
    (columns, _, L), n = factor(H, damping, order), W.shape[1]
    more = -n % _BLOCKS[0]
    # Columns first; those that pad weigh nothing.
    share = jnp.pad(L / jnp.diag(L), ((0, more), (0, more)))
    weights, scales = (jnp.pad(x.T[columns], ((0, more), (0, 0))) for x in (W, scales))
    levels = levels.astype(W.dtype)
    cuts = thresholds(levels)

    def rounded(wanted: Array, weights: Array, scales: Array, share: Array, sizes: tuple[int, ...]):
        """How far columns end from their weights, and their codes; `wanted` is what earlier columns made of the weights."""
        if not sizes:
            code = jnp.searchsorted(cuts, wanted / jnp.where(scales == 0, 1.0, scales)).astype(jnp.int32)
            return scales * levels[code] - weights, code
        size, *finer = sizes

        def block(k, state):
            wanted, off, codes = state
            start = k * size
            mine, own, scale, rows = (
                jax.lax.dynamic_slice_in_dim(x, start, size) for x in (wanted, weights, scales, share)
            )
            among = jax.lax.dynamic_slice_in_dim(rows, start, size, 1)
            each, code = rounded(mine, own, scale, among, tuple(finer))
            later = jnp.where(jnp.arange(len(share)) >= start + size, rows, 0.0)
            return (
                _taught(wanted, later, each, start + size),
                jax.lax.dynamic_update_slice_in_dim(off, each, start, 0),
                jax.lax.dynamic_update_slice_in_dim(codes, code, start, 0),
            )

        begun = wanted, jnp.zeros_like(weights), jnp.zeros(weights.shape, jnp.int32)
        return jax.lax.fori_loop(0, len(share) // size, block, begun)[1:]

    _, codes = rounded(weights, weights, scales, share, _BLOCKS)
    back = jnp.argsort(columns)
    codes, scales = codes[:n][back], scales[:n][back]
    # What has no number has no code either.
    lost = jnp.where(jnp.isfinite(share).all(), 0.0, jnp.nan)
    return (scales * levels[codes]).T + lost, codes.T
