"""The learning problem: a linear teacher, labels made of it, and the loss that is minimised.  theory 7, [Q] section 2"""

# Annotations are not postponed here: equinox has to see `AbstractVar` itself.
import abc
from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, PRNGKeyArray

from replicajax import _checks
from replicajax.distributions import Distribution, Mixture, Normal
from replicajax.models._channel import Channel, by_length, regression_channel, regression_loss, square_channel
from replicajax.models._features import Features, RowLengths
from replicajax.models._losses import Fitted, Loss, MarginLoss, ResidualLoss, Square, States
from replicajax.models._moments import moments_of_data
from replicajax.models._rows import Deployed
from replicajax.models._turned import turned, turned_square
from replicajax.numerics import backend_of, harmonic_root


class Weights(NamedTuple):
    """The law of the teacher's weights as a mixture of Gaussians, and what features weights of each component have."""

    weight: Float[Array, " components"]
    mean: Float[Array, " components"]
    variance: Float[Array, " components"]
    scale: Float[Array, " components"] | None = None
    """Eigenvalue; None where all are 1."""


class Rounded(NamedTuple):
    """Of every weight at its most probable level."""

    m: Array
    q: Array
    response: Array
    """Of its mean to the field."""
    crossed: Array
    """Its mean product with <a>."""


class Verdict(NamedTuple):
    """What a solution is worth on labels, in the units of the weights."""

    error: Array
    """Of the mean predictor, as `Task.error_is` says."""
    gibbs_error: Array
    rounded_error: Array
    loss: Array
    """Of the mean predictor on fresh labels."""
    by_order: tuple[Array, Array, Array]
    """`error` in m, q and chi."""
    by_felt: tuple[Array, ...] = ()
    """And in the unknowns, where turned axes ask them."""


def deployed(said: Channel, chi: Array, rounded: Rounded) -> Deployed:
    """Weights in turned axes, rounded: f = gain h + share r + noise, h the field, r = <a>/chi − h the data's answer to it."""
    assert said.effective is not None
    noise, chi_hat, gain = said.effective.noise, said.chi_hat, rounded.response
    xp = backend_of(chi_hat).xp
    some = noise > 1e-12 * chi_hat  # fine levels over cold weights are no noise at all
    share = xp.where(some, (rounded.crossed / chi - gain * chi_hat) / xp.where(some, noise, 1.0), 0.0)
    return Deployed(gain / chi, share - gain, rounded.q - gain**2 * chi_hat - share**2 * noise)


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
        """Whether it is the square loss of a regression on iid features, with its own closed forms (theory 1.1)."""

    @property
    @abc.abstractmethod
    def in_closed_form(self) -> bool:
        """Whether the channel has closed forms, at beta = inf too."""

    @property
    @abc.abstractmethod
    def matched(self) -> bool:
        """Whether m_hat = L, of the rows, as where the loss knows y − u only."""

    @property
    @abc.abstractmethod
    def turned(self) -> bool:
        """Whether weights are quantized in axes turned at random, where they see nothing of a teacher (theory 7.2, 9)."""

    @property
    @abc.abstractmethod
    def elementwise(self) -> bool:
        """Whether `channel` and `judge` take many points at once, in NumPy or JAX, as `start` does anyway."""

    @property
    def kind(self) -> str:
        """What its numbers alone do not tell: two tasks are the same if this and those are."""
        return repr(jax.tree.structure(self))

    @property
    @abc.abstractmethod
    def error_is(self) -> str:
        """What the generalisation error is, in few words."""

    @property
    def cools(self) -> bool:
        """Whether it has a limit beta = inf."""
        return self.in_closed_form or self.loss.cools

    @property
    def fitted(self) -> "Task | None":
        """With the constraint that beta = inf leaves of its loss where codewords fit every row; None where none is known."""
        return None

    @abc.abstractmethod
    def channel(self, m: Array, q: Array, chi: Array, beta: Array | None) -> Channel:
        """What labels and loss make of the predictions, of one point: (1) of `_channel`.  In the units of the weights."""

    @abc.abstractmethod
    def judge(self, said: Channel, m: Array, q: Array, chi: Array, beta: Array, rounded: Rounded) -> Verdict:
        """What the channel's order parameters are worth on labels."""

    @abc.abstractmethod
    def start(self, precision: Array) -> tuple[Array, Array]:
        """Where a search starts, chi_hat/L² second: L and that as if weights were Gaussian, of that precision over beta."""

    def bare(self) -> "Task":
        """Without what only `judge` asks for, and of one of few sizes: one program for many."""
        return self

    @abc.abstractmethod
    def weights(self) -> Weights: ...

    @abc.abstractmethod
    def rescaled(self, noise: Array, ridge: Array) -> "Task":
        """With weights in units of their own scale; signal 1."""


