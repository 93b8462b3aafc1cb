"""A weight file and a menu: what every format does to every tensor, with the weights in hand, and the choice within a budget.

score_t,j = sum of squared errors, or with Fisher information F its share of KL, ½ sum_i F_i d_i² in nats.      (theory 4.3)
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from replicajax.formats._choice import choose_formats, labels_of, pareto
from replicajax.formats._files import open_weights
from replicajax.formats._standard import StandardFormat
from replicajax.formats._statistics import TensorStatistics, is_matrix, read_fisher, read_moments, statistics, widened
from replicajax.formats._tensor import Rounding, rounded_to_nearest

_MOST = 2**22
"""Weights of a tensor that are tried: of larger ones, rows at even distances."""
_ROWS = 2**12
"""In float64 at a time."""


class Measured(NamedTuple):
    """Of every tensor and format.

    Attributes:
      tensors: those to quantize: floating, of two axes or more, not all zeros.
      formats: the menu.
      bits: (tensors, formats) per weight, as stored.
      error: (tensors, formats), RMS error over RMS; NaN where rows are no multiple of the format's blocks.
      score: (tensors, formats), squared error, or nats of KL, or sum of the outputs' relative errors; inf there.
      kept: all other tensors.
      unit: of the score: "squared error", "nats", "output error" or "measured".
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

    def pinned(self, pins: Mapping[str, str]) -> "Measured":
        """Some tensors have one format only.

        Raises:
          ValueError: a tensor or format that is not here, or that does not fit the other.
        """
        score = self.score.copy()
        names, formats = [t.name for t in self.tensors], [each.name for each in self.formats]
        for name, wanted in pins.items():
            fmt = str(getattr(wanted, "name", wanted))
            if name not in names:
                raise ValueError(f"pinned must map a tensor of the file, got {name!r}")
            if fmt.upper() not in formats:
                raise ValueError(f"pinned must map to a format of the menu, got {fmt!r}")
            row, only = names.index(name), formats.index(fmt.upper())
            if not np.isfinite(score[row, only]):
                raise ValueError(f"pinned must map {name!r} to a format whose blocks fill its rows, got {fmt!r}")
            score[row, np.arange(len(formats)) != only] = np.inf
        return self._replace(score=score)

    def least_bits(self, groups: Sequence[int] | None = None) -> float:
        """Mean, of the formats of fewest bits.

        Raises:
          ValueError: a tensor, or a group, that no format fits.
        """
        labels, least = labels_of(groups, len(self.tensors)), 0.0
        for label in range(labels.max() + 1):
            of = labels == label
            bits = np.where(np.isfinite(self.score[of]), self.bits[of], np.inf).T @ self.counts[of]
            if not np.isfinite(bits).any():
                names = ", ".join(repr(self.tensors[i].name) for i in np.flatnonzero(of)[:4])
                rows = self.tensors[int(np.argmax(of))].shape[-1]
                raise ValueError(f"menu must have a format for {names}, whose rows of {rows} fill the blocks of none")
            least += bits.min()
        return least / float(self.counts.sum())

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
    rounding: Rounding = rounded_to_nearest,
) -> Measured:
    """Quantize every tensor in every format of the menu, and look; memory is bounded by one tensor.

    `progress` is called with the number of weights of each tensor when it is done.

    Args:
      fisher: file of the diagonal Fisher information of the same tensors: scores are nats.
      moments: file of E x xᵀ, (inputs, inputs), of layers by the name of their weights, as `layers.write_moments` writes it:
        scores are relative errors of outputs; with `fisher` besides, nats by the Fisher information of outputs, A_r of row r:

            KL = sum_r A_r ΔW_r H ΔW_rᵀ / 2,      A_r = sum_j F_rj / tr H,                                  (theory 10)

        which knows that errors of a row add up; of tensors without moments, by F alone.
      rounding: what makes the codes, as `layers.gptq_rounding`.

    Raises:
      FileNotFoundError, ValueError: a file that cannot be read; NaN; nothing to quantize; a Fisher file
        without one of the tensors, with another shape, or with negative entries; moments of another size.
    """
    if not menu:
        raise ValueError("menu must name at least one format, got none")
    tensors, kept, rows, matched = [], [], [], False
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
                matched |= H is not None
                if F is not None and H is not None:
                    loss = _of_informed_outputs(F, H)
                else:
                    loss = _of_outputs(array, H) if F is None and moments is not None else _of_weights(F)
                rows.append([_tried(name, array, loss, each, rounding) for each in menu])
            progress(stored.size)
    if moments is not None and not matched:
        raise ValueError(f"moments {str(moments)!r} must be of weights of {str(path)!r}, got no name in common")
    if not tensors:
        raise ValueError("no tensor to quantize: none is floating, of two axes or more, and not all zeros")
    bits, error, score = np.moveaxis(np.array(rows), -1, 0)
    unit = "nats" if fisher is not None else "squared error" if moments is None else "output error"
    return Measured(tensors, tuple(menu), bits, error, score, kept, unit)


