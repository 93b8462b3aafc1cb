"""The file of codes that a plan makes of a weight file, and back: safetensors of this package, or GGUF."""

import json
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import ml_dtypes
import numpy as np

from replicajax._writing import refuse_overwriting
from replicajax.codebooks import Codebook
from replicajax.formats._block import BlockFormat
from replicajax.formats._cast import Cast
from replicajax.formats._double import TOGETHER, DoubleScales
from replicajax.formats._files import Entry, WeightFile, open_weights, parts, write_safetensors
from replicajax.formats._gguf import write_gguf
from replicajax.formats._packing import pack, packed_bytes, unpack
from replicajax.formats._range import RangeFormat
from replicajax.formats._standard import StandardFormat, standard
from replicajax.formats._statistics import TensorStatistics, widened
from replicajax.formats._stored import SCALE_DTYPES, CastTensor, RangeTensor
from replicajax.formats._tensor import QuantizedTensor, Rounding, StoredTensor, block_size, rounded_to_nearest


class Formats(Protocol):
    """What is asked of a plan: `Allocation` and `Plan` are some."""

    @property
    def tensors(self) -> Sequence[TensorStatistics]: ...
    @property
    def kept(self) -> Sequence[TensorStatistics]: ...
    def format(self, index: int) -> BlockFormat | StandardFormat: ...


def quantize_file(
    source: str | Path,
    target: str | Path,
    plan: Formats,
    progress: Callable[[int], None] = lambda weights: None,
    errors: dict[str, float] | None = None,
    rounding: Rounding = rounded_to_nearest,
    resume: str | None = None,
) -> int:
    """Write every tensor of the plan in its format, and the others as they are; returns bytes of data.

    To .safetensors, for a tensor "w": "w.codes" (bytes, in C order), "w.scales" and, as the format has them, "w.levels",
    "w.offsets", "w.tensor_scale", "w.scale_mean", "w.scale_units", "w.outlier_index", "w.outlier_value" (float32); the rest is
    in the file's metadata under "replicajax", and `dequantize_file` reads it back.  To .gguf, where the plan's formats are
    ggml's: what its readers read, under the same names.  Memory is bounded by one tensor.  Nothing is left behind on failure.

    `errors` is filled with every tensor's actual Rel, RMS error over RMS; `rounding` makes the codes, as in `measure_formats`.
    With `resume`, a word for whatever else the codes depend on, a .safetensors file goes on where a process that was killed or
    interrupted left it, if the source has not changed since; that is then what is left behind on such failure.

    Raises:
      ValueError, OSError: the source itself as target, a plan of another file, formats that the file's kind lacks, a place
        that cannot be written.
      ImportError: a .gguf file without the package that writes them.
    """
    refuse_overwriting(target, *parts(source))
    with open_weights(source) as weights:
        made = _Made(weights, source, plan, progress, {} if errors is None else errors, rounding)
        if Path(target).suffix == ".gguf":
            return write_gguf(target, made.whole())
        made_of = None if resume is None else f"{resume} {stamps(source)} {_spelled(plan)}"
        return write_safetensors(target, *made.parts(), made_of, made.resumed)


def _spelled(plan: Formats) -> str:
    """Formats to the last digit, where they have no name."""
    formats = (plan.format(i) for i in range(len(plan.tensors)))
    return " ".join(
        fmt.name
        if isinstance(fmt, StandardFormat)
        else f"{np.asarray(fmt.codebook.levels).tolist()} {fmt.codebook.codes} {fmt} {float(fmt.multiplier)!r} {fmt.as_ggml}"
        for fmt in formats
    )


def stamps(source: str | Path) -> str:
    """By which it is told that a file has changed."""
    return " ".join(
        f"{part.resolve()} {part.stat().st_size} {part.stat().st_mtime_ns}" for part in map(Path, parts(source))
    )


