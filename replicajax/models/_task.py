"""The learning problem: a linear teacher, labels made of it, and the loss that is minimised.  theory 7, [Q] section 2"""

import abc
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float

from replicajax import _checks
from replicajax.distributions import Distribution, Mixture, Normal
from replicajax.models._channel import Channel, regression_channel, regression_loss
from replicajax.models._losses import Loss, MarginLoss, ResidualLoss, Square
from replicajax.models._moments import moments_of_data


class Task(eqx.Module):
    """Weights fitted under H(w) = sum of losses + ½ ridge |w|², in whose theory the labels play their part by a channel."""

    alpha: eqx.AbstractVar[Float[Array, ""]]
    signal: eqx.AbstractVar[Float[Array, ""]]
    """Mean square of a weight, the unit of the theory."""
    noise: eqx.AbstractVar[Float[Array, ""]]
    ridge: eqx.AbstractVar[Float[Array, ""]]
    loss: eqx.AbstractVar[Loss]

    @property
    @abc.abstractmethod
    def closed(self) -> bool:
        """Whether the channel is the square loss of a regression, whose averages are closed forms (theory 1.1)."""

    @property
    @abc.abstractmethod
    def matched(self) -> bool:
        """Whether m_hat = L, as where the loss knows y − u only."""

    @property
    def kind(self) -> str:
        """What its numbers alone do not tell: two tasks are the same if this and those are."""
        return repr(jax.tree.structure(self))

    @property
    @abc.abstractmethod
    def error_is(self) -> str:
        """What the generalisation error is, in few words."""

    @abc.abstractmethod
    def channel(self, m: Array, q: Array, chi: Array, beta: Array) -> Channel:
        """What labels and loss make of the predictions, of one point: (1) of `_channel`.  In the units of the weights."""

    @abc.abstractmethod
    def weights(self) -> Mixture:
        """The law of the teacher's weights as a mixture of Gaussians."""

    @abc.abstractmethod
    def rescaled(self, noise: Array, ridge: Array) -> "Task":
        """With weights in units of their own scale; signal 1."""


class Taught(Task):
    """M = alpha N rows x ~ N(0, I_N/N), labels of u0 = x·w0.

    A kind of task says what its labels are by a few methods; all take order parameters in the units of the weights.
    """

    teacher: eqx.AbstractVar[Distribution]

    @property
    @abc.abstractmethod
    def adds_noise(self) -> bool:
        """Whether labels are u0 + N(0, noise), so that `error` leaves out what no predictor can know."""

    @abc.abstractmethod
    def error(self, m: Array, q: Array) -> Array:
        """Generalisation error of weights of overlap m with the teacher and mean square q."""

    @abc.abstractmethod
    def fresh_loss(self, m: Array, q: Array) -> Array:
        """The loss of their predictions on fresh labels, per label."""

    @property
    def teacher_scale(self) -> Float[Array, ""]:
        """Factor from the teacher's own scale to that of `signal`."""
        return jnp.sqrt(self.signal / self.teacher.second_moment().astype(self.signal.dtype))

    def weights(self) -> Mixture:
        """Of second moment `signal`."""
        weight, mean, variance = (jnp.asarray(x, self.signal.dtype) for x in self.teacher.mixture())
        scale = self.teacher_scale
        return Mixture(weight, scale * mean, scale**2 * variance)

    def rescaled(self, noise, ridge):
        return eqx.tree_at(lambda t: (t.signal, t.noise, t.ridge), self, (jnp.ones_like(self.signal), noise, ridge))


def with_limit(task: Task, beta: Any) -> None:
    """Raises ValueError where beta = inf is asked of a channel whose limit is not known."""
    if not task.closed and not _checks.is_traced(beta) and np.isinf(np.asarray(beta)).any():
        what = f"a {type(task).__name__} with {task.loss}"
        raise ValueError(f"beta must be finite for {what}, got inf (LinearRegression with square loss has its limit)")


def square_only(task: Task, what: str) -> None:
    """Raises ValueError where `what` knows the square loss only."""
    if not task.closed:
        raise ValueError(f"task must have the square loss for {what}, got {task.loss}")


def checked(
    teacher: Distribution | None, alpha: ArrayLike, signal: ArrayLike | None, noise: ArrayLike, ridge: ArrayLike
) -> tuple[Distribution, Array, Array, Array, Array]:
    """What every task is made of; a Gaussian teacher if None, of its own scale if `signal` is None."""
    law = Normal() if teacher is None else teacher
    _checks.instance("teacher", law, Distribution, "rj.distributions.Laplace()")
    return (
        law,
        _checks.positive("alpha", alpha),
        _checks.variance("signal", law.second_moment() if signal is None else signal),
        _checks.variance("noise", noise, zero=True),
        _checks.nonnegative("ridge", ridge),
    )


