"""The best scale of a format for an algorithm, by gradient: rounding wants another than GPTQ, whose later columns are wider."""

from __future__ import annotations

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike
from scipy.optimize import minimize

from replicajax import _checks
from replicajax.codebooks import Codebook
from replicajax.formats import BlockFormat
from replicajax.layers._errors import gptq_error, rounding_error
from replicajax.layers._layer import Layer
from replicajax.layers._scales import as_format

ALGORITHMS = ("gptq", "rounding")
_FAR, _SCANNED = 3.0, 30
"""How far the log of a scale is scanned, and in how many steps."""


def optimal_scale(
    layer: Layer,
    fmt: Codebook | BlockFormat,
    algorithm: str = "gptq",
    damping: ArrayLike = 0.01,
    order: str = "natural",
) -> BlockFormat:
    """The format with the multiplier of its scales at which the predicted error is least.

    Args:
      fmt: a block format, or levels in units of the RMS of each row, from whose scale the search begins.
      algorithm: whose error: "gptq" or "rounding".
      damping, order: as in `gptq_error`.

    Raises:
      TypeError, ValueError: as `gptq_error` does.
    """
    fmt = as_format(fmt)
    _checks.choice("algorithm", algorithm, ALGORITHMS)

    def error(log_multiplier: Array) -> Array:
        scaled = rescaled(fmt, fmt.multiplier * jnp.exp(log_multiplier))
        return gptq_error(layer, scaled, damping, order) if algorithm == "gptq" else rounding_error(layer, scaled)

    stepped = algorithm == "rounding" and layer.given is not None
    return rescaled(fmt, fmt.multiplier * np.exp(_least_of_steps(error) if stepped else _least(error)))


def rescaled(fmt: BlockFormat, multiplier: ArrayLike) -> BlockFormat:
    return eqx.tree_at(lambda fmt: fmt.multiplier, fmt, jnp.asarray(multiplier))


def _least(error: Callable[[Array], Array]) -> float:
    """Of the log of the error, whose slope is of order one."""

    def log_error(x: np.ndarray) -> tuple[float, np.ndarray]:
        value, slope = jax.value_and_grad(lambda x: jnp.log(error(x)))(jnp.asarray(x[0]))
        return float(value), np.array([float(slope)])

    return float(minimize(log_error, np.zeros(1), jac=True, method="L-BFGS-B", options={"ftol": 1e-9}).x[0])


def _least_of_steps(error: Callable[[Array], Array]) -> float:
    """Of known weights, whose error jumps wherever one changes its level: a scan, and a second one about its least."""
    found = 0.0
    for reach in (_FAR, _FAR / _SCANNED * 2):
        tried = found + np.linspace(-reach, reach, 2 * _SCANNED + 1)
        found = float(tried[np.argmin([float(error(jnp.asarray(x))) for x in tried])])
    return found
