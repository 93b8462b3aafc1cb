"""Which law weights follow, by maximum likelihood."""

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optimistix as optx
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


_CLOSED = ("normal", "laplace")
# Unconstrained parameters to a law of unit RMS scale, and where to start.
_SHAPES: dict[str, tuple[Callable[[Array], Symmetric], list[float]]] = {
    "student_t": (lambda p: StudentT(2 + jnp.exp(p[1]), jnp.exp(p[0])), [0.0, 1.5]),
    "generalized_normal": (lambda p: GeneralizedNormal(jnp.exp(p[1]), jnp.exp(p[0])), [0.0, 0.3]),
}


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
    flat = flat[:: max(1, -(-flat.size // sample))].astype(np.float64)
    if flat.size < 10 or not np.isfinite(flat).all() or not flat.any():
        raise ValueError(f"weights must be at least ten finite numbers, not all 0, got {_checks.brief(flat)}")
    if family is not None:
        return _fit(flat, _checks.choice("family", family, (*_CLOSED, *_SHAPES)))
    price = 0.5 * np.log(flat.size) / flat.size
    fits = [_fit(flat, name) for name in (*_CLOSED, "student_t")]
    return max(fits, key=lambda f: float(f.log_likelihood) - price * len(jax.tree.leaves(f.law)))


def _fit(flat: np.ndarray, family: str) -> Fit:
    unit = np.sqrt(np.mean(flat**2))
    if family in _CLOSED:
        law = Normal(unit) if family == "normal" else Laplace(np.sqrt(2) * np.abs(flat).mean())
        return Fit(law, law.log_pdf(flat).mean(), jnp.array(True))
    best, likelihood, converged = _maximise(jnp.asarray(flat / unit), family)
    law = eqx.tree_at(lambda law: law.rms, _SHAPES[family][0](best), jnp.exp(best[0]) * unit)
    return Fit(law, likelihood - np.log(unit), converged)


@eqx.filter_jit
def _maximise(x: Array, family: str):
    build, start = _SHAPES[family]

    def loss(p, _):
        return -build(p).log_pdf(x).mean()

    tolerance = float(jnp.finfo(x.dtype).eps) ** 0.5
    found = optx.minimise(
        loss, optx.BFGS(rtol=tolerance, atol=tolerance), jnp.asarray(start, x.dtype), max_steps=200, throw=False
    )
    bounded = jnp.clip(found.value, -jnp.inf, jnp.array([jnp.inf, 12.0]))  # a t of 1e5 degrees is Gaussian
    return bounded, -loss(bounded, None), found.result == optx.RESULTS.successful
