"""Replica exchange (parallel tempering): equilibrium where a single annealed chain would be trapped.

Copies of the weights live on a ladder of inverse temperatures; after each sweep neighbours i, j trade places with
probability min(1, exp{(beta_i − beta_j)(H_i − H_j)}), which leaves every copy's equilibrium alone and lets each codeword
travel to high temperature and back.
"""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, PRNGKeyArray

from replicajax import _checks
from replicajax.amp._heat_bath import Word, checked, energy_of, random_word, spread, sweep
from replicajax.codebooks import Codebook
from replicajax.models import Loss

_HOTTEST = 0.05
"""First rung of the ladder, as a fraction of beta."""


class TemperedSample(eqx.Module):
    """Averages over the sweeps after the ladder was set, and over chains, at every temperature."""

    betas: Float[Array, " temperatures"]
    """The ladder, the beta asked for last."""
    energy: Float[Array, " temperatures"]
    """<H>/N."""
    weights: Float[Array, "temperatures columns"]
    """<w>."""
    chain_energy: Float[Array, "chains temperatures"]
    chain_weights: Float[Array, "chains temperatures columns"]
    final: Float[Array, "chains columns"]
    """The last codeword of each chain at the last temperature."""
    lowest: Float[Array, " columns"]
    """The codeword of least energy met."""
    lowest_energy: Float[Array, ""]
    """Its H/N."""
    swap_rate: Float[Array, " temperatures-1"]
    """Fraction of exchanges accepted between neighbours; a value near 0 cuts the ladder in two."""
    energy_spread: Float[Array, " temperatures"]
    """R-hat of the energy at each temperature, near 1 when independent chains agree."""

    def __str__(self) -> str:
        if np.ndim(self.betas) > 1:
            return (
                f"TemperedSample of shape {self.betas.shape[:-1]}: R-hat at most {float(self.energy_spread.max()):.3f}"
            )
        rows = zip(self.betas, self.energy, [*self.swap_rate, np.nan], self.energy_spread, strict=True)
        return "\n".join(
            [
                "      beta    energy/N   swaps up   R-hat",
                *(f"{b:10.4g}{e:12.6f}{s:11.2f}{r:8.3f}" for b, e, s, r in rows),
            ]
        )


def parallel_tempering(
    X: ArrayLike,
    y: ArrayLike,
    codebook: Codebook,
    beta: ArrayLike,
    *,
    ridge: ArrayLike = 0.0,
    loss: Loss | None = None,
    temperatures: int = 16,
    hottest: ArrayLike | None = None,
    sweeps: int = 1000,
    burn_in: int | None = None,
    chains: int = 4,
    key: PRNGKeyArray | None = None,
) -> TemperedSample:
    """Replica exchange between heat baths for p(w) ∝ exp(−beta H(w)) over codewords.

    Args:
      X, y, codebook, beta, ridge, loss: as in `gibbs`.
      temperatures: rungs of the ladder, at least 2; about sqrt(columns) are needed.
      hottest: inverse temperature of the first rung; beta/20 if None.
      sweeps: sweeps averaged over.
      burn_in: sweeps before that, in which the rungs between the two ends move to equalise the exchange rates (they stand
        still afterwards); as many as `sweeps` if None.
      chains: independent ladders, at least 2.
      key: of `jax.random`; key 0 if None.

    Raises:
      TypeError, ValueError: as `gibbs`, and hottest not below beta.
    """
    X, y, levels, beta, ridge, loss = checked(X, y, codebook, beta, ridge, loss)
    hottest = _HOTTEST * beta if hottest is None else _checks.positive("hottest", hottest).astype(X.dtype)
    if not _checks.is_traced((hottest, beta)) and not bool(hottest < beta):
        raise ValueError(
            f"hottest must be below beta = {float(beta):.6g} (an inverse temperature), got {float(hottest):.6g}"
        )
    temperatures = _checks.integer("temperatures", temperatures, 2, 10**4)
    sweeps = _checks.integer("sweeps", sweeps, 1, 10**9)
    burn_in = sweeps if burn_in is None else _checks.integer("burn_in", burn_in, 0, 10**9)
    chains = _checks.integer("chains", chains, 2, 10**6)
    key = jax.random.key(0) if key is None else key
    return _tempering(X, y, levels, beta, ridge, loss, hottest, temperatures, sweeps, burn_in, chains, key)


