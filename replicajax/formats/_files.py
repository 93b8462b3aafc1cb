"""Weight files, one tensor at a time: .safetensors and .npz in, .safetensors out, whole or not at all."""

import json
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np

from replicajax._writing import whole

_NAMES = {
    "F64": np.float64,
    "F32": np.float32,
    "F16": np.float16,
    "BF16": ml_dtypes.bfloat16,
    "F8_E4M3": ml_dtypes.float8_e4m3fn,
    "F8_E5M2": ml_dtypes.float8_e5m2,
    "F8_E8M0": ml_dtypes.float8_e8m0fnu,
    "I64": np.int64,
    "I32": np.int32,
    "I16": np.int16,
    "I8": np.int8,
    "U64": np.uint64,
    "U32": np.uint32,
    "U16": np.uint16,
    "U8": np.uint8,
    "BOOL": np.bool_,
}
_CODES = {np.dtype(dtype): name for name, dtype in _NAMES.items()}


class WeightFile(NamedTuple):
    """An open file: names in order, the tensor of a name, read when asked for, and notes."""

    names: Sequence[str]
    read: Callable[[str], np.ndarray]
    metadata: Mapping[str, str]


@contextmanager
def open_weights(path: str | Path) -> Iterator[WeightFile]:
    """A .safetensors or .npz file.

    Raises:
      FileNotFoundError, ValueError: no such file; another suffix; empty, truncated or corrupt.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"weight file {str(path)!r} does not exist")
    if path.suffix not in (".safetensors", ".npz"):
        raise ValueError(f"weight file must end in .safetensors or .npz, got {str(path)!r}")
    with _readable(path):
        opened: Any = _archive(path) if path.suffix == ".npz" else _Tensors(path)
    with opened as file:

        def read(name: str) -> np.ndarray:
            with _readable(path):
                return _floats(file[name])

        if not file.files:
            raise ValueError(f"weight file {str(path)!r} holds no tensors")
        yield WeightFile(file.files, read, getattr(file, "metadata", {}))


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    """What goes wrong in reading, and that alone, is the file's fault."""
    try:
        yield
    except Exception as error:  # numpy's reader, fed noise, raises anything
        raise ValueError(f"weight file {str(path)!r} cannot be read: {error}") from None


class _Tensors:
    """A .safetensors file, with the face of numpy's archives; the format's own library knows no 8-bit floats of numpy."""

    def __init__(self, path: Path):
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(path, framework="numpy"):  # checks the header, offsets and length
                pass
        except SafetensorError as error:
            raise OSError(error) from None
        self._path = path
        with path.open("rb") as file:
            size = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(size))
        self._start = 8 + size
        self.metadata: dict[str, str] = header.pop("__metadata__", None) or {}
        self._header = dict(sorted(header.items(), key=lambda item: item[1]["data_offsets"]))
        self.files = list(self._header)

    def __getitem__(self, name: str) -> np.ndarray:
        entry = self._header[name]
        if entry["dtype"] not in _NAMES:
            raise OSError(f"tensor {name!r} is of type {entry['dtype']}, which is none of {', '.join(_NAMES)}")
        dtype, count = np.dtype(_NAMES[entry["dtype"]]), int(np.prod(entry["shape"], dtype=int))
        start = self._start + entry["data_offsets"][0]
        return np.fromfile(self._path, dtype, count, offset=start).reshape(entry["shape"])

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass


def _archive(path: Path):
    found = np.load(path, allow_pickle=False) if zipfile.is_zipfile(path) else None
    if not isinstance(found, np.lib.npyio.NpzFile):
        raise OSError("it is no archive of arrays, or cut short")
    return found


def _floats(array: np.ndarray) -> np.ndarray:
    """numpy saves bfloat16 as two bytes without a name, and reads what is no array as bytes."""
    if not isinstance(array, np.ndarray):
        raise ValueError("it holds something that is no array")
    return array.view(ml_dtypes.bfloat16) if array.dtype == np.dtype("V2") else array


class Entry(NamedTuple):
    """A tensor to be written, made only when its turn comes."""

    shape: tuple[int, ...]
    dtype: np.dtype
    make: Callable[[], np.ndarray]


def write_safetensors(
    path: str | Path, entries: Mapping[str, Entry], metadata: Mapping[str, str] | None = None
) -> None:
    """Tensor by tensor, as `whole` does: what was there stays until all is written.

    Raises:
      ValueError, OSError: a dtype the format lacks, a place that cannot be written.
    """
    header: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    offset = 0
    for name, entry in entries.items():
        if np.dtype(entry.dtype) not in _CODES:
            raise ValueError(f"tensor {name!r} has dtype {entry.dtype}, which .safetensors cannot hold")
        stop = offset + int(np.prod(entry.shape, dtype=int)) * np.dtype(entry.dtype).itemsize
        header[name] = {
            "dtype": _CODES[np.dtype(entry.dtype)],
            "shape": list(entry.shape),
            "data_offsets": [offset, stop],
        }
        offset = stop
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with whole(path) as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name, entry in entries.items():
            array = np.ascontiguousarray(entry.make())
            if array.shape != tuple(entry.shape) or array.dtype != np.dtype(entry.dtype):
                raise ValueError(f"tensor {name!r} was announced as {entry.shape} and is {array.shape}")
            file.write(array.reshape(-1).view(np.uint8).data)
