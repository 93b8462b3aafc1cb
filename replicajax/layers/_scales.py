"""What every weight of a matrix is divided by, as a function of the weights."""

from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from replicajax import _checks
from replicajax.codebooks import Codebook
from replicajax.formats import BlockFormat
from replicajax.formats._block import SCALE_FORMATS
from replicajax.formats._rounded_scales import ScaleFormat


def as_format(fmt: Codebook | BlockFormat) -> BlockFormat:
    """A codebook is in units of the RMS of each row.

    Raises:
      TypeError: neither of them.
    """
    if isinstance(fmt, Codebook):
        return BlockFormat(fmt, "channel", "rms")
    _checks.instance("fmt", fmt, BlockFormat, "formats.BlockFormat(formats.nf4(), 64) or rj.uniform(bits=4, width=2.5)")
    return fmt


def group_of(fmt: BlockFormat, shape: tuple[int, ...]) -> tuple[int, int]:
    """Rows and columns that share a scale.

    Raises:
      ValueError: blocks that do not fill rows.
    """
    outputs, inputs = shape
    if fmt.block_size is None:
        return outputs, inputs
    if isinstance(fmt.block_size, str):
        return 1, inputs
    size = float(fmt.block_size)
    if size != int(size) or inputs % int(size):
        raise ValueError(f"block_size must divide the {inputs} inputs of the layer, got {size:g}")
    return 1, int(size)


def weight_scales(W: Float[Array, "outputs inputs"], fmt: BlockFormat) -> Float[Array, "outputs inputs"]:
    """One for every weight; 0 where all that share it are 0.  As stored, but for the range of the scale format."""
    how = None if fmt.scale_format is None else SCALE_FORMATS[fmt.scale_format]
    return _weight_scales(W, fmt.multiplier / fmt.end, group_of(fmt, W.shape), fmt.scaling, how)


@partial(jax.jit, static_argnums=(2, 3, 4))
def _weight_scales(W: Array, factor: Array, group: tuple[int, int], scaling: str, how: ScaleFormat | None) -> Array:
    (high, wide), (outputs, inputs) = group, W.shape
    groups = W.reshape(outputs // high, high, inputs // wide, wide)
    if scaling == "rms":
        size = jnp.sqrt((groups**2).mean((1, 3), keepdims=True))
    else:
        most, least = groups.max((1, 3), keepdims=True), groups.min((1, 3), keepdims=True)
        size = jnp.maximum(most, -least) if scaling == "absmax" else jnp.where(-least > most, least, most)
    scales = size * factor
    if how is not None:
        # Derivatives are those of exact scales.
        scales += jax.lax.stop_gradient(_stored(scales, how) - scales)
    return jnp.broadcast_to(scales, groups.shape).reshape(W.shape)


def _stored(scales: Array, how: ScaleFormat) -> Array:
    mantissa, exponent = jnp.frexp(scales)
    parts = 2.0 ** (how.mantissa + 1)
    rounded = (
        jnp.where(mantissa > 0.5, 1.0, 0.5 * jnp.sign(mantissa)) if how.up else jnp.round(mantissa * parts) / parts
    )
    return jnp.ldexp(rounded, exponent)
