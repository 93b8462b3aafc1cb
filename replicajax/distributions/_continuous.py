"""Normal, Laplace, Student-t and generalised normal laws, of given RMS.

Source of the partial moments: integration by parts; of the mixtures: theory 1, [Q].
"""

from __future__ import annotations

import math
from typing import final

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import digamma, gammaln
from jaxtyping import Array, ArrayLike, Float

from replicajax import _checks
from replicajax.distributions._law import Mixture, float_or
from replicajax.distributions._symmetric import Symmetric
from replicajax.numerics import gamma_nodes, ndtr, student_t_beyond
from replicajax.numerics._gamma_tail import gamma_tail


def _rms(value: ArrayLike) -> Float[Array, ""]:
    return _checks.scalar("rms", value)


@final
class Normal(Symmetric):
    """N(0, rms²)."""

    rms: Float[Array, ""]

    def __init__(self, rms: ArrayLike = 1.0):
        """Raises ValueError unless rms, the standard deviation, is positive."""
        self.rms = _rms(rms)

    @property
    def scale(self):
        return self.rms

    def second_moment(self):
        return self.rms**2

    def mixture(self) -> Mixture:
        return Mixture(jnp.ones(1), jnp.zeros(1), self.rms[None] ** 2)

    def sample(self, key, shape, dtype=None):
        return self.rms.astype(float_or(dtype)) * jax.random.normal(key, shape, float_or(dtype))

    def entropy(self):
        return jnp.log(2 * math.pi * math.e * self.rms**2) / 2

    def tempered(self, exponent):
        return Normal(self.rms / jnp.sqrt(exponent))

    def _log_peak(self):
        return jnp.full_like(self.rms, -math.log(2 * math.pi) / 2)

    def _log_shape(self, t):
        return -(t**2) / 2

    def _beyond_shape(self, t):
        return math.sqrt(2 * math.pi) * ndtr(-t)

    def _tail_shape(self, t):
        beyond, density = self._beyond_shape(t), jnp.exp(self._log_shape(t))
        return beyond, density, beyond + t * density

    def __str__(self) -> str:
        return f"Gaussian{_of(self.rms)}"


@final
class Laplace(Symmetric):
    """Density exp(−|x|/s)/(2 s), s = rms/sqrt 2: a Gaussian whose variance is exponentially distributed."""

    rms: Float[Array, ""]

    def __init__(self, rms: ArrayLike = 1.0):
        """Raises ValueError unless rms is positive."""
        self.rms = _rms(rms)

    @property
    def scale(self):
        return self.rms / math.sqrt(2)

    def second_moment(self):
        return self.rms**2

    def mixture(self) -> Mixture:
        variance, weight = gamma_nodes(jnp.ones(()))
        return Mixture(weight, jnp.zeros_like(weight), self.rms**2 * variance)

    def sample(self, key, shape, dtype=None):
        return self.scale.astype(float_or(dtype)) * jax.random.laplace(key, shape, float_or(dtype))

    def entropy(self):
        return 1 + jnp.log(2 * self.scale)

    def tempered(self, exponent):
        return Laplace(self.rms / exponent)

    def _log_peak(self):
        return jnp.full_like(self.rms, -math.log(2))

    def _log_shape(self, t):
        return -t

    def _beyond_shape(self, t):
        return jnp.exp(-t)

    def _tail_shape(self, t):
        density = jnp.exp(-t)
        return density, (1 + t) * density, (2 + 2 * t + t**2) * density

    def __str__(self) -> str:
        return f"Laplace{_of(self.rms)}"


@final
class StudentT(Symmetric):
    """Student's t with df > 2 degrees of freedom and given RMS: variance rms² (df − 2)/(2 g), g ~ Gamma(df/2, 1)."""

    df: Float[Array, ""]
    rms: Float[Array, ""]

    def __init__(self, df: ArrayLike, rms: ArrayLike = 1.0):
        """Raises ValueError unless df > 2, where the variance is finite, and rms is positive."""
        self.df = _checks.scalar("df", df)
        if not _checks.is_traced(self.df) and float(self.df) <= 2:
            raise ValueError(f"df must exceed 2 for a finite variance, got {_checks.brief(self.df)}")
        self.rms = _rms(rms)

    @property
    def scale(self):
        return self.rms * jnp.sqrt((self.df - 2) / self.df)

    def second_moment(self):
        return self.rms**2

    def mixture(self) -> Mixture:
        g, weight = gamma_nodes(self.df / 2)
        return Mixture(weight, jnp.zeros_like(weight), self.rms**2 * (self.df - 2) / (2 * g))

    def sample(self, key, shape, dtype=None):
        df, scale = (x.astype(float_or(dtype)) for x in (self.df, self.scale))
        return scale * jax.random.t(key, df, shape, float_or(dtype))

    @property
    def tail_index(self):
        return self.df

    def entropy(self):
        half = self.df / 2
        return (half + 0.5) * (digamma(half + 0.5) - digamma(half)) - self._log_peak() + jnp.log(self.scale)

    def check_exponent(self, exponent):
        if not _checks.is_traced((self.df, exponent)) and float(exponent) * (float(self.df) + 1) <= 1:
            least = f"1/(df + 1) = {1 / (float(self.df) + 1):.6g}"
            raise ValueError(f"exponent must exceed {least} for p^exponent to be integrable, got {exponent}")

    def tempered(self, exponent):
        self.check_exponent(exponent)
        return _of_scale(self.df, self.scale, exponent)

    def _log_peak(self):
        return _log_t_peak(self.df)

    def _log_shape(self, t):
        return _log_t_shape(t, self.df)

    def _beyond_shape(self, t):
        return student_t_beyond(t, self.df)

    def _tail_shape(self, t):
        v, beyond = self.df, self._beyond_shape(t)
        x = (1 + t**2 / v) * jnp.exp(self._log_shape(t))
        return beyond, v / (v - 1) * x, v / (v - 2) * (beyond + t * x)

    def __str__(self) -> str:
        return f"Student-t, df {self.df:.6g}{_of(self.rms)}"


