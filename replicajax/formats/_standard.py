"""The formats that runtimes can serve, by the names that they have there.

Bits are those of the file, with every scale.  ggml's K and IQ types choose their scales by a search without a closed form,
and are not here.

Source: ggml-quants.c; OCP Microscaling Formats v1.0; NVFP4 as in Blackwell, its tensor scale a power of two here.
"""

from functools import cache
from itertools import product
from typing import final

import equinox as eqx
import ml_dtypes
import numpy as np

from replicajax.codebooks import Codebook
from replicajax.formats._block import BlockFormat
from replicajax.formats._cast import Cast
from replicajax.formats._elements import floating_point, integer, nf4
from replicajax.formats._range import RangeFormat

_BYTES, _WORD, _SCALE = 16, 64, 32
"""Bits: of the last bytes of codes and zero points, of the last word of digits, of a number for a row or tensor."""
OUTLIER, _SPARSE = 64, 0.005
"""Bits of a weight that is kept, and the fraction of them in the formats that keep some."""
_POWERS = tuple(2**k for k in range(1, 17))
Rounding = BlockFormat | RangeFormat | Cast


@final
class StandardFormat(eqx.Module):
    """A format with a name.

    Attributes:
      rounding: what it does to weights.
      bits: per weight, as runtimes store it.
      block: weights that a row must be a multiple of.
      ggml: whether files of GGUF have it, under the same name.
      outliers: fraction of the weights, the largest, kept exactly: 64 bits each for its place and value.
    """

    name: str = eqx.field(static=True)
    rounding: Rounding
    bits: float = eqx.field(static=True)
    block: int = eqx.field(static=True)
    ggml: bool = eqx.field(static=True)
    outliers: float = eqx.field(static=True, default=0.0)

    def stored_bits(self, shape: tuple[int, ...]) -> float:
        """Per weight of a tensor, with the scales that it or its rows have, and bytes and words that are not full."""
        fmt, count = self.rounding, max(int(np.prod(shape, dtype=int)), 1)
        if not isinstance(fmt, BlockFormat):
            return self.bits + (0 if self.ggml else _BYTES / count)
        if fmt.as_ggml:
            return self.bits + (0 if fmt.codebook.codes in _POWERS else _WORD / count)
        scales = 3 if fmt.scale_format == "double" else 2 if fmt.block_size is None else 1
        of_all = _BYTES + OUTLIER * round(self.outliers * count) + _SCALE * scales
        whole = self.bits - OUTLIER * self.outliers  # the number of outliers is a whole one
        return whole + of_all / count + (_SCALE / shape[-1] if fmt.block_size == "channel" else 0)

    def __str__(self) -> str:
        return f"{self.name}, {self.bits:.5g} bits"


def _floats(dtype: type) -> Codebook:
    """All finite numbers of eight bits."""
    codes = np.arange(256, dtype=np.uint8).view(dtype).astype(np.float64)
    return Codebook(np.unique(codes[np.isfinite(codes)]), codes=256)


def _microscaling(elements: Codebook, largest_power: int, as_ggml: bool = False) -> BlockFormat:
    """OCP: the scale is the power of two at or below the block's largest, over the largest power of two of the elements."""
    end = float(np.asarray(elements.levels)[-1])
    return BlockFormat(elements, 32, "absmax", "e8m0_down", end / 2**largest_power, as_ggml)


def _ggml(elements: Codebook, size: int, scaling: str = "absmax") -> BlockFormat:
    return BlockFormat(elements, size, scaling, "fp16", as_ggml=True)


