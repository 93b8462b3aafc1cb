"""Rates: entropy of the codes, the uniform grid with an entropy code, and the lines to compare with.

At high rate, with h the differential entropy in bits and sigma the RMS,

    best fixed-length codebook (Panter, Dite)     Rel 2^b = sqrt{ (int p^(1/3))³ / 12 } / sigma
    uniform grid and entropy code                 Rel 2^b = 2^h / sqrt(12) / sigma
    nothing better at any rate (Shannon)          Rel 2^b >= 2^h / sqrt(2 pi e) / sigma                 (theory 4.1)
"""

import heapq
from collections.abc import Sequence
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float

from replicajax import _checks
from replicajax.codebooks import Codebook
from replicajax.distributions import Symmetric, cell_edges, distortion
from replicajax.numerics import implicit_root


def panter_dite(law: Symmetric) -> Float[Array, ""]:
    """Rel · 2^bits of the best codebook of many levels: 1.649 for normal, 2.121 for Laplace weights."""
    _checks.instance("law", law, Symmetric, "formats.Normal()")
    log_integral = law.log_pdf(0.0) / 3 - law.tempered(1 / 3).log_pdf(0.0)  # of p^(1/3)
    return jnp.sqrt(jnp.exp(3 * log_integral) / (12 * law.second_moment()))


def entropy_coded_limit(law: Symmetric) -> Float[Array, ""]:
    """Rel · 2^bits of a fine uniform grid with an entropy code: sqrt(2 pi e/12) = 1.193 for normal weights."""
    _checks.instance("law", law, Symmetric, "formats.Normal()")
    return jnp.exp(law.entropy()) / jnp.sqrt(12 * law.second_moment())


def shannon_lower_bound(law: Symmetric) -> Float[Array, ""]:
    """Rel · 2^bits that no code of any kind goes below: 1 for normal weights, where it can be reached."""
    _checks.instance("law", law, Symmetric, "formats.Normal()")
    return jnp.exp(law.entropy()) / jnp.sqrt(2 * np.pi * np.e * law.second_moment())


def code_probabilities(law: Symmetric, codebook: Codebook) -> Float[Array, " levels"]:
    """How often each level is the nearest."""
    return law.cell_moments(cell_edges(codebook.levels))[0]


def code_entropy(law: Symmetric, codebook: Codebook) -> Float[Array, ""]:
    """Entropy of the index of the nearest level, in bits: what an ideal entropy code spends on a weight."""
    _checks.instance("law", law, Symmetric, "formats.Normal()")
    _checks.instance("codebook", codebook, Codebook, "formats.nf4()")
    return _surprise(code_probabilities(law, codebook)).sum()


def _surprise(probability: Array) -> Array:
    """−p log2 p."""
    return -probability * jnp.log2(jnp.where(probability > 0, probability, 1.0))


def huffman_lengths(probabilities: ArrayLike | Sequence[float]) -> np.ndarray:
    """Length in bits of each code word of a Huffman code, for probabilities that need not sum to 1.

    The mean length is less than one bit above the entropy, and never less than one bit; a level of probability 0 has a word.
    """
    weight = np.asarray(_checks.nonnegative("probabilities", probabilities), float)
    if weight.ndim != 1 or weight.size < 2:
        raise ValueError(f"probabilities must be a vector of at least two numbers, got shape {weight.shape}")
    length = np.zeros(weight.size, int)
    heap = [(w, k, [k]) for k, w in enumerate(weight)]
    heapq.heapify(heap)
    while len(heap) > 1:
        (v, _, left), (w, number, right) = heapq.heappop(heap), heapq.heappop(heap)
        length[left + right] += 1
        heapq.heappush(heap, (v + w, number, left + right))
    return length


class EntropyCoded(NamedTuple):
    """A uniform grid through 0 and what an entropy code spends on it."""

    codebook: Codebook
    step: Float[Array, ""]
    """Distance of neighbouring levels, in the units of the law."""
    bits: Float[Array, ""]
    """Entropy per weight."""
    error: Float[Array, ""]
    """Rel = sqrt(E err²/E x²)."""


