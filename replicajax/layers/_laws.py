"""eps(v), what rounding costs a column of weights once GPTQ has added the errors of the columns before it.

    eps(v) = E (x − Q(x))²,      x = w + N(0, v),      E w² = 1 over a row,                                      (theory 10)

of a normal law in closed form; of another law, or of blocks that share a scale, by points on both sides of every threshold,
as a function of v that is then interpolated: Chebyshev's nodes in t = sqrt(v)/(1 + sqrt(v)), of (1 − t)² eps, which is bounded.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import final

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from replicajax.distributions import Normal, Symmetric, as_data, thresholds
from replicajax.formats import BlockFormat
from replicajax.formats._block import SCALE_FORMATS
from replicajax.formats._maximum import maximum_edges, maximum_nodes
from replicajax.layers._cost import SHARPEST, Cost, rounding_cost
from replicajax.layers._layer import Layer

_NODES = 64
_ANGLES = np.pi * (np.arange(_NODES) + 0.5) / _NODES
_T = (1 + np.cos(_ANGLES)) / 2
_V = (_T / (1 - _T)) ** 2
_TO_COEFFICIENTS = np.cos(np.outer(_ANGLES, np.arange(_NODES))) * np.where(np.arange(_NODES) == 0, 1.0, 2.0) / _NODES
_BEYOND = np.concatenate([np.linspace(0.5, 0.02, 13), np.geomspace(0.02, 1e-16, 25)[1:]])
"""Probabilities beyond the ends of the panels of a law."""
_UNIT, _WEIGHT = np.polynomial.legendre.leggauss(6)
_ROW, _ROW_WEIGHT = np.array([-(3**0.5), 0.0, 3**0.5]), np.array([1, 4, 1]) / 6
"""Gauss and Hermite's, for what other weights of a row do to its RMS."""
_HEAVY = 0.3
"""Most of the variance of its square that is asked of them."""
_MANTISSA = 5
"""Of scales that a law can be charged for as if they were exact."""


class Law(eqx.Module):
    """eps and what comes with it, in units of the rows' mean square."""

    @abstractmethod
    def cost(self, v: Float[Array, ""], price: Float[Array, ""]) -> Cost:
        """Where so much is inherited, and an error is that dear."""


@final
class Gaussian(Law):
    """Normal weights; over the RMS of their row they err less by some 2/inputs, which is left out."""

    levels: Float[Array, " levels"]

    def cost(self, v, price):
        del price
        return rounding_cost(self.levels, jnp.zeros((), v.dtype), 1 + v)

    @eqx.filter_jit
    def alone(self) -> Cost:
        """Where nothing is inherited."""
        return rounding_cost(self.levels, *jnp.array([0.0, 1.0], self.levels.dtype))

    def tabulated(self) -> Law:
        return self


@final
class Tabulated(Law):
    """By Chebyshev's coefficients."""

    coefficients: Float[Array, "4 nodes"]

    def cost(self, v, price):
        del price
        return Cost(*_interpolated(self.coefficients, v))


@final
class Points(eqx.Module):
    """Of groups of weights that share a scale: what rows of other RMS, or blocks of other largest weights, come to."""

    levels: Float[Array, " levels"]
    u: Float[Array, " points"]
    share: Float[Array, "groups points"]
    square: Float[Array, " groups"]
    """Of a group's units, in those of the rows' mean square."""

    @eqx.filter_jit
    def alone(self) -> Cost:
        return Cost(*self._summed(self.share @ jnp.stack(rounding_cost(self.levels, self.u, jnp.zeros_like(self.u))).T))

    @eqx.filter_jit
    def tabulated(self) -> Tabulated:
        v = jnp.asarray(_V, self.levels.dtype)
        of_groups = jnp.einsum("gu,cuk->gck", self.share, _tabulated(self.levels, self.u))

        def at(v: Array) -> Array:
            return self._summed(jax.vmap(_interpolated)(of_groups, v / self.square))

        return Tabulated(_coefficients(jax.vmap(at)(v).T))

    def _summed(self, costs: Float[Array, "groups 4"]) -> Float[Array, "4"]:
        one = jnp.ones_like(self.square)
        return (jnp.stack([self.square, one, jnp.sqrt(self.square), one], 1) * costs).sum(0)


