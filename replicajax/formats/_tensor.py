"""Actual tensors: packed codes, stored scales, an exact count of bits, and back."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, overload

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np

from replicajax import _checks
from replicajax.codebooks import Codebook
from replicajax.formats._block import SCALE_FORMATS, BlockFormat
from replicajax.formats._cast import Cast
from replicajax.formats._double import DoubleScales, doubled
from replicajax.formats._packing import pack, packed_bytes, unpack, whole_chunk
from replicajax.formats._range import RangeFormat
from replicajax.formats._standard import StandardFormat
from replicajax.formats._stored import SCALE_DTYPES, CastTensor, RangeTensor, quantize_cast, quantize_range

_CHUNK, _LARGE = 2**22, 2**18
"""Weights worked on at a time, and from how many on they are worth a program."""
_LEAST, _MOST = float(np.finfo(np.float32).smallest_subnormal), float(np.finfo(np.float32).max)


@dataclass(frozen=True)
class QuantizedTensor:
    """What a format makes of a tensor.

    Attributes:
      format: the BlockFormat (of a bare codebook, one with a scale of 1).
      shape, dtype: of the original.
      packed: bytes of the codes, in C order.
      scales: one per block, in the scale format (`DoubleScales` of "double"); `tensor_scale`, a power of two, multiplies all
        of them.
      clamped: blocks whose scale lies out of the scale format's range even so: stored as the nearest number that the format
        has, which makes those too small for it zeros.
      outlier_index, outlier_value: flat positions and exact values of the weights kept as they were.
    """

    format: BlockFormat
    shape: tuple[int, ...]
    dtype: np.dtype
    packed: np.ndarray
    scales: np.ndarray | DoubleScales
    tensor_scale: float
    outlier_index: np.ndarray
    outlier_value: np.ndarray
    clamped: int = 0

    @property
    def size(self) -> int:
        return int(np.prod(self.shape, dtype=int))

    @property
    def codes(self) -> np.ndarray:
        """Index of every weight's level, in the original shape."""
        return unpack(self.packed, self.size, self.format.codebook.codes).reshape(self.shape)

    @property
    def bits(self) -> int:
        """Of everything stored: codes, scales, the tensor's scale, outliers.  The codebook, shared, is not counted."""
        return (
            8 * (self.packed.nbytes + self.scales.nbytes + self.outlier_index.nbytes + self.outlier_value.nbytes) + 32
        )

    @property
    def bits_per_weight(self) -> float:
        return self.bits / max(self.size, 1)

    def dequantize(self) -> np.ndarray:
        """The weights the codes stand for, in the original shape and dtype, whose range they do not leave."""
        out = np.empty(self.size, self.dtype)
        levels, scales, unit = _levels(self.format), self.scales.astype(np.float32), np.float32(self.tensor_scale)
        block, count = block_size(self.format, self.shape), self.format.codebook.codes
        most = np.float32(min(float(ml_dtypes.finfo(self.dtype).max), _MOST))
        largest = np.abs(levels).max() * np.abs(scales).max(initial=0).astype(np.float64) * float(unit)
        for start, stop in _chunks(self.size, count, block):
            part = slice(packed_bytes(start, count), packed_bytes(stop, count))
            codes = unpack(self.packed[part], stop - start, count)
            with np.errstate(over="ignore"):
                value = levels[codes] * _per_weight(scales, block, start, stop)
                value = value if unit == 1 else value * unit
            out[start:stop] = value if largest <= most else np.clip(value, -most, most)
        out[self.outlier_index] = self.outlier_value
        return out.reshape(self.shape)


StoredTensor = QuantizedTensor | RangeTensor | CastTensor
Rounding = Callable[[str, np.ndarray, StandardFormat | BlockFormat], StoredTensor]
"""What makes codes of a tensor, of which it knows the name too."""


