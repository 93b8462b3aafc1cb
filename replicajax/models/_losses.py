"""Losses ell(y, u) of a label y and a prediction u: what a row costs.  theory 7.1

A new loss is a subclass of `ResidualLoss`, `MarginLoss` or `Loss` with one method; the theory of it follows by quadrature.
"""

from __future__ import annotations

import abc
import math

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.scipy.special import log_ndtr
from jaxtyping import Array, ArrayLike, Float

from replicajax import _checks
from replicajax.numerics import Tilted, envelope, tilted_gaussian, tilted_states

Scalar = Float[Array, ""]

_TOGETHER = 12
_STEPS = 20
"""Of Newton's method: as many as chi = 1e6 takes."""


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

    @property
    def cools(self) -> bool:
        """Whether beta = inf is a limit of its own: (2) of `numerics._panels`."""
        return True

    @property
    def hard(self) -> Loss | None:
        """What is left of it among codewords that fit every row, at beta = inf; None where that is not known."""
        return None

    def tilted(self, y: Scalar, v: Scalar, chi: Scalar, beta: Scalar | None) -> Tilted:
        """What a label y does to a prediction of mean v and variance chi/beta: (1) of `numerics._panels`; (2) where beta is
        None, for infinity, and chi the response that is left of it."""
        kinks = jnp.asarray([*self.kinks(y)], jnp.result_type(v))
        if beta is None:
            return envelope(lambda u: self(y, u), kinks, v, chi, self.nearest(y, v, chi))
        return tilted_gaussian(lambda u: self(y, u), kinks, v, chi, beta)

    def tilted_at(self, y: Scalar, v: Float[Array, " nodes"], chi: Scalar, beta: Scalar | None) -> Tilted:
        """`tilted` at many v."""
        return jax.vmap(lambda v: self.tilted(y, v, chi, beta))(v)

    def of(self, kind: type[Loss]) -> bool:
        """Whether it is a loss of that kind."""
        return isinstance(self, kind)

    def of_length(self, t: Scalar) -> Loss:
        """Of rows sqrt(t) times as long."""
        return self

    def blur(self, chi: Scalar, beta: Scalar | None) -> Scalar:
        """Deviation of the predictions, over which the tilted loss is smooth."""
        return 0 * chi if beta is None else jnp.sqrt(chi / beta)

    def nearest(self, y: Scalar, v: Scalar, chi: Scalar) -> Scalar | None:
        """The proximal point, least of (u − v)²/(2 chi) + ell(y, u), where it is known; None where it is searched for."""
        return None

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

    def nearest_residual(self, r: Scalar, chi: Scalar) -> Scalar | None:
        """`nearest` of residuals."""
        return None

    def kinks(self, y):
        return tuple(y - r for r in self.residual_kinks())

    def nearest(self, y, v, chi):
        r = self.nearest_residual(y - v, chi)
        return None if r is None else y - r


class MarginLoss(Loss):
    """A loss of the margin y u alone, for labels ±1."""

    @abc.abstractmethod
    def of_margin(self, s: Scalar) -> Scalar: ...

    def margin_kinks(self) -> tuple[ArrayLike, ...]:
        """Margins at which the slope jumps."""
        return ()

    def __call__(self, y, u):
        return self.of_margin(y * u)

    def nearest_margin(self, s: Scalar, chi: Scalar) -> Scalar | None:
        """`nearest` of margins."""
        return None

    def kinks(self, y):
        return tuple(y * s for s in self.margin_kinks())

    def nearest(self, y, v, chi):
        s = self.nearest_margin(y * v, chi)
        return None if s is None else y * s


class Exact(ResidualLoss):
    """0 where u = y, infinite elsewhere: the codewords that fit every row, whatever beta."""

    def of_residual(self, r):
        return jnp.where(r == 0, 0.0, jnp.inf)

    def tilted(self, y, v, chi, beta):
        """(y − v)²/(2 chi) + log(chi)/(2 beta): `Square` in the limit of chi."""
        assert beta is not None  # `cools`
        r, none = y - v, 0 * v
        return Tilted(
            potential=r**2 / chi / 2 + jnp.log(chi) / beta / 2,
            slope=-r / chi,
            curvature=1 / chi + none,
            loss=none,
            entropy=none - jnp.inf,
        )

    @property
    def cools(self):
        return False


class Vanishing(ResidualLoss):
    """0 where u = y, and only there."""

    @property
    def hard(self):
        return Exact()


class Square(Vanishing):
    """½ (y − u)²."""

    def of_residual(self, r):
        return r**2 / 2

    def tilted(self, y, v, chi, beta):
        """(y − v)²/(2 (1 + chi)) + log(1 + chi)/(2 beta)."""
        r, stiff, none = y - v, 1 + chi, 0 * v
        cooling = 0.0 if beta is None else 1 / beta
        return Tilted(
            potential=r**2 / stiff / 2 + cooling * jnp.log(stiff) / 2,
            slope=-r / stiff,
            curvature=1 / stiff + none,
            loss=r**2 / stiff**2 / 2 + cooling * chi / stiff / 2,
            entropy=(chi / stiff - jnp.log(stiff)) / 2 + none,
        )


