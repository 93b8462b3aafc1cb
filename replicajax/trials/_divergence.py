"""Weight formats on an actual model: the divergence of its outputs, measured and predicted.

    measured   mean_x KL(p(y|x) ‖ p_Q(y|x)),        predicted   ½ sum_i F_ii (Q(w_i) − w_i)²        (theory 4.3)

Arrays of two axes or more are quantized, one format each; biases and gains of norms stay as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float

from replicajax import formats
from replicajax.distributions import Symmetric, fit
from replicajax.formats import BlockFormat

Logits = Callable[[Any, Array], Array]
Formats = BlockFormat | Sequence[BlockFormat]
RULES = ("uniform", "rms", "fisher")


class MeasuredDivergence(NamedTuple):
    """What formats cost a model."""

    bits: float
    """Mean per quantized weight, scales of blocks included, those of whole tensors not."""
    measured: float
    """KL in nats per input."""
    predicted: float
    """From the Fisher information, in nats per input."""


def weight_matrices(model: Any) -> list[Array]:
    """The arrays that formats are about, in the order of the pytree."""
    return [leaf for leaf in jax.tree.leaves(model) if _is_matrix(leaf)]


def _is_matrix(leaf: Any) -> bool:
    return eqx.is_inexact_array(leaf) and leaf.ndim >= 2


def quantize_weights(model: Any, fmt: Formats) -> Any:
    """The model with every weight matrix rounded.

    Args:
      model: any pytree.
      fmt: of all matrices, or one for each, in the order of `weight_matrices`.

    Raises:
      ValueError: formats that are not as many as the matrices.
    """
    leaves, structure = jax.tree.flatten(model)
    places = [i for i, leaf in enumerate(leaves) if _is_matrix(leaf)]
    for i, one in zip(places, _each(fmt, len(places)), strict=True):
        leaves[i] = jnp.asarray(formats.quantize(leaves[i], one).dequantize())
    return jax.tree.unflatten(structure, leaves)


def _each(fmt: Formats, count: int) -> list[BlockFormat]:
    each = [fmt] * count if isinstance(fmt, BlockFormat) else list(fmt)
    if len(each) != count:
        raise ValueError(f"fmt must hold a format for each of the {count} weight matrices, got {len(each)}")
    return each


def measure_divergence(
    logits: Logits, model: Any, inputs: Array, fmt: Formats, *, fisher: Any = None
) -> MeasuredDivergence:
    """Quantize a classifier and compare its outputs with what its Fisher information predicts.

    Args:
      logits: logits(model, x) for one input x, shape (..., classes).
      model: any pytree, an equinox module for one.
      inputs: (examples, ...) to average over.
      fmt: as in `quantize_weights`.
      fisher: `formats.fisher_diagonal` of the model on these inputs; computed (slow, if repeated) if None.
    """
    fisher = formats.fisher_diagonal(logits, model, inputs) if fisher is None else fisher
    matrices = weight_matrices(model)
    sizes = np.array([matrix.size for matrix in matrices])
    bits = [one.bits for one in _each(fmt, len(matrices))]
    rounded = quantize_weights(model, fmt)
    measured = formats.divergence(_all_logits(logits, model, inputs), _all_logits(logits, rounded, inputs))
    predicted = formats.predicted_divergence(fisher, model, rounded)
    return MeasuredDivergence(float(sizes @ bits / sizes.sum()), float(measured), float(predicted))


@eqx.filter_jit
def _all_logits(logits: Logits, model: Any, inputs: Array) -> Array:
    return jax.vmap(lambda x: logits(model, x))(inputs)


def cube_root_formats(model: Any, bits: ArrayLike) -> list[BlockFormat]:
    """Cube-root levels for the likeliest law of each matrix, in units of its RMS; round(2^bits) of them.

    Args:
      bits: per weight, of all matrices or (matrices,).
    """
    return _formats([fit(matrix).law for matrix in weight_matrices(model)], bits)


def _formats(laws: Sequence[Symmetric], bits: ArrayLike) -> list[BlockFormat]:
    each = np.broadcast_to(np.asarray(bits, float), len(laws))
    return [formats.tensor_format(law, float(b)) for law, b in zip(laws, each, strict=True)]


def compare_allocations(
    logits: Logits,
    model: Any,
    inputs: Array,
    mean_bits: Sequence[float] | Float[np.ndarray, " budgets"],
    *,
    rules: Sequence[str] = RULES,
    fisher: Any = None,
) -> Mapping[str, list[MeasuredDivergence]]:
    """Cube-root formats at each mean number of bits, split evenly, by RMS alone, or by RMS and Fisher information.

    The bits spent, `MeasuredDivergence.bits`, differ a little from those asked for: levels are whole.  Other arguments are
    those of `measure_divergence`.
    """
    fisher = formats.fisher_diagonal(logits, model, inputs) if fisher is None else fisher
    matrices = weight_matrices(model)
    laws = [fit(matrix).law for matrix in matrices]
    sizes = np.array([matrix.size for matrix in matrices])
    rms = np.array([float(jnp.sqrt(jnp.mean(matrix**2))) for matrix in matrices])
    information = np.array([float(matrix.mean()) for matrix in weight_matrices(fisher)])

    def split(rule: str, mean: float) -> ArrayLike:
        if rule == "uniform":
            return mean
        return formats.allocate_bits(sizes, rms, information if rule == "fisher" else None, mean)

    return {
        rule: [
            measure_divergence(logits, model, inputs, _formats(laws, split(rule, mean)), fisher=fisher)
            for mean in mean_bits
        ]
        for rule in rules
    }


def bits_saved(
    curve: Sequence[MeasuredDivergence], baseline: Sequence[MeasuredDivergence]
) -> Float[np.ndarray, " points"]:
    """Bits per weight that `baseline` spends beyond each point of `curve`, at that point's measured KL.

    The baseline is log KL, linear between its points and made to fall (its running minimum, which favours it); NaN where it
    does not reach.
    """
    bits = np.array([point.bits for point in baseline])
    log_kl = np.minimum.accumulate(np.log([point.measured for point in baseline]))
    goal = np.log([point.measured for point in curve])
    needed = np.interp(-goal, -log_kl, bits, left=np.nan, right=np.nan)
    return needed - np.array([point.bits for point in curve])