class _Made:
    """Tensors of the source in the formats of the plan, each made once, when it is asked for."""

    def __init__(
        self,
        weights: WeightFile,
        source: str | Path,
        plan: Formats,
        progress: Callable[[int], None],
        errors: dict[str, float],
        rounding: Rounding,
    ):
        self._weights, self._source, self._plan = weights, source, plan
        self._progress, self._errors, self._rounding = progress, errors, rounding
        self._held: dict[str, StoredTensor] = {}

    def names(self) -> Iterator[tuple[TensorStatistics, BlockFormat | StandardFormat | None]]:
        """In the order of the file."""
        of_plan = {t.name: (t, self._plan.format(i)) for i, t in enumerate(self._plan.tensors)}
        of_plan |= {t.name: (t, None) for t in self._plan.kept}
        for name in self._weights.names:
            if name not in of_plan:
                raise ValueError(f"plan must be of the file {str(self._source)!r}, got none for tensor {name!r}")
            yield of_plan[name]

    def stored(self, tensor: TensorStatistics, fmt: BlockFormat | StandardFormat, last: bool) -> StoredTensor:
        if tensor.name not in self._held:
            array = widened(self._weights.read(tensor.name))
            found = self._rounding(tensor.name, array, fmt)
            self._errors[tensor.name] = _relative(found.dequantize(), array)
            self._held[tensor.name] = found
        found = self._held[tensor.name]
        if last:
            self._held.clear()
            self._progress(tensor.count)
        return found

    def parts(self) -> tuple[dict[str, Entry], dict[str, str]]:
        """What a .safetensors file has of every tensor, and its metadata."""
        entries: dict[str, Entry] = {}
        notes: dict[str, Any] = {}
        kept = {tensor.name for tensor in self._plan.kept}
        for tensor, fmt in self.names():
            if fmt is None:
                entries[tensor.name] = Entry(
                    tensor.shape, tensor.dtype, lambda name=tensor.name: self._weights.read(name)
                )
                continue
            layout = _layout(fmt, tensor)
            taken = kept.union(entries).intersection(f"{tensor.name}.{part}" for part in layout)
            if taken:
                what = f"tensor {tensor.name!r} would be stored under {min(taken)!r}"
                raise ValueError(f"{what}, which is another tensor's name")
            for part, (shape, dtype) in layout.items():
                last = part == next(reversed(layout))  # one tensor at a time in memory
                entries[f"{tensor.name}.{part}"] = Entry(
                    shape,
                    np.dtype(dtype),
                    lambda tensor=tensor, fmt=fmt, part=part, last=last: _part(self.stored(tensor, fmt, last), part),
                )
            dtype = widened(np.zeros(0, tensor.dtype)).dtype.name
            notes[tensor.name] = {"shape": list(tensor.shape), "dtype": dtype, "parts": list(layout)}
            notes[tensor.name] |= _said(fmt, tensor)
        return entries, {"replicajax": json.dumps(notes)}

    def resumed(self, names: Collection[str], read: Callable[[str], np.ndarray]) -> None:
        """Errors and progress of tensors that are written already."""
        for tensor, fmt in self.names():
            if fmt is None:
                continue
            layout = _layout(fmt, tensor)
            if all(f"{tensor.name}.{part}" in names for part in layout):
                array = widened(self._weights.read(tensor.name))
                held = {part: read(f"{tensor.name}.{part}") for part in layout}
                found = _restored(_said(fmt, tensor), tensor.shape, array.dtype, held)
                self._errors[tensor.name] = _relative(found.dequantize(), array)
                self._progress(tensor.count)

    def whole(self) -> Iterator[tuple[TensorStatistics, str | None, Callable[[], Any]]]:
        for tensor, fmt in self.names():
            if fmt is None:
                yield tensor, None, lambda name=tensor.name: self._weights.read(name)
                continue
            if not isinstance(fmt, StandardFormat) or not fmt.ggml:
                raise ValueError(f"a .gguf file must be of ggml's formats (menu 'gguf'), got {fmt} for {tensor.name!r}")
            yield tensor, fmt.name, lambda tensor=tensor, fmt=fmt: self.stored(tensor, fmt, True)


_PIECE = 2**22


def _relative(found: np.ndarray, array: np.ndarray) -> float:
    """In pieces, so that float64 never holds more than one."""
    lost = square = 0.0
    found, array = found.reshape(-1), array.reshape(-1)
    for start in range(0, array.size, _PIECE):
        x = array[start : start + _PIECE].astype(np.float64)
        lost += float(np.sum((found[start : start + _PIECE].astype(np.float64) - x) ** 2))
        square += float(np.sum(x**2))
    return float(np.sqrt(lost / square))


