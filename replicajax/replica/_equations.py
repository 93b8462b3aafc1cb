"""The saddle point as two equations, for many points at once.

The fields of theory 1.1 hang on two numbers.  With L = m_hat and t = chi_hat/L² a weight feels h = L (w0 + sqrt(t) z):
it sees the teacher through Gaussian noise of variance t.  Stationarity of f is then

    log L + log(1 + chi(L, t)) − log alpha = 0,        log t − log(R(L, t)/alpha) = 0,        (1)

two equations in (log L, log t) whose Jacobian comes with the averages (`numerics.rounding_slopes`).
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from replicajax.codebooks import Codebook
from replicajax.distributions import Discrete
from replicajax.models import LinearRegression, WeightAverages
from replicajax.numerics import (
    RoundingSlopes,
    Slope,
    SoftRounding,
    default_nodes,
    gauss_legendre,
    grid_averages,
    grid_slopes,
    hard_rounding,
    hard_rounding_slopes,
    negligible_beyond,
    rounding_averages,
    rounding_slopes,
)

Points = Float[Array, " points"]

_FEW = 8
"""Quadrature nodes of the first steps."""


class State(NamedTuple):
    """The unknowns of (1)."""

    log_L: Points
    log_t: Points


class Problems(NamedTuple):
    """A batch in the form the kernel wants it: points last, components of the teacher and levels first."""

    alpha: Points
    signal: Points
    noise: Points
    ridge: Points
    weight: Float[Array, "components points"]
    mean: Float[Array, "components points"]
    variance: Float[Array, "components points"]
    levels: Float[Array, "levels points"]
    beta: Points
    unit: Points
    """1, or 0 under the hard constraint of interpolation, where beta is 1."""


def problems(tasks: LinearRegression, books: Codebook, betas: Points, interpolates: Array) -> Problems:
    weight, mean, variance = (x.T for x in jax.vmap(lambda task: task.weights())(tasks))
    hard = interpolates.astype(betas.dtype)
    betas = jnp.where(interpolates, 1.0, betas)
    return Problems(
        tasks.alpha, tasks.signal, tasks.noise, tasks.ridge, weight, mean, variance, books.levels.T, betas, 1 - hard
    )


class Traits(NamedTuple):
    """What is common to a batch and known before compiling; it chooses the quadrature."""

    even: bool
    """Levels evenly spaced."""
    symmetric: bool
    """Levels and teacher symmetric about 0."""
    levels: int
    components: int = 1
    """Of the teacher's mixture."""

    @property
    def work(self) -> int:
        """Numbers held of one point and one node."""
        return (self.levels - 1) * self.components

    def slopes(self, fine: Array | bool) -> Callable[..., RoundingSlopes]:
        """The quadrature of the result or, many times cheaper, of the first steps; the choice may be traced."""
        few, many = (gauss_legendre(n, self.nodes) for n in (_FEW, self.nodes))
        nodes = jax.tree.map(partial(jnp.where, fine), many, few)
        return self._choose(
            partial(rounding_slopes, nodes=nodes, even=self.even, symmetric=self.symmetric),
            partial(grid_slopes, error=jnp.where(fine, 1e-13, 1e-5), symmetric=self.symmetric),
        )

    def averages(self) -> Callable[..., SoftRounding]:
        nodes = gauss_legendre(self.nodes)
        return self._choose(
            partial(rounding_averages, nodes=nodes, even=self.even, symmetric=self.symmetric),
            partial(grid_averages, error=1e-13, symmetric=self.symmetric),
        )

    @property
    def nodes(self) -> int:
        """On each side of a threshold, for 1e-10 of every average (tests/numerics/test_rounding_slopes.py)."""
        if not (self.even and self.symmetric):
            return default_nodes(self.levels)
        return 20 if self.levels <= 8 else 28

    def _choose(self, thresholds, grid):
        """Thresholds one by one while they are few or their neighbours negligible, a grid otherwise."""
        if self.levels <= 16:
            return thresholds
        if not self.even:
            return grid

        def whichever(levels, curvature, beta, mean, deviation):
            gap = (levels[-1] - levels[0]) / (levels.shape[0] - 1)
            sharp = negligible_beyond(levels.shape[0], gap, curvature, beta).all()
            return jax.lax.cond(sharp, thresholds, grid, levels, curvature, beta, mean, deviation)

        return whichever


class Equations(NamedTuple):
    residual: tuple[Points, Points]
    """Of (1)."""
    jacobian: tuple[tuple[Points, Points], tuple[Points, Points]]
    """By row: derivatives in log L and log t."""


