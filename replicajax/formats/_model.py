"""A whole weight file by theory: the law of every tensor, how many bits it gets, and what that costs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike

from replicajax.codebooks import Codebook
from replicajax.distributions import Symmetric, distortion, fit
from replicajax.formats._allocation import allocate_bits
from replicajax.formats._block import BlockFormat
from replicajax.formats._elements import level_count
from replicajax.formats._files import open_weights
from replicajax.formats._statistics import TensorStatistics, is_matrix, read_fisher, statistics, widened


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
    with open_weights(path) as weights, read_fisher(fisher) as information:
        for name in weights.names:
            stored = weights.read(name)
            tensor = statistics(name, stored)
            if is_matrix(stored, tensor):
                F = information(name, stored.shape)
                mean = None if F is None else float(np.mean(F, dtype=np.float64))
                tensor = tensor._replace(law=fit(widened(stored)).law, fisher=mean)
            found.append(tensor)
            progress(stored.size)
    return found


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
