"""A sweep on disk: one zarr group that xarray reads, plus a record of which chunks are finished.

A chunk's numbers are written before its mark in the record, so whatever is marked is whole: a process killed at any
moment loses the chunks it was working on and nothing else.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
import zarr
from zarr.errors import GroupNotFoundError

_KEY, _ORDER = "replicajax_sweep", "replicajax_variables"
_RECORD = "record"


class Store:
    """An existing store of the same configuration, or a new one.

    Raises:
      ValueError: the path holds another sweep, or something that is none.
    """

    def __init__(
        self, path: str | Path, template: xr.Dataset, chunks: Mapping[str, int], configuration: dict[str, Any]
    ):
        self.path = Path(path)
        self._laying_out = self.path.with_name(self.path.name + ".laying-out")
        count = int(np.prod([-(-template.sizes[d] // n) for d, n in chunks.items()], dtype=int))
        if not self._matches(configuration):
            self._create(template, chunks, configuration, count)
        root: Any = zarr.open_group(self.path, mode="r+")
        self._root, self._done = root, root[_RECORD]["done"]

    def _matches(self, configuration: dict[str, Any]) -> bool:
        """Whether a complete layout of this very sweep is there."""
        if not self.path.exists() or (self.path.is_dir() and not any(self.path.iterdir())):
            return False
        try:
            attributes = dict(zarr.open_group(self.path, mode="r").attrs)
        except (FileNotFoundError, NotADirectoryError, GroupNotFoundError, ValueError):
            attributes = {}
        if self._laying_out.exists():
            return False
        if _KEY not in attributes:
            raise ValueError(
                f"store must be a new path or a sweep to go on with, got {str(self.path)!r}, which is neither"
            )
        there = json.loads(str(attributes[_KEY]))
        here = json.loads(json.dumps(configuration))
        if there != here:
            raise ValueError(
                f"store {str(self.path)!r} holds a different sweep ({_difference(there, here)}): "
                "give another path, or delete it to start afresh"
            )
        return True

    def _create(
        self, template: xr.Dataset, chunks: Mapping[str, int], configuration: dict[str, Any], count: int
    ) -> None:
        self.path.mkdir(parents=True, exist_ok=True)
        self._laying_out.touch()  # until the layout is complete, what is here may be overwritten
        root = zarr.open_group(self.path, mode="a")
        for name, variable in template.variables.items():
            shape = variable.shape
            array = root.create_array(
                str(name),
                shape=shape,
                chunks=tuple(min(chunks.get(str(d), n), n) for d, n in variable.sizes.items()),
                dtype=variable.dtype,
                dimension_names=[str(d) for d in variable.dims],
                attributes=dict(variable.attrs),
                fill_value=_missing(variable.dtype),
                overwrite=True,
            )
            if name in template.coords:
                array[...] = variable.values
        record = root.create_group(_RECORD, overwrite=True)
        record.create_array("done", shape=(count,), chunks=(1,), dtype="uint8", fill_value=0)
        names = [str(name) for name in template.data_vars]
        root.attrs.put(dict(template.attrs) | {_KEY: json.dumps(configuration), _ORDER: names})
        self._laying_out.unlink()

    def done(self, chunk: int) -> bool:
        try:
            return bool(self._done[chunk])
        except (ValueError, RuntimeError, OSError):  # a mark cut short by a crash
            return False

    def write(self, chunk: int, where: tuple[slice, ...], values: Mapping[str, np.ndarray]) -> None:
        for name, array in values.items():
            self._root[name][where] = array
        self._done[chunk] = 1

    def write_whole(self, name: str, array: np.ndarray) -> None:
        self._root[name][...] = array

    def read(self, name: str) -> np.ndarray:
        return np.asarray(self._root[name][...])

    def open(self) -> xr.Dataset:
        return open_sweep(self.path)


def open_sweep(path: str | Path) -> xr.Dataset:
    """The dataset of a saved sweep, finished or not (points not yet computed are NaN, and `converged` False).

    Raises:
      FileNotFoundError, ValueError: nothing there, or no sweep.
    """
    if not Path(path).exists():
        raise FileNotFoundError(f"store {str(path)!r} does not exist")
    try:
        dataset = xr.open_zarr(path, consolidated=False, chunks=None)
    except (GroupNotFoundError, ValueError, FileNotFoundError, NotADirectoryError):
        dataset = xr.Dataset()
    if not {_KEY, _ORDER} <= dataset.attrs.keys():
        raise ValueError(f"store {str(path)!r} is no sweep of replicajax")
    order = dataset.attrs.pop(_ORDER)
    del dataset.attrs[_KEY]
    return dataset[order]


def _missing(dtype: np.dtype):
    return {"f": np.nan, "b": False}.get(dtype.kind, 0)


def _difference(there: Any, here: Any, name: str = "") -> str:
    """The first thing that differs, in words."""
    if isinstance(there, dict) and isinstance(here, dict):
        for key in [*here, *(k for k in there if k not in here)]:
            if there.get(key) != here.get(key):
                return _difference(there.get(key), here.get(key), f"{name}.{key}" if name else key)
    return f"{name} was {_short(there)}, is {_short(here)}"


def _short(value: Any) -> str:
    if isinstance(value, list) and len(value) > 4:
        return f"[{value[0]}, {value[1]}, … {value[-1]}] ({len(value)} values)"
    return str(value)
