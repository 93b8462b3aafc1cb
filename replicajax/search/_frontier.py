"""The generalization error that quantized learning reaches, against the bits its weights take after coding.  theory 12"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import ArrayLike

from replicajax.models import Task
from replicajax.numerics import falling_hull
from replicajax.replica import unquantized
from replicajax.search._codebook import optimal_codebook
from replicajax.search._width import optimal_width


class RateFrontier(NamedTuple):
    """Attributes, one entry a learned codebook:
    levels: K; weight: price of a bit; bits: after coding; generalization_error.
    codebooks: the levels; converged.
    hull: whether it lies on the lower convex hull of (bits, error): no mixture of others does better.
    uniform: (bits, error) of uniform codebooks at their best width, bits of fixed length.
    fixed: (bits, error) of codebooks learned at no price, bits log2 K of fixed length.
    unquantized: error of ridge regression of the best ridge; NaN where the task has none.
    """

    levels: np.ndarray
    weight: np.ndarray
    bits: np.ndarray
    generalization_error: np.ndarray
    codebooks: tuple[np.ndarray, ...]
    converged: np.ndarray
    hull: np.ndarray
    uniform: np.ndarray
    fixed: np.ndarray
    unquantized: float

    def __str__(self) -> str:
        lines = ["bits after coding   error      levels   price of a bit"]
        on = np.flatnonzero(self.hull)
        for i in on[np.argsort(self.bits[on])]:
            lines.append(
                f"{self.bits[i]:17.4f}   {self.generalization_error[i]:.6f}{self.levels[i]:9d}   {self.weight[i]:.3g}"
            )
        return "\n".join(lines)


def rate_frontier(
    task: Task,
    beta: ArrayLike,
    levels: tuple[int, ...] = (2, 3, 4, 6, 8),
    weights: tuple[float, ...] = (0.0, 0.003, 0.01, 0.03, 0.1),
) -> RateFrontier:
    """eg against bits after coding, over numbers of levels and prices of a bit; prices in units of the signal.

    A codebook with levels to spare stands for the smaller one it has become.

    Raises:
      TypeError, ValueError: as `optimal_codebook` does.
    """
    unit, found, prices = float(task.signal), [], []
    for count in levels:
        start = None
        for price in sorted(weights):
            best = optimal_codebook(task, count, beta, rate_weight=price * unit, start=start)
            start = np.asarray(best.levels) if not int(best.spare) else None
            found.append(best)
            prices.append(price)
    bits = np.array([float(x.rate) for x in found])
    error = np.array([float(x.generalization_error) for x in found])
    fixed = [(np.log2(x.levels.size), e) for x, e, p in zip(found, error, prices, strict=True) if p == 0]
    ridge, hull = unquantized(task), np.zeros(bits.size, bool)
    hull[falling_hull(bits, error)] = True
    uniform = [(b, float(optimal_width(task, b, beta).generalization_error)) for b in (1, 2, 3)]
    return RateFrontier(
        np.array([x.levels.size for x in found]),
        np.array(prices),
        bits,
        error,
        tuple(np.asarray(x.levels) for x in found),
        np.array([bool(x.converged) for x in found]),
        hull,
        np.array(uniform),
        np.array(fixed),
        np.nan if ridge is None else float(ridge.generalization_error),
    )
