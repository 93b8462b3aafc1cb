"""The least error that levels allow a layer, whatever the algorithm.  theory 9, 10

    min over ŵ in levels^n of (ŵ − w)ᵀ H (ŵ − w),      w normal, H turned at random,

is the ground state of given data with projections b = H w.  Lowering the temperature, replica symmetry holds down to where the
entropy vanishes, and the free energy there is the least energy, if it is stable there.  If not, one step of breaking at zero
temperature has it.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int
from scipy.optimize import brentq

from replicajax import _checks
from replicajax.codebooks import Codebook
from replicajax.formats import BlockFormat
from replicajax.layers._layer import Layer
from replicajax.layers._scales import as_format
from replicajax.models import GivenData
from replicajax.replica import solve

_WARM, _COLD = 1e-2, 1e8
"""Of beta times the mean energy that rounding leaves: where the entropy is looked at."""


class Optimum(NamedTuple):
    error: Float[Array, ""]
    """Relative, of the outputs."""
    beta: Float[Array, ""]
    """Inverse temperature at which the entropy vanishes."""
    breaking: Int[Array, ""]
    """0: replica symmetry is stable there.  1: one step of breaking at zero temperature."""
    replicon: Float[Array, ""]
    """Of replica symmetry there."""
    converged: Bool[Array, ""]


def optimum_error(layer: Layer, fmt: Codebook | BlockFormat) -> Float[Array, ""]:
    """Of the best codeword, of normal weights in axes turned at random; NaN where it is not found.

    Differentiable in levels and eigenvalues, by the free energy at fixed temperature.

    Args:
      fmt: levels in units of the RMS of each row.

    Raises:
      TypeError, ValueError: not a layer; a format with other scales; numbers not known (inside jit).
    """
    found = optimum(layer, fmt)
    return jnp.where(found.converged, found.error, jnp.nan)


def optimum(layer: Layer, fmt: Codebook | BlockFormat) -> Optimum:
    """What `optimum_error` is, and how it was found; arguments and errors as there."""
    _checks.instance("layer", layer, Layer, "layers.Layer(H)")
    fmt = as_format(fmt)
    if fmt.scaling != "rms" or fmt.block_size != "channel":
        raise ValueError(f"fmt must have levels in units of the RMS of each row for the optimum, got {fmt}")
    task, book, unit = _ground_states(layer, fmt)
    beta = _freezing(task, book)
    cold = solve(task, book, beta)
    breaking = jnp.asarray(~cold.stable, int)
    best = cold if bool(jax.lax.stop_gradient(cold).stable) else solve(task, book, jnp.inf, breaking=1)
    return Optimum(2 * best.free_energy * unit, beta, breaking, cold.replicon, best.converged)


@eqx.filter_jit
def _ground_states(layer: Layer, fmt: BlockFormat) -> tuple[GivenData, Codebook, Array]:
    """Eigenvalues of mean 1, and what a free energy of theirs is in units of the outputs."""
    eigenvalues = layer.eigenvalues
    unit = eigenvalues.mean()
    task = GivenData.of_form(eigenvalues / unit, eigenvalues / unit)
    levels = jnp.asarray(fmt.codebook.levels, eigenvalues.dtype) * fmt.multiplier
    return task, eqx.tree_at(lambda book: book.levels, fmt.codebook, levels), unit * layer.inputs / layer.output_square


@eqx.filter_custom_jvp
def _freezing(task: GivenData, book: Codebook) -> Float[Array, ""]:
    """Inverse temperature at which the entropy vanishes, where the free energy is largest and has no derivative in it."""
    if _checks.is_traced((task, book)):
        raise ValueError(
            "the optimum must be asked for outside jit and vmap, where its temperature can be searched for"
        )
    gaps = np.diff(np.asarray(book.levels))

    def entropy(log_beta: float) -> float:
        return float(solve(task, book, np.exp(log_beta)).entropy)

    unit = float((gaps**2).mean()) / 24
    low, high = np.log(_WARM / unit), np.log(_COLD / unit)
    start = low
    while entropy(start + 1) > 0:
        start += 1
        if start >= high:
            return jnp.asarray(np.exp(start))  # white inputs: weights find their levels one by one
    root: Any = brentq(entropy, start, start + 1, xtol=1e-12)
    return jnp.asarray(np.exp(root))


@_freezing.def_jvp
def _freezing_jvp(primals, tangents):
    del tangents
    beta = _freezing(*primals)
    return beta, jnp.zeros_like(beta)