@overload
def quantize(tensor: Any, fmt: Codebook | BlockFormat, *, outliers: float | None = None) -> QuantizedTensor: ...
@overload
def quantize(tensor: Any, fmt: RangeFormat, *, outliers: float | None = None) -> RangeTensor: ...
@overload
def quantize(tensor: Any, fmt: Cast, *, outliers: float | None = None) -> CastTensor: ...
@overload
def quantize(tensor: Any, fmt: StandardFormat, *, outliers: float | None = None) -> StoredTensor: ...
def quantize(tensor: Any, fmt: Any, *, outliers: float | None = None) -> StoredTensor:
    """Every weight to its nearest level, block by block in C order; the last block may be shorter.

    Args:
      tensor: any shape; float16, bfloat16, float32 or float64 (computed in float32, whose range it must not leave).
      fmt: a BlockFormat, RangeFormat, Cast or what `standard` names, or a Codebook in the units of the tensor.
      outliers: this fraction of the weights, the largest in magnitude, is kept exactly (value and 32-bit position), of formats
        with a codebook.  None: as many as the format keeps.

    Raises:
      TypeError, ValueError: not floating, NaN or infinite weights, weights that are all too large or too small for float32,
        block size not a whole number, outliers not in [0, 1).
    """
    array = np.asarray(tensor)
    if not is_floating(array):
        raise TypeError(f"tensor must hold floating-point numbers, got dtype {array.dtype}")
    share: float = getattr(fmt, "outliers", 0.0) if outliers is None else outliers
    fmt = getattr(fmt, "rounding", fmt)
    other = isinstance(fmt, RangeFormat | Cast)
    unscaled = False
    if isinstance(fmt, Codebook):
        fmt, unscaled = BlockFormat(fmt, None, "rms"), True
    elif not other:
        _checks.instance("fmt", fmt, BlockFormat, "formats.BlockFormat(formats.nf4(), 64)")
    _checks.fraction("outliers", share)
    flat = array.reshape(-1)
    largest = max((_magnitude(flat[i : i + _CHUNK]) for i in range(0, flat.size, _CHUNK)), default=0.0)
    if not np.isfinite(largest):
        raise ValueError(f"tensor must be finite, got {int((~np.isfinite(flat)).sum())} NaN or inf")
    if largest > _MOST or 0 < largest < _LEAST:
        raise ValueError(f"tensor must fit float32, got weights of magnitude up to {largest:.6g}")
    if other:
        if share:
            raise ValueError(f"outliers must be 0 for {fmt}, got {share!r}")
        if isinstance(fmt, Cast):
            return quantize_cast(array, fmt)
        return quantize_range(flat, array.shape, array.dtype, fmt)
    index = np.zeros(0, np.uint32)
    kept = int(round(share * flat.size))
    if kept:
        index = np.sort(np.argpartition(np.abs(flat.astype(np.float32)), -kept)[-kept:]).astype(np.uint32)
        flat = flat.copy()
    values = flat[index]
    if kept:
        flat[index] = 0
    block = block_size(fmt, array.shape)
    if unscaled:
        scales, tensor_scale, clamped = np.ones(1, np.float32), 1.0, 0
    else:
        scales, tensor_scale, clamped = stored_scales(flat, fmt, block)
    how = SCALE_FORMATS[fmt.scale_format].rounded
    if how == "double" or (fmt.as_ggml and how == "nearest"):
        exact = _scales(flat, fmt, block) / tensor_scale
        packed = _encode(flat, fmt, block, exact.astype(np.float32), np.float32(tensor_scale))
    else:
        packed = _encode(flat, fmt, block, scales.astype(np.float32), np.float32(tensor_scale))
    return QuantizedTensor(fmt, array.shape, array.dtype, packed, scales, tensor_scale, index, values, clamped)


def rounded_to_nearest(name: str, array: np.ndarray, fmt: Any) -> StoredTensor:
    return quantize(array, fmt)


def stored_scales(
    array: np.ndarray, fmt: BlockFormat, block: int | None = None
) -> tuple[np.ndarray | DoubleScales, float, int]:
    """Of every block in C order: as stored, the power of two that multiplies all of them, and how many are clamped."""
    block = block_size(fmt, array.shape) if block is None else block
    return _store_scales(_scales(array.reshape(-1), fmt, block), fmt.scale_format, fmt.as_ggml)


def packed_tensor(
    fmt: BlockFormat,
    dtype: np.dtype,
    codes: np.ndarray,
    scales: np.ndarray | DoubleScales,
    tensor_scale: float,
    clamped: int,
) -> QuantizedTensor:
    """Of codes that someone else has chosen for these scales."""
    levels = fmt.codebook.codes
    flat = codes.reshape(-1).astype(np.uint8 if levels <= 256 else np.uint16)
    none = np.zeros(0, np.uint32), np.zeros(0, dtype)
    return QuantizedTensor(fmt, codes.shape, dtype, pack(flat, levels), scales, tensor_scale, *none, clamped)


