"""All that is predicted of a layer at one number of bits, what it was assumed to be, and, if asked, what running it gives."""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike

from replicajax import _checks
from replicajax.codebooks import Codebook
from replicajax.formats import BlockFormat
from replicajax.layers._errors import gptq_evolution
from replicajax.layers._feedback import Evolution
from replicajax.layers._gptq import gptq
from replicajax.layers._laws import law_of
from replicajax.layers._layer import Layer
from replicajax.layers._limit import rate_limit, rate_needed
from replicajax.layers._nearest import output_error, round_to_nearest
from replicajax.layers._optimum import optimum
from replicajax.layers._rotation import turned_weights
from replicajax.layers._scales import as_format

_OUT_OF_RANGE, _ADD_UP, _ONE_ROW = 0.1, 0.05, 0.5
"""Shares from which a remark is due: of GPTQ's error, of rounding's, of the outputs' power."""
_LEANING, _DOUBT = 2.5, 0.02
"""Power of the outputs, of what isotropic weights have, and the share of the rotated error in doubt, from which it is rough."""


class Run(NamedTuple):
    """Errors of the algorithms themselves."""

    rounding: float
    gptq: float
    rotated: float


class Remark(NamedTuple):
    """An assumption that fails, and the number that says so."""

    number: str
    what: str


class LayerReport(NamedTuple):
    """Relative errors of the outputs, predicted.

    Attributes:
      rounding, gptq: of these very weights.
      rotated: of GPTQ of these weights in axes turned at random.
      optimum: of the best codeword there, from the spectrum alone; NaN if not found.
      limit: of any code of so many bits.
      to_gain: bits that the better of rounding, GPTQ and rotated GPTQ spends above that limit.
      remarks: where an assumption fails.
      run: what running them gives, if that was asked.
    """

    outputs: int
    inputs: int
    bits: float
    rounding: float
    gptq: float
    rotated: float
    optimum: float
    limit: float
    to_gain: float
    remarks: tuple[Remark, ...]
    run: Run | None


def report(
    W: ArrayLike,
    H: ArrayLike,
    fmt: Codebook | BlockFormat,
    damping: ArrayLike = 0.01,
    order: str = "natural",
    measure: bool = False,
    seed: int = 0,
) -> LayerReport:
    """One layer, one format.

    Args:
      W: (outputs, inputs); H: (inputs, inputs), second moment of the inputs.
      fmt: levels in units of the RMS of each row, as a codebook or as `optimal_scale` returns them.
      damping, order: as in `gptq_error`.
      measure: also run rounding, GPTQ, and GPTQ in the axes turned at random.
      seed: of the rotation.

    Raises:
      TypeError, ValueError: as `Layer` and `gptq_error` do.
    """
    return report_of(Views.of(Layer(H, weights=_checks.matrix("W", W)), seed), fmt, damping, order, measure, seed)


class Views(NamedTuple):
    """Of a layer, for as many formats as there are."""

    known: Layer
    turned: Layer
    """Its weights in axes turned at random."""
    spectrum: Layer

    @classmethod
    def of(cls, layer: Layer, seed: int) -> Views:
        return cls(layer, turned_weights(layer, seed), Layer(layer.eigenvalues, rotated=True))


def report_of(
    views: Views, fmt: Codebook | BlockFormat, damping: ArrayLike, order: str, measure: bool, seed: int
) -> LayerReport:
    layer, turned, spectrum = views
    fmt, weights = as_format(fmt), layer.given
    assert weights is not None
    unit = float(spectrum.output_square / layer.output_square)  # errors from spectra are of tr H
    evolution, rounded = gptq_evolution(layer, fmt, damping, order), round_to_nearest(weights, fmt)
    rotated, best = gptq_evolution(turned, fmt, damping), optimum(spectrum, fmt)
    rounding = float(output_error(rounded, weights, layer.moment))
    errors = rounding, float(evolution.error), float(rotated.error)
    run = None
    if measure:
        found = (
            gptq(weights, layer.moment, fmt, damping, order),
            gptq(weights, layer.moment, fmt, damping, order, rotate="orthogonal", seed=seed),
        )
        run = Run(rounding, *(float(output_error(each, weights, layer.moment)) for each in found))
    outputs, inputs = weights.shape
    return LayerReport(
        outputs=outputs,
        inputs=inputs,
        bits=fmt.bits,
        rounding=rounding,
        gptq=errors[1],
        rotated=errors[2],
        optimum=float(jnp.where(best.converged, best.error, jnp.nan)) * unit,
        limit=float(rate_limit(spectrum, fmt.bits)) * unit,
        to_gain=fmt.bits - float(rate_needed(spectrum, min(errors) / unit)),
        remarks=_remarks(views, fmt, (evolution, rotated), rounded, rounding),
        run=run,
    )


def _remarks(
    views: Views, fmt: BlockFormat, evolutions: tuple[Evolution, Evolution], rounded: Array, nearest: float
) -> tuple[Remark, ...]:
    layer = views.known
    W, H = np.asarray(layer.given), np.asarray(layer.moment)
    powers = np.sum((W @ H) * W, axis=1)
    apart = float(np.sum((np.asarray(rounded) - W) ** 2 @ np.diag(H)) / powers.sum())
    top = powers.max() / powers.sum()
    found = []
    for evolution, whose in zip(evolutions, ("GPTQ's", "rotated GPTQ's"), strict=True):
        if evolution.overloaded > _OUT_OF_RANGE:
            found.append(Remark(f"{float(evolution.overloaded):.0%}", f"of {whose} error is weights out of range"))
    if abs(nearest / apart - 1) > _ADD_UP:
        found.append(Remark(f"x{nearest / apart:.2f}", "on rounding's error, as columns' errors correlate"))
    if top > _ONE_ROW:
        found.append(Remark(f"{top:.0%}", "of the outputs' power is one output's"))
    # Errors of few levels follow the weights: by a gain, which is a mean, of weights that lean no more than this.
    power = float(layer.output_square / layer.trace)
    gain = float(law_of(views.spectrum, fmt).alone().gain)
    if power > _LEANING and gain**2 / 4 > _DOUBT * float(evolutions[1].error):
        found.append(
            Remark(f"x{power:.1f}", "is the outputs' power, as weights favour loud inputs: rotated is a rough guess")
        )
    return tuple(found)
