"""The second moment of a layer's inputs, from batches of them, and files of many layers'."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from replicajax.formats._files import Entry, WeightFile, open_weights, write_safetensors
from replicajax.formats._tensor import is_floating

_ROWS = 4096
"""Converted to float64 at a time."""


class SecondMoment:
    """H = E x xᵀ, accumulated in float64 whatever the batches hold.

    Attributes:
      total: sum of x xᵀ, (inputs, inputs), None before the first batch.
      count: how many x.
    """

    def __init__(self) -> None:
        self.total: np.ndarray | None = None
        self.count = 0

    def add(self, batch: Any) -> None:
        """Of shape (..., inputs).

        Raises:
          TypeError, ValueError: what is no array of floats, NaN or inf, another number of inputs than before.
        """
        x = np.asarray(batch)
        if not is_floating(x) or x.ndim == 0:
            raise TypeError(f"batch must be an array of floats (..., inputs), got dtype {x.dtype}, shape {x.shape}")
        x = x.reshape(-1, x.shape[-1])
        inputs = x.shape[1] if self.total is None else self.total.shape[0]
        if x.shape[1] != inputs:
            raise ValueError(f"batch must have {inputs} inputs as those before, got {x.shape[1]}")
        added = np.zeros((inputs, inputs))
        for start in range(0, len(x), _ROWS):
            part = x[start : start + _ROWS].astype(np.float64)
            lost = ~np.isfinite(part).all(1)
            if lost.any():
                raise ValueError(f"batch must be finite, got NaN or inf in row {start + int(np.argmax(lost))}")
            added += part.T @ part
        # A batch counts whole or not at all.
        self.total = added if self.total is None else self.total + added
        self.count += len(x)

    @property
    def value(self) -> np.ndarray:
        """(inputs, inputs).  Raises ValueError before anything is added."""
        if self.total is None or not self.count:
            raise ValueError("a second moment needs at least one row of inputs, got none")
        return self.total / self.count


def second_moment(batches: Iterable[Any]) -> np.ndarray:
    """H = E x xᵀ, (inputs, inputs) in float64, of batches (..., inputs), one in memory at a time; errors of `SecondMoment`."""
    moment = SecondMoment()
    for batch in batches:
        moment.add(batch)
    return moment.value


def write_moments(path: str | Path, moments: Mapping[str, np.ndarray | SecondMoment]) -> None:
    """A .safetensors file of second moments by the name of the weights they belong to, whole or not at all.

    Raises:
      ValueError, OSError: another suffix, a moment without rows, a place that cannot be written.
    """
    if Path(path).suffix != ".safetensors":
        raise ValueError(f"moments must be written to a .safetensors file, got {str(path)!r}")
    arrays = {name: np.asarray(m.value if isinstance(m, SecondMoment) else m) for name, m in moments.items()}
    entries = {name: Entry(a.shape, a.dtype, lambda a=a: a) for name, a in arrays.items()}
    write_safetensors(path, entries, {"replicajax": "second moments of the inputs, by weight"})


@contextmanager
def open_layers(weights: str | Path, moments: str | Path) -> Iterator[tuple[list[str], WeightFile, WeightFile]]:
    """Two files, and the names that both have, matrices (outputs, inputs) with their (inputs, inputs).

    Raises:
      FileNotFoundError, ValueError: files that cannot be read or have no name in common.
    """
    with open_weights(weights) as of_weights, open_weights(moments) as of_moments:
        known = set(of_moments.names)
        names = [name for name in of_weights.names if name in known]
        if not names:
            some = ", ".join(list(of_moments.names)[:3])
            raise ValueError(f"moments must be named as the weights are, got none in common ({some}, ...)")
        yield names, of_weights, of_moments
