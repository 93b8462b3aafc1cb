"""Which law weights follow, by maximum likelihood.  In numpy: another number of weights compiles nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from replicajax import _checks
from replicajax.distributions._continuous import GeneralizedNormal, Laplace, Normal, StudentT
from replicajax.distributions._symmetric import Symmetric

_MOST = 2**16
"""Weights looked at, evenly spaced: parameters to half a percent."""


class Fit(NamedTuple):
    law: Symmetric
    log_likelihood: Array
    """Per weight, in nats."""
    converged: Array


def fit(weights: Any, family: str | None = None, *, sample: int = _MOST) -> Fit:
    """The symmetric law of mean 0 under which the weights are likeliest.

    Args:
      weights: any shape.
      family: "normal", "laplace", "student_t" or "generalized_normal"; if None the best of the first three, each further
        parameter having to earn ½ log(sample) nats (BIC).
      sample: at most so many weights, evenly spaced, are looked at.

    Raises:
      TypeError, ValueError: an unknown family; NaN, infinite, fewer than 10 or only zero weights.
    """
    flat = np.asarray(weights).reshape(-1)
    flat = np.abs(flat[:: max(1, -(-flat.size // sample))].astype(np.float64))
    if flat.size < 10 or not np.isfinite(flat).all() or not flat.any():
        raise ValueError(f"weights must be at least ten finite numbers, not all 0, got {_checks.brief(flat)}")
    if family is not None:
        return _FAMILIES[_checks.choice("family", family, tuple(_FAMILIES))](flat)
    price = 0.5 * np.log(flat.size) / flat.size
    fits = [_FAMILIES[name](flat) for name in ("normal", "laplace", "student_t")]
    return max(fits, key=lambda f: float(f.log_likelihood) - price * len(jax.tree.leaves(f.law)))


def _normal(x: np.ndarray) -> Fit:
    rms = np.sqrt(np.mean(x**2))
    return _found(Normal(rms), -np.log(2 * np.pi * np.e * rms**2) / 2)


def _laplace(x: np.ndarray) -> Fit:
    return _found(Laplace(np.sqrt(2) * x.mean()), -1 - np.log(2 * x.mean()))


def _student_t(x: np.ndarray) -> Fit:
    """log p = −½(v + 1) log(1 + x²/(v s²)) − log s − log[sqrt(v) B(½, v/2)],   s² = rms² (v − 2)/v."""
    from scipy.special import betaln

    def loss(parameters):
        log_rms, log_above = parameters
        df = 2 + np.exp(min(log_above, 12.0))  # a t of 1e5 degrees is Gaussian
        s2v = np.exp(2 * log_rms) * (df - 2)
        return (df + 1) / 2 * np.log1p(square / s2v).mean() + np.log(s2v) / 2 + betaln(0.5, df / 2)

    unit = np.sqrt(np.mean(x**2))
    square = (x / unit) ** 2
    (log_rms, log_above), likelihood, converged = _least(loss, [0.0, 1.5])
    law = StudentT(2 + np.exp(min(log_above, 12.0)), unit * np.exp(log_rms))
    return _found(law, likelihood - np.log(unit), converged)


def _generalized_normal(x: np.ndarray) -> Fit:
    """log p = −(x/s)^p + log p − log 2 s Γ(1/p), likeliest at s^p = p mean x^p; rms = s sqrt{Γ(3/p)/Γ(1/p)}."""
    from scipy.special import gammaln

    unit = x.max()
    log_x = np.log(x / unit, out=np.full(x.shape, -np.inf), where=x > 0)

    def log_scale(p):
        return np.log(p * np.exp(p * log_x).mean()) / p

    def loss(parameters):
        p = np.exp(parameters[0])
        return 1 / p - np.log(p / 2) + log_scale(p) + gammaln(1 / p)

    (log_p,), likelihood, converged = _least(loss, [0.3])
    p = np.exp(log_p)
    law = GeneralizedNormal(p, unit * np.exp(log_scale(p) + (gammaln(3 / p) - gammaln(1 / p)) / 2))
    return _found(law, likelihood - np.log(unit), converged)


def _least(loss: Callable[[np.ndarray], float], start: list[float]) -> tuple[np.ndarray, float, bool]:
    from scipy.optimize import minimize

    found = minimize(loss, start, method="Nelder-Mead", options={"xatol": 1e-5, "fatol": 1e-11, "maxiter": 500})
    return found.x, -float(found.fun), bool(found.success)


def _found(law: Symmetric, log_likelihood: float, converged: bool = True) -> Fit:
    return Fit(law, _checks.real("log_likelihood", log_likelihood), jnp.asarray(np.asarray(converged), bool))


_FAMILIES: dict[str, Callable[[np.ndarray], Fit]] = {
    "normal": _normal,
    "laplace": _laplace,
    "student_t": _student_t,
    "generalized_normal": _generalized_normal,
}
