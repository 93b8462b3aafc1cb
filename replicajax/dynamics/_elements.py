"""Spectral elements on a line: polynomials of one degree on each element, continuous from one to the next.

Thresholds lie on edges of elements, where the drift jumps and the density has a kink.  Weak form of
dp/dt = −d/dw [v p − D dp/dw] without flux through the ends: for every polynomial g of the basis

    int g dp/dt = int g' (v p − D p'),

so that mass (g = 1) is kept to the last digit, and the flux is continuous of itself.
"""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from numpy.polynomial import legendre

DEGREE = 8
_GRADED = np.array([0.0, *2.5 ** np.arange(-5.0, 1.0)])
"""Edges between a threshold and the middle of its cell: where a step is small, layers at thresholds are thin."""
_OUTSIDE = 12
"""Elements beyond those next to the last threshold, each longer than the one before."""


class Reference(NamedTuple):
    """On [−1, 1], of Lagrange polynomials l_i on Gauss–Lobatto nodes."""

    nodes: np.ndarray
    mass: np.ndarray  # int l_i l_j
    drift: np.ndarray  # int l_i' l_j
    pull: np.ndarray  # int l_i' x l_j
    diffusion: np.ndarray  # int l_i' l_j'
    weights: np.ndarray  # int l_i
    to_legendre: np.ndarray  # coefficients of l_j in Legendre polynomials


def reference(degree: int) -> Reference:
    inner = legendre.Legendre.basis(degree).deriv().roots().real
    nodes = np.concatenate([[-1.0], np.sort(inner), [1.0]])
    to_legendre = np.linalg.inv(legendre.legvander(nodes, degree))
    x, w = legendre.leggauss(degree + 2)
    values = legendre.legvander(x, degree) @ to_legendre
    slopes = np.stack([legendre.legval(x, legendre.legder(column)) for column in to_legendre.T], -1)
    by = w[:, None]
    return Reference(
        nodes,
        values.T @ (by * values),
        slopes.T @ (by * values),
        slopes.T @ (by * x[:, None] * values),
        slopes.T @ (by * slopes),
        w @ values,
        to_legendre,
    )


class Grid(NamedTuple):
    """Attributes: edges (elements + 1,); cell: (elements,) index of the level there."""

    edges: Float[Array, " edges"]
    cell: np.ndarray

    @property
    def lengths(self) -> Float[Array, " elements"]:
        return jnp.diff(self.edges)

    @property
    def middles(self) -> Float[Array, " elements"]:
        return (self.edges[1:] + self.edges[:-1]) / 2

    def points(self, nodes: np.ndarray) -> Float[Array, "elements nodes"]:
        return self.middles[:, None] + self.lengths[:, None] / 2 * nodes


def grid(cuts: Float[Array, " thresholds"], low: Array, high: Array, refine: int = 1) -> Grid:
    """Elements between low and high, finer towards thresholds; `refine` cuts each of them into so many."""
    inner, graded = jnp.diff(cuts), _GRADED.astype(cuts.dtype)
    # What is next to the last threshold is as long as half a cell, if there is one.
    reach = jnp.min(inner) / 2 if cuts.size > 1 else (high - low) / 12
    pieces, cells = [], []
    for end, cut, sign in ((low, cuts[0], -1), (high, cuts[-1], 1)):
        near = jnp.minimum(reach, jnp.abs(end - cut) / 2)
        close = cut + sign * near * graded
        far = jnp.abs(end - cut) / near
        away = cut + sign * near * far ** (np.arange(1, _OUTSIDE + 1) / _OUTSIDE).astype(cuts.dtype)
        pieces.append(jnp.concatenate([close, away]))
        cells.append(np.full(len(_GRADED) - 1 + _OUTSIDE, 0 if sign < 0 else cuts.size))
    half = np.concatenate([graded / 2, 1 - graded[-2::-1] / 2])
    middle = cuts[:-1, None] + inner[:, None] * half[1:]
    edges = jnp.concatenate([pieces[0][::-1], middle.reshape(-1), pieces[1][1:]])
    between = np.repeat(np.arange(1, cuts.size), half.size - 1)
    cell = np.concatenate([cells[0], between, cells[1]])
    if refine > 1:
        part = (np.arange(refine) / refine).astype(cuts.dtype)
        edges = jnp.concatenate([(edges[:-1, None] + jnp.diff(edges)[:, None] * part).reshape(-1), edges[-1:]])
        cell = np.repeat(cell, refine)
    return Grid(edges, cell)