class Taught(Task):
    """M = alpha N rows sqrt(t) x, x ~ N(0, Sigma/N), labels of u0 = x·w0; Sigma = 1 and t = 1 unless told.

    A kind of task says what its labels are by a few methods; all take order parameters of the predictions in the units of
    the weights, and rho, the mean square of u0.
    """

    teacher: eqx.AbstractVar[Distribution]
    features: eqx.AbstractVar[Features | None]
    rows: eqx.AbstractVar[RowLengths | None]

    @property
    @abc.abstractmethod
    def adds_noise(self) -> bool:
        """Whether labels are u0 + N(0, noise), so that `error` leaves out what no predictor can know."""

    @abc.abstractmethod
    def of_rows(self, m: Array, q: Array, chi: Array, beta: Array | None, rho: Array) -> Channel:
        """(1) of `_channel`, for rows of one length; in closed form of many points, and rows of all lengths."""

    @abc.abstractmethod
    def error_of(self, m: Array, q: Array, rho: Array) -> Array:
        """Generalisation error of predictions of overlap m with the truth and mean square q."""

    @abc.abstractmethod
    def loss_of(self, m: Array, q: Array, rho: Array) -> Array:
        """Their loss on fresh labels, per label."""

    @abc.abstractmethod
    def labelled(self, truth: Float[Array, " rows"], key: PRNGKeyArray) -> Float[Array, " rows"]:
        """Labels drawn for u0 = `truth`."""

    @property
    def iid(self) -> bool:
        return self.features is None and self.rows is None

    @property
    def turned(self) -> bool:
        return self.features is not None and self.features.turned

    @property
    def elementwise(self) -> bool:
        return self.in_closed_form and not (self.turned and self.rows is not None)

    @property
    def fitted(self):
        hard = self.loss.hard
        return None if hard is None else eqx.tree_at(lambda t: t.loss, self, Fitted(self.loss, hard))

    def among_states(self, chi: Array, beta: Array | None) -> "Taught":
        """With the loss of predictions that fall apart into states, of susceptibility chi each."""
        return eqx.tree_at(lambda t: t.loss, self, States(self.loss, chi, beta))

    @property
    def kind(self) -> str:
        numbers = jax.tree.map(lambda x: np.asarray(x).tolist(), jax.tree.leaves((self.features, self.rows)))
        return super().kind + (f" {numbers}" if numbers else "")

    @property
    def rho(self) -> Array:
        """Mean square of u0."""
        if self.features is None:
            return self.signal
        return self.signal * self.features.mean(self.features.eigenvalues * self.features.teacher)

    @property
    def given(self) -> str:
        """What is not as it is unless told, for a line of text."""
        teacher = None if isinstance(self.teacher, Normal) else f"teacher {self.teacher}"
        return "".join(f", {part}" for part in (teacher, self.features, self.rows) if part is not None)

    @property
    def teacher_scale(self) -> Float[Array, ""]:
        """Factor from the teacher's own scale to that of `signal`."""
        return jnp.sqrt(self.signal / self.teacher.second_moment().astype(self.signal.dtype))

    def channel(self, m, q, chi, beta):
        if self.features is None or not self.features.turned:
            return self.label_channel(m, q, chi, beta)
        if self.elementwise:
            return turned_square(self.features, self.alpha, self.signal, self.noise, q, chi, beta)
        return turned(self, q, chi, beta)

    def label_channel(self, m, q, chi, beta) -> Channel:
        """What the labels make of the predictions."""
        if self.in_closed_form or self.rows is None:
            return self.of_rows(m, q, chi, beta, self.rho)

        def of_length(t, m, q, chi, rho) -> Channel:
            return eqx.tree_at(lambda task: task.loss, self, self.loss.of_length(t)).of_rows(m, q, chi, beta, rho)

        return by_length(self.rows, of_length, m, q, chi, self.rho)

    def _of_lengths(self, of: Callable[[Array, Array, Array], Array], m, q) -> Array:
        if self.rows is None:
            return of(m, q, self.rho)
        return self.rows.share @ jax.vmap(lambda t: of(t * m, t * q, t * self.rho))(self.rows.squares)

    def error(self, m, q) -> Array:
        """Of predictions of overlap m with the truth and mean square q, in rows of all lengths."""
        return self._of_lengths(self.error_of, m, q)

    def fresh_loss(self, m, q) -> Array:
        return self._of_lengths(self.loss_of, m, q)

    def error_by(self, m, q) -> tuple[Array, Array]:
        """Its derivatives in m and q."""
        return jax.grad(self.error, (0, 1))(m, q)

    def judge(self, said, m, q, chi, beta, rounded) -> Verdict:
        felt: tuple[Array, ...] = ()
        if said.label is None:
            of_m, of_q = self.error_by(m, q)
            slopes = of_m, of_q, 0 * chi
            rounded_error = self.error(rounded.m, rounded.q)
        else:
            assert said.effective is not None
            _, *label, size, m_by, q_by = said.label
            rough = deployed(said, chi, rounded)
            noise = rough.share**2 * said.effective.noise + rough.noise
            m, q, chi = label
            crossed = 2 * rough.gain * rough.share * said.effective.noise * chi
            rounded_error = self.error(rough.gain * m, rough.gain**2 * q + crossed + noise * size)
            slopes = 0 * chi, 0 * chi, 0 * chi
            if m_by is not None and q_by is not None:
                of_m, of_q = self.error_by(m, q)
                of_weights = [of_m * x + of_q * y for x, y in zip(m_by, q_by, strict=True)]
                by_q, by_chi, *by_felt = of_weights
                slopes, felt = (0 * chi, by_q, by_chi), tuple(by_felt)
        gibbs, loss = self.error(m, q + chi / beta), self.fresh_loss(m, q)
        return Verdict(self.error(m, q), gibbs, rounded_error, loss, slopes, felt)

    def start(self, precision):
        """Ridge regression with that ridge: L_x = z/u, where alpha = z/u + mean lambda/(lambda + u)."""
        on = backend_of(precision)
        xp, features = on.xp, self.features
        zero = xp.zeros_like(precision)[..., None]
        if features is None:
            eigenvalues, power, share = zero + 1, zero + self.signal[..., None], zero + 1
        else:
            eigenvalues, share = zero + features.eigenvalues, zero + features.share
            power = self.signal[..., None] * features.teacher

        def mean(x):
            return (share * x).sum(-1)

        z = xp.maximum(precision, 1e-4 * mean(eigenvalues))
        poles = xp.concatenate([zero, eigenvalues], -1)
        u = harmonic_root(on, xp.concatenate([z[..., None], share * eigenvalues], -1), poles, self.alpha)
        E = 1 / (eigenvalues + u[..., None])
        L, square = z / u, eigenvalues * E**2
        left = xp.maximum(1 - mean(eigenvalues * square) / self.alpha, 0.1)
        t = (u**2 * mean(power * square) + self.noise) / (left * self.alpha)
        if not self.turned:
            return L, t
        chi = mean(E) / L
        return 1 / chi - z, (mean(power * eigenvalues * square) + t * mean(square)) / (1 - z * chi) ** 2

    def weights(self) -> Weights:
        """Of second moment `signal`, and in aligned axes of each eigenvalue's own share of it."""
        if self.turned:
            return Weights(*(jnp.full((1,), x, self.signal.dtype) for x in (1.0, 0.0, 0.0)))
        weight, mean, variance = (jnp.asarray(x, self.signal.dtype) for x in self.teacher.mixture())
        scale = self.teacher_scale
        law = Mixture(weight, scale * mean, scale**2 * variance)
        return Weights(*law) if self.features is None else along_axes(law, self.features)

    def rescaled(self, noise, ridge):
        return eqx.tree_at(lambda t: (t.signal, t.noise, t.ridge), self, (jnp.ones_like(self.signal), noise, ridge))


