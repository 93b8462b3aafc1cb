"""The learning problem: a linear teacher seen through noise. theory: [Q] section 2."""

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float

from replicajax import _checks
from replicajax.distributions import Distribution, Mixture, Normal
from replicajax.models._moments import moments_of_data


class LinearRegression(eqx.Module):
    """y = X w0 + xi with M = alpha N rows x ~ N(0, I_N / N), w0_i of variance `signal`, xi ~ N(0, noise).

    The weights are fitted under H(w) = ½ sum (y − x·w)² + ½ ridge |w|².

    Attributes:
      alpha: rows per weight, M/N > 0.
      signal: second moment of a teacher weight, > 0 (its variance, for a teacher of mean 0).
      noise: variance of the label noise, >= 0.
      ridge: coefficient of |w|²/2, >= 0.
      teacher: law of w0_i, up to the scale that `signal` sets.
    """

    alpha: Float[Array, ""]
    signal: Float[Array, ""]
    noise: Float[Array, ""]
    ridge: Float[Array, ""]
    teacher: Distribution

    def __init__(
        self,
        alpha: ArrayLike,
        signal: ArrayLike | None = None,
        noise: ArrayLike = 0.0,
        ridge: ArrayLike = 0.0,
        teacher: Distribution | None = None,
    ):
        """A Gaussian teacher if None; the teacher's own scale (1 for a Gaussian) if `signal` is None.

        Raises ValueError on alpha <= 0, signal <= 0, noise < 0, ridge < 0, NaN or inf.
        """
        self.teacher = Normal() if teacher is None else teacher
        _checks.instance("teacher", self.teacher, Distribution, "rj.distributions.Laplace()")
        self.alpha = _checks.positive("alpha", alpha)
        self.signal = _checks.variance("signal", self.teacher.second_moment() if signal is None else signal)
        self.noise = _checks.variance("noise", noise, zero=True)
        self.ridge = _checks.nonnegative("ridge", ridge)

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
    def teacher_scale(self) -> Float[Array, ""]:
        """Factor from the teacher's own scale to that of `signal`."""
        return jnp.sqrt(self.signal / self.teacher.second_moment().astype(self.signal.dtype))

    def weights(self) -> Mixture:
        """The law of w0_i as a mixture of Gaussians of second moment `signal`."""
        weight, mean, variance = (jnp.asarray(x, self.signal.dtype) for x in self.teacher.mixture())
        scale = self.teacher_scale
        return Mixture(weight, scale * mean, scale**2 * variance)

    def residual_variance(self, m, q) -> Float[Array, ""]:
        """R = signal − 2 m + q + noise: variance of a fresh label about the mean predictor (section 0)."""
        return self.signal - 2 * m + q + self.noise

    def __str__(self) -> str:
        teacher = "" if isinstance(self.teacher, Normal) else f", teacher {self.teacher}"
        return (
            f"linear regression, alpha {self.alpha:.6g}, signal {self.signal:.6g}, "
            f"noise {self.noise:.6g}, ridge {self.ridge:.6g}{teacher}"
        )
