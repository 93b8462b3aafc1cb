"""Weight files, one tensor at a time: .safetensors, in shards too, and .npz in, .safetensors out, whole or not at all."""

import hashlib
import json
import os
import reprlib
import zipfile
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import ml_dtypes
import numpy as np

from replicajax._writing import KEY, whole

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
_INDEX = ".safetensors.index.json"


class WeightFile(NamedTuple):
    """An open file: names in order, the tensor of a name, read when asked for, and notes."""

    names: Sequence[str]
    read: Callable[[str], np.ndarray]
    metadata: Mapping[str, str]


@contextmanager
def open_weights(path: str | Path) -> Iterator[WeightFile]:
    """A .safetensors or .npz file, or the shards of an index, .safetensors.index.json; a folder stands for what it holds.

    Of shards, names come in the order of the shards' names, and metadata is the index's.

    Raises:
      FileNotFoundError, ValueError: no such file or shard; another suffix; empty, truncated or corrupt; a folder of not
        exactly one index or, without any, one .safetensors file; an index that is none, that leaves its folder, or that
        names tensors its shards do not hold.
    """
    path = _meant(Path(path))
    with _sharded(path) if path.name.endswith(_INDEX) else _single(path) as file:
        yield file


def parts(path: str | Path) -> list[Path]:
    """All files that reading `path` touches, for writers to keep off: the one file, or the index and its shards.

    Raises:
      FileNotFoundError, ValueError: as `open_weights`, for what shows before any tensors are looked at.
    """
    path = _meant(Path(path))
    return [path, *sorted(set(_index(path)[0].values()))] if path.name.endswith(_INDEX) else [path]


def _meant(path: Path) -> Path:
    """The file to start with, which for a folder is the one in it."""
    if path.is_dir():
        with _readable(path):
            # A link that leads nowhere counts: beside an index like that, a shard must not pass for the whole.
            files = [file for file in sorted(path.iterdir()) if not file.is_dir()]
        indices = [file for file in files if file.name.endswith(_INDEX)]
        found = indices or [file for file in files if file.suffix == ".safetensors"]
        if len(found) != 1:
            some = ", ".join([repr(file.name) for file in found[:3]] + ["..."] * (len(found) > 3))
            raise ValueError(
                f"folder {str(path)!r} must hold one *{_INDEX} or, without any, one *.safetensors, got {some or 'none'}"
            )
        path = found[0]
    if not path.is_file():
        raise FileNotFoundError(f"weight file {str(path)!r} does not exist")
    return path


def _index(path: Path) -> tuple[dict[str, Path], dict[str, str]]:
    """The shard of every tensor, and notes; the shards exist."""
    with _readable(path):
        text = path.read_bytes()
    try:
        index = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"index {str(path)!r} must be JSON, which it is not: {error}") from None
    listed = index.get("weight_map") if isinstance(index, dict) else None
    if not isinstance(listed, dict) or not listed:
        got = reprlib.repr(index)
        raise ValueError(f"index {str(path)!r} must have a weight_map of tensor names to shard names, got {got}")
    notes = index.get("metadata") or {}
    if not isinstance(notes, dict):
        raise ValueError(f"index {str(path)!r} must have metadata by name, or none, got {reprlib.repr(notes)}")
    for name, shard in listed.items():
        if not _within(shard):
            want = "in a .safetensors file of its own folder"
            raise ValueError(f"index {str(path)!r} must place tensor {name!r} {want}, got {shard!r}")
    # Beside the index as it is called, not beside what it links to: caches bring files together by links alone.
    place = {name: path.parent / shard for name, shard in listed.items()}
    for shard in sorted(set(place.values())):
        if not shard.is_file():
            raise FileNotFoundError(f"shard {str(shard)!r} of index {str(path)!r} does not exist")
    return place, {key: note if isinstance(note, str) else json.dumps(note) for key, note in notes.items()}


def _within(shard: Any) -> bool:
    """Whether it names a .safetensors file of the folder it is looked for in."""
    if not isinstance(shard, str) or Path(shard).suffix != ".safetensors":
        return False
    return not Path(shard).anchor and ".." not in Path(shard).parts


@contextmanager
def _sharded(path: Path) -> Iterator[WeightFile]:
    """What an index lists, and of its shards nothing else."""
    place, metadata = _index(path)
    with ExitStack() as stack:
        files = {shard: stack.enter_context(_single(shard)) for shard in sorted(set(place.values()))}
        names = [name for shard, file in files.items() for name in file.names if place.get(name) == shard]
        lost = set(place).difference(names)
        if lost:
            name, shard = min((name, str(place[name])) for name in lost)
            raise ValueError(f"shard {shard!r} has no tensor {name!r}, which index {str(path)!r} places there")

        def read(name: str) -> np.ndarray:
            if name not in place:
                raise ValueError(f"index {str(path)!r} has no tensor {name!r}")
            return files[place[name]].read(name)

        yield WeightFile(names, read, metadata)


@contextmanager
def _single(path: Path) -> Iterator[WeightFile]:
    if path.suffix not in (".safetensors", ".npz"):
        raise ValueError(f"weight file must end in .safetensors or .npz, or be an index *{_INDEX}, got {str(path)!r}")
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


Reader = Callable[[str], np.ndarray]


def _there(file: BinaryIO, head: bytes, header: Mapping[str, Any]) -> Collection[str]:
    """Tensors that the file has from before; what follows them is cut off."""
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    same = size >= len(head) and file.read(len(head)) == head
    ends = {name: len(head) + each["data_offsets"][1] for name, each in header.items() if name != "__metadata__"}
    found = {name for name, end in ends.items() if same and end <= size}
    file.truncate(max((ends[name] for name in found), default=0))
    file.seek(0, os.SEEK_END)
    return found


def _read_from(file: BinaryIO, head: int, header: Mapping[str, Any], name: str) -> np.ndarray:
    kind, (start, stop) = header[name], header[name]["data_offsets"]
    file.seek(head + start)
    found = np.frombuffer(file.read(stop - start), _NAMES[kind["dtype"]]).reshape(kind["shape"])
    file.seek(0, os.SEEK_END)
    return found


def write_safetensors(
    path: str | Path,
    entries: Mapping[str, Entry],
    metadata: Mapping[str, str] | None = None,
    source: str | None = None,
    resumed: Callable[[Collection[str], Reader], None] = lambda names, read: None,
) -> int:
    """Tensor by tensor, as `whole` does: what was there stays until all is written; returns bytes of data.

    With a `source`, all that the tensors are made of besides shapes and metadata, it goes on where an earlier process was cut
    off; `resumed` is then told which tensors are there, with a function that reads them.

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
    head = len(text).to_bytes(8, "little") + text
    key = None if source is None else hashlib.sha256(head + source.encode()).hexdigest()[:KEY]
    with whole(path, key) as file:
        there = _there(file, head, header) if source is not None else ()
        if there:
            resumed(there, partial(_read_from, file, len(head), header))
        else:
            file.write(head)
        for name, entry in entries.items():
            if name in there:
                continue
            array = np.asarray(entry.make(), order="C")
            if array.shape != tuple(entry.shape) or array.dtype != np.dtype(entry.dtype):
                raise ValueError(f"tensor {name!r} was announced as {entry.shape} and is {array.shape}")
            file.write(array.reshape(-1).view(np.uint8).data)
    return offset