@final
class HeavyStudentT(Symmetric):
    """Student's t of any df > 0 and given scale, for quantiles: its moments may be infinite."""

    df: Float[Array, ""]
    spread: Float[Array, ""]

    @property
    def scale(self):
        return self.spread

    def tempered(self, exponent):
        return _of_scale(self.df, self.spread, exponent)

    def _log_peak(self):
        return _log_t_peak(self.df)

    def _log_shape(self, t):
        return _log_t_shape(t, self.df)

    def _beyond_shape(self, t):
        return student_t_beyond(t, self.df)

    def _tail_shape(self, t):
        beyond = self._beyond_shape(t)
        return beyond, jnp.full_like(beyond, jnp.inf), jnp.full_like(beyond, jnp.inf)


def _of_scale(df, scale, exponent) -> HeavyStudentT:
    """(1 + x²/(v s²))^(−e (v + 1)/2) is a t of v' = e (v + 1) − 1 degrees and scale s sqrt(v/v')."""
    tempered = exponent * (df + 1) - 1
    return HeavyStudentT(tempered, scale * jnp.sqrt(df / tempered))


def _log_t_peak(df):
    return -jnp.log(2 * student_t_beyond(jnp.zeros((), df.dtype), df))


def _log_t_shape(t, df):
    # log(1 + t²/v) as 2 log hypot, which overflows for no t.
    big = jnp.maximum(t, 1.0)
    grown = jnp.where(t < 1, jnp.log1p(jnp.minimum(t, 1.0) ** 2 / df), 2 * jnp.log(big) + jnp.log(1 / df + 1 / big**2))
    return -(df + 1) / 2 * grown


@final
class GeneralizedNormal(Symmetric):
    """Density proportional to exp(−|x/s|^shape): 2 is Gaussian, 1 Laplace, large is uniform; not (yet) a teacher."""

    shape: Float[Array, ""]
    rms: Float[Array, ""]

    def __init__(self, shape: ArrayLike, rms: ArrayLike = 1.0):
        """Raises ValueError unless shape and rms are positive."""
        self.shape, self.rms = _checks.scalar("shape", shape), _rms(rms)

    @property
    def scale(self):
        return self.rms * jnp.exp((gammaln(1 / self.shape) - gammaln(3 / self.shape)) / 2)

    def second_moment(self):
        return self.rms**2

    def mixture(self) -> Mixture:
        raise TypeError("a generalized normal law has no mixture of Gaussians here, so it cannot be a teacher")

    def sample(self, key, shape, dtype=None):
        scale, power = (x.astype(float_or(dtype)) for x in (self.scale, self.shape))
        size, side = jax.random.split(key)
        magnitude = jax.random.gamma(size, 1 / power, shape, float_or(dtype)) ** (1 / power)
        return scale * magnitude * jax.random.rademacher(side, shape, float_or(dtype))

    def entropy(self):
        return 1 / self.shape - self._log_peak() + jnp.log(self.scale)

    def tempered(self, exponent):
        other = GeneralizedNormal(self.shape)
        return GeneralizedNormal(self.shape, self.scale / other.scale * exponent ** (-1 / self.shape))

    def _log_peak(self):
        return jnp.log(self.shape / 2) - gammaln(1 / self.shape)

    def _log_shape(self, t):
        # At 0 the derivative of t^p in p is 0.
        return -jnp.where(t > 0, jnp.where(t > 0, t, 1.0) ** self.shape, 0.0)

    def _beyond_shape(self, t):
        return self._moment(t, 0)

    def _tail_shape(self, t):
        moments = self._moment(t, np.arange(3).astype(t.dtype).reshape(-1, *(1,) * t.ndim))
        return moments[0], moments[1], moments[2]

    def _moment(self, t, k):
        """int_t^inf u^k exp(−u^p) du = Gamma(a, t^p)/p,  a = (k + 1)/p."""
        return gamma_tail((k + 1) / self.shape, -self._log_shape(t), t ** (k + 1)) / self.shape

    def __str__(self) -> str:
        return f"generalized normal, shape {self.shape:.6g}{_of(self.rms)}"


def _of(rms: Array) -> str:
    return "" if float(rms) == 1 else f", rms {float(rms):.6g}"