def _magnitude(part: np.ndarray) -> float:
    """The largest; NaN if there is one."""
    return max(float(part.max()), -float(part.min()), key=lambda x: np.inf if np.isnan(x) else x)


def _levels(fmt: BlockFormat) -> np.ndarray:
    return np.clip(np.asarray(fmt.codebook.levels), -_MOST, _MOST).astype(np.float32)


def is_floating(array: np.ndarray) -> bool:
    """Whether it holds weights: float16, bfloat16, float32 or float64."""
    return array.dtype.kind == "f" or array.dtype.name == "bfloat16"


def block_size(fmt: BlockFormat, shape: tuple[int, ...]) -> int:
    size = int(np.prod(shape, dtype=int))
    if fmt.block_size is None:
        return max(size, 1)
    if isinstance(fmt.block_size, str):
        return max(shape[-1] if shape else 1, 1)
    if float(fmt.block_size) != int(fmt.block_size):
        raise ValueError(f"block_size must be a whole number to quantize a tensor, got {float(fmt.block_size)}")
    return int(fmt.block_size)


def _chunk(levels: int, block: int) -> int:
    """Weights that fill whole bytes, and blocks unless those are long."""
    unit = math.lcm(whole_chunk(levels), block)
    if unit > _CHUNK:
        unit = whole_chunk(levels)
    return _CHUNK // unit * unit


def _chunks(size: int, levels: int, block: int) -> Iterator[tuple[int, int]]:
    step = _chunk(levels, block)
    for start in range(0, size, step):
        yield start, min(start + step, size)


