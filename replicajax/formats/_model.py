"""A whole weight file: what every tensor is like, how many bits it gets, and the file of its codes."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import equinox as eqx
import jax.numpy as jnp
import ml_dtypes
import numpy as np
from jaxtyping import Array, ArrayLike

from replicajax._writing import refuse_overwriting
from replicajax.codebooks import Codebook
from replicajax.distributions import Symmetric, distortion, fit
from replicajax.formats._allocation import allocate_bits
from replicajax.formats._block import BlockFormat
from replicajax.formats._elements import level_count
from replicajax.formats._files import Entry, open_weights, write_safetensors
from replicajax.formats._packing import packed_bytes
from replicajax.formats._tensor import QuantizedTensor, is_floating, quantize, root_mean_square


class TensorStatistics(NamedTuple):
    name: str
    shape: tuple[int, ...]
    dtype: np.dtype
    rms: float
    fisher: float | None
    """Mean diagonal Fisher information of its weights; None where no Fisher file was given."""
    law: Symmetric | None
    """Likeliest law of the weights; None where it is not quantized."""

    @property
    def count(self) -> int:
        return int(np.prod(self.shape, dtype=int))


class Allocation(NamedTuple):
    """What `allocate` found: an entry per quantized tensor."""

    tensors: Sequence[TensorStatistics]
    bits: np.ndarray
    """Per weight."""
    error: np.ndarray
    """Rel = RMS error over RMS."""
    divergence: np.ndarray
    """Predicted KL of each tensor, ½ n f RMS² Rel² in nats; without Fisher information the squared error instead."""
    kept: Sequence[TensorStatistics]
    """Tensors left as they are: not floating, of fewer than two axes, few weights, or all zeros."""

    def format(self, index: int) -> BlockFormat:
        law = self.tensors[index].law
        assert law is not None
        return tensor_format(law, float(self.bits[index]))


def tensor_format(law: Symmetric, bits: float) -> BlockFormat:
    """`cube_root(law, bits)` in units of the tensor's RMS, without a program for every number of levels.

    Raises:
      ValueError: bits outside [1, 16].
    """
    count = level_count(bits)
    levels, _ = _levels_and_error(law, jnp.asarray(count), max(256, count))
    return BlockFormat(Codebook(levels[:count]), None, "rms")


@eqx.filter_jit
def _levels_and_error(law: Symmetric, count: Array, most: int) -> tuple[Array, Array]:
    """`cube_root` levels in units of the RMS, the last one repeated up to `most`, and Rel: one program for any count."""
    unit = jnp.sqrt(law.second_moment())
    place = jnp.minimum(jnp.arange(1, most + 1), count) / (count + 1)
    levels = law.tempered(1 / 3).quantile(place)
    return levels / unit, jnp.sqrt(distortion(law, levels)) / unit


def describe_weights(
    path: str | Path, fisher: str | Path | None = None, progress: Callable[[int], None] = lambda weights: None
) -> list[TensorStatistics]:
    """RMS, Fisher information and law of every tensor; memory is bounded by one tensor.

    `progress` is called with the number of weights of each tensor when it is done.

    Raises:
      FileNotFoundError, ValueError: a file that cannot be read; NaN; a Fisher file without one of the tensors, with another
        shape, or with negative entries.
    """
    found = []
    with open_weights(path) as weights:
        for name in weights.names:
            stored = weights.read(name)
            rms, law = 0.0, None
            if stored.size and is_floating(array := _widened(stored)):
                rms = float(root_mean_square(array.reshape(1, -1))[0])
                if not np.isfinite(rms):
                    raise ValueError(f"tensor {name!r} must be finite, got NaN or inf")
                if array.ndim >= 2 and rms > 0 and array.size >= 16:
                    law = fit(array).law
            found.append(TensorStatistics(name, stored.shape, stored.dtype, rms, None, law))
            progress(stored.size)
    if fisher is None:
        return found
    with open_weights(fisher) as information:
        for i, tensor in enumerate(found):
            if tensor.law is None:
                continue
            if tensor.name not in information.names:
                raise ValueError(f"Fisher file {str(fisher)!r} has no tensor {tensor.name!r}")
            array = _widened(information.read(tensor.name))
            if array.shape not in (tensor.shape, (), (1,)):
                raise ValueError(
                    f"Fisher file: {tensor.name!r} must have shape {tensor.shape} (or be one number), got {array.shape}"
                )
            mean = float(np.mean(array, dtype=np.float64))
            if not np.isfinite(mean) or (array < 0).any():
                raise ValueError(f"Fisher file: {tensor.name!r} must be finite and not negative, got mean {mean:g}")
            found[i] = tensor._replace(fisher=mean)
    return found


def _widened(array: np.ndarray) -> np.ndarray:
    """Floats of eight bits, which numpy cannot compute with, as float32."""
    return array.astype(np.float32) if array.dtype.name.startswith("float8_e") else array


def allocate(
    tensors: Sequence[TensorStatistics],
    mean_bits: float,
    minimum: float = 1.0,
    maximum: float = 8.0,
    whole: bool = False,
) -> Allocation:
    """Bits of every tensor by theory 4.3, and what they are predicted to cost.

    Raises:
      ValueError: no tensor to quantize, or bits as in `allocate_bits`.
    """
    counts, rms, fisher = _weights(tensors)
    return _priced(tensors, allocate_bits(counts, rms, fisher, mean_bits, minimum, maximum, whole=whole))


def allocate_evenly(tensors: Sequence[TensorStatistics], bits: float) -> Allocation:
    """The same bits for every tensor, to compare with.

    Raises:
      ValueError: no tensor to quantize, or bits outside [1, 16].
    """
    level_count(bits)
    return _priced(tensors, np.full(len(_weights(tensors)[0]), bits))


def _weights(tensors: Sequence[TensorStatistics]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Counts, RMS and mean Fisher information (1 where there is none) of the tensors to quantize."""
    chosen = [t for t in tensors if t.law is not None]
    if not chosen:
        raise ValueError("no tensor to quantize: none is floating, of two axes or more, and not all zeros")
    of_each = [(t.count, t.rms, 1.0 if t.fisher is None else t.fisher) for t in chosen]
    counts, rms, fisher = np.array(of_each, float).T
    return counts, rms, fisher