def along_axes(law: Mixture, features: Features) -> Weights:
    """Components last: one for each component of the law and each eigenvalue."""
    weight, mean, variance = (x[..., :, None] for x in law)
    share, power, eigenvalues = (x[..., None, :] for x in (features.share, features.teacher, features.eigenvalues))
    xp = backend_of(weight, share).xp
    each = weight * share, mean * xp.sqrt(power), variance * power, 0 * weight + eigenvalues
    return Weights(*(x.reshape(*x.shape[:-2], -1) for x in each))


def at_heat(task: Task, beta: Any, cold: bool | None) -> Any:
    """beta as `Task.channel` wants it: where it is known to be inf, closed forms take the number and all others None."""
    return None if cold and not task.in_closed_form else beta


def with_limit(task: Task, beta: Any) -> None:
    """Raises ValueError where beta = inf is asked of a loss that has no limit there."""
    if not task.cools and not _checks.is_traced(beta) and np.isinf(np.asarray(beta)).any():
        raise ValueError(f"beta must be finite for {task.loss}, which knows no other, got inf")


def square_only(task: Task, what: str) -> None:
    """Raises ValueError where `what` knows the square loss only, and rows of one length."""
    if not isinstance(task.loss, Square):
        raise ValueError(f"task must have the square loss for {what}, got {task.loss}")
    if isinstance(task, Taught) and task.rows is not None:
        raise ValueError(f"task must have rows of one length for {what}, got {task.rows}")


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


