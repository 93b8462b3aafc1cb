"""The levels that are best for what a layer is quantized by: rounding's are Lloyd's, GPTQ's follow from its state evolution.

Columns that GPTQ rounds late are wider by what they inherit, so that its levels reach further than those of rounding; the
best codeword's, whatever finds it, follow from the free energy at which its entropy vanishes.  theory 10, 12
"""

from __future__ import annotations

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike

from replicajax import _checks
from replicajax.codebooks import Codebook
from replicajax.formats import BlockFormat
from replicajax.layers import Layer, gptq_error, optimum, rounding_error
from replicajax.search._levels import At, Shape, checked, least, shape_of, started

ALGORITHMS = ("rounding", "gptq", "optimum")
_WIDTHS = (2.0, 2.5, 3.2, 4.0)
"""Of the uniform codebook that the search starts from, at 2, 3, 4 bits and beyond."""
_EXPONENTS = (1.0, 1.3)
_APART = 1e-4
"""Parts of the largest level between points whose slopes are compared."""


class LayerCodebook(NamedTuple):
    """Attributes:
    levels: (K,), in units of the RMS of each row; of blocks, of what their format has.
    error: relative, of the outputs; gradient: (K,) of it, not 0 where constraints bind.
    curvature: least eigenvalue of its Hessian in the directions that symmetry and constraints leave; infinite if none.
    minima: how many different ones the starts ended in; spare: levels that have met another.
    converged: the gradient along what is free is below 1e-7 of the error, the curvature positive, and constraints hold.
    fmt: the levels in their format: what `layers.gptq` and the errors of a layer take.
    """

    levels: np.ndarray
    error: float
    gradient: np.ndarray
    curvature: float
    minima: int
    spare: int
    converged: bool
    fmt: BlockFormat

    @property
    def codebook(self) -> Codebook:
        return self.fmt.codebook

    def __str__(self) -> str:
        remark = "" if self.converged else ", not converged"
        return f"best levels {_checks.brief(self.levels)} ({self.minima} minima seen{remark}), relative error {self.error:.6g}"


def layer_codebook(
    layer: Layer,
    count: int,
    symmetric: bool,
    start: ArrayLike | None,
    constraints: Any,
    *,
    algorithm: str = "gptq",
    fmt: BlockFormat | None = None,
    damping: ArrayLike = 0.01,
    order: str = "natural",
) -> LayerCodebook:
    """As `optimal_codebook` has it."""
    _checks.choice("algorithm", algorithm, ALGORITHMS)
    if fmt is not None:
        _checks.instance("fmt", fmt, BlockFormat, "formats.BlockFormat(formats.nf4(), 64)")
    if algorithm == "rounding" and layer.given is not None:
        raise ValueError(
            "algorithm 'rounding' needs a law: the error of weights that are rounded one by one jumps; "
            "give the layer law=distributions.fit(weights)"
        )
    shape = shape_of(count, bool(symmetric), constraints)
    largest = None if fmt is None or fmt.scaling == "rms" else fmt.scaling
    if largest is not None:
        shape = checked(_with_end(shape, largest))
    starts = [_power(count, symmetric, largest, exponent) for exponent in _EXPONENTS]
    if start is not None:
        starts.insert(0, started(start, shape))
    like = BlockFormat(Codebook(starts[0]), "channel", "rms")
    if fmt is not None:  # with as many levels as are asked for
        like = eqx.tree_at(lambda fmt: fmt.codebook, fmt, Codebook(starts[0]))
    objective = _OfLayer(layer, like, algorithm, damping, order, starts[0])
    found, ends = least(objective, starts, shape)
    levels = np.asarray(found)
    return LayerCodebook(
        levels,
        objective.at(levels, shape.frame).value,
        np.asarray(ends.gradient),
        float(ends.curvature),
        int(ends.minima),
        int(ends.spare),
        bool(ends.flat),
        _formatted(like, Codebook(levels).levels),
    )


def _with_end(shape: Shape, scaling: str) -> Shape:
    """Only ratios of levels matter where the largest of a block has the largest level."""
    ends = np.eye(shape.count)[[0, -1]]
    if scaling == "absmax":
        if not shape.symmetric:
            raise ValueError("symmetric must be True where scaling is 'absmax': a block's largest has either sign")
        more, low, high = ends[1:], [1.0], [1.0]
    else:
        if shape.symmetric:
            raise ValueError("symmetric must be False where scaling is 'signmax': that is what the sign is for")
        more, low, high = ends, [-1.0, -np.inf], [-1.0, 1.0]
    rows = np.concatenate([shape.rows, more])
    return shape._replace(rows=rows, least=np.append(shape.least, low), most=np.append(shape.most, high))


def _power(count: int, symmetric: bool, largest: str | None, exponent: float) -> np.ndarray:
    grid = np.linspace(-1, 1, count)
    if largest == "signmax":
        grid = np.linspace(-1, 1 - 2 / count, count)
    elif not symmetric:
        grid = grid + 1e-3  # not a saddle of what a symmetric one may be
    width = _WIDTHS[min(int(np.ceil(np.log2(count))), 5) - 2] if count > 2 else 1.0
    return (1.0 if largest else width) * np.sign(grid) * np.abs(grid) ** exponent


def _formatted(like: BlockFormat, levels: Array) -> BlockFormat:
    return eqx.tree_at(lambda fmt: fmt.codebook, like, eqx.tree_at(lambda book: book.levels, like.codebook, levels))


class _OfLayer:
    """The relative error of a layer's outputs; second derivatives are differences of the first."""

    length = 1.0

    def __init__(
        self, layer: Layer, like: BlockFormat, algorithm: str, damping: ArrayLike, order: str, start: np.ndarray
    ):
        def error(levels: Array) -> Array:
            fmt = _formatted(like, levels)
            if algorithm == "rounding":
                return rounding_error(layer, fmt)
            if algorithm == "gptq":
                return gptq_error(layer, fmt, damping, order)
            found = optimum(layer, fmt)
            return jnp.where(found.converged, found.error, jnp.nan)

        self._slope = jax.value_and_grad(error)
        self.unit = float(error(jnp.asarray(start)))

    def at(self, levels: np.ndarray, directions: np.ndarray, second: bool = False) -> At:
        value, slope = self._slope(jnp.asarray(levels))
        usage = np.ones(levels.size)
        if not np.isfinite(value):
            return At(np.inf, np.zeros(directions.shape[1]), None, usage)
        curvature = None
        if second:
            h = _APART * np.abs(levels).max()
            aside = [(levels + h * d, levels - h * d) for d in directions.T]
            rows = [
                (self._slope(jnp.asarray(up))[1] - self._slope(jnp.asarray(down))[1]) / (2 * h) for up, down in aside
            ]
            curvature = np.asarray(rows).reshape(len(rows), -1) @ directions
            curvature = (curvature + curvature.T) / 2
        return At(float(value), np.asarray(slope) @ directions, curvature, usage)