def _priced(tensors: Sequence[TensorStatistics], bits: ArrayLike) -> Allocation:
    counts, rms, fisher = _weights(tensors)
    bits = np.asarray(bits)
    levels = np.maximum(2, np.floor(2.0**bits * (1 + 1e-9)).astype(int))  # whole numbers, within the budget
    most = max(256, int(levels.max()))
    chosen, kept = ([t for t in tensors if (t.law is None) == left] for left in (False, True))
    laws = [t.law for t in chosen if t.law is not None]
    error = np.array([_levels_and_error(law, jnp.asarray(k), most)[1] for law, k in zip(laws, levels, strict=True)])
    return Allocation(chosen, np.log2(levels), error, 0.5 * counts * fisher * (rms * error) ** 2, kept)


def quantize_file(
    source: str | Path, target: str | Path, plan: Allocation, progress: Callable[[int], None] = lambda weights: None
) -> int:
    """Write codes, scales and codebooks of every tensor of the plan, and the others as they are; returns bytes of data.

    For a tensor "w": "w.codes" (bytes, in C order), "w.scales", "w.levels"; shape, dtype and the rest in
    the file's metadata under "replicajax".  `dequantize_file` reads it back.  Nothing is left behind on failure.

    Raises:
      ValueError, OSError: the source itself as target, a plan of another file, a place that cannot be written.
    """
    refuse_overwriting(target, source)
    index = {tensor.name: i for i, tensor in enumerate(plan.tensors)}
    kept = {tensor.name: tensor for tensor in plan.kept}
    entries: dict[str, Entry] = {}
    notes: dict[str, Any] = {}
    with open_weights(source) as weights:
        for name in weights.names:
            if name in kept:
                entries[name] = Entry(kept[name].shape, kept[name].dtype, lambda name=name: weights.read(name))
                continue
            if name not in index:
                raise ValueError(f"plan must be of the file {str(source)!r}, got none for tensor {name!r}")
            tensor, fmt = plan.tensors[index[name]], plan.format(index[name])
            levels = np.asarray(fmt.codebook.levels, np.float64)
            held: dict[str, QuantizedTensor] = {}

            def made(name=name, fmt=fmt, held=held) -> QuantizedTensor:
                if not held:
                    held[name] = quantize(_widened(weights.read(name)), fmt)
                return held[name]

            def last(tensor=tensor, made=made, held=held) -> np.ndarray:
                packed = made().packed
                held.clear()  # one tensor at a time in memory
                progress(tensor.count)
                return packed

            entries[f"{name}.levels"] = Entry(levels.shape, levels.dtype, lambda levels=levels: levels)
            entries[f"{name}.scales"] = Entry((1,), np.dtype(np.float32), lambda made=made: made().scales)
            size = packed_bytes(tensor.count, levels.size)
            entries[f"{name}.codes"] = Entry((size,), np.dtype(np.uint8), last)
            notes[name] = {"shape": list(tensor.shape), "dtype": _widened(np.zeros(0, tensor.dtype)).dtype.name}
        write_safetensors(target, entries, {"replicajax": json.dumps(notes)})
    return sum(int(np.prod(e.shape, dtype=int)) * np.dtype(e.dtype).itemsize for e in entries.values())


def dequantize_file(path: str | Path) -> Mapping[str, np.ndarray]:
    """The weights of a file that `quantize_file` wrote.

    Raises:
      FileNotFoundError, ValueError: no such file, unreadable, or not written by `quantize_file`.
    """
    out = {}
    with open_weights(path) as weights:
        if "replicajax" not in weights.metadata:
            raise ValueError(f"weight file {str(path)!r} holds no codes of replicajax")
        parts = json.loads(weights.metadata["replicajax"])
        extra = {f"{name}.{part}" for name in parts for part in ("codes", "scales", "levels")}
        for name in weights.names:
            if name not in extra:
                out[name] = weights.read(name)
        for name, note in parts.items():
            dtype = np.dtype(getattr(ml_dtypes, note["dtype"], None) or note["dtype"])
            fmt = BlockFormat(Codebook(weights.read(f"{name}.levels")), None, "rms")
            none = np.zeros(0, np.uint32), np.zeros(0, dtype)
            scales, packed = weights.read(f"{name}.scales"), weights.read(f"{name}.codes")
            out[name] = QuantizedTensor(fmt, tuple(note["shape"]), dtype, packed, scales, 1.0, *none).dequantize()
    return out
