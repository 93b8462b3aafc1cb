"""Scales that are quantized themselves ("double quantization"): of 256 blocks, less the mean of all, by a code of 8 bits.

    s' = mean + M C((s − mean)/M),      M = max of |s − mean| over the 256,      C: to the nearest of 256 numbers in (−1, 1],

that lie the closer the smaller they are.  Codes of weights are chosen by s, so that with Q in units of the scale

    E (x − s' Q)² = E (x − s Q)² + 2 E (s' − s) Q (s Q − x) + E (s' − s)² Q²,

where s' − s, given s, depends on the largest deviation of the other 255 alone.

Source: QLoRA (2305.14314); the code is the dynamic map of bitsandbytes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from replicajax.distributions import Symmetric, cell_edges, thresholds
from replicajax.formats._maximum import maximum_nodes

TOGETHER = 256
"""Scales that share a unit."""
_RANKS, _DEVIATIONS = 512, 4096
"""Quantiles of the largest deviation of the others; points at which its law is known."""


def _dynamic_map() -> np.ndarray:
    """Seven decades: the largest has 64 numbers of either sign, every next one half as many; and 0 and 1."""
    found = [0.0, 1.0]
    for decade in range(7):
        edges = np.linspace(0.1, 1, 2 ** (6 - decade) + 1)
        middle = (edges[1:] + edges[:-1]) / 2 * 10.0**-decade
        found += [*middle, *-middle]
    return np.sort(found)


DYNAMIC = _dynamic_map()
_LIMITS = (DYNAMIC[1:] + DYNAMIC[:-1]) / 2


@dataclass(frozen=True)
class DoubleScales:
    """Attributes: codes, one a block; units, one for 256 of them; mean, of all."""

    codes: np.ndarray
    units: np.ndarray
    mean: np.float32

    @property
    def size(self) -> int:
        return self.codes.size

    @property
    def nbytes(self) -> int:
        """Of codes, units and the mean."""
        return self.codes.nbytes + self.units.nbytes + self.mean.nbytes

    def astype(self, dtype: Any) -> np.ndarray:
        """The scales they stand for."""
        units = np.repeat(self.units, TOGETHER)[: self.size]
        return (self.mean + units * DYNAMIC.astype(np.float32)[self.codes]).astype(dtype)


def doubled(scales: np.ndarray) -> DoubleScales:
    mean = np.float32(scales.mean() if scales.size else 0.0)
    off = scales.astype(np.float32) - mean
    rows = np.pad(off, (0, -off.size % TOGETHER)).reshape(-1, TOGETHER)
    units = np.abs(rows).max(1, initial=0.0)
    codes = np.searchsorted(_LIMITS.astype(np.float32), rows / np.where(units == 0, 1, units)[:, None])
    return DoubleScales(codes.astype(np.uint8).ravel()[: off.size], units, mean)


@eqx.filter_jit
def double_noise(law: Symmetric, B: Array, levels: Array, edges: Array) -> Array:
    """What it adds to E err² of blocks of B divided by their largest; levels in units of where that goes."""
    M, log_measure = maximum_nodes(B, edges, law.largest)
    cells = cell_edges(levels * M[:, None], -M, M)
    log_F = law.magnitude_log_cdf(M)
    weight = jnp.exp(log_measure + law.log_pdf(M) + (B - 1) * log_F)
    zeroth, first, _ = law.whole.cell_moments(cells)
    square, product = (
        (each / jnp.exp(log_F)[:, None]) @ power for each, power in ((zeroth, levels**2), (first, levels))
    )
    ends = jnp.stack([grid[(thresholds(grid) < 1).sum()] for grid in (levels, -levels[::-1])])
    slope = ((B - 1) * (M * square - product) + M * (ends * (ends - 1)).mean()) / B
    curvature = ((B - 1) * square + (ends**2).mean()) / B

    mean = weight @ M
    spread = mean * jnp.exp(jnp.linspace(jnp.log(1e-3), edges[-1] - jnp.log(mean), _DEVIATIONS))

    def below(s: Array) -> Array:
        return jnp.where(s > 0, jnp.exp(B * law.magnitude_log_cdf(jnp.where(s > 0, s, 1.0))), 0.0)

    others = (below(mean + spread) - below(mean - spread)) ** (TOGETHER - 1)
    largest = jnp.interp((jnp.arange(_RANKS) + 0.5) / _RANKS, others, spread)
    off = (M - mean)[:, None]
    unit = jnp.maximum(jnp.abs(off), largest)
    code = jnp.asarray(DYNAMIC, M.dtype)[jnp.searchsorted(jnp.asarray(_LIMITS, M.dtype), off / unit)]
    error = unit * code - off
    return weight @ (2 * error.mean(1) * slope + (error**2).mean(1) * curvature)
