"""Formats with a least and a largest: every block of B weights is mapped from [a, b], its own range, to 2^bits even steps.

With largest magnitude Mx, at b = Mx say, the others' least a is that of B − 1 weights within (−Mx, Mx),

    p(a | Mx) = (B − 1) f(a) P(a, Mx)^(B−2)/P(−Mx, Mx)^(B−1),      P(a, b) the probability between,
    E err² = E_Mx E_a { (B−2)/B · E[(x − Q(x))² | a < x < Mx] + 1/B · (err² of a and of Mx) }.

Levels are a + s q, s = (b − a)/(2^bits − 1), a stored in as many bits as s ("minimum"), or s (q − z) with z = −a/s rounded
("integer"), which has 0 among them.  What rounding a and s for storage adds is an independent error.
"""

from __future__ import annotations

from functools import partial
from typing import final

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from replicajax import _checks
from replicajax.distributions import Symmetric, as_data, cell_edges, distortion_of_cells
from replicajax.formats._maximum import maximum_edges, maximum_nodes
from replicajax.formats._rounded_scales import SCALE_FORMATS, stored_noise

_STORED = ("fp16", "bf16")
_ZEROS = ("minimum", "integer")
_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(8)
_PANELS = 12


@final
class RangeFormat(eqx.Module):
    """2^bits even steps over the range of every block.

    Attributes:
      element_bits: of a code, 1 to 8.
      block_size: weights that share a range, >= 8.
      scale_format: "fp16" or "bf16", of the step, and of the least where that is stored.
      zero: "minimum": the least is stored in the scale format; codes are chosen before it is, as ggml does.  "integer": ranges
        contain 0, whose code is stored, in `element_bits`.
    """

    element_bits: int = eqx.field(static=True)
    block_size: int = eqx.field(static=True)
    scale_format: str = eqx.field(static=True)
    zero: str = eqx.field(static=True)

    def __init__(self, element_bits: int, block_size: int, scale_format: str = "fp16", zero: str = "minimum"):
        """Raises ValueError, TypeError: what is not as above."""
        self.element_bits = _checks.integer("element_bits", element_bits, 1, 8)
        self.block_size = _checks.integer("block_size", block_size, 8, 2**20)
        self.scale_format = _checks.choice("scale_format", scale_format, _STORED)
        self.zero = _checks.choice("zero", zero, _ZEROS)

    @property
    def bits(self) -> float:
        """Per weight, with both numbers of a block."""
        return self.element_bits + (16 + (16 if self.zero == "minimum" else self.element_bits)) / self.block_size

    def __str__(self) -> str:
        zero = "minima" if self.zero == "minimum" else "zero points"
        return f"{self.element_bits} bits, blocks of {self.block_size}, {self.scale_format} scales and {zero}"


def range_error(law: Symmetric, fmt: RangeFormat) -> Float[Array, ""]:
    """Rel of iid weights; blocks of one sign, some 2^(1−B) of all, are left out."""
    size = jnp.asarray(float(fmt.block_size))
    family = as_data(law, size)
    edges = maximum_edges(family, size)
    steps, noise = 2**fmt.element_bits - 1, stored_noise(SCALE_FORMATS[fmt.scale_format])
    return _range_error(family, size, edges, jnp.asarray(noise), steps, fmt.zero == "integer")


@partial(jax.jit, static_argnums=(4, 5))
def _range_error(law: Symmetric, B: Array, edges: Array, noise: Array, steps: int, integer: bool) -> Array:
    M, log_measure = maximum_nodes(B, edges, law.largest)
    log_F = law.magnitude_log_cdf(M)
    of_M = jnp.exp(log_measure + law.log_pdf(M) + (B - 1) * log_F)
    # t = −a/(b − a), from 0 to 1/2; z jumps between panels.
    cuts = (
        np.append((np.arange(-(-steps // 2)) + 0.5) / steps, 0.5) if integer else np.linspace(0, 0.5, _PANELS + 1)[1:]
    )
    cuts = np.unique(np.append(0.0, np.minimum(cuts, 0.5)))
    half = np.diff(cuts)[:, None] / 2
    t, dt = ((x).ravel() for x in (cuts[:-1, None] + half * (1 + _NODES), half * _WEIGHTS))
    z, t, dt = (jnp.asarray(x, M.dtype) for x in (np.round(t * steps) if integer else t * steps, t, dt))
    q = jnp.arange(steps + 1, dtype=M.dtype)

    def at(M_and_log):
        M, log_F = M_and_log
        s = M / (1 - t) / steps
        a = -t * M / (1 - t)
        levels = s[:, None] * (q - z[:, None])
        cells = cell_edges(levels, a, jnp.full_like(a, M))
        tails = law.whole.tails(cells)
        P = law.whole.cell_moments(cells, tails)[0].sum(-1)
        D = distortion_of_cells(law.whole, levels, cells, tails)
        p = (B - 1) * jnp.exp(law.log_pdf(a) + (B - 2) * (jnp.log(P) - log_F) - log_F) * M / (1 - t) ** 2 * dt
        ends = (a - levels[:, 0]) ** 2 + (M - levels[:, -1]) ** 2
        return p @ ((B - 2) * D / P + ends), p @ a**2

    squares, minima = jax.lax.map(jax.checkpoint(at), (M, log_F))
    square = law.second_moment()
    stored = noise * (square if integer else square + 2 * of_M @ minima)
    return jnp.sqrt((of_M @ squares / B + stored) / square)
