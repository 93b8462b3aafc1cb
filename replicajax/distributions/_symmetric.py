"""Symmetric continuous laws: density, distribution function, quantile and partial moments, accurate in both tails.

Everything derives from the density at 0 and two functions of t = |x|/scale: the log of p(t)/p(0), and the upper partial
moments int_t^inf u^k p(u) du, k = 0, 1, 2, over p(0) too.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float

from replicajax import _checks
from replicajax.distributions._law import Distribution

Moments = tuple[Array, Array, Array]
_LOG_LEAST, _LOG_MOST = -80.0, 320.0
"""Of t, where a quantile is looked for."""
TABLE = np.exp2(np.concatenate([[-np.inf], np.arange(-24, 30, 0.25), [60, 120, 240, 480]]))
"""t of `log_tails`: 0, steps in which a tail is nearly a power law, and what only power laws reach."""


class Symmetric(Distribution):
    """A law symmetric about 0; every method is elementwise and differentiable in its argument and in the parameters."""

    @property
    @abstractmethod
    def scale(self) -> Float[Array, ""]:
        """Unit of t."""

    @abstractmethod
    def _log_peak(self) -> Array:
        """Log density of x/scale at 0."""

    @abstractmethod
    def _log_shape(self, t: Array) -> Array:
        """Log density at t >= 0 less that at 0."""

    @abstractmethod
    def _beyond_shape(self, t: Array) -> Array:
        """P(X > scale t) over the density of x/scale at 0."""

    @abstractmethod
    def _tail_shape(self, t: Array) -> Moments:
        """Upper partial moments of x/scale of orders 0, 1, 2 at t >= 0, over the density at 0."""

    def _beyond(self, t: Array) -> Array:
        return jnp.exp(self._log_peak()) * self._beyond_shape(t)

    def _tail(self, t: Array) -> Moments:
        peak = jnp.exp(self._log_peak())
        return tuple(peak * each for each in self._tail_shape(t))  # type: ignore[return-value]

    def _log_density(self, t: Array) -> Array:
        return self._log_peak() + self._log_shape(t)

    @abstractmethod
    def tempered(self, exponent: ArrayLike) -> Symmetric:
        """The law of density proportional to p^exponent (1/3: where levels belong, Panter and Dite)."""

    def check_exponent(self, exponent: Float[Any, ""] | float) -> None:
        """Raises ValueError where p^exponent has no integral."""

    def entropy(self) -> Float[Array, ""]:
        """Differential entropy −E log p, in nats."""
        raise NotImplementedError

    @property
    def tail_index(self) -> Float[Any, ""] | float:
        """v where the density falls like |x|^(−v − 1); inf where it falls faster than any power."""
        return jnp.inf

    @property
    def largest(self) -> Float[Any, ""] | float:
        """Magnitude beyond which the density is 0."""
        return jnp.inf

    @property
    def zeroed(self) -> Float[Any, ""] | float:
        """Probability of 0, where what lies beyond `largest` is put."""
        return 0.0

    @property
    def whole(self) -> Symmetric:
        """The law that this one is, up to `largest`."""
        return self

    def pdf(self, x: ArrayLike) -> Array:
        """Density at x, per unit of x."""
        return jnp.exp(self.log_pdf(x))

    def log_pdf(self, x: ArrayLike) -> Array:
        """Log density at x, in nats."""
        return _log_pdf(self, self._real(x))

    def cdf(self, x: ArrayLike) -> Array:
        """P(X <= x)."""
        return _cdf(self, self._real(x))

    def quantile(self, probability: ArrayLike) -> Array:
        """x with P(X <= x) = probability, for 0 < probability < 1."""
        p = jnp.asarray(probability, self.dtype)
        x = self.upper_quantile(jnp.minimum(p, 1 - p))
        return jnp.where(p < 0.5, -x, x)

    @eqx.filter_jit
    def upper_quantile(self, tail: ArrayLike) -> Array:
        """x >= 0 with P(X > x) = tail <= 1/2, for tails of any smallness."""
        return self.scale * self._upper(jnp.asarray(tail, self.dtype))

    def _upper(self, tail: Array) -> Array:
        """Of x/scale."""
        t = _root_of_tail(self, jnp.log(tail))
        return jnp.where(tail < 0.5, jnp.maximum(t, 0), jnp.where(tail == 0.5, t * 0, jnp.nan))

    def log_tails(self) -> Array:
        """log P(X > scale t) at the t of `TABLE`."""
        return table_of(self)[2]

    def partial_moments(self, low: ArrayLike, high: ArrayLike) -> Moments:
        """int_low^high x^k p(x) dx for k = 0, 1, 2 (low <= high, infinite ends allowed)."""
        return _partial_moments(self, self._real(low), self._real(high))

    def cell_moments(self, edges: Float[Array, "... cells+1"], tails: Moments | None = None) -> Moments:
        """`partial_moments` between neighbouring edges, which do not decrease; `tails` if they are known."""
        low, high = edges[..., :-1], edges[..., 1:]
        opposite = (low < 0) & (high >= 0)
        zeroth, first, second = tails or self.tails(edges)

        def even(tail, whole):
            """Below 0 it runs the other way; across 0 it is the whole less both tails."""
            a, b = tail[..., :-1], tail[..., 1:]
            return jnp.where(opposite, whole - a - b, jnp.where(high > 0, a - b, b - a))

        square = even(second, self.second_moment() / self.scale**2) * self.scale**2
        return even(zeroth, 1.0), (first[..., :-1] - first[..., 1:]) * self.scale, square

    def tails(self, x: Array) -> Moments:
        """Upper partial moments of x/scale at |x|; 0 belongs to the right, in the derivative too (where `jnp.abs` has none)."""
        infinite = jnp.isinf(x)
        x = jnp.where(infinite, 0.0, x)
        tail = self._tail(jnp.where(x < 0, -x, x) / self.scale)
        return tuple(jnp.where(infinite, 0.0, m) for m in tail)  # type: ignore[return-value]

    @eqx.filter_jit
    def beyond(self, x: Array) -> Array:
        """P(X > |x|)."""
        infinite = jnp.isinf(x)
        return jnp.where(infinite, 0.0, self._beyond(jnp.where(infinite, 0.0, jnp.where(x < 0, -x, x)) / self.scale))

    def magnitude_log_cdf(self, x: ArrayLike, beyond: Array | None = None) -> Array:
        """log P(|X| <= x), without cancellation where it is near 0; `beyond` is P(X > x) of `whole`, if it is known."""
        x = jnp.abs(self._real(x))
        near = x < 1e-8 * self.scale
        inside = self.zeroed + jnp.where(near & (x > 0), 2 * x, 1.0) * jnp.exp(self._log_peak()) / self.scale
        beyond = jnp.where(near, 0.25, self.whole.beyond(x) if beyond is None else beyond)
        return jnp.where(near, jnp.where(x > 0, jnp.log(inside), -jnp.inf), jnp.log1p(self.zeroed - 2 * beyond))

    @property
    def dtype(self):
        """Of what the methods return."""
        return jnp.result_type(float, *jax.tree.leaves(self))

    def _real(self, x: ArrayLike) -> Array:
        return _checks.real("x", x).astype(self.dtype)


@eqx.filter_jit
def _log_pdf(law: Symmetric, x: Array) -> Array:
    return law._log_density(jnp.abs(x) / law.scale) - jnp.log(law.scale)


@eqx.filter_jit
def _cdf(law: Symmetric, x: Array) -> Array:
    tail = law.beyond(x)
    return jnp.where(x < 0, tail, 1 - tail)


@eqx.filter_jit
def _partial_moments(law: Symmetric, low: Array, high: Array) -> Moments:
    ends = jnp.stack(jnp.broadcast_arrays(low, high), -1)
    return tuple(m[..., 0] for m in law.cell_moments(ends))  # type: ignore[return-value]


@eqx.filter_jit
def table_of(law: Symmetric) -> tuple[Array, Array, Array]:
    """Log density of x/scale at 0, its second moment, and `log_tails`."""
    finite = jnp.finfo(law.dtype)
    beyond, _, second = law._tail_shape(jnp.asarray(np.minimum(TABLE, float(finite.max) ** 0.4), law.dtype))
    whole = 2 * beyond[0]
    log_tails = jnp.log(jnp.maximum(beyond / whole, finite.tiny))
    return -jnp.log(whole), 2 * second[0] / whole, log_tails


@eqx.filter_custom_jvp
def _root_of_tail(law: Symmetric, goal: Array) -> Array:
    """t with log P(X > scale t) = goal: Newton's method in log t, bisection where it leads astray.

    dt = (d goal − d_law log P) P/(−p).
    """

    def step(carry):
        low, high, log_t, left, _ = carry
        log_p, slope = _log_tail(law, jnp.exp(log_t))
        low, high = jnp.where(log_p > goal, log_t, low), jnp.where(log_p > goal, high, log_t)
        newton = log_t - (log_p - goal) / (slope * jnp.exp(log_t))
        new = jnp.where((newton >= low) & (newton <= high), newton, (low + high) / 2)
        return low, high, new, left - 1, (jnp.abs(new - log_t) > 1e-7).any()  # which the next step squares

    edge = jnp.full(goal.shape, _LOG_LEAST, goal.dtype)
    start = edge, jnp.full_like(edge, _LOG_MOST), jnp.zeros_like(edge), jnp.array(200), jnp.array(True)
    return jnp.exp(jax.lax.while_loop(lambda c: (c[3] > 0) & c[4], step, start)[2])


def _log_tail(law: Symmetric, t: Array) -> tuple[Array, Array]:
    """log P(X > scale t), from its ratio to 1/2 at 0, and its derivative in t but for the law's."""
    beyond = law._beyond_shape(jnp.append(t.ravel(), 0))
    beyond, whole = beyond[:-1].reshape(t.shape), 2 * beyond[-1]
    return jnp.log(beyond / whole), -jnp.exp(law._log_shape(t)) / jax.lax.stop_gradient(beyond)


@_root_of_tail.def_jvp
def _root_of_tail_jvp(primals, tangents):
    law, goal = primals
    t_law, t_goal = tangents
    t = _root_of_tail(law, goal)
    moving, still = eqx.partition(law, jax.tree.map(lambda x: x is not None, t_law, is_leaf=lambda x: x is None))
    (_, slope), (drift, _) = jax.jvp(lambda moving: _log_tail(eqx.combine(moving, still), t), (moving,), (t_law,))
    drift = -drift if t_goal is None else t_goal - drift
    return t, drift / slope
