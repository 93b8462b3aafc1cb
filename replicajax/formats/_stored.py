"""Tensors in formats that are no codebook with a scale: ranges, and floats of sixteen bits."""

from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np

from replicajax.formats._cast import Cast
from replicajax.formats._packing import pack, unpack
from replicajax.formats._range import RangeFormat

SCALE_DTYPES: dict[str | None, Any] = {
    None: np.float32,
    "fp32": np.float32,
    "fp16": np.float16,
    "bf16": ml_dtypes.bfloat16,
    "e5m2": ml_dtypes.float8_e5m2,
    "e4m3": ml_dtypes.float8_e4m3fn,
    "e8m0": ml_dtypes.float8_e8m0fnu,
    "e8m0_down": ml_dtypes.float8_e8m0fnu,
    "double": np.uint8,
}
_CHUNK = 2**22
"""Weights worked on at a time."""


def within(x: np.ndarray, dtype: Any) -> np.ndarray:
    """As numbers of a type, of which those out of range are the largest."""
    most = min(float(ml_dtypes.finfo(dtype).max), float(np.finfo(np.float32).max))
    return np.clip(x, -most, most).astype(dtype)


@dataclass(frozen=True)
class RangeTensor:
    """What a `RangeFormat` makes of a tensor.

    Attributes:
      packed: bytes of the codes, in C order.
      scales: one per block; offsets: their minima in the scale format, or codes of zero.
    """

    format: RangeFormat
    shape: tuple[int, ...]
    dtype: np.dtype
    packed: np.ndarray
    scales: np.ndarray
    offsets: np.ndarray

    @property
    def size(self) -> int:
        return int(np.prod(self.shape, dtype=int))

    @property
    def codes(self) -> np.ndarray:
        return unpack(self.packed, self.size, 2**self.format.element_bits).reshape(self.shape)

    @property
    def bits(self) -> int:
        """Of everything stored."""
        offsets = (
            self.offsets.nbytes * 8 if self.format.zero == "minimum" else self.offsets.size * self.format.element_bits
        )
        return 8 * (self.packed.nbytes + self.scales.nbytes) + offsets

    @property
    def bits_per_weight(self) -> float:
        return self.bits / max(self.size, 1)

    def dequantize(self) -> np.ndarray:
        B = self.format.block_size
        codes = self.codes.ravel().astype(np.float32)
        scale, offset = (np.repeat(x.astype(np.float32), B)[: self.size] for x in (self.scales, self.offsets))
        with np.errstate(over="ignore"):
            value = scale * codes + offset if self.format.zero == "minimum" else scale * (codes - offset)
        return within(value, self.dtype).reshape(self.shape)


def quantize_range(flat: np.ndarray, shape: tuple[int, ...], dtype: np.dtype, fmt: RangeFormat) -> RangeTensor:
    """Of finite float32; a last block that is shorter has a range of its own."""
    B, stored, top = fmt.block_size, SCALE_DTYPES[fmt.scale_format], np.float32(2**fmt.element_bits - 1)
    codes, scales, offsets = [], [], []
    for start in range(0, flat.size, max(1, _CHUNK // B) * B):
        x = flat[start : start + max(1, _CHUNK // B) * B].astype(np.float32)
        count = x.size
        x = np.pad(x, (0, -count % B), mode="edge").reshape(-1, B)
        low, high = x.min(1, keepdims=True), x.max(1, keepdims=True)
        if fmt.zero == "integer":
            low, high = np.minimum(low, 0), np.maximum(high, 0)
        with np.errstate(divide="ignore", over="ignore"):
            step = (high - low) / top
            step = np.where(np.isinf(step), high / top - low / top, step)
            if fmt.zero == "integer":
                kept = within(step, stored)
                inverse = np.where(kept == 0, np.float32(0), 1 / kept.astype(np.float32))
                offset = np.clip(np.round(-low * inverse), 0, top)
                code = np.clip(np.round(x * inverse) + offset, 0, top)
                offset = offset.astype(np.uint8)
            else:
                inverse = np.where(step == 0, np.float32(0), np.minimum(1 / step, np.finfo(np.float32).max))
                code = np.clip(np.trunc((x - low) * inverse + np.float32(0.5)), 0, top)
                kept, offset = within(step, stored), within(low, stored)
        codes.append(code.astype(np.uint8).ravel()[:count])
        scales.append(kept.ravel())
        offsets.append(offset.ravel())
    none = np.zeros(0, np.uint8)
    packed = pack(np.concatenate([none, *codes]), 2**fmt.element_bits)
    empty = np.zeros(0, stored)
    kinds = np.zeros(0, np.uint8 if fmt.zero == "integer" else stored)
    return RangeTensor(fmt, shape, dtype, packed, np.concatenate([empty, *scales]), np.concatenate([kinds, *offsets]))


@dataclass(frozen=True)
class CastTensor:
    """Weights as they are stored."""

    format: Cast
    dtype: np.dtype
    values: np.ndarray

    @property
    def bits(self) -> int:
        return 8 * self.values.nbytes

    @property
    def bits_per_weight(self) -> float:
        return 16.0

    def dequantize(self) -> np.ndarray:
        return within(self.values.astype(np.float32), self.dtype)


def quantize_cast(array: np.ndarray, fmt: Cast) -> CastTensor:
    """What is out of range goes to the largest of finite numbers."""
    return CastTensor(fmt, array.dtype, within(array.astype(np.float32), SCALE_DTYPES[fmt.dtype]))
