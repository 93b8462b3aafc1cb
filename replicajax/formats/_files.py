"""Weight files, one tensor at a time: .safetensors and .npz in, .safetensors out, whole or not at all."""

import json
import os
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np
from safetensors import SafetensorError, safe_open

_NAMES = {
    "F64": np.float64,
    "F32": np.float32,
    "F16": np.float16,
    "BF16": ml_dtypes.bfloat16,
    "F8_E4M3": ml_dtypes.float8_e4m3fn,
    "F8_E5M2": ml_dtypes.float8_e5m2,
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
        opened: Any = _archive(path) if path.suffix == ".npz" else safe_open(path, framework="numpy")
    with opened as file:

        def read(name: str) -> np.ndarray:
            with _readable(path):
                return _floats(file[name] if path.suffix == ".npz" else file.get_tensor(name))

        names = list(file.keys())
        if not names:
            raise ValueError(f"weight file {str(path)!r} holds no tensors")
        yield WeightFile(names, read, ({} if path.suffix == ".npz" else file.metadata()) or {})


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    """What goes wrong in reading, and that alone, is the file's fault."""
    try:
        yield
    except (SafetensorError, zipfile.BadZipFile, EOFError, OSError) as error:
        raise ValueError(f"weight file {str(path)!r} cannot be read: {error}") from None


def _archive(path: Path):
    found = np.load(path, allow_pickle=False) if zipfile.is_zipfile(path) else None
    if not isinstance(found, np.lib.npyio.NpzFile):
        raise OSError("it is no archive of arrays, or cut short")
    return found


def _floats(array: np.ndarray) -> np.ndarray:
    """numpy saves bfloat16 as two bytes without a name."""
    return array.view(ml_dtypes.bfloat16) if array.dtype == np.dtype("V2") else array


class Entry(NamedTuple):
    """A tensor to be written, made only when its turn comes."""

    shape: tuple[int, ...]
    dtype: np.dtype
    make: Callable[[], np.ndarray]


def write_safetensors(
    path: str | Path, entries: Mapping[str, Entry], metadata: Mapping[str, str] | None = None
) -> None:
    """Tensor by tensor into a file beside `path`, moved there when complete: what was there stays until then.

    Raises:
      ValueError, FileNotFoundError: a dtype the format lacks, a folder that does not exist.
    """
    path = Path(path)
    if not path.absolute().parent.is_dir():
        raise FileNotFoundError(f"folder {str(path.absolute().parent)!r} does not exist")
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
    partial = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with partial.open("wb") as file:
            file.write(len(text).to_bytes(8, "little") + text)
            for name, entry in entries.items():
                array = np.ascontiguousarray(entry.make())
                if array.shape != tuple(entry.shape) or array.dtype != np.dtype(entry.dtype):
                    raise ValueError(f"tensor {name!r} was announced as {entry.shape} and is {array.shape}")
                file.write(array.reshape(-1).view(np.uint8).data)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
