"""What every law offers to every theory: a second moment, a mixture of Gaussians, a sampler."""

from __future__ import annotations

from typing import Any, NamedTuple

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray


class Mixture(NamedTuple):
    """N(mean_c, variance_c) with probability weight_c."""

    weight: Float[Any, " components"]
    mean: Float[Any, " components"]
    variance: Float[Any, " components"]


class Distribution(eqx.Module):
    """The law of one weight.

    As a teacher it is a Gaussian of random mean and variance, w ~ N(mean_c, variance_c) with probability weight_c: seen
    through a Gaussian channel, m_hat w + sqrt(chi_hat) z is again a mixture of Gaussians, and theory needs nothing else.
    """

    def second_moment(self) -> Float[Array, ""]:
        """E w²."""
        raise NotImplementedError

    def mixture(self) -> Mixture:
        """The law as a mixture of Gaussians; exact, or to 1e-10 where the variance is continuous."""
        raise NotImplementedError

    def sample(self, key: PRNGKeyArray, shape: tuple[int, ...], dtype=None) -> Array:
        """Independent draws, in the dtype asked for (the default float if None)."""
        raise NotImplementedError


def float_or(dtype):
    return jnp.result_type(float) if dtype is None else dtype