def loss_named(loss: Any, default: Loss) -> Loss:
    """`loss` checked, or `default` for None."""
    if loss is None:
        return default
    _checks.instance("loss", loss, Loss, "rj.losses.Huber(1.0)")
    return loss


def loss_for(loss: Any, y: Array) -> Loss:
    """`loss` checked against the labels it is to be of; square loss if None."""
    found = loss_named(loss, Square())
    if isinstance(found, MarginLoss) and not _checks.is_traced(y) and not (np.abs(np.asarray(y)) == 1).all():
        raise ValueError(f"y must be labels ±1 for {found}, got {_checks.brief(y)}")
    return found


class LinearRegression(Taught):
    """y = X w0 + xi with M = alpha N rows x ~ N(0, I_N / N), w0_i of variance `signal`, xi ~ N(0, noise).

    The weights are fitted under H(w) = sum ell(y, x·w) + ½ ridge |w|²; ell is ½ (y − x·w)² unless told.

    Attributes:
      alpha: rows per weight, M/N > 0.
      signal: second moment of a teacher weight, > 0 (its variance, for a teacher of mean 0).
      noise: variance of the label noise, >= 0.
      ridge: coefficient of |w|²/2, >= 0.
      teacher: law of w0_i, up to the scale that `signal` sets.
      loss: ell, one of `rj.losses` or your own.
    """

    alpha: Float[Array, ""]
    signal: Float[Array, ""]
    noise: Float[Array, ""]
    ridge: Float[Array, ""]
    teacher: Distribution
    loss: Loss

    def __init__(
        self,
        alpha: ArrayLike,
        signal: ArrayLike | None = None,
        noise: ArrayLike = 0.0,
        ridge: ArrayLike = 0.0,
        teacher: Distribution | None = None,
        loss: Loss | None = None,
    ):
        """A Gaussian teacher if None; the teacher's own scale (1 for a Gaussian) if `signal` is None; square loss if None.

        Raises ValueError on alpha <= 0, signal <= 0, noise < 0, ridge < 0, NaN or inf.
        """
        self.teacher, self.alpha, self.signal, self.noise, self.ridge = checked(teacher, alpha, signal, noise, ridge)
        self.loss = loss_named(loss, Square())

    @classmethod
    def from_data(
        cls,
        X: ArrayLike,
        y: ArrayLike,
        *,
        alpha: ArrayLike | None = None,
        ridge: ArrayLike = 0.0,
        whitened: bool = False,
    ):
        """The task whose signal and noise are those of data, by the method of moments; its teacher is Gaussian.

        Args:
          X: (rows, columns) features, any scale; centred and whitened here, dropping directions without variance.
          y: (rows,) labels; centred here.
          alpha: rows per feature to train on; those of X per independent column if None.
          ridge: coefficient of |w|²/2 in the fit.
          whitened: the rows are already draws with mean 0 and covariance I (then fewer rows than columns will do).

        Raises:
          ValueError: shapes that disagree, NaN, constant labels, too few rows to estimate from, or no signal.
        """
        available, signal, noise = moments_of_data(X, y, whitened=whitened)
        return cls(alpha=available if alpha is None else alpha, signal=signal, noise=noise, ridge=ridge)

    @property
    def closed(self) -> bool:
        return isinstance(self.loss, Square)

    @property
    def matched(self) -> bool:
        return isinstance(self.loss, ResidualLoss)

    @property
    def adds_noise(self) -> bool:
        return True

    @property
    def error_is(self) -> str:
        return "mean square of the mean predictor, noise excluded"

    def channel(self, m, q, chi, beta):
        return regression_channel(self.loss, self.alpha, m, q, self.signal, self.noise, chi, beta)

    def error(self, m, q):
        """eg = signal − 2 m + q: mean square, label noise excluded."""
        return self.signal - 2 * m + q

    def fresh_loss(self, m, q):
        return regression_loss(self.loss, m, q, self.signal, self.noise)

    def residual_variance(self, m, q) -> Float[Array, ""]:
        """R = signal − 2 m + q + noise: variance of a fresh label about the mean predictor (section 0)."""
        return self.signal - 2 * m + q + self.noise

    def __str__(self) -> str:
        teacher = "" if isinstance(self.teacher, Normal) else f", teacher {self.teacher}"
        loss = "" if isinstance(self.loss, Square) else f", {self.loss}"
        return (
            f"linear regression, alpha {self.alpha:.6g}, signal {self.signal:.6g}, "
            f"noise {self.noise:.6g}, ridge {self.ridge:.6g}{teacher}{loss}"
        )
