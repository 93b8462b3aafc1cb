"""The codeword of least energy on actual data, by replica exchange; how sure that is, by searching more than once.

Inverse temperatures are in units of what it costs to move a weight: the mean over sites of the second lowest less the lowest
energy, in a codeword that no single move improves.
"""

from __future__ import annotations

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, PRNGKeyArray

from replicajax import _checks
from replicajax.amp._heat_bath import Energy, LossEnergy, Word, checked, energy_of, random_word, sweep
from replicajax.codebooks import Codebook
from replicajax.models import Loss

_HOTTEST, _COLDEST = 2.0, 12.0
"""Ends of the ladder: inverse temperatures, in units of a move."""
_DESCENT = 20
"""Sweeps without temperature from a random codeword, as good as sure to end where no move helps."""
_FREEZING = 1e6
"""Inverse temperature that is as good as infinite."""
_SAME = 3e-5
"""Relative difference of energies that counts as rounding, in single precision."""


class LowestCodeword(eqx.Module):
    """The best codeword of independent searches."""

    weights: Float[Array, " columns"]
    energy: Float[Array, ""]
    """Its H/N."""
    searched: Float[Array, " searches"]
    """H/N of the best codeword of each search."""

    @property
    def agreement(self) -> Float[Array, ""]:
        """Share of searches that came to this energy: 1 if all, 1/searches if no other did."""
        away = self.searched - self.energy[..., None]
        return (away <= _SAME * jnp.abs(self.energy)[..., None]).mean(-1)

    def __str__(self) -> str:
        searches = self.searched.shape[-1]
        if np.ndim(self.energy):
            sure = int((self.agreement == 1).sum())
            return f"LowestCodeword of shape {self.energy.shape}: all {searches} searches agree on {sure}"
        found = round(float(self.agreement) * searches)
        return (
            f"Lowest codeword of {self.weights.shape[-1]} weights: energy {float(self.energy):.6g} per weight, found by "
            f"{found} of {searches} searches"
        )


def lowest_codeword(
    X: ArrayLike,
    y: ArrayLike,
    codebook: Codebook,
    *,
    ridge: ArrayLike = 0.0,
    loss: Loss | None = None,
    temperatures: int = 12,
    sweeps: int | None = None,
    searches: int = 2,
    key: PRNGKeyArray | None = None,
) -> LowestCodeword:
    """Least H(w) = sum ell(y, x·w) + ½ ridge |w|² over codewords.

    Args:
      X, y, codebook, ridge, loss: as in `gibbs`.
      temperatures: rungs of each ladder, at least 2.
      sweeps: of every rung; 4 for each column if None, enough for iid rows of up to about 100 columns (on 9 of 10 instances
        or more); rows of a rotated spectrum need 25 to 50 for each of 40 to 60 columns.
      searches: independent ladders, at least 2: where they end at different energies, sweeps were too few.
      key: of `jax.random`; key 0 if None.

    Raises:
      TypeError, ValueError: as `gibbs`.
    """
    X, y, levels, _, ridge, loss = checked(X, y, codebook, 1.0, ridge, loss)
    temperatures = _checks.integer("temperatures", temperatures, 2, 10**4)
    sweeps = 4 * X.shape[1] if sweeps is None else _checks.integer("sweeps", sweeps, 1, 10**9)
    searches = _checks.integer("searches", searches, 2, 10**6)
    key = jax.random.key(0) if key is None else key
    return _search(energy_of(X, y, levels, ridge, loss), temperatures, sweeps, searches, key)


class _Ladder(NamedTuple):
    words: Word
    """One a rung."""
    lowest: Float[Array, " columns"]
    depth: Float[Array, ""]
    """H/N of `lowest`."""


@eqx.filter_jit
def _search(energy: Energy | LossEnergy, temperatures: int, sweeps: int, searches: int, key) -> LowestCodeword:
    dtype, pairs = energy.levels.dtype, jnp.arange(temperatures - 1)
    rise = jnp.geomspace(_HOTTEST, _COLDEST, temperatures, dtype=dtype)

    def exchanged(betas, words: Word, depths, parity, key) -> Word:
        """Even or odd neighbours trade places."""
        chance = jnp.exp((betas[1:] - betas[:-1]) * (depths[1:] - depths[:-1]) * energy.columns)
        trade = (pairs % 2 == parity) & (jax.random.uniform(key, pairs.shape, dtype) < chance)
        order = jnp.arange(temperatures) + jnp.append(trade, False) - jnp.insert(trade, 0, False)
        return jax.tree.map(lambda x: x[order], words)

    def one(key):
        start, heat = jax.random.split(key)
        words = jax.vmap(lambda k: random_word(energy, k))(jax.random.split(start, temperatures))
        betas = rise / _move(energy, jax.tree.map(lambda x: x[0], words), start)

        def advance(ladder: _Ladder, t):
            for_sweep, for_exchange = jax.random.split(jax.random.fold_in(heat, t))
            each = jax.random.split(for_sweep, temperatures)
            words, _ = jax.vmap(lambda b, word, k: sweep(energy, b, word, k))(betas, ladder.words, each)
            depths = jax.vmap(energy.per_weight)(*words)
            best = jnp.argmin(depths)
            lowest = jnp.where(depths[best] < ladder.depth, words.w[best], ladder.lowest)
            words = exchanged(betas, words, depths, t % 2, for_exchange)
            return _Ladder(words, lowest, jnp.minimum(ladder.depth, depths[best])), None

        begin = _Ladder(words, words.w[0], jnp.array(jnp.inf, dtype))
        lowest = jax.lax.scan(advance, begin, jnp.arange(sweeps))[0].lowest
        # Anew, as the field was updated in place.
        return lowest, energy.per_weight(lowest, energy.field(lowest))

    words, depths = jax.vmap(one)(jax.random.split(key, searches))
    return LowestCodeword(words[jnp.argmin(depths)], depths.min(), depths)


def _move(energy: Energy | LossEnergy, word: Word, key) -> Float[Array, ""]:
    """Mean cost of the cheapest move of a weight, where none helps."""

    def descend(word, t):
        return sweep(energy, _FREEZING, word, jax.random.fold_in(key, t))[0], None

    def cost(i):
        two = jnp.sort(energy.heights(word, i))[:2]
        return two[1] - two[0]

    word, _ = jax.lax.scan(descend, word, jnp.arange(_DESCENT))
    return jnp.maximum(jax.vmap(cost)(jnp.arange(energy.columns)).mean(), jnp.finfo(word.w.dtype).tiny)