def equations(p: Problems, state: State, averages: Callable[..., RoundingSlopes]) -> Equations:
    """Residual of (1) and its Jacobian."""
    L, t = jnp.exp(state.log_L), jnp.exp(state.log_t)
    shape = p.mean.shape
    root = jnp.sqrt(p.variance + t)
    slopes = averages(*_flat(p, L + p.ridge, p.beta, L * p.mean, L * root))

    def along(slope: Slope):
        """Value and derivatives in log L and log t of one average, each (components, points)."""
        value, mean, deviation, curvature = (jnp.reshape(x, shape) if jnp.ndim(x) else x for x in slope)
        return value, L * (p.mean * mean + root * deviation + curvature), L * t / (2 * root) * deviation

    def mix(values):
        return tuple((p.weight * value).sum(0) for value in values)

    first, square, response = along(slopes.mean), along(slopes.square), along(slopes.response)
    # E w0 <a> = w E<a> + v L chi, by Stein's lemma on each component N(w, v).
    stein = L * response[0], L * (response[0] + response[1]), L * response[2]
    m = mix(p.mean * a + p.variance * b for a, b in zip(first, stein, strict=True))
    q, chi = mix(square), mix(response)
    R = p.signal - 2 * m[0] + q[0] + p.noise
    R_L, R_t = (q[i] - 2 * m[i] for i in (1, 2))
    spread = p.unit + chi[0]
    return Equations(
        residual=(state.log_L + jnp.log(spread) - jnp.log(p.alpha), state.log_t - jnp.log(R / p.alpha)),
        jacobian=((1 + chi[1] / spread, chi[2] / spread), (-R_L / R, 1 - R_t / R)),
    )


def newton_step(residual, jacobian) -> tuple[State, Points]:
    """−J^(-1) residual, and det J."""
    (f, g), ((f_L, f_t), (g_L, g_t)) = residual, jacobian
    determinant = f_L * g_t - f_t * g_L
    return State((f_t * g - g_t * f) / determinant, (g_L * f - f_L * g) / determinant), determinant


def _flat(p: Problems, *arguments: Array) -> list[Array]:
    """Levels and arguments of the quadrature, components of the teacher side by side: (..., components * points)."""
    components, points = p.mean.shape
    return [
        jnp.broadcast_to(x[..., None, :] if x.ndim == 1 or x is p.levels else x, (*lead, components, points)).reshape(
            *lead, components * points
        )
        for x, lead in ((p.levels, p.levels.shape[:1]), *((a, ()) for a in arguments))
    ]


def weight_averages_of(p: Problems, state: State, traits: Traits, cold: bool) -> WeightAverages:
    """`weight_averages` for many points; usage comes points first."""
    L = jnp.exp(state.log_L)
    root = jnp.sqrt(p.variance + jnp.exp(state.log_t))
    levels, curvature, beta, mean, deviation = _flat(p, L + p.ridge, p.beta, L * p.mean, L * root)
    if cold:
        each = jax.vmap(hard_rounding, in_axes=-1, out_axes=-1)(levels, curvature, mean, deviation)
    else:
        each = traits.averages()(levels, curvature, beta, mean, deviation)
    each = jax.tree.map(lambda x: x.reshape(*x.shape[:-1], *p.mean.shape), each)
    alignment = (p.weight * (p.mean * each.mean + p.variance * L * each.response)).sum(-2)
    each = jax.tree.map(lambda x: (p.weight * x).sum(-2), each)
    return WeightAverages(each._replace(usage=each.usage.T), alignment)


def cold_averages(levels, curvature, beta, mean, deviation) -> RoundingSlopes:
    del beta  # inf
    return hard_rounding_slopes(levels, curvature, mean, deviation)


def traits_of(tasks: LinearRegression, books: Codebook) -> Traits:
    levels = np.asarray(books.levels)
    gaps = np.diff(levels, axis=1)
    close = partial(np.allclose, rtol=0, atol=8 * np.finfo(levels.dtype).eps * np.abs(levels).max(1, keepdims=True))
    # Of one task, unless means may differ: a program for every number of points would cost more than the sum itself.
    apart = isinstance(tasks.teacher, Discrete)
    some = tasks if apart else jax.tree.map(lambda x: np.asarray(x)[:1], tasks)
    means = np.asarray(jax.vmap(lambda task: task.weights().mean)(some))
    return Traits(
        even=close(gaps, gaps.mean(1, keepdims=True)),
        symmetric=bool((means == 0).all()) and close(levels, -levels[:, ::-1]),
        levels=levels.shape[1],
        components=means.shape[1],
    )