def featured(
    features: Features | None, rows: RowLengths | None, teacher: Distribution
) -> tuple[Features | None, RowLengths | None]:
    """Checked, if given."""
    if features is not None:
        _checks.instance("features", features, Features, "rj.Features([0.2, 0.8, 2.0])")
        if features.turned and not isinstance(teacher, Normal):
            raise ValueError(
                f"teacher must be left out in rotated axes, where every teacher is Gaussian, got {teacher} "
                '(features with axes="aligned" keep it)'
            )
    if rows is not None:
        _checks.instance("rows", rows, RowLengths, "rj.RowLengths.student_t(5.0)")
    return features, rows


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
    features: Features | None
    rows: RowLengths | None

    def __init__(
        self,
        alpha: ArrayLike,
        signal: ArrayLike | None = None,
        noise: ArrayLike = 0.0,
        ridge: ArrayLike = 0.0,
        teacher: Distribution | None = None,
        loss: Loss | None = None,
        features: Features | None = None,
        rows: RowLengths | None = None,
    ):
        """A Gaussian teacher if None; the teacher's own scale (1 for a Gaussian) if `signal` is None; square loss if None;
        iid features and rows of one length if None.

        Raises ValueError on alpha <= 0, signal <= 0, noise < 0, ridge < 0, NaN or inf, TypeError on parts of another kind.
        """
        self.teacher, self.alpha, self.signal, self.noise, self.ridge = checked(teacher, alpha, signal, noise, ridge)
        self.loss = loss_named(loss, Square())
        self.features, self.rows = featured(features, rows, self.teacher)

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
        return self.in_closed_form and self.iid

    @property
    def in_closed_form(self) -> bool:
        return isinstance(self.loss, Square)

    @property
    def matched(self) -> bool:
        return self.loss.of(ResidualLoss)

    @property
    def adds_noise(self) -> bool:
        return True

    @property
    def error_is(self) -> str:
        return "mean square of the mean predictor, noise excluded"

    def labelled(self, truth, key):
        return truth + _checks.known(self.noise) ** 0.5 * jax.random.normal(key, truth.shape, truth.dtype)

    def of_rows(self, m, q, chi, beta, rho):
        if self.in_closed_form:
            assert beta is not None  # `at_heat`
            return square_channel(self.alpha, m, q, rho, self.noise, chi, beta, self.rows)
        return regression_channel(self.loss, self.alpha, m, q, rho, self.noise, chi, beta)

    def error(self, m, q):
        """eg = rho − 2 m + q: mean square, label noise excluded, whatever the lengths of rows."""
        return self.error_of(m, q, self.rho)

    def error_of(self, m, q, rho):
        return rho - 2 * m + q

    def error_by(self, m, q):
        return 0 * m - 2, 0 * q + 1

    def fresh_loss(self, m, q):
        if self.in_closed_form:
            return self.residual_variance(m, q) / 2
        return super().fresh_loss(m, q)

    def loss_of(self, m, q, rho):
        return regression_loss(self.loss, m, q, rho, self.noise)

    def residual_variance(self, m, q) -> Float[Array, ""]:
        """R = rho − 2 m + q + noise: variance of a fresh label about the mean predictor (section 0)."""
        return self.error(m, q) + self.noise

    def __str__(self) -> str:
        loss = "" if isinstance(self.loss, Square) else f", {self.loss}"
        return (
            f"linear regression, alpha {self.alpha:.6g}, signal {self.signal:.6g}, "
            f"noise {self.noise:.6g}, ridge {self.ridge:.6g}{loss}{self.given}"
        )