def _layout(fmt: BlockFormat | StandardFormat, tensor: TensorStatistics) -> dict[str, tuple[tuple[int, ...], Any]]:
    """Shapes and types of what is stored."""
    named, kept = isinstance(fmt, StandardFormat), round(getattr(fmt, "outliers", 0.0) * tensor.count)
    fmt = getattr(fmt, "rounding", fmt)
    if isinstance(fmt, Cast):
        return {"values": (tensor.shape, SCALE_DTYPES[fmt.dtype])}
    if isinstance(fmt, RangeFormat):
        blocks = (-(-tensor.count // fmt.block_size),)
        stored = SCALE_DTYPES[fmt.scale_format]
        codes = (packed_bytes(tensor.count, 2**fmt.element_bits),)
        offsets = (blocks, stored)
        if fmt.zero == "integer":
            offsets = (packed_bytes(blocks[0], 2**fmt.element_bits),), np.uint8
        return {"scales": (blocks, stored), "offsets": offsets, "codes": (codes, np.uint8)}
    assert isinstance(fmt, BlockFormat)
    blocks = (-(-tensor.count // block_size(fmt, tensor.shape)),)
    found: dict[str, tuple[tuple[int, ...], Any]] = {} if named else {"levels": ((len(fmt.codebook),), np.float64)}
    if not fmt.as_ggml:
        found["tensor_scale"] = ((1,), np.float32)
    codes = (packed_bytes(tensor.count, fmt.codebook.codes),)
    if fmt.scale_format == "double":
        found |= {"scale_mean": ((1,), np.float32), "scale_units": ((-(-blocks[0] // TOGETHER),), np.float32)}
    if kept:
        found |= {"outlier_index": ((kept,), np.uint32), "outlier_value": ((kept,), np.float32)}
    return found | {"scales": (blocks, SCALE_DTYPES[fmt.scale_format]), "codes": (codes, np.uint8)}


def _said(fmt: BlockFormat | StandardFormat, tensor: TensorStatistics) -> dict[str, Any]:
    """What the parts themselves do not say."""
    if isinstance(fmt, StandardFormat):
        return {"format": fmt.name}
    return {"block": block_size(fmt, tensor.shape)}


def _part(stored: StoredTensor, part: str) -> np.ndarray:
    if part == "codes":
        assert not isinstance(stored, CastTensor)
        return stored.packed
    if part == "levels":
        assert isinstance(stored, QuantizedTensor)
        return np.asarray(stored.format.codebook.levels, np.float64)
    if part.startswith("scale") and isinstance(stored, QuantizedTensor) and isinstance(stored.scales, DoubleScales):
        scales = stored.scales
        return {"scales": scales.codes, "scale_units": scales.units, "scale_mean": np.full(1, scales.mean)}[part]
    found = getattr(stored, part)
    if part == "outlier_value":
        return found.astype(np.float32)
    if part == "offsets" and isinstance(stored, RangeTensor) and stored.format.zero == "integer":
        return pack(found, 2**stored.format.element_bits)
    return np.full(1, found, np.float32) if part == "tensor_scale" else found


def dequantize_file(path: str | Path) -> Mapping[str, np.ndarray]:
    """The weights of a .safetensors file that `quantize_file` wrote.

    Raises:
      FileNotFoundError, ValueError: no such file, unreadable, or not written by `quantize_file`.
    """
    with open_quantized(path) as (kinds, read):
        return {name: read(name) for name in kinds}


def dequantize_to(path: str | Path, target: str | Path, progress: Callable[[int], None] = lambda weights: None) -> int:
    """The same, tensor by tensor into a .safetensors file; returns bytes of data.

    Raises:
      FileNotFoundError, ValueError, OSError: as `dequantize_file` and `quantize_file` do.
    """
    refuse_overwriting(target, path)
    with open_quantized(path) as (kinds, read):

        def made(name: str) -> np.ndarray:
            found = read(name)
            progress(found.size)
            return found

        return write_safetensors(
            target, {name: Entry(*kind, lambda name=name: made(name)) for name, kind in kinds.items()}
        )


@contextmanager
def open_quantized(
    path: str | Path,
) -> Iterator[tuple[Mapping[str, tuple[tuple[int, ...], np.dtype]], Callable[[str], np.ndarray]]]:
    """Shape and type of every weight of such a file, and a weight by its name; errors as in `dequantize_file`."""
    with open_weights(path) as weights:
        if "replicajax" not in weights.metadata:
            raise ValueError(f"weight file {str(path)!r} holds no codes of replicajax")
        notes = json.loads(weights.metadata["replicajax"])
        of_note = {f"{name}.{part}": name for name, note in notes.items() for part in note.get("parts", _OLD_PARTS)}
        kinds: dict[str, tuple[tuple[int, ...], np.dtype]] = {}
        for stored in weights.names:
            name = of_note.get(stored, stored)
            if name in notes:
                dtype = notes[name]["dtype"]
                kinds[name] = tuple(notes[name]["shape"]), np.dtype(getattr(ml_dtypes, dtype, None) or dtype)
            else:
                array = weights.read(name)
                kinds[name] = array.shape, array.dtype

        def read(name: str) -> np.ndarray:
            if name not in notes:
                return weights.read(name)
            held = {part: weights.read(f"{name}.{part}") for part in notes[name].get("parts", _OLD_PARTS)}
            return _restored(notes[name], *kinds[name], held).dequantize()

        yield kinds, read


_OLD_PARTS = ("levels", "scales", "codes")
"""Of files that do not say."""


def _restored(
    note: Mapping[str, Any], shape: tuple[int, ...], dtype: np.dtype, held: Mapping[str, np.ndarray]
) -> StoredTensor:
    if "format" in note:
        fmt = standard(note["format"]).rounding
    else:  # of its scales nothing but their number matters any more
        fmt = BlockFormat(Codebook(held["levels"]), note.get("block"), "rms")
    if isinstance(fmt, Cast):
        return CastTensor(fmt, dtype, held["values"])
    if isinstance(fmt, RangeFormat):
        offsets = held["offsets"]
        if fmt.zero == "integer":
            offsets = unpack(offsets, held["scales"].size, 2**fmt.element_bits)
        return RangeTensor(fmt, shape, dtype, held["codes"], held["scales"], offsets)
    unit = float(held["tensor_scale"][0]) if "tensor_scale" in held else 1.0
    index, value = (
        held.get("outlier_index", np.zeros(0, np.uint32)),
        held.get("outlier_value", np.zeros(0)).astype(dtype),
    )
    scales = held["scales"]
    if "scale_units" in held:
        scales = DoubleScales(scales, held["scale_units"], held["scale_mean"][0])
    return QuantizedTensor(fmt, shape, dtype, held["codes"], scales, unit, index, value)
