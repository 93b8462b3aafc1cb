"""Rates: entropy of the codes, the uniform grid with an entropy code, and the lines to compare with.

At high rate, with h the differential entropy in bits and sigma the RMS,

    best fixed-length codebook (Panter, Dite)     Rel 2^b = sqrt{ (int p^(1/3))³ / 12 } / sigma
    uniform grid and entropy code                 Rel 2^b = 2^h / sqrt(12) / sigma
    nothing better at any rate (Shannon)          Rel 2^b >= 2^h / sqrt(2 pi e) / sigma                 (theory 4.1)
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, Int

from replicajax import _checks
from replicajax.codebooks import Codebook
from replicajax.distributions import Symmetric, as_data, distortion_of_cells, thresholds
from replicajax.formats._elements import padded_size
from replicajax.numerics import implicit_root


def panter_dite(law: Symmetric) -> Float[Array, ""]:
    """Rel · 2^bits of the best codebook of many levels: 1.649 for normal, 2.121 for Laplace weights."""
    return _high_rate(law).panter_dite


def entropy_coded_limit(law: Symmetric) -> Float[Array, ""]:
    """Rel · 2^bits of a fine uniform grid with an entropy code: sqrt(2 pi e/12) = 1.193 for normal weights."""
    return _high_rate(law).entropy_coded


def shannon_lower_bound(law: Symmetric) -> Float[Array, ""]:
    """Rel · 2^bits that no code of any kind goes below: 1 for normal weights, where it can be reached."""
    return _high_rate(law).shannon


class _HighRate(NamedTuple):
    panter_dite: Float[Array, ""]
    entropy_coded: Float[Array, ""]
    shannon: Float[Array, ""]


def _high_rate(law: Symmetric) -> _HighRate:
    _checks.instance("law", law, Symmetric, "formats.Normal()")
    return _high_rate_lines(as_data(law))


@eqx.filter_jit
def _high_rate_lines(law: Symmetric) -> _HighRate:
    tempered, square = law.tempered(1 / 3), law.second_moment()
    log_integral = law.log_pdf(0.0) / 3 - tempered.log_pdf(0.0)  # of p^(1/3)
    spread = jnp.exp(law.entropy()) / jnp.sqrt(square)
    return _HighRate(
        jnp.sqrt(jnp.exp(3 * log_integral) / (12 * square)), spread / np.sqrt(12), spread / np.sqrt(2 * np.pi * np.e)
    )


def code_probabilities(law: Symmetric, codebook: Codebook) -> Float[Array, " levels"]:
    """How often each level is the nearest."""
    levels = _checks.known(codebook.levels)
    cuts = thresholds(levels)
    if not _checks.is_traced(levels):
        cuts = np.pad(cuts, (0, padded_size(levels.size) - levels.size), constant_values=np.inf)
    found = _checks.known(_probabilities(as_data(law, levels), cuts))
    return jnp.asarray(found[: levels.size], found.dtype)


@eqx.filter_jit
def _probabilities(law: Symmetric, cuts: Float[Any, " cuts"]) -> Float[Array, " cuts+1"]:
    ends = jnp.full(1, jnp.inf, cuts.dtype)
    return law.cell_moments(jnp.concatenate([-ends, cuts, ends]))[0]


def code_entropy(law: Symmetric, codebook: Codebook) -> Float[Array, ""]:
    """Entropy of the index of the nearest level, in bits: what an ideal entropy code spends on a weight."""
    _checks.instance("law", law, Symmetric, "formats.Normal()")
    _checks.instance("codebook", codebook, Codebook, "formats.nf4()")
    p = code_probabilities(law, codebook)
    xp = jnp if _checks.is_traced(p) else np
    return jnp.asarray(_surprise(xp, _checks.known(p)).sum(), p.dtype)


def _surprise(xp: Any, probability: Float[Any, " codes"]) -> Float[Any, " codes"]:
    """−p log2 p."""
    return -probability * xp.log2(xp.where(probability > 0, probability, 1.0))


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
        2^16 − 1 (laws of df < 4).  Under a transformation of JAX it must be given.  What lies beyond is rounded to the end.

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
    step, entropy, error = _entropy_coded(as_data(law, target), target, np.asarray(side), padded_size(side + 1))
    levels = _checks.known(step) * np.arange(-side, side + 1).astype(step.dtype)
    return EntropyCoded(Codebook(levels), step, entropy, error)


@eqx.filter_jit
def _entropy_coded(law: Symmetric, target: Array, side: Int[Any, ""], size: int) -> tuple[Array, Array, Array]:
    """Step, entropy and error, from one half of the symmetric grid: its levels 0 … side, and more that are never used."""
    unit = jnp.sqrt(law.second_moment())
    step = jnp.exp(implicit_root(partial(_search, size), partial(_excess, size), (law, target, side))[0][0]) * unit
    number = jnp.arange(size + 1).astype(target.dtype)
    levels, edges = number[:-1] * step, _edges(number, side, step)
    tails = law.tails(edges)
    error = jnp.sqrt(2 * distortion_of_cells(law, levels, edges, tails)) / unit
    zeroth = law.cell_moments(edges, tails)[0]
    return step, _entropy(zeroth), error


def _edges(number: Array, side: Array, step: Array) -> Array:
    """0, ½, 3/2, … steps, and infinity beyond the last of the levels on a side."""
    return jnp.where(number == 0, 0.0, jnp.where(number <= side, (number - 0.5) * step, jnp.inf))


def _entropy(half_of_them: Array) -> Array:
    """Of a symmetric code, from the probabilities of its codes from 0 up; of 0's the half."""
    middle, rest = 2 * half_of_them[:1], half_of_them[1:]
    return _surprise(jnp, middle).sum() + 2 * _surprise(jnp, rest).sum()


