"""What a tensor of a weight file is like, and how much a model minds its errors."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np

from replicajax import _checks
from replicajax.distributions import Symmetric
from replicajax.formats._files import open_weights
from replicajax.formats._tensor import is_floating, root_mean_square


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


def statistics(name: str, stored: np.ndarray) -> TensorStatistics:
    """But for Fisher information and law.

    Raises:
      ValueError: NaN or infinite weights.
    """
    rms = 0.0
    if stored.size and is_floating(array := widened(stored)):
        rms = float(root_mean_square(array.reshape(1, -1))[0])
        if not np.isfinite(rms):
            raise ValueError(f"tensor {name!r} must be finite, got NaN or inf")
    return TensorStatistics(name, stored.shape, stored.dtype, rms, None, None)


def is_matrix(stored: np.ndarray, found: TensorStatistics) -> bool:
    """Whether it is one to quantize."""
    return is_floating(widened(stored)) and stored.ndim >= 2 and found.rms > 0 and stored.size >= 16


def widened(array: np.ndarray) -> np.ndarray:
    """Floats of eight bits, which numpy cannot compute with, as float32."""
    return array.astype(np.float32) if array.dtype.name.startswith("float8_e") else array


@contextmanager
def read_fisher(path: str | Path | None) -> Iterator[Callable[[str, tuple[int, ...]], np.ndarray | None]]:
    """Diagonal Fisher information of a tensor of this name and shape, or one number for all of it; None without a file.

    Raises:
      FileNotFoundError, ValueError: a file that cannot be read, or (when asked for a tensor) has none of it, of another shape,
        or with entries that are negative or not finite.
    """
    if path is None:
        yield lambda name, shape: None
        return
    with open_weights(path) as information:

        def read(name: str, shape: tuple[int, ...]) -> np.ndarray:
            if name not in information.names:
                raise ValueError(f"Fisher file {str(path)!r} has no tensor {name!r}")
            array = widened(information.read(name))
            if array.shape not in (shape, (), (1,)):
                raise ValueError(f"Fisher file: {name!r} must have shape {shape} (or be one number), got {array.shape}")
            mean = float(np.mean(array, dtype=np.float64))
            if not np.isfinite(mean) or (array < 0).any():
                raise ValueError(f"Fisher file: {name!r} must be finite and not negative, got mean {mean:g}")
            return array

        yield read


@contextmanager
def read_moments(path: str | Path | None) -> Iterator[Callable[[str, tuple[int, ...]], np.ndarray | None]]:
    """Second moment of the inputs of weights of this name and shape; None where the file, or the argument, has none.

    Raises:
      FileNotFoundError, ValueError: a file that cannot be read, or (when asked) one of another size, not finite, or no second
        moment.
    """
    if path is None:
        yield lambda name, shape: None
        return
    with open_weights(path) as moments:

        @lru_cache(maxsize=1)  # every format of a menu asks for the same one
        def read(name: str, inputs: int) -> np.ndarray | None:
            if name not in moments.names:
                return None
            H = widened(moments.read(name))
            if H.shape != (inputs, inputs) or not np.isfinite(H).all():
                raise ValueError(f"moments of {name!r} must be finite, ({inputs}, {inputs}), got shape {H.shape}")
            return _checks.second_moment(f"moments of {name!r}", H.astype(np.float64))

        yield lambda name, shape: read(name, shape[-1])
