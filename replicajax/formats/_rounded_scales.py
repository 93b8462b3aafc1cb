"""Errors of blocks whose scale is stored in few bits.

Blocks whose largest magnitude lies between low_i and high_i have the scale s_i.  A weight x finds the largest of its block
below m if |x| < m and the B − 1 others are, so that no integral over Mx is left (theory 4.2, summed by parts):

    E err² = sum_i [ A(high_i) D_i(high_i) − A(low_i) D_i(low_i) ],    A = F^(B−1),   D_i(m) = E[(x − Q_i(x))²; |x| < m].

D_i is the error within |x| < cut · s_i and a thin shell.  The first is a smooth function of s_i, so that the 2^10 scales of an
octave need it at 24 points only; the second knows only the levels near the end.  Octaves of Mx come one after the other.
"""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from replicajax.distributions import Symmetric, cell_edges, distortion_of_cells

_POINTS = 24
"""Of s in an octave, where it has more scales than that."""
_FEW = 9
"""Scales of an octave are made so many: those of e4m3."""
_BELOW, _ABOVE = 14, 90
"""Octaves of Mx about its usual size: all of E Mx² but 1e-9 where a power law has df > 2.4."""


class ScaleFormat(NamedTuple):
    """How a scale is stored: a float of `mantissa` bits, rounded to "nearest", or "up" or "down" to a power of two; or
    "double", by a code of its own (`_double`)."""

    bits: float
    mantissa: int
    rounded: str = "nearest"


SCALE_FORMATS: dict[str | None, ScaleFormat] = {
    None: ScaleFormat(32, 23),
    "fp32": ScaleFormat(32, 23),
    "fp16": ScaleFormat(16, 10),
    "bf16": ScaleFormat(16, 7),
    "e5m2": ScaleFormat(8, 2),
    "e4m3": ScaleFormat(8, 3),
    "e8m0": ScaleFormat(8, 0, "up"),
    "e8m0_down": ScaleFormat(8, 0, "down"),
    "double": ScaleFormat(8 + 32 / 256, 23, "double"),
}
"""None is kept exactly in theory, and in fp32 on actual tensors.  A scale out of the format's range is not theory's case:
scales are taken relative to one number for the whole tensor (as NVFP4 does), which costs nothing."""


_LOG_UNIFORM = 3 / 8 / np.log(2) / 12
"""Variance of a number that is rounded to units of 1, over its square, from 1 to 2 and scale-free."""


def stored_noise(how: ScaleFormat) -> float:
    """Variance over square of a number that is rounded for storage after all that depends on it was chosen."""
    return 4.0**-how.mantissa * _LOG_UNIFORM


class Octave(NamedTuple):
    """The scales of an octave in units of its low end, and how to get all of their errors from those at `points`: data, so
    that formats with as many scales share a program."""

    edges: np.ndarray
    stored: np.ndarray
    points: np.ndarray
    weights: np.ndarray | None
    cut: np.ndarray
    """Of the inner part, in units of the scale: for each point."""
    rule: tuple[np.ndarray, np.ndarray]
    """For the shells."""
    integrals: np.ndarray
    """From −1 to each of its nodes."""


def _rule(order: int) -> tuple[tuple[np.ndarray, np.ndarray], np.ndarray]:
    """Of Gauss and Legendre, and the matrix of integrals of the polynomial through its nodes from −1 to each of them."""
    legendre = np.polynomial.legendre
    node, weight = legendre.leggauss(order)
    integrated = np.stack([legendre.legval(node, legendre.legint(row, lbnd=-1)) for row in np.eye(order)], -1)
    return (node, weight), np.linalg.solve(legendre.legvander(node, order - 1).T, integrated.T).T


def _together(of, *arrays: Array) -> list:
    """`of` all arrays in one call: one piece of program."""
    flat = of(jnp.concatenate([x.ravel() for x in arrays]))
    cuts = np.cumsum([x.size for x in arrays])[:-1]
    parts = [jnp.split(each, cuts) for each in flat]
    return [tuple(part[k].reshape(x.shape) for part in parts) for k, x in enumerate(arrays)]