class Absolute(Vanishing):
    """|y − u|."""

    def of_residual(self, r):
        return jnp.abs(r)

    def residual_kinks(self):
        return (0.0,)

    def nearest_residual(self, r, chi):
        return r - jnp.clip(r, -chi, chi)


class Huber(Vanishing):
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

    def nearest_residual(self, r, chi):
        return r - chi * jnp.clip(r / (1 + chi), -self.delta, self.delta)


class Quantile(Vanishing):
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

    def nearest_residual(self, r, chi):
        return r - jnp.clip(r, (self.level - 1) * chi, self.level * chi)


class Logistic(MarginLoss):
    """log(1 + exp(−y u))."""

    def of_margin(self, s):
        return jnp.logaddexp(0.0, -s)

    def nearest_margin(self, s, chi):
        """u = s + chi/(1 + exp(u)) by Newton's method, from the side of 0 and of the root that it does not leave."""
        above = s + chi / 2 > 0

        def step(_, u):
            p = jax.nn.sigmoid(-u)
            return u - (u - s - chi * p) / (1 + chi * p * (1 - p))

        start = jnp.where(above, jnp.maximum(s, 0.0), jnp.minimum(s + chi, 0.0))
        return jax.lax.fori_loop(0, _STEPS, step, start)


class Hinge(MarginLoss):
    """max(0, 1 − y u)."""

    @property
    def hard(self):
        return Perceptron(1.0)

    def of_margin(self, s):
        return jnp.maximum(0.0, 1 - s)

    def margin_kinks(self):
        return (1.0,)

    def nearest_margin(self, s, chi):
        return s + jnp.clip(1 - s, 0.0, chi)


class Perceptron(MarginLoss):
    """0 where y u > margin, infinite elsewhere: the codewords that get every row right, whatever beta."""

    margin: Scalar

    def __init__(self, margin: ArrayLike = 0.0):
        self.margin = _checks.finite("margin", margin)

    def of_margin(self, s):
        return jnp.where(s > self.margin, 0.0, jnp.inf)

    def tilted(self, y, v, chi, beta):
        """log Phi((y v − margin)/sqrt(V)), V = chi/beta."""
        assert beta is not None  # `cools`
        root = jnp.sqrt(chi / beta)
        a = (y * v - self.margin) / root
        log_partition = log_ndtr(a)
        g = jnp.exp(-(a**2) / 2 - log_partition) / math.sqrt(2 * math.pi)  # its slope in a; g' = −g (a + g)
        return Tilted(
            potential=-log_partition / beta,
            slope=-y * g * root / chi,
            curvature=g * (a + g) / chi,
            loss=jnp.zeros_like(a),
            entropy=log_partition + g**2 / 2,
        )

    @property
    def cools(self):
        return False

    def bends(self, y, chi):
        return [y * self.margin]


class Fitted(Loss):
    """`loss` of codewords that fit every row without any, which is what constrains them."""

    loss: Loss
    constraint: Loss

    def __call__(self, y, u):
        return self.loss(y, u)

    def of(self, kind):
        return self.loss.of(kind)

    def kinks(self, y):
        return self.loss.kinks(y)

    def tilted(self, y, v, chi, beta):
        return self.constraint.tilted(y, v, chi, beta)

    def bends(self, y, chi):
        return self.constraint.bends(y, chi)

    @property
    def cools(self):
        return False


class States(Loss):
    """`loss` of predictions that fall apart into states, whose means are v1 ~ N(v0, d): (3) of `numerics._panels`.

    Tilted by it, at 1/y for the temperature and chi + y d for the susceptibility, are the states, not the weights.
    """

    loss: Loss
    chi: Scalar
    """Within a state."""
    beta: Scalar | None

    def _spread(self, chi: Scalar, y: Scalar | None) -> Scalar:
        """d."""
        assert y is not None  # 1/y is not 0
        return jnp.maximum(chi - self.chi, 1e-14 * chi) / y

    def __call__(self, y, u):
        return self.loss(y, u)

    def of(self, kind):
        return self.loss.of(kind)

    def of_length(self, t):
        return States(self.loss, t * self.chi, self.beta)

    def _one(self, y: Scalar, v: Scalar) -> Tilted:
        return self.loss.tilted(y, v, self.chi, self.beta)

    def tilted(self, y, v, chi, beta):
        assert beta is not None
        at, width = self.loss.bends(y, self.chi), 7 * self.loss.blur(self.chi, self.beta)
        sharp = [0.0] if self.beta is None else [-width, 0.0, width]
        ends = jnp.asarray([b + w for b in at for w in sharp], jnp.result_type(v))
        return tilted_states(lambda v: self._one(y, v), ends, v, self._spread(chi, beta), beta)

    def tilted_at(self, y, v, chi, beta):
        """Few at a time where each is a quadrature of quadratures."""
        if self.beta is None:
            return super().tilted_at(y, v, chi, beta)
        return jax.lax.map(lambda v: self.tilted(y, v, chi, beta), v, batch_size=_TOGETHER)

    def bends(self, y, chi):
        return [at + (chi - self.chi) * self._one(y, at).slope for at in self.loss.bends(y, self.chi)]

    def blur(self, chi, beta):
        return jnp.sqrt(self._spread(chi, beta) + self.loss.blur(self.chi, self.beta) ** 2)
