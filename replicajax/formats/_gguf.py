"""GGUF files, by the package of those who define them: our codes in ggml's layout of blocks."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np

from replicajax._writing import whole
from replicajax.formats._statistics import TensorStatistics
from replicajax.formats._stored import CastTensor, RangeTensor
from replicajax.formats._tensor import QuantizedTensor

_ARCHITECTURE = "unknown"
_AXES, _LETTERS = 4, 64
_PLAIN = {"float32": "F32", "float16": "F16", "bfloat16": "BF16", "float64": "F64"}
_PLAIN |= {f"int{bits}": f"I{bits}" for bits in (8, 16, 32, 64)}


def write_gguf(path: str | Path, tensors: Iterable[tuple[TensorStatistics, str | None, Callable[[], Any]]]) -> int:
    """Tensor after tensor: what it is like, its ggml type (None: as it is), and what makes it; returns bytes of data.

    Raises:
      ImportError: no `gguf` package.
      ValueError, OSError: a type that the format lacks, a place that cannot be written.
    """
    try:
        from gguf import GGMLQuantizationType, GGUFWriter
        from gguf.constants import GGML_QUANT_SIZES
    except ImportError:
        raise ImportError("a .gguf file needs the package gguf: pip install 'replicajax[gguf]'") from None
    with whole(path) as file:
        writer = GGUFWriter(file.name, _ARCHITECTURE)
        make, total = [], 0
        for tensor, kind, made in tensors:
            if kind is None and tensor.dtype.name not in _PLAIN:
                raise ValueError(f"a .gguf file has no numbers of type {tensor.dtype}, got tensor {tensor.name!r}")
            if len(tensor.shape) > _AXES or len(tensor.name.encode()) >= _LETTERS:
                what = f"tensor {tensor.name!r} of shape {tensor.shape}"
                raise ValueError(
                    f"a .gguf file has names of less than {_LETTERS} bytes and at most {_AXES} axes, got {what}"
                )
            raw = GGMLQuantizationType[_PLAIN[tensor.dtype.name] if kind is None else kind]
            block, size = GGML_QUANT_SIZES[raw]
            count = tensor.count // block * size
            shape = (*tensor.shape[:-1], tensor.shape[-1] // block * size) if tensor.shape else (count,)
            writer.add_tensor_info(tensor.name, shape, np.dtype(np.uint8), count, raw)
            make.append(made)
            total += count
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        for made in make:
            found = made()
            writer.write_tensor_data(_bytes(found) if isinstance(found, np.ndarray) else blocks_of(found))
        writer.close()
    return total


def _bytes(array: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8)


def blocks_of(tensor: QuantizedTensor | RangeTensor | CastTensor) -> np.ndarray:
    """Bytes as ggml-quants.c lays them out: the scale, the minimum, then codes, low nibbles of the first half of a block and
    high nibbles of the second; fifth bits apart."""
    if isinstance(tensor, CastTensor):
        return _bytes(tensor.values)
    codes = tensor.codes.reshape(tensor.scales.size, -1)
    assert isinstance(tensor.scales, np.ndarray)
    scales = _bytes(tensor.scales).reshape(codes.shape[0], -1)
    if isinstance(tensor, RangeTensor):
        head = np.concatenate([scales, _bytes(tensor.offsets).reshape(scales.shape)], 1)
        return np.concatenate([head, _halves(codes, tensor.format.element_bits)], 1)
    levels = np.asarray(tensor.format.codebook.levels)
    if levels.size == 3:
        body = _trits(codes) if tensor.format.codebook.codes == 3 else _pairs(codes)
        return np.concatenate([body, scales], 1)  # of these the scale comes last
    if tensor.format.scale_format == "e8m0_down":
        return np.concatenate([scales, _halves(_signed(levels)[codes], 4)], 1)
    if levels.size == 255:
        return np.concatenate([scales, (codes.astype(np.int16) - 127).astype(np.int8).view(np.uint8)], 1)
    return np.concatenate([scales, _halves(codes, 4 if levels.size == 16 else 5)], 1)


def _halves(codes: np.ndarray, bits: int) -> np.ndarray:
    low = codes.astype(np.uint8) & 15
    half = low.shape[1] // 2
    nibbles = low[:, :half] | (low[:, half:] << 4)
    if bits == 4:
        return nibbles
    return np.concatenate([np.packbits(codes >> 4, axis=1, bitorder="little"), nibbles], 1)


def _signed(levels: np.ndarray) -> np.ndarray:
    """Code of each level as sign and magnitude."""
    zero = levels.size // 2
    place = np.arange(levels.size) - zero
    return np.where(place < 0, zero + 1 - place, place).astype(np.uint8)


def _pairs(codes: np.ndarray) -> np.ndarray:
    shifted = codes.reshape(len(codes), -1, 4, 32) << np.array([0, 2, 4, 6], np.uint8)[:, None]
    return np.bitwise_or.reduce(shifted, axis=2).reshape(len(codes), -1).astype(np.uint8)


def _trits(codes: np.ndarray) -> np.ndarray:
    """Five a byte, as the digits of a number below 243 that is then spread over 256; the last sixteen four a byte."""
    power = np.array([81, 27, 9, 3, 1])
    rows = len(codes)
    parts = codes[:, :160].reshape(rows, 1, 5, 32), codes[:, 160:240].reshape(rows, 1, 5, 16)
    parts = (*parts, codes[:, 240:].reshape(rows, 1, 4, 4))
    digits = [(part * power[: part.shape[2], None]).sum(2).reshape(rows, -1) for part in parts]
    return (-(-np.concatenate(digits, 1).astype(np.int32) * 256 // 243)).astype(np.uint8)