def _excess(size: int, log_step: Array, _, inputs: tuple[Symmetric, Array, Array]) -> Array:
    """Of the entropy over the target, at the log of step/RMS; vectors of one entry."""
    law, target, side = inputs
    number = jnp.arange(size + 1).astype(target.dtype)
    edges = _edges(number, side, jnp.exp(log_step[0]) * jnp.sqrt(law.second_moment()))
    return _entropy(-jnp.diff(law.beyond(edges)))[None] - target


def _search(size: int, inputs: tuple[Symmetric, Array, Array]) -> tuple[Array, Any]:
    """Bisection and secants in log step: entropy falls with the step, by a bit for a factor of 2 where it is fine."""
    law, target, _ = inputs
    high_rate = law.entropy() - jnp.log(2.0) * target - jnp.log(law.second_moment()) / 2
    # Between a grid much too fine and one where nearly all weights are 0.
    low, high = high_rate - 4.0, high_rate + 8.0

    def step(carry):
        low, high, at, before, value_before, _, left = carry
        value = _excess(size, at[None], None, inputs)[0]
        low, high = jnp.where(value > 0, at, low), jnp.where(value > 0, high, at)
        slope = jnp.where(
            at == before, -1 / jnp.log(2.0), (value - value_before) / jnp.where(at == before, 1.0, at - before)
        )
        secant = at - value / slope
        new = jnp.where((secant >= low) & (secant <= high), secant, (low + high) / 2)
        return low, high, new, at, value, jnp.abs(new - at), left - 1

    far = jnp.full_like(high_rate, jnp.inf)
    start = low, high, high_rate, high_rate, far, far, jnp.array(100)
    goal = 1e3 * jnp.finfo(target.dtype).eps
    at, size_of_step = (jax.lax.while_loop(lambda c: (c[5] > goal) & (c[6] > 0), step, start)[k] for k in (2, 5))
    return jnp.where(size_of_step <= goal, at, jnp.nan)[None], ()


def _enough(law: Symmetric, bits: float) -> int:
    """Levels on each side, from the error and the step at high rate."""
    sides = 2 ** np.arange(1, 17) - 1
    beyond = np.asarray(_square_beyond(as_data(law), np.asarray(bits), sides))
    from_here = sides >= 2 ** int(np.ceil(bits) + 2) - 1
    return int(sides[from_here & ((beyond < 1e-5) | (sides == sides[-1]))][0])


@eqx.filter_jit
def _square_beyond(law: Symmetric, bits: Float[Any, ""], sides: Int[Any, " sides"]) -> Float[Array, " sides"]:
    """E[x²; x > reach] over the squared error, at high rate."""
    error = jnp.exp(law.entropy() - bits * np.log(2.0)) / np.sqrt(12)
    return law.tails(sides * np.sqrt(12) * error)[2] * law.scale**2 / error**2