_Loss = Callable[[np.ndarray, slice], float]
"""Of errors of some rows of a matrix, and which."""


def _of_weights(fisher: Any) -> _Loss:
    def loss(lost: np.ndarray, rows: slice) -> float:
        total = np.sum(np.square(lost))
        if fisher is None:
            return float(total)
        if np.size(fisher) == 1:
            return float(total * np.ravel(fisher)[0] / 2)
        F = fisher.reshape(-1, fisher.shape[-1])[rows]
        return float(np.sum(F.astype(np.float64) * np.square(lost)) / 2)

    return loss


def _of_outputs(array: np.ndarray, moment: np.ndarray | None) -> _Loss:
    flat = array.reshape(-1, array.shape[-1])

    def power(x: np.ndarray) -> float:
        return float(np.sum(x * x) if moment is None else np.sum((x @ moment) * x))

    whole = sum(power(flat[i : i + _ROWS].astype(np.float64)) for i in range(0, len(flat), _ROWS))
    return lambda lost, rows: power(lost) / whole if whole > 0 else np.inf


def _of_informed_outputs(fisher: Any, moment: np.ndarray) -> _Loss:
    total = float(np.trace(moment))

    def loss(lost: np.ndarray, rows: slice) -> float:
        if np.size(fisher) == 1:
            A = np.full(len(lost), float(np.ravel(fisher)[0]) * lost.shape[1])
        else:
            A = fisher.reshape(-1, fisher.shape[-1])[rows].astype(np.float64).sum(1)
        return float(A @ np.sum((lost @ moment) * lost, axis=1) / total / 2)

    return loss


def _tried(
    name: str, array: np.ndarray, loss: _Loss, fmt: StandardFormat, rounding: Rounding
) -> tuple[float, float, float]:
    """Bits, Rel and score."""
    flat = array.reshape(-1, array.shape[-1])
    bits = fmt.stored_bits(array.shape)
    if flat.shape[1] % fmt.block:
        return bits, np.nan, np.inf
    rows = slice(None, None, -(-flat.size // _MOST))
    some = flat[rows]
    exact = some.astype(np.float64)
    lost = rounding(name, some, fmt).dequantize().astype(np.float64) - exact
    square = float(np.sum(np.square(exact)))
    error = float(np.sqrt(np.sum(np.square(lost)) / square)) if square > 0 else np.nan
    return bits, error, loss(lost, rows) * len(flat) / len(some)


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
    measured, total = measured.pinned(pinned or {}), measured.counts.sum()
    if size is not None:
        mean_bits = 8 * (size - measured.kept_bytes) / total
        need = int(np.ceil(measured.least_bits(groups) * total / 8)) + measured.kept_bytes
        if size < need:
            raise ValueError(f"size must be at least {need:,} bytes, the least possible, got {size:,.0f}")
    else:
        measured.least_bits(groups)
    assert mean_bits is not None
    found = choose_formats(measured.counts, measured.bits, measured.score, mean_bits, groups=groups)
    rows = np.arange(len(measured.tensors))
    bits, error, score = (x[rows, found.choice] for x in (measured.bits, measured.error, measured.score))
    formats = [measured.formats[j] for j in found.choice]
    return Plan(measured.tensors, formats, bits, error, score, measured.kept, found.mean_bits, found.gap, measured.unit)