@cache
def octave_of(how: ScaleFormat) -> Octave:
    if how.rounded != "nearest":
        edges, stored = np.array([1.0, 2.0]), np.array([2.0 if how.rounded == "up" else 1.0])
    else:
        # 1 to the first midpoint, midpoint to midpoint, last midpoint to 2.
        stored = 1 + np.arange(2**how.mantissa + 1) / 2**how.mantissa
        edges = np.concatenate([[1.0], (stored[1:] + stored[:-1]) / 2, [2.0]])
    if stored.size <= _FEW:
        edges, stored = (np.pad(x, (0, _FEW - stored.size), mode="edge") for x in (edges, stored))
    cut = edges[:-1] / stored
    if stored.size <= _POINTS:
        return Octave(edges, stored, stored, None, cut, *_rule(24))
    points = np.polynomial.chebyshev.chebpts1(_POINTS)
    values = np.polynomial.chebyshev.chebvander(points, _POINTS - 1)
    wanted = np.polynomial.chebyshev.chebvander(2 * np.log2(stored) - 1, _POINTS - 1)
    weights = np.linalg.solve(values.T, wanted.T).T
    return Octave(edges, stored, 2 ** ((points + 1) / 2), weights, np.full(_POINTS, cut.min()), *_rule(6))


def levels_in_reach(levels: np.ndarray, octave: Octave) -> int:
    """Levels, in units of where Mx goes, that Mx may be rounded to on either side; a few more, to share programs."""
    middle = (levels[1:] + levels[:-1]) / 2
    least = (octave.edges[:-1] / octave.stored).min()
    needed = 1 + max((middle > least).sum(), (-middle > least).sum())
    count = 2 if octave.weights is not None else 16
    while count < needed:
        count *= 8
    return min(count, levels.size)


def rounded_scales_error(
    law: Symmetric,
    B: Array,
    octave: Octave,
    levels: Float[Array, " levels"],
    end: Array,
    signed: bool,
    reach: int,
    edges: Float[Array, " edges"],
) -> Float[Array, ""]:
    """E err².

    Args:
      levels: in units of the stored scale times `end`; the scale is Mx/end, rounded.
      signed: the scale makes the largest positive.
      reach: as many levels from either end as may be nearest to the largest.
      edges: `maximum_edges`.
    """
    octave, whole = jax.tree.map(lambda x: jnp.asarray(x, levels.dtype), octave), law.whole
    node, weight = octave.rule
    ends = jnp.stack([levels[-reach:], -levels[:reach][::-1]])

    def error(low):
        """Of the blocks with Mx from low to 2 low."""
        edge = jnp.minimum(low * octave.edges, law.largest)
        point, stored = low * octave.points, low * octave.stored
        grids = levels * point[:, None]
        cells = cell_edges(grids, -octave.cut * point, octave.cut * point)
        beyond, tails = _together(whole.tails, edge, cells)
        log_F = law.magnitude_log_cdf(edge, beyond[0])
        log_A = (B - 1) * log_F
        gain = jnp.exp(log_A[:-1]) * jnp.expm1(jnp.diff(log_A))
        inner = distortion_of_cells(whole, grids, cells, tails)
        between = [(edge[:-1], edge[1:])]
        if octave.weights is not None:
            inner = octave.weights @ inner
            between.append((octave.cut[0] * stored, edge[:-1]))
        near = ends[:, None] * stored[:, None]
        cuts = jnp.stack([cell_edges(near, a, b) for a, b in between])
        half = jnp.diff(cuts)[..., None] / 2
        x = cuts[..., :-1, None] + half * (1 + node)
        density = half * whole.pdf(x)
        each = weight * (x - near[..., None]) ** 2 * density
        shell = each.sum((-1, -2))
        total = gain @ (inner + shell[1:].sum((0, 1))) + jnp.exp(log_A[1:]) @ shell[0].sum(0)
        if signed:
            # That was for a largest weight of either sign.  F at the nodes is F(low) and what lies between.
            within = 2 * (density[0] * weight).sum(-1)
            before = jnp.cumsum(within, -1) - within
            F_more = before[..., None] + 2 * density[0] @ octave.integrals.T
            A = jnp.exp((B - 1) * (log_F[:-1, None, None] + jnp.log1p(F_more / jnp.exp(log_F[:-1, None, None]))))
            right, left = (A * each[0]).sum((1, 2, 3))
            total += right - left
        return total

    least, usual, most = (
        jnp.floor(jax.lax.stop_gradient(edges[k] - jnp.log(end)) / np.log(2)) for k in (0, 3, edges.size - 1)
    )

    def add(total, number):
        low = jnp.exp2(number) * end
        live = (number >= least) & (number <= most)
        return total + jax.lax.cond(live, jax.checkpoint(error), lambda low: jnp.zeros_like(low), low), None

    numbers = usual + jnp.arange(-_BELOW, _ABOVE).astype(usual.dtype)
    return jax.lax.scan(add, jnp.zeros((), numbers.dtype), numbers)[0]
