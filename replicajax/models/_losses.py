"""Losses ell(y, u) of a label y and a prediction u: what a row costs.  theory 7.1

A new loss is a subclass of `ResidualLoss`, `MarginLoss` or `Loss` with one method; the theory of it follows by quadrature.
"""

import abc
import math

import equinox as eqx
import jax.numpy as jnp
from jax.scipy.special import log_ndtr
from jaxtyping import Array, ArrayLike, Float

from replicajax import _checks
from replicajax.numerics import Tilted, tilted_gaussian

Scalar = Float[Array, ""]


class Loss(eqx.Module):
    """ell(y, u), convex in the prediction u; JAX functions of scalars."""

    @abc.abstractmethod
    def __call__(self, y: Scalar, u: Scalar) -> Scalar: ...

    def kinks(self, y: Scalar) -> tuple[ArrayLike, ...]:
        """Predictions at which the slope jumps."""
        return ()

    def __str__(self) -> str:
        numbers = ", ".join(f"{name} {getattr(self, name):.6g}" for name in self.__dataclass_fields__)
        return f"{type(self).__name__.lower()} loss" + (f" ({numbers})" if numbers else "")

    def tilted(self, y: Scalar, v: Scalar, chi: Scalar, beta: Scalar) -> Tilted:
        """What a label y does to a prediction of mean v and variance chi/beta: (1) of `numerics._panels`."""
        kinks = jnp.asarray([*self.kinks(y)], jnp.result_type(v))
        return tilted_gaussian(lambda u: self(y, u), kinks, v, chi, beta)

    def bends(self, y: Scalar, chi: Scalar) -> list[Array]:
        """v at which the slope of the tilted loss starts or ends to be held at a kink."""
        out = []
        for kink in self.kinks(y):
            kink = jnp.asarray(kink, jnp.result_type(chi))
            step = 1e-6 * (1 + jnp.abs(kink))
            for side in (-step, step):
                out.append(kink + chi * (self(y, kink + side) - self(y, kink)) / side)
        return out


class ResidualLoss(Loss):
    """A loss of y − u alone."""

    @abc.abstractmethod
    def of_residual(self, r: Scalar) -> Scalar: ...

    def residual_kinks(self) -> tuple[ArrayLike, ...]:
        """Residuals at which the slope jumps."""
        return ()

    def __call__(self, y, u):
        return self.of_residual(y - u)

    def kinks(self, y):
        return tuple(y - r for r in self.residual_kinks())


class MarginLoss(Loss):
    """A loss of the margin y u alone, for labels ±1."""

    @abc.abstractmethod
    def of_margin(self, s: Scalar) -> Scalar: ...

    def margin_kinks(self) -> tuple[ArrayLike, ...]:
        """Margins at which the slope jumps."""
        return ()

    def __call__(self, y, u):
        return self.of_margin(y * u)

    def kinks(self, y):
        return tuple(y * s for s in self.margin_kinks())


class Square(ResidualLoss):
    """½ (y − u)²."""

    def of_residual(self, r):
        return r**2 / 2

    def tilted(self, y, v, chi, beta):
        """(y − v)²/(2 (1 + chi)) + log(1 + chi)/(2 beta)."""
        r, stiff = y - v, 1 + chi
        loss = r**2 / stiff**2 / 2 + chi / (beta * stiff) / 2
        flat, none = jnp.broadcast_to(1 / stiff, r.shape), jnp.zeros_like(r)
        return Tilted(-beta * r**2 / stiff / 2 - jnp.log(stiff) / 2, -r / stiff, flat, none, none, loss)


class Absolute(ResidualLoss):
    """|y − u|."""

    def of_residual(self, r):
        return jnp.abs(r)

    def residual_kinks(self):
        return (0.0,)


class Huber(ResidualLoss):
    """½ r² up to |r| = delta, a straight line beyond."""

    delta: Scalar

    def __init__(self, delta: ArrayLike = 1.0):
        """Raises ValueError unless delta > 0."""
        self.delta = _checks.positive("delta", delta)

    def of_residual(self, r):
        size = jnp.abs(r)
        return jnp.where(size <= self.delta, r**2 / 2, self.delta * (size - self.delta / 2))

    def residual_kinks(self):
        return -self.delta, self.delta


class Quantile(ResidualLoss):
    """level r for r = y − u > 0, (level − 1) r otherwise: its minimum is the quantile `level` of the labels."""

    level: Scalar

    def __init__(self, level: ArrayLike = 0.5):
        """Raises ValueError unless 0 < level < 1."""
        self.level = _checks.positive("level", level)
        if not _checks.is_traced(self.level) and not (_checks.known(self.level) < 1).all():
            raise ValueError(f"level must lie between 0 and 1, got {level!r}")

    def of_residual(self, r):
        return jnp.where(r > 0, self.level, self.level - 1) * r

    def residual_kinks(self):
        return (0.0,)


class Logistic(MarginLoss):
    """log(1 + exp(−y u))."""

    def of_margin(self, s):
        return jnp.logaddexp(0.0, -s)


class Hinge(MarginLoss):
    """max(0, 1 − y u)."""

    def of_margin(self, s):
        return jnp.maximum(0.0, 1 - s)

    def margin_kinks(self):
        return (1.0,)


class Perceptron(MarginLoss):
    """0 where y u > margin, infinite elsewhere: the codewords that get every row right, whatever beta."""

    margin: Scalar

    def __init__(self, margin: ArrayLike = 0.0):
        self.margin = _checks.finite("margin", margin)

    def of_margin(self, s):
        return jnp.where(s > self.margin, 0.0, jnp.inf)

    def tilted(self, y, v, chi, beta):
        """log Phi((y v − margin)/sqrt(V)), V = chi/beta."""
        root = jnp.sqrt(chi / beta)
        a = (y * v - self.margin) / root
        log_partition = log_ndtr(a)
        g = jnp.exp(-(a**2) / 2 - log_partition) / math.sqrt(2 * math.pi)  # its slope in a; g' = −g (a + g)
        bend = g * (a + g)
        third = g - bend * (a + 2 * g)
        fourth = -bend - bend * (1 - 2 * bend) - (a + 2 * g) * third
        slopes = -y * g * root, bend, y * third / root, fourth / root**2
        first, second, third, fourth = (x / chi for x in slopes)
        return Tilted(log_partition, first, second, third, fourth, jnp.zeros_like(a))

    def bends(self, y, chi):
        return [y * self.margin]
