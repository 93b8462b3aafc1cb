"""A weight file and a menu: what every format does to every tensor, with the weights in hand, and the choice within a budget.

score_t,j = sum of squared errors, or with Fisher information F its share of KL, ½ sum_i F_i d_i² in nats.      (theory 4.3)
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from replicajax.formats._choice import FormatChoice, choose_formats, pareto
from replicajax.formats._files import open_weights
from replicajax.formats._standard import StandardFormat
from replicajax.formats._statistics import TensorStatistics, is_matrix, read_fisher, read_moments, statistics, widened
from replicajax.formats._tensor import quantize

_MOST = 2**22
"""Weights of a tensor that are tried: of larger ones, rows at even distances."""


class Measured(NamedTuple):
    """Of every tensor and format.

    Attributes:
      tensors: those to quantize: floating, of two axes or more, not all zeros.
      formats: the menu.
      bits: (tensors, formats) per weight, as stored.
      error: (tensors, formats), RMS error over RMS; NaN where rows are no multiple of the format's blocks.
      score: (tensors, formats), squared error, or nats of KL, or sum of the outputs' relative errors; inf there.
      kept: all other tensors.
      unit: of the score: "squared error", "nats" or "output error".
    """

    tensors: Sequence[TensorStatistics]
    formats: Sequence[StandardFormat]
    bits: np.ndarray
    error: np.ndarray
    score: np.ndarray
    kept: Sequence[TensorStatistics]
    unit: str

    @property
    def counts(self) -> np.ndarray:
        return np.array([tensor.count for tensor in self.tensors], float)

    @property
    def kept_bytes(self) -> int:
        return sum(tensor.count * tensor.dtype.itemsize for tensor in self.kept)

    def single(self, index: int) -> tuple[float, float]:
        """Mean bits and score of one format for all tensors; inf where some cannot have it."""
        return float(self.counts @ self.bits[:, index] / self.counts.sum()), float(self.score[:, index].sum())

    def curve(self, groups: Sequence[int] | None = None) -> tuple[np.ndarray, np.ndarray]:
        """(mean bits, score) of the best choices, at the budgets where the next format for some tensor becomes affordable."""
        return pareto(self.counts, self.bits, self.score, groups)


class Plan(NamedTuple):
    """A format for every tensor.

    Attributes:
      tensors, kept: as in `Measured`; formats: of each tensor.
      bits, error, score: (tensors,) of its format.
      mean_bits: per quantized weight; gap: as in `FormatChoice`.
    """

    tensors: Sequence[TensorStatistics]
    formats: Sequence[StandardFormat]
    bits: np.ndarray
    error: np.ndarray
    score: np.ndarray
    kept: Sequence[TensorStatistics]
    mean_bits: float
    gap: float
    unit: str

    def format(self, index: int) -> StandardFormat:
        return self.formats[index]

    @property
    def bytes(self) -> int:
        """Of all tensors as stored, those that are kept among them."""
        quantized = sum(float(t.count * b) for t, b in zip(self.tensors, self.bits, strict=True))
        return int(np.ceil(quantized / 8)) + sum(t.count * t.dtype.itemsize for t in self.kept)


def measure_formats(
    path: str | Path,
    menu: Sequence[StandardFormat],
    fisher: str | Path | None = None,
    progress: Callable[[int], None] = lambda weights: None,
    moments: str | Path | None = None,
) -> Measured:
    """Quantize every tensor in every format of the menu, and look; memory is bounded by one tensor.

    `progress` is called with the number of weights of each tensor when it is done.

    Args:
      fisher: file of the diagonal Fisher information of the same tensors.
      moments: file of E x xᵀ, (inputs, inputs), of layers by the name of their weights, as `layers.write_moments` writes it.

    Raises:
      FileNotFoundError, ValueError: a file that cannot be read; NaN; nothing to quantize; both fisher and moments; a Fisher
        file without one of the tensors, with another shape, or with negative entries; moments of another size.
    """
    if fisher is not None and moments is not None:
        raise ValueError("either fisher or moments must be given, got both")
    if not menu:
        raise ValueError("menu must name at least one format, got none")
    tensors, kept, rows = [], [], []
    with open_weights(path) as weights, read_fisher(fisher) as information, read_moments(moments) as moment:
        for name in weights.names:
            stored = weights.read(name)
            found = statistics(name, stored)
            if not is_matrix(stored, found):
                kept.append(found)
            else:
                array = widened(stored)
                F = information(name, stored.shape)
                found = found._replace(fisher=None if F is None else float(np.mean(F, dtype=np.float64)))
                tensors.append(found)
                H = moment(name, stored.shape)
                loss = _of_outputs(array, H) if moments is not None else _of_weights(F)
                rows.append([_tried(array, loss, each) for each in menu])
            progress(stored.size)
    if not tensors:
        raise ValueError("no tensor to quantize: none is floating, of two axes or more, and not all zeros")
    bits, error, score = np.moveaxis(np.array(rows), -1, 0)
    unit = "output error" if moments is not None else "squared error" if fisher is None else "nats"
    return Measured(tensors, tuple(menu), bits, error, score, kept, unit)


_Loss = Callable[[np.ndarray, slice], float]
"""Of errors of some rows of a matrix, and which."""


def _of_weights(fisher: Any) -> _Loss:
    def loss(lost: np.ndarray, rows: slice) -> float:
        total = np.sum(np.square(lost), dtype=np.float64)
        if fisher is None:
            return float(total)
        if np.size(fisher) == 1:
            return float(total * np.ravel(fisher)[0] / 2)
        F = fisher.reshape(-1, fisher.shape[-1])[rows]
        return float(np.sum(F * np.square(lost), dtype=np.float64) / 2)

    return loss


def _of_outputs(array: np.ndarray, moment: np.ndarray | None) -> _Loss:
    flat = array.reshape(-1, array.shape[-1]).astype(np.float32)

    def power(x: np.ndarray) -> float:
        of_inputs = x if moment is None else x @ moment
        return float(np.sum(of_inputs * x, dtype=np.float64))

    whole = power(flat)
    return lambda lost, rows: power(lost) / whole


def _tried(array: np.ndarray, loss: _Loss, fmt: StandardFormat) -> tuple[float, float, float]:
    """Bits, Rel and score."""
    flat = array.reshape(-1, array.shape[-1])
    bits = fmt.stored_bits(array.shape)
    if flat.shape[1] % fmt.block:
        return bits, np.nan, np.inf
    rows = slice(None, None, -(-flat.size // _MOST))
    some = flat[rows].astype(np.float32)
    lost = quantize(some, fmt).dequantize() - some
    square = float(np.sum(np.square(some), dtype=np.float64))
    total = float(np.sum(np.square(lost), dtype=np.float64))
    return bits, float(np.sqrt(total / square)) if square > 0 else np.nan, loss(lost, rows) * len(flat) / len(some)


def choose(
    measured: Measured,
    mean_bits: float | None = None,
    size: float | None = None,
    groups: Sequence[int] | None = None,
    pinned: Mapping[str, str] | None = None,
) -> Plan:
    """The formats of least total score within a budget: bits per quantized weight, or bytes of everything.

    Args:
      groups: (tensors,) labels: tensors of one label get one format.
      pinned: names of formats for names of tensors.

    Raises:
      ValueError: not one budget; one below the least possible, which the message has; pins of what is not there.
    """
    if (mean_bits is None) == (size is None):
        raise ValueError(f"either mean_bits or size must be given, got mean_bits {mean_bits}, size {size}")
    total = measured.counts.sum()
    if size is not None:
        mean_bits = 8 * (size - measured.kept_bytes) / total
        least = np.where(np.isfinite(measured.score), measured.bits, np.inf).min(1) @ measured.counts
        if mean_bits * total < least:
            need = int(np.ceil(least / 8)) + measured.kept_bytes
            raise ValueError(f"size must be at least {need:,} bytes, the least possible, got {size:,.0f}")
    assert mean_bits is not None
    names, formats = [t.name for t in measured.tensors], [each.name for each in measured.formats]
    pins = {}
    for name, fmt in (pinned or {}).items():
        if name not in names or fmt.upper() not in formats:
            what = (
                f"a tensor of the file, got {name!r}" if name not in names else f"to a format of the menu, got {fmt!r}"
            )
            raise ValueError(f"pinned must map {what}")
        pins[names.index(name)] = formats.index(fmt.upper())
    found = choose_formats(measured.counts, measured.bits, measured.score, mean_bits, groups=groups, pinned=pins)
    return planned(measured, found)


def planned(measured: Measured, found: FormatChoice) -> Plan:
    rows = np.arange(len(measured.tensors))
    bits, error, score = (x[rows, found.choice] for x in (measured.bits, measured.error, measured.score))
    formats = [measured.formats[j] for j in found.choice]
    return Plan(measured.tensors, formats, bits, error, score, measured.kept, found.mean_bits, found.gap, measured.unit)
