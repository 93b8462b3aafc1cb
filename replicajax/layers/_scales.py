"""What every weight of a matrix is divided by, as a function of the weights."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from replicajax import _checks
from replicajax.codebooks import Codebook
from replicajax.formats import BlockFormat
from replicajax.formats._block import SCALE_FORMATS
from replicajax.formats._rounded_scales import ScaleFormat
from replicajax.formats._tensor import block_size, largest


def as_format(fmt: Codebook | BlockFormat) -> BlockFormat:
    """A codebook is in units of the RMS of each row.

    Raises:
      TypeError: neither of them.
    """
    if isinstance(fmt, Codebook):
        return BlockFormat(fmt, "channel", "rms")
    _checks.instance("fmt", fmt, BlockFormat, "formats.BlockFormat(formats.nf4(), 64) or rj.uniform(bits=4, width=2.5)")
    return fmt


def block_of(fmt: BlockFormat, shape: tuple[int, ...]) -> int:
    """How many weights, one after the other in C order, share a scale.

    Raises:
      ValueError: blocks that do not fill rows.
    """
    size = block_size(fmt, shape)
    if fmt.block_size is not None and shape[1] % size:
        raise ValueError(f"block_size must divide the {shape[1]} inputs of the layer, got {size}")
    return size


def weight_scales(W: Float[Array, "outputs inputs"], fmt: BlockFormat) -> Float[Array, "outputs inputs"]:
    """One for every weight; 0 where all that share it are 0.  As stored, but for the range of the scale format.

    Raises:
      ValueError: blocks that do not fill rows.
    """
    # Scales that are quantized together are some permille off: taken for exact.
    how = None if fmt.scale_format in (None, "double") else SCALE_FORMATS[fmt.scale_format]
    return _weight_scales(W, fmt.multiplier / fmt.end, block_of(fmt, W.shape), fmt.scaling, how)


@partial(jax.jit, static_argnums=(2, 3, 4))
def _weight_scales(W: Array, factor: Array, block: int, scaling: str, how: ScaleFormat | None) -> Array:
    blocks = W.reshape(-1, block)
    size = jnp.sqrt((blocks**2).mean(1)) if scaling == "rms" else largest(blocks, scaling == "signmax")
    scales = size * factor
    if how is not None:
        # Derivatives are those of exact scales.
        scales += jax.lax.stop_gradient(_stored(scales, how) - scales)
    return jnp.broadcast_to(scales[:, None], blocks.shape).reshape(W.shape)


def _stored(scales: Array, how: ScaleFormat) -> Array:
    mantissa, exponent = jnp.frexp(scales)
    parts = 2.0 ** (how.mantissa + 1)
    if how.rounded == "nearest":
        return jnp.ldexp(jnp.round(mantissa * parts) / parts, exponent)
    return jnp.ldexp(jnp.where((mantissa > 0.5) & (how.rounded == "up"), 1.0, 0.5 * jnp.sign(mantissa)), exponent)
