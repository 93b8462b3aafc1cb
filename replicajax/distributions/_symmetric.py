"""Symmetric continuous laws: density, distribution function, quantile and partial moments, accurate in both tails.

Everything derives from two functions of t = |x|/scale: the log density and the upper partial moments
int_t^inf u^k p(u) du, k = 0, 1, 2.
"""

from abc import abstractmethod

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float

from replicajax import _checks
from replicajax.distributions._law import Distribution

Moments = tuple[Array, Array, Array]
_LOG_LEAST, _LOG_MOST = -80.0, 320.0
"""Of t, where a quantile is looked for."""


class Symmetric(Distribution):
    """A law symmetric about 0; every method is elementwise and differentiable in its argument and in the parameters."""

    @property
    @abstractmethod
    def scale(self) -> Float[Array, ""]:
        """Unit of t."""

    @abstractmethod
    def _log_density(self, t: Array) -> Array:
        """Of x/scale, at t >= 0."""

    @abstractmethod
    def _tail(self, t: Array) -> Moments:
        """Upper partial moments of x/scale of orders 0, 1, 2 at t >= 0."""

    @abstractmethod
    def tempered(self, exponent: ArrayLike) -> "Symmetric":
        """The law of density proportional to p^exponent (1/3: where levels belong, Panter and Dite)."""

    def entropy(self) -> Float[Array, ""]:
        """Differential entropy −E log p, in nats."""
        raise NotImplementedError

    @property
    def tail_index(self) -> ArrayLike:
        """v where the density falls like |x|^(−v − 1); inf where it falls faster than any power."""
        return jnp.inf

    @property
    def largest(self) -> ArrayLike:
        """Magnitude beyond which the density is 0."""
        return jnp.inf

    def pdf(self, x: ArrayLike) -> Array:
        """Density at x, per unit of x."""
        return jnp.exp(self.log_pdf(x))

    def log_pdf(self, x: ArrayLike) -> Array:
        """Log density at x, in nats."""
        return self._log_density(jnp.abs(self._real(x)) / self.scale) - jnp.log(self.scale)

    def cdf(self, x: ArrayLike) -> Array:
        """P(X <= x)."""
        x = self._real(x)
        tail = self._tails(x)[0]
        return jnp.where(x < 0, tail, 1 - tail)

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
        """Bisection and Newton's method in log t on log P; then Newton steps whose derivative is the implicit one."""
        goal = jnp.log(tail)
        frozen = jax.lax.stop_gradient(self)

        def step(carry):
            low, high, log_t, left, _ = carry
            t = jnp.exp(log_t)
            probability = frozen._tail(t)[0]
            excess = jnp.log(probability) - jax.lax.stop_gradient(goal)
            low, high = jnp.where(excess > 0, log_t, low), jnp.where(excess > 0, high, log_t)
            newton = log_t + excess * probability / (t * jnp.exp(frozen._log_density(t)))
            new = jnp.where((newton > low) & (newton < high), newton, (low + high) / 2)
            return low, high, new, left - 1, (jnp.abs(new - log_t) > 1e-7).any()

        edge = jnp.full(goal.shape, _LOG_LEAST, goal.dtype)
        start = edge, jnp.full_like(edge, _LOG_MOST), jnp.zeros_like(edge), jnp.array(200), jnp.array(True)
        t = jnp.exp(jax.lax.while_loop(lambda c: (c[3] > 0) & c[4], step, start)[2])
        t = jax.lax.stop_gradient(t)
        for _ in range(2):  # two, so that the second derivative is right too
            probability = self._tail(t)[0]
            t = t + (jnp.log(probability) - goal) * probability / jnp.exp(self._log_density(t))
        return jnp.where(tail < 0.5, jnp.maximum(t, 0), jnp.where(tail == 0.5, t * 0, jnp.nan))

    def partial_moments(self, low: ArrayLike, high: ArrayLike) -> Moments:
        """int_low^high x^k p(x) dx for k = 0, 1, 2 (low <= high, infinite ends allowed)."""
        low, high = jnp.broadcast_arrays(self._real(low), self._real(high))
        return tuple(m[..., 0] for m in self.cell_moments(jnp.stack([low, high], -1)))  # type: ignore[return-value]

    def cell_moments(self, edges: Float[Array, "... cells+1"]) -> Moments:
        """`partial_moments` between neighbouring edges, which do not decrease."""
        low, high = edges[..., :-1], edges[..., 1:]
        opposite = (low < 0) & (high >= 0)
        whole = self._tail(jnp.zeros((), self.dtype))
        out = []
        for k, (tails, half) in enumerate(zip(self._tails(edges), whole, strict=True)):
            a, b = tails[..., :-1], tails[..., 1:]
            # Below 0 an even moment runs the other way; across 0 an even one is the whole less both tails.
            same = jnp.where(high > 0, a - b, b - a if k % 2 == 0 else a - b)
            out.append(jnp.where(opposite, 2 * half - a - b if k % 2 == 0 else a - b, same) * self.scale**k)
        return out[0], out[1], out[2]

    def _tails(self, x: Array) -> Moments:
        """At |x|; 0 belongs to the right, in the derivative too (where `jnp.abs` has none)."""
        infinite = jnp.isinf(x)
        x = jnp.where(infinite, 0.0, x)
        tail = self._tail(jnp.where(x < 0, -x, x) / self.scale)
        return tuple(jnp.where(infinite, 0.0, m) for m in tail)  # type: ignore[return-value]

    def magnitude_log_cdf(self, x: ArrayLike) -> Array:
        """log P(|X| <= x), without cancellation where it is near 0."""
        x = jnp.abs(self._real(x))
        near = x < 1e-8 * self.scale
        inside = jnp.log(jnp.where(near & (x > 0), 2 * x, 1.0)) + self.log_pdf(0.0)
        beyond = jnp.where(near, 0.25, self._tails(x)[0])
        return jnp.where(near, jnp.where(x > 0, inside, -jnp.inf), jnp.log1p(-2 * beyond))

    @property
    def dtype(self):
        """Of what the methods return."""
        return jnp.result_type(float, self.scale)

    def _real(self, x: ArrayLike) -> Array:
        return _checks.real("x", x).astype(self.dtype)
