"""Labels ±1 of a linear teacher.  theory 7.1"""

from __future__ import annotations

from typing import Literal

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float

from replicajax import _checks
from replicajax.distributions import Distribution
from replicajax.models._channel import Labels, classification_channel, classification_error, classification_loss
from replicajax.models._features import Features, RowLengths
from replicajax.models._losses import Logistic, Loss
from replicajax.models._task import Taught, checked, featured, loss_named

LABELS = ("probit", "logit", "random")


class Classification(Taught):
    """Labels ±1 of u0 = x·w0 with M = alpha N rows x ~ N(0, I_N/N), fitted under H(w) = sum ell(y, x·w) + ½ ridge |w|².

    Errors are the share of fresh labels that the sign of the prediction misses.

    Attributes:
      alpha: rows per weight, > 0.
      signal: second moment of a teacher weight, > 0.
      noise: variance of what is added to u0 before its sign is taken, >= 0 ("probit" only).
      ridge: coefficient of |w|²/2, >= 0.
      teacher: law of w0_i, up to the scale that `signal` sets.
      loss: ell, one of `rj.losses` or your own.
      labels: "probit", y = sign(u0 + sqrt(noise) xi); "logit", P(y) = 1/(1 + exp(−y u0)); "random", tossed (capacity).
    """

    alpha: Float[Array, ""]
    signal: Float[Array, ""]
    noise: Float[Array, ""]
    ridge: Float[Array, ""]
    teacher: Distribution
    loss: Loss
    features: Features | None
    rows: RowLengths | None
    labels: str = eqx.field(static=True)

    def __init__(
        self,
        alpha: ArrayLike,
        signal: ArrayLike | None = None,
        noise: ArrayLike = 0.0,
        ridge: ArrayLike = 0.0,
        teacher: Distribution | None = None,
        loss: Loss | None = None,
        labels: Literal["probit", "logit", "random"] = "probit",
        features: Features | None = None,
        rows: RowLengths | None = None,
    ):
        """A Gaussian teacher if None, of its own scale (1) if `signal` is None; logistic loss if None; iid features and
        rows of one length if None.

        Raises:
          ValueError: alpha <= 0, signal <= 0, noise < 0, ridge < 0, NaN or inf; noise with labels other than "probit".
        """
        self.teacher, self.alpha, self.signal, self.noise, self.ridge = checked(teacher, alpha, signal, noise, ridge)
        self.loss = loss_named(loss, Logistic())
        self.features, self.rows = featured(features, rows, self.teacher)
        self.labels = _checks.choice("labels", labels, LABELS)
        if labels != "probit" and not _checks.is_traced(self.noise) and _checks.known(self.noise).any():
            raise ValueError(f"noise must be 0 for labels {labels!r}, got {_checks.brief(self.noise)}")

    @property
    def closed(self) -> bool:
        return False

    @property
    def in_closed_form(self) -> bool:
        return False

    @property
    def matched(self) -> bool:
        return False

    @property
    def adds_noise(self) -> bool:
        return False

    @property
    def error_is(self) -> str:
        return "share of fresh labels that the mean predictor misses"

    @property
    def _law(self) -> Labels:
        return Labels(self.labels, self.noise)

    def labelled(self, truth, key):
        if self.labels == "random":
            return jax.random.rademacher(key, truth.shape, truth.dtype)
        if self.labels == "logit":
            return jnp.where(jax.random.uniform(key, truth.shape) < jax.nn.sigmoid(truth), 1.0, -1.0)
        return jnp.where(truth + jnp.sqrt(self.noise) * jax.random.normal(key, truth.shape, truth.dtype) > 0, 1.0, -1.0)

    def of_rows(self, m, q, chi, beta, rho):
        return classification_channel(self.loss, self._law, self.alpha, m, q, rho, chi, beta)

    def error_of(self, m, q, rho):
        """arccos(m / sqrt(q (rho + noise)))/pi for "probit"."""
        return classification_error(self._law, m, q, rho)

    def chance_of_one(self, v: Float[Array, " n"], m: Array, q: Array) -> Float[Array, " n"]:
        """P(y = 1) of fresh rows that are predicted v, by weights of overlaps m and q: the truth there is N(m v/q, rho − m²/q).

        In rows of length t all three variances have its square, and long ones are those that are predicted far from 0.
        """

        def of(t):
            return self._law.chance(1.0, m * v / q, t * (self.rho - m**2 / q))[0]

        if self.rows is None:
            return of(1.0)
        t = self.rows.squares[:, None]
        weight = jax.nn.softmax(jnp.log(self.rows.share[:, None]) - jnp.log(t) / 2 - v**2 / (2 * t * q), 0)
        return (weight * jax.vmap(of)(self.rows.squares)).sum(0)

    def loss_of(self, m, q, rho):
        return classification_loss(self.loss, self._law, m, q, rho)

    def __str__(self) -> str:
        return (
            f"classification, {self.labels} labels, {self.loss}, alpha {self.alpha:.6g}, signal {self.signal:.6g}, "
            f"noise {self.noise:.6g}, ridge {self.ridge:.6g}{self.given}"
        )