def entropy_coded(law: Symmetric, bits: ArrayLike, *, side: int | None = None) -> EntropyCoded:
    """The uniform grid whose codes have an entropy of `bits`, for iid weights; differentiable in `bits` and the law.

    Args:
      bits: > 0, at most 12; need not be whole.
      side: levels on each side of 0; if None so many that what lies beyond adds less than 1e-5 of the squared error, or
        2^16 (laws of df < 4).  Under a transformation of JAX it must be given.  What lies beyond is rounded to the end.

    Raises:
      TypeError, ValueError: not a law, bits not in (0, 12], side not given where the arguments are traced.

    Source: theory 4.1; entropies in bits.
    """
    _checks.instance("law", law, Symmetric, "formats.Normal()")
    target = _checks.scalar("bits", bits)
    if not _checks.is_traced(target) and float(target) > 12:
        raise ValueError(f"bits must be at most 12, got {bits!r}")
    if side is None:
        if _checks.is_traced((law, target)):
            raise ValueError("side must be given (levels on each side of 0) where the law or bits are traced")
        side = _enough(law, float(target))
    side = _checks.integer("side", side, 1, 2**20)
    return _entropy_coded(law, target, side)


@eqx.filter_jit
def _entropy_coded(law: Symmetric, target: Array, side: int) -> EntropyCoded:
    unit = jnp.sqrt(law.second_moment())
    step = jnp.exp(_grid_of_entropy(law, target, side)) * unit
    codebook = Codebook(step * jnp.arange(-side, side + 1))
    error = jnp.sqrt(distortion(law, codebook.levels)) / unit
    return EntropyCoded(codebook, step, code_entropy(law, codebook), error)


def _enough(law: Symmetric, bits: float) -> int:
    """Levels on each side, from the error and the step at high rate."""
    error = float(entropy_coded_limit(law)) * 2.0**-bits
    side = 2 ** int(np.ceil(bits) + 2)
    while side < 2**16:
        reach = side * np.sqrt(12) * error * float(jnp.sqrt(law.second_moment()))
        if float(law.partial_moments(reach, jnp.inf)[2]) < 1e-5 * error**2 * float(law.second_moment()):
            break
        side *= 2
    return side


def _grid_of_entropy(law: Symmetric, target: Array, side: int) -> Array:
    """log(step/RMS) at which the entropy is the target."""

    def excess(log_step, law, target):
        """Of the entropy, from one half of the symmetric grid."""
        step = jnp.exp(log_step) * jnp.sqrt(law.second_moment())
        edges = jnp.append(step * (jnp.arange(side + 1) - 0.5), jnp.inf)
        terms = _surprise(law.cell_moments(edges)[0])
        return 2 * terms[1:].sum() + terms[0] - target

    def search(inputs):
        law, target = inputs
        high_rate = law.entropy() - jnp.log(2.0) * target - jnp.log(law.second_moment()) / 2
        # log-step between a grid much too fine and one where nearly all weights are 0; entropy falls with the step.
        low, high = high_rate - 4.0, high_rate + 8.0

        def step(carry):
            low, high, at, _, left = carry
            value, slope = jax.value_and_grad(excess)(at, law, target)
            low, high = jnp.where(value > 0, at, low), jnp.where(value > 0, high, at)
            newton = at - value / slope
            new = jnp.where((newton > low) & (newton < high), newton, (low + high) / 2)
            return low, high, new, jnp.abs(new - at), left - 1

        start = low, high, high_rate, jnp.full_like(high_rate, jnp.inf), jnp.array(100)
        goal = 1e3 * jnp.finfo(target.dtype).eps
        _, _, at, size, _ = jax.lax.while_loop(lambda c: (c[3] > goal) & (c[4] > 0), step, start)
        return jnp.where(size <= goal, at, jnp.nan)[None], ()

    def condition(y, _, inputs):
        return excess(y[0], *inputs)[None]

    return implicit_root(search, condition, (law, target))[0][0]
