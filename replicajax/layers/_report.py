"""All that is predicted of a layer at one number of bits, what it was assumed to be, and, if asked, what running it gives."""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike

from replicajax import _checks
from replicajax.codebooks import Codebook
from replicajax.formats import BlockFormat
from replicajax.layers._errors import gptq_error, gptq_evolution
from replicajax.layers._gptq import gptq
from replicajax.layers._laws import law_of
from replicajax.layers._layer import Layer
from replicajax.layers._limit import rate_limit, rate_needed
from replicajax.layers._nearest import output_error, round_to_nearest
from replicajax.layers._optimum import optimum
from replicajax.layers._scales import as_format

_OUT_OF_RANGE, _ADD_UP, _ONE_ROW = 0.1, 0.05, 0.5
"""Shares from which a remark is due: of GPTQ's error, of rounding's, of the outputs' power."""
_LEANING = 0.02
"""Share of the rotated error in doubt."""


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
      rotated: of GPTQ in axes turned at random, from the spectrum alone.
      optimum: of the best codeword there; NaN if not found.
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
      measure: also run rounding, GPTQ, and GPTQ turned at random by `seed`.

    Raises:
      TypeError, ValueError: as `Layer` and `gptq_error` do.
    """
    layer = Layer(H, weights=_checks.matrix("W", W))
    return report_of(layer, Layer(layer.eigenvalues, rotated=True), fmt, damping, order, measure, seed)


def report_of(
    layer: Layer,
    turned: Layer,
    fmt: Codebook | BlockFormat,
    damping: ArrayLike,
    order: str,
    measure: bool,
    seed: int,
) -> LayerReport:
    """Of a layer of known weights and the one of its eigenvalues, for as many formats as there are."""
    fmt, weights = as_format(fmt), layer.given
    assert weights is not None
    unit = float(turned.output_square / layer.output_square)  # errors of turned layers are of tr H
    evolution, rounded = gptq_evolution(layer, fmt, damping, order), round_to_nearest(weights, fmt)
    rotated, best = gptq_error(turned, fmt, damping), optimum(turned, fmt)
    rounding = float(output_error(rounded, weights, layer.moment))
    errors = rounding, float(evolution.error), float(rotated) * unit
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
        limit=float(rate_limit(turned, fmt.bits)) * unit,
        to_gain=fmt.bits - float(rate_needed(turned, min(errors) / unit)),
        remarks=_remarks(layer, turned, fmt, float(evolution.overloaded), rounded, rounding, errors[2] / unit),
        run=run,
    )


def _remarks(
    layer: Layer, turned: Layer, fmt: BlockFormat, overloaded: float, rounded: Array, nearest: float, rotated: float
) -> tuple[Remark, ...]:
    W, H = np.asarray(layer.given), np.asarray(layer.moment)
    powers = np.sum((W @ H) * W, axis=1)
    apart = float(np.sum((np.asarray(rounded) - W) ** 2 @ np.diag(H)) / powers.sum())
    top = powers.max() / powers.sum()
    found = []
    if overloaded > _OUT_OF_RANGE:
        found.append(Remark(f"{overloaded:.0%}", "of GPTQ's error is weights out of range"))
    if abs(nearest / apart - 1) > _ADD_UP:
        found.append(Remark(f"x{nearest / apart:.2f}", "on rounding's error, as columns' errors correlate"))
    if top > _ONE_ROW:
        found.append(Remark(f"{top:.0%}", "of the outputs' power is one output's"))
    # Errors of few levels follow the weights, which theory takes for isotropic; a quarter is what real layers showed.
    power = float(layer.output_square / layer.trace)
    gain = float(law_of(turned, fmt).cost(jnp.zeros(()), jnp.ones(())).gain)
    if gain**2 / 4 * abs(1 - 1 / power) / rotated > _LEANING:
        towards = "loud" if power > 1 else "quiet"
        found.append(
            Remark(f"x{power:.2f}", f"is the outputs' power, as weights favour {towards} inputs: rotated is rough")
        )
    return tuple(found)