@cache
def _formats() -> dict[str, StandardFormat]:
    ternary, packed_ternary = (Codebook([-1.0, 0.0, 1.0], codes=codes) for codes in (4, 3))
    bytes_ = Codebook(np.arange(-127, 128.0), codes=256)
    e2m1, e2m3, e3m2 = floating_point(2, 1), floating_point(2, 3), floating_point(3, 2)
    e4m3, e5m2 = _floats(ml_dtypes.float8_e4m3fn), _floats(ml_dtypes.float8_e5m2)
    found: dict[str, StandardFormat] = {}

    def add(name: str, rounding: Rounding, bits: float | None = None, block: int = 1, ggml: bool = False) -> None:
        found[name] = StandardFormat(name, rounding, rounding.bits if bits is None else bits, block, ggml)

    add("TQ1_0", _ggml(packed_ternary, 256), 1.6875, 256, True)
    add("TQ2_0", _ggml(ternary, 256), None, 256, True)
    add("MXFP4", _microscaling(e2m1, 2, True), None, 32, True)
    for bits, name in ((4, "Q4"), (5, "Q5")):
        add(f"{name}_0", _ggml(integer(bits), 32, "signmax"), None, 32, True)
        add(f"{name}_1", RangeFormat(bits, 32), None, 32, True)
    add("Q8_0", _ggml(bytes_, 32), None, 32, True)
    add("MXFP6_E2M3", _microscaling(e2m3, 2), None, 32)
    add("MXFP6_E3M2", _microscaling(e3m2, 4), None, 32)
    add("MXFP8_E4M3", _microscaling(e4m3, 8), None, 32)
    add("MXFP8_E5M2", _microscaling(e5m2, 15), None, 32)
    add("MXINT8", _microscaling(bytes_, 6), None, 32)
    add("NVFP4", BlockFormat(e2m1, 16, "absmax", "e4m3"), None, 16)
    add("NF4", BlockFormat(nf4(), 64, "absmax", "bf16"), None, 64)
    add("NF4_DQ", BlockFormat(nf4(), 64, "absmax", "double"), None, 64)
    for bits, size in product((2, 3, 4, 8), (32, 64, 128)):
        add(f"INT{bits}_G{size}", BlockFormat(integer(bits), size, "absmax", "fp16"), None, size)
        if bits < 8:
            add(f"INT{bits}_G{size}_ZERO", RangeFormat(bits, size, "fp16", "integer"), None, size)
    for name in ("INT2_G128", "INT3_G128", "INT4_G128", "NF4"):
        dense = found[name]
        more = dense.bits + OUTLIER * _SPARSE
        found[f"{name}_SPARSE"] = StandardFormat(f"{name}_SPARSE", dense.rounding, more, dense.block, False, _SPARSE)
    add("INT8_CHANNEL", BlockFormat(integer(8), "channel", "absmax", "fp32"))
    for name, elements in (("E4M3", e4m3), ("E5M2", e5m2)):
        add(f"FP8_{name}", BlockFormat(elements, None, "absmax", "fp32"))
        add(f"FP8_{name}_CHANNEL", BlockFormat(elements, "channel", "absmax", "fp32"))
    add("BF16", Cast("bf16"), ggml=True)
    add("F16", Cast("fp16"), ggml=True)
    return found


_INTEGERS = ("INT", "NF4", "BF16")
_PREFIXES = {"mx": ("MX", "NVFP4", "FP8", "BF16"), "int": _INTEGERS, "sparse": _INTEGERS}
MENUS = ("gguf", "mx", "int", "all", "sparse")


def standard(name: str) -> StandardFormat:
    """A deployable format: "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "TQ1_0", "TQ2_0", "MXFP4", "MXFP6_E2M3", "NVFP4", "NF4",
    "NF4_DQ" (its scales quantized), "NF4_SPARSE" (its largest 0.5 % kept), "INT4_G128", "INT4_G128_ZERO" (zero points),
    "INT8_CHANNEL", "FP8_E4M3", "BF16" and others; whatever the case.

    Raises:
      ValueError: another name; the message has all of them.
    """
    found = _formats().get(str(name).upper())
    if found is None:
        raise ValueError(f"format must be one of {', '.join(_formats())}, got {name!r}")
    return found


def menu(names: str) -> tuple[StandardFormat, ...]:
    """Formats of a "gguf" file, "mx" (microscaling, NVFP4, FP8), "int" (groups, NF4), "all" of these; "sparse" ("int", and
    formats that keep their largest weights, which no runtime here serves); or names with commas between.

    Raises:
      ValueError: a name that is neither.
    """
    formats = _formats().values()
    if names == "all":
        return tuple(each for each in formats if not each.outliers)
    if names == "gguf":
        return tuple(each for each in formats if each.ggml)
    if names in _PREFIXES:
        of_menu = (each for each in formats if each.name.startswith(_PREFIXES[names]))
        return tuple(each for each in of_menu if names == "sparse" or not each.outliers)
    try:
        return tuple({each.name: each for each in (standard(name.strip()) for name in names.split(","))}.values())
    except ValueError as error:
        raise ValueError(f"menu must be one of {', '.join(MENUS)}, or names of formats: {error}") from None
