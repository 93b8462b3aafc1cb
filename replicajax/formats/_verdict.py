"""Whether a predicted KL can be trusted: second order in the weights' errors, and how far that reaches.

With d what quantization does to the weights and J the derivative of the logits of one input,

    KL = K(1),   K(t) = KL(p(w) ‖ p(w + t d)) = t² q + O(t³),      q = ½ Var_p(J d),

whose diagonal part is ½ sum F d² (theory 4.3); q has all cross terms.  Where second order is all there is, K(1) = 4 K(½).  What
is beyond is K(1) − q = 2 (K(1) − 4 K(½)) if cubic, and less if of higher order.

Of outputs that are no logits, such as embeddings, the same of K(t) = |f(w + t d) − f(w)|², with q = |J d|².
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike

from replicajax import _checks

_FALL = 1.25
"""By what factor K(1)/K(½) may differ from 4."""
_APART = 1 / 3
"""Part of K(1) that it may be off 4 K(½) input by input, where nothing cancels: .57 and more at 2 bits, .31 and less at 4."""
_ERRORS = 2.5
"""Standard errors of the logarithm either side."""


LOSSES = ("divergence", "squares")


class Verdict(NamedTuple):
    """On the errors of one quantized model; in nats, or squares of outputs: means over inputs, summed over positions.

    Attributes:
      predicted: q; standard_error: of its mean over inputs.
      low, high: between which KL on other inputs of the kind, as many as these, is expected.
      measured: K(1); halved: K(½).
      quadratic: whether second order holds: K(1) = 4 K(½) and K(1) = q to a factor of 1.25, and K(1) = 4 K(½) to a third of
        it in the mean over inputs of what they are apart.
      own: (leaves,) q of each array of weights alone, in the order of the model's leaves; 0 of those that are the same.
      cross: what their overlap adds.
      loss: what K is: "divergence" or "squares".
    """

    predicted: float
    standard_error: float
    low: float
    high: float
    measured: float
    halved: float
    quadratic: bool
    own: np.ndarray
    cross: float
    loss: str = "divergence"

    def __str__(self) -> str:
        regime = "quadratic" if self.quadratic else "outside the quadratic regime"
        fall = self.measured / self.halved
        what, unit = ("KL", " nats") if self.loss == "divergence" else ("square", "")
        return (
            f"{what} {self.predicted:.4g}{unit}, {self.low:.4g} to {self.high:.4g}: {regime} ({what} falls {fall:.3g}-fold at "
            f"half the perturbation; cross terms {self.cross:+.2g})"
        )


def verdict(
    logits: Callable[[Any, Array], Array],
    model: Any,
    quantized: Any,
    inputs: ArrayLike,
    batch: int = 64,
    loss: str = "divergence",
) -> Verdict:
    """Second-order KL of a quantized model with everything that overlaps, and whether second order is enough; in float64.

    Args:
      logits: logits(model, x) for one input x, shape (..., classes), as in `fisher_diagonal`.
      model, quantized: pytrees of one structure.
      inputs: (examples, ...), at least 2.
      batch: examples at a time.
      loss: "divergence", or "squares" of the change of outputs that are no logits.

    Raises:
      ValueError: fewer than two examples, models of different structure, nothing quantized, logits that are no numbers.
    """
    examples = np.asarray(inputs)
    if examples.ndim == 0 or examples.shape[0] < 2:
        raise ValueError(f"inputs must hold at least two examples, got shape {examples.shape}")
    batch = min(_checks.integer("batch", batch, 1, 2**20), examples.shape[0])
    _checks.choice("loss", loss, LOSSES)
    weights, rest = eqx.partition(model, eqx.is_inexact_array)
    others, _ = eqx.partition(quantized, eqx.is_inexact_array)
    if jax.tree.structure(weights) != jax.tree.structure(others):
        raise ValueError("quantized must be a model of the same structure as model")
    # KL of small errors is a difference that fewer digits do not have.
    with jax.enable_x64(True):
        weights, others, examples = jax.tree.map(_wide, (weights, others, examples))
        change = jax.tree.map(lambda a, b: b - a, weights, others)
        changed = tuple(i for i, leaf in enumerate(jax.tree.leaves(change)) if np.any(np.asarray(leaf)))
        if not changed:
            raise ValueError("quantized must differ from model, got the same weights")
        found = []
        for start in range(0, len(examples), batch):
            index = np.minimum(np.arange(start, start + batch), len(examples) - 1)
            each = _each(logits, loss, changed, rest, weights, change, examples[index])
            found.append(np.asarray(each)[: len(examples) - start])
    each = np.concatenate(found)
    own = np.zeros(len(jax.tree.leaves(change)))
    own[list(changed)] = each[:, 3:].mean(0)
    if not np.isfinite(each).all():
        raise ValueError(
            f"logits must be numbers or -inf, got NaN or inf at {(~np.isfinite(each).all(1)).sum()} inputs"
        )
    if not each[:, 0].any() or not each[:, 2].any():
        raise ValueError("quantized must change the logits, got the same at every input")
    return _judged(each[:, :3], own, loss)


def _wide(x: Any) -> Any:
    return jnp.asarray(x, np.float64) if jnp.issubdtype(x.dtype, jnp.floating) else x


@eqx.filter_jit
def _each(
    logits: Callable, loss: str, changed: tuple[int, ...], rest: Any, weights: Any, change: Any, inputs: Array
) -> Array:
    """(examples, 3 + changed leaves): q, K(1), K(½) and q of every leaf that has changed."""
    leaves, structure = jax.tree.flatten(change)

    def of_one(x):
        def at(w):
            return logits(eqx.combine(w, rest), x)

        z, along = jax.linearize(at, weights)
        p, log_p = jax.nn.softmax(z), jax.nn.log_softmax(z)
        live = p > 0  # a class that is masked stays so

        def second(d):
            if loss == "squares":
                return (along(d) ** 2).sum()
            dz = jnp.where(live, along(d), 0.0)
            return 0.5 * ((p * dz**2).sum(-1) - (p * dz).sum(-1) ** 2).sum()

        def divergence(t):
            other = at(jax.tree.map(lambda w, d: w + t * d, weights, change))
            if loss == "squares":
                return ((other - z) ** 2).sum()
            return jnp.where(live, p * (log_p - jax.nn.log_softmax(other)), 0.0).sum()

        def alone(k):
            return second(structure.unflatten([leaf * (k == i) for i, leaf in enumerate(leaves)]))

        own = jax.lax.map(alone, jnp.asarray(changed))
        return jnp.concatenate([jnp.stack([second(change), divergence(1.0), divergence(0.5)]), own])

    return jax.vmap(of_one)(inputs)


def _judged(each: np.ndarray, own: np.ndarray, loss: str) -> Verdict:
    predicted, measured, halved = (float(x) for x in each.mean(0))
    count = len(each)
    spread = float(each[:, 0].std(ddof=1) / count**0.5)
    # A few inputs make most of the mean: its logarithm is nearer to normal.  The other inputs have an error of their own; what
    # is beyond second order is known here.
    beyond = 2 * abs(measured - 4 * halved)
    factor = np.exp(_ERRORS * 2**0.5 * max(spread / predicted, float(each[:, 1].std(ddof=1) / measured / count**0.5)))
    apart = np.abs(each[:, 1] - 4 * each[:, 2]).mean() / measured
    quadratic = (
        apart < _APART and 4 / _FALL < measured / halved < 4 * _FALL and 1 / _FALL < measured / predicted < _FALL
    )
    low, high = max(predicted / factor - beyond, 0.0), predicted * factor + beyond
    cross = predicted - float(own.sum())
    return Verdict(predicted, spread, float(low), float(high), measured, halved, bool(quadratic), own, cross, loss)