@eqx.filter_jit
def _tempering(
    X, y, levels, beta, ridge, loss: Loss, hottest, temperatures: int, sweeps: int, burn_in: int, chains: int, key
):
    energy = energy_of(X, y, levels, ridge, loss)
    columns = energy.columns
    pairs = jnp.arange(temperatures - 1)

    def ladder(log_gaps):
        gaps = jax.nn.softmax(log_gaps)
        rise = jnp.concatenate([jnp.zeros(1, gaps.dtype), jnp.cumsum(gaps)])
        return (hottest * (beta / hottest) ** rise).at[-1].set(beta)

    def exchange(betas, words: Word, heights, parity, key):
        """Even or odd neighbours trade; also the probability with which each pair would."""
        chance = jnp.exp(jnp.minimum(0.0, (betas[1:] - betas[:-1]) * (heights[1:] - heights[:-1]) * columns))
        trade = (pairs % 2 == parity) & (jax.random.uniform(key, pairs.shape, chance.dtype) < chance)
        up, down = jnp.append(trade, False), jnp.insert(trade, 0, False)
        order = jnp.arange(temperatures) + up - down
        return jax.tree.map(lambda x: x[order], words), heights[order], chance

    def advance(betas, words: Word, t, key):
        """One sweep of every rung, then an exchange."""
        for_sweep, for_exchange = jax.random.split(jax.random.fold_in(key, t))
        words, means = jax.vmap(lambda b, word, k: sweep(energy, b, word, k))(
            betas, words, jax.random.split(for_sweep, temperatures)
        )
        heights = jax.vmap(energy.per_weight)(*words)
        moved, moved_heights, chance = exchange(betas, words, heights, t % 2, for_exchange)
        return moved, means, moved_heights, chance

    def one(key):
        start, settle, run = jax.random.split(key, 3)
        words = jax.vmap(lambda k: random_word(energy, k))(jax.random.split(start, temperatures))

        def settling(carry, t):
            words, log_gaps = carry
            words, _, _, chance = advance(ladder(log_gaps), words, t, settle)
            # Wider where exchanges are easy: stochastic approximation with a gain that falls as 1/t.
            return (words, log_gaps + 10.0 / (t + 20.0) * (chance - chance.mean())), None

        def measuring(carry, t):
            words, total, lowest, depth = carry
            words, means, heights, chance = advance(betas, words, t, run)
            best = jnp.argmin(heights)
            deeper = heights[best] < depth
            lowest = jnp.where(deeper, words.w[best], lowest)
            return (words, total + means, lowest, jnp.minimum(depth, heights[best])), (heights, chance)

        gaps = jnp.zeros(temperatures - 1, X.dtype)
        (words, gaps), _ = jax.lax.scan(settling, (words, gaps), jnp.arange(burn_in))
        betas = ladder(gaps)
        words = Word(words.w, jax.vmap(energy.field)(words.w))
        begin = words, jnp.zeros_like(words.w), words.w[0], jnp.array(jnp.inf, X.dtype)
        (words, total, lowest, depth), (heights, chance) = jax.lax.scan(measuring, begin, jnp.arange(sweeps))
        return betas, total / sweeps, heights, chance.mean(0), words.w[-1], lowest, depth

    betas, weights, heights, rate, final, lowest, depth = jax.vmap(one)(jax.random.split(key, chains))
    return TemperedSample(
        betas=betas.mean(0),
        energy=heights.mean((0, 1)),
        weights=weights.mean(0),
        chain_energy=heights.mean(1),
        chain_weights=weights,
        final=final,
        lowest=lowest[jnp.argmin(depth)],
        lowest_energy=depth.min(),
        swap_rate=rate.mean(0),
        energy_spread=jax.vmap(spread, in_axes=2)(heights),
    )