def law_of(layer: Layer, fmt: BlockFormat) -> Gaussian | Points:
    """Of a layer whose law is known, as it is of every rotated one.

    Raises:
      ValueError: a format whose scales the law alone does not determine.
    """
    levels = jnp.asarray(fmt.codebook.levels, layer.moment.dtype)
    law = layer.law
    if fmt.scaling == "rms":
        if fmt.block_size is not None and not isinstance(fmt.block_size, str):
            raise ValueError(f"scaling 'rms' in blocks needs the weights of a layer that is not rotated, got {fmt}")
        levels = levels * fmt.multiplier
        return Gaussian(levels) if isinstance(law, Normal) else _of_rows(as_data(law, levels), levels, layer.inputs)
    if SCALE_FORMATS[fmt.scale_format].mantissa < _MANTISSA or fmt.block_size is None:
        raise ValueError(f"fmt needs the weights of a layer that is not rotated, got {fmt}")
    size = jnp.asarray(layer.inputs if isinstance(fmt.block_size, str) else fmt.block_size, levels.dtype)
    levels = levels * fmt.multiplier / abs(fmt.end)
    if fmt.scaling == "signmax":
        levels = jnp.where(fmt.end < 0, -levels[::-1], levels)
    family = as_data(law, (levels, size))
    return _of_blocks(family, levels, size, maximum_edges(family, size), fmt.scaling == "signmax")


def _panels(edges: Array) -> tuple[Array, Array]:
    """Nodes and weights between sorted edges."""
    half, unit, weight = jnp.diff(edges)[:, None] / 2, *(x.astype(edges.dtype) for x in (_UNIT, _WEIGHT))
    return (edges[:-1, None] + half * (1 + unit)).ravel(), (half * weight).ravel()


@eqx.filter_jit
def _of_rows(law: Symmetric, levels: Array, inputs: int) -> Points:
    """In units of the RMS r of a row, r² = 1 + (w² − 1)/inputs and what the other weights vary by, taken for lognormal: large
    weights are not as large in units of r, and a row counts by r²."""
    rms = jnp.sqrt(law.second_moment())
    far = law.upper_quantile(jnp.asarray(_BEYOND, levels.dtype)) / rms
    x, width = _panels(jnp.sort(jnp.concatenate([-far, far, levels, thresholds(levels)])))
    density = width * law.pdf(x * rms) * rms
    mean = 1 + (x**2 - 1) / inputs
    spread = jnp.log1p(jnp.minimum((x**4 @ density - 1) / inputs / mean**2, _HEAVY))
    row, weight = (jnp.asarray(each, x.dtype)[:, None] for each in (_ROW, _ROW_WEIGHT))
    square = mean * jnp.exp(jnp.sqrt(spread) * row - spread / 2)
    share = density * square * weight
    return Points(levels, (x / jnp.sqrt(square)).ravel(), share.reshape(1, -1), jnp.ones(1, x.dtype))


@eqx.filter_jit
def _of_blocks(law: Symmetric, levels: Array, size: Array, edges: Array, signed: bool) -> Points:
    """Given the largest of a block, Mx, the others are within (−Mx, Mx) and it is at 1 (half the time −1, but for `signed`)."""
    M, log_measure = maximum_nodes(size, edges, law.largest)
    log_F = law.magnitude_log_cdf(M)
    weight = jnp.exp(log_measure + law.log_pdf(M) + (size - 1) * log_F)
    inner = jnp.clip(jnp.concatenate([levels, thresholds(levels)]), -1, 1)
    u, width = _panels(jnp.sort(jnp.concatenate([inner, jnp.linspace(-1, 1, 33)])))
    density = width * jnp.exp(law.log_pdf(M[:, None] * u) + (jnp.log(M) - log_F)[:, None])
    ends = jnp.array([1.0] if signed else [1.0, -1.0], levels.dtype)
    share = jnp.concatenate([(size - 1) * density, jnp.ones((M.size, ends.size)) / ends.size], 1) / size
    return Points(levels, jnp.concatenate([u, ends]), weight[:, None] * share, M**2 / law.second_moment())


def _tabulated(levels: Array, u: Array) -> Float[Array, "4 points nodes"]:
    """Coefficients of the costs of each point; one v after the other, and again for derivatives, so that little is held."""
    cost = jax.checkpoint(lambda v: jnp.stack(rounding_cost(levels, u, jnp.full_like(u, v))))
    return _coefficients(jnp.moveaxis(jax.lax.map(cost, jnp.asarray(_V, levels.dtype)), 0, -1))


def _coefficients(values: Float[Array, "4 *points nodes"]) -> Float[Array, "4 *points nodes"]:
    rest = (1 - _T).astype(values.dtype)
    bounded = jnp.stack([rest**2 * values[0], values[1], rest * values[2], values[3]])
    return bounded @ jnp.asarray(_TO_COEFFICIENTS, values.dtype)


def _interpolated(coefficients: Float[Array, "4 nodes"], v: Array) -> Array:
    root = jnp.sqrt(jnp.maximum(v, SHARPEST))
    t = root / (1 + root)
    terms = jnp.cos(jnp.arange(_NODES) * jnp.arccos(jnp.clip(2 * t - 1, -1.0, 1.0)))
    return (coefficients @ terms) / jnp.stack([(1 - t) ** 2, jnp.ones_like(t), 1 - t, jnp.ones_like(t)])