def _per_weight(of_blocks: np.ndarray, block: int, start: int, stop: int) -> np.ndarray:
    """The block's number for every weight from start to stop."""
    if of_blocks.size == 1:
        return of_blocks
    first = start // block
    return np.repeat(of_blocks[first : -(-stop // block)], block)[start - first * block :][: stop - start]


def _scales(flat: np.ndarray, fmt: BlockFormat, block: int) -> np.ndarray:
    """What every block is divided by, before it is stored."""
    count = -(-flat.size // block)
    out = np.zeros(count)
    step = max(1, _CHUNK // block)
    for start in range(0, count, step):
        part = flat[start * block : (start + step) * block]
        whole = part.size // block
        out[start : start + whole] = _reduce(part[: whole * block].reshape(whole, block), fmt.scaling, step)
        if part.size % block:
            out[start + whole] = _reduce(part[whole * block :].reshape(1, -1), fmt.scaling, step)[0]
    return out * (float(fmt.multiplier) / float(fmt.end))


def _reduce(blocks: np.ndarray, scaling: str, most_rows: int) -> np.ndarray:
    if scaling == "rms":
        return root_mean_square(blocks)
    if len(blocks) == most_rows > 1:  # the shape of nearly all: worth a program
        return np.asarray(largest(blocks.astype(np.float32, copy=False), scaling == "signmax"))
    most, least = blocks.max(1), blocks.min(1)
    if scaling == "absmax":
        return np.maximum(most, -least)
    return np.where(-least > most, least, most)


@partial(jax.jit, static_argnums=1)
def largest(blocks, signed: bool):
    if not signed:
        return jnp.abs(blocks).max(1)
    most, least = blocks.max(1), blocks.min(1)
    return jnp.where(-least > most, least, most)


def root_mean_square(blocks: np.ndarray) -> np.ndarray:
    """Of every row; by pieces, so that float64 never holds more than a piece."""
    pieces = (blocks[:, i : i + _CHUNK].astype(np.float64) for i in range(0, blocks.shape[1], _CHUNK))
    return np.sqrt(sum(np.square(piece).sum(1) for piece in pieces) / max(blocks.shape[1], 1))


def _store_scales(
    factor: np.ndarray, scale_format: str | None, alone: bool
) -> tuple[np.ndarray | DoubleScales, float, int]:
    """In the scale format, the power of two that brings them into its range (1 if `alone`), and how many are out even so."""
    dtype, how = SCALE_DTYPES[scale_format], SCALE_FORMATS[scale_format]
    size = np.abs(factor)
    finite = ml_dtypes.finfo(np.float32 if how.rounded == "double" else dtype)
    least, most, largest = float(finite.smallest_subnormal), float(finite.max), size.max(initial=0.0)
    if how.rounded != "nearest" and (factor < 0).any():
        raise ValueError(f"scale_format {scale_format!r} has no sign: use scaling 'absmax'")
    shift = 0.0
    if not alone and largest > 0 and (most < 2.0**100 or not 2.0**-100 < largest < 2.0**100):
        # A narrow format's end is where the largest goes; a wide one needs it for the largest and smallest of numbers only.
        shift = np.ceil(np.log2(largest) - (np.log2(most) if most < 2.0**100 else 0.0))
    unit = 2.0 ** np.clip(shift, -126, 127)
    scaled = factor / unit
    if how.rounded == "double":
        return doubled(scaled), float(unit), 0
    if how.rounded != "nearest":
        # A block of zeros gets the least of scales, for want of 0.
        whole = np.ceil if how.rounded == "up" else np.floor
        scaled = np.exp2(whole(np.log2(np.maximum(scaled, least))))
    stored = np.clip(scaled, -most, most).astype(dtype)
    clamped = (np.abs(scaled) > most) | (
        (size > 0) & (size / unit < least) & ((stored == 0) | (how.rounded != "nearest"))
    )
    return stored, float(unit), int(clamped.sum())


def _encode(flat: np.ndarray, fmt: BlockFormat, block: int, scales: np.ndarray, unit: np.float32) -> np.ndarray:
    """Packed codes of weights whose blocks have these scales times a unit (0: a block of zeros, or too small for it)."""
    levels = np.asarray(fmt.codebook.levels, np.float64)
    limits = np.clip((levels[1:] + levels[:-1]) / 2, -_MOST, _MOST).astype(np.float32)
    # Scales may be subnormal numbers.
    inverse = np.where(scales == 0, 0.0, 1 / np.where(scales == 0, 1.0, scales.astype(np.float64)))
    inverse = np.clip(inverse, -_MOST, _MOST).astype(np.float32)
    codes_of = fmt.codebook.codes
    out = np.empty(packed_bytes(flat.size, codes_of), np.uint8)
    gaps = np.diff(levels)
    even = levels.size > 2 and np.ptp(gaps) <= 1e-12 * gaps[0]
    fine = np.array([levels[0], gaps[0], levels.size - 1], np.float32) if even else limits
    whole = _chunk(codes_of, block)
    for start, stop in _chunks(flat.size, codes_of, block):
        part = flat[start:stop].astype(np.float32, copy=False)
        with np.errstate(over="ignore"):
            part = part if unit == 1 else part / unit
        per_block = inverse[start // block : -(-stop // block)]
        if part.size % block or inverse.size == 1 or start % block:
            rows, per_block = part[:, None], _per_weight(inverse, block, start, stop)
        else:
            rows = part.reshape(-1, block)
        # Programs for a few sizes of large pieces; small ones compile nothing.
        nearest, count = partial(_nearest, np), len(rows)
        if part.size >= _LARGE:
            nearest = _nearest_compiled
            full = whole if part.size == whole else 1 << (part.size - 1).bit_length()
            padded = -(-full // rows.shape[1])
            if padded > count:
                rows = np.concatenate([rows, np.zeros((padded - count, rows.shape[1]), np.float32)])
                per_block = per_block if per_block.size == 1 else np.resize(per_block, padded)
        codes = np.asarray(nearest(rows, per_block, fine, bool(even)))[:count].ravel()
        first = packed_bytes(start, codes_of)
        chunk = pack(codes, codes_of)
        out[first : first + chunk.size] = chunk
    return out


def _nearest(xp, rows, inverse, limits, even: bool):
    """Index of the nearest level; of evenly spaced ones `limits` are the first, the gap and the last index."""
    z = rows * inverse[:, None]
    if even:
        first, gap, last = limits
        return xp.clip(xp.ceil((z - first) / gap - np.float32(0.5)), 0, last).astype(np.uint16)
    if xp is jnp and limits.size <= 64:
        # Comparisons fuse into one pass over the weights.
        return sum((z > limit).astype(jnp.uint8) for limit in limits)
    return xp.searchsorted(limits, z).astype(np.uint8 if limits.size < 256 else np.uint16)


_nearest_compiled = jax.jit(partial(_nearest, jnp), static_argnums=3)
