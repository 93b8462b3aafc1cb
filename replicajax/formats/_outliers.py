"""Sparse outliers: the largest fraction s of the weights kept exactly, the rest quantized.

The kept weights leave zeros in their blocks, so a weight's magnitude is below m with probability

    F_s(m) = s + P(|x| < min(m, T)),        P(|x| > T) = s,

and F_s takes the place of F in the order statistics of theory 4.2; what is kept adds no error.
"""

from __future__ import annotations

from typing import final

import jax.numpy as jnp
from jaxtyping import Array, Float

from replicajax.distributions import Symmetric


@final
class WithoutOutliers(Symmetric):
    """A law less its largest fraction: the density beyond the threshold is 0, and what is left is not normalised."""

    law: Symmetric
    fraction: Float[Array, ""]
    threshold: Float[Array, ""]
    """T, in units of the law's scale."""

    def __init__(self, law: Symmetric, fraction: Float[Array, ""]):
        self.law = law
        self.fraction = fraction
        self.threshold = law._upper(fraction / 2)

    @property
    def scale(self):
        return self.law.scale

    @property
    def whole(self):
        return self.law

    @property
    def largest(self):
        return self.threshold * self.scale

    def second_moment(self):
        return self.law.second_moment()

    def sample(self, key, shape, dtype=None):
        x = self.law.sample(key, shape, dtype)
        return jnp.where(jnp.abs(x) < self.largest, x, 0)

    def tempered(self, exponent):
        raise NotImplementedError

    @property
    def zeroed(self):
        return self.fraction

    def _log_peak(self):
        return self.law._log_peak()

    def _log_shape(self, t):
        return jnp.where(t < self.threshold, self.law._log_shape(jnp.minimum(t, self.threshold)), -jnp.inf)

    def _beyond_shape(self, t):
        return self.law._beyond_shape(jnp.minimum(t, self.threshold)) - self.law._beyond_shape(self.threshold)

    def _tail_shape(self, t):
        inside = self.law._tail_shape(jnp.minimum(t, self.threshold))
        beyond = self.law._tail_shape(self.threshold)
        return tuple(a - b for a, b in zip(inside, beyond, strict=True))

    @property
    def tail_index(self):
        return self.law.tail_index

    def log_tails(self):
        return self.law.log_tails()
