"""Gibbs sampling over a codebook, annealed: the ground truth at finite size, on actual data."""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Bool, Float, PRNGKeyArray

from replicajax import _checks
from replicajax.amp._heat_bath import HOT, Word, checked, energy_of, random_word, spread, sweep
from replicajax.codebooks import Codebook
from replicajax.models import Loss

_MIXED = 1.2
"""R-hat below which chains are taken to agree."""
_STILL = 1e-8
"""Variance of a weight, relative to its size, that counts as none."""


class GibbsSample(eqx.Module):
    """Averages over the sweeps after annealing and over chains."""

    weights: Float[Array, " columns"]
    """Mean weight <w>, from the conditional means of every site update (Rao-Blackwellised)."""
    energy: Float[Array, ""]
    """<H>/N."""
    chain_weights: Float[Array, "chains columns"]
    """The mean weights of each chain."""
    chain_energy: Float[Array, " chains"]
    final: Float[Array, "chains columns"]
    """The last codeword of each chain."""
    energy_spread: Float[Array, ""]
    """R-hat of the energy: total over within-chain deviation, near 1 when the chains agree."""
    weight_spread: Float[Array, ""]
    """R-hat of the weights, their variances summed: far from 1 where chains are trapped in words of like energy."""
    mixed: Bool[Array, ""]
    """Both R-hats are below 1.2; if not, the averages are those of where the chains happened to start."""

    def __str__(self) -> str:
        if np.ndim(self.energy):
            return (
                f"GibbsSample of shape {self.energy.shape}: {int(self.mixed.sum())} of {self.mixed.size} mixed, R-hat at most "
                f"{float(self.energy_spread.max()):.3f} (energy), {float(self.weight_spread.max()):.3f} (weights)"
            )
        trapped = (
            "" if self.mixed else "\nCHAINS DISAGREE: do not use these averages; parallel_tempering may get across"
        )
        return (
            f"Gibbs sample of {len(self.weights)} weights, {len(self.chain_energy)} chains: energy "
            f"{float(self.energy):.6g} per weight, R-hat {float(self.energy_spread):.3f} (energy), "
            f"{float(self.weight_spread):.3f} (weights){trapped}"
        )


def gibbs(
    X: ArrayLike,
    y: ArrayLike,
    codebook: Codebook,
    beta: ArrayLike,
    *,
    ridge: ArrayLike = 0.0,
    loss: Loss | None = None,
    sweeps: int = 1000,
    annealing: int | None = None,
    chains: int = 4,
    key: PRNGKeyArray | None = None,
) -> GibbsSample:
    """Single-site heat bath for p(w) ∝ exp(−beta H(w)) over codewords, H = sum ell(y, x·w) + ½ ridge |w|².

    For the square loss it holds the columns × columns matrix XᵀX, and a sweep costs its size; for any other a sweep costs
    that of X times the number of levels.

    Args:
      X: (rows, columns); the theory has rows of variance 1/columns.
      y: (rows,).
      codebook: the levels.
      beta: inverse temperature, > 0 and finite.
      ridge: coefficient of |w|²/2.
      loss: ell, one of `rj.losses` or your own; ½ (y − u)² if None.
      sweeps: sweeps averaged over, after annealing.
      annealing: sweeps from beta/100 up to beta, geometrically; half of `sweeps` if None.
      chains: independent chains, at least 2.
      key: of `jax.random`; key 0 if None.

    Raises:
      TypeError, ValueError: shapes that disagree, NaN or inf in the data, labels that the loss does not know, beta <= 0 or
        inf.
    """
    X, y, levels, beta, ridge, loss = checked(X, y, codebook, beta, ridge, loss)
    sweeps = _checks.integer("sweeps", sweeps, 1, 10**9)
    annealing = sweeps // 2 if annealing is None else _checks.integer("annealing", annealing, 0, 10**9)
    chains = _checks.integer("chains", chains, 2, 10**6)
    key = jax.random.key(0) if key is None else key
    return _gibbs(X, y, levels, beta, ridge, loss, sweeps, annealing, chains, key)


@eqx.filter_jit
def _gibbs(X, y, levels, beta, ridge, loss: Loss, sweeps: int, annealing: int, chains: int, key) -> GibbsSample:
    energy = energy_of(X, y, levels, ridge, loss)

    def chain(key):
        start, heat, run = jax.random.split(key, 3)

        def heating(word, t):
            cool = beta * HOT ** (1 - t / max(annealing - 1, 1))
            return sweep(energy, cool, word, jax.random.fold_in(heat, t))[0], None

        def measuring(carry, t):
            word, total, squares = carry
            word, means = sweep(energy, beta, word, jax.random.fold_in(run, t))
            return (word, total + means, squares + means**2), energy.per_weight(*word)

        word, _ = jax.lax.scan(heating, random_word(energy, start), jnp.arange(annealing))
        # The field is updated in place for a long time: start the run from a fresh one.
        word = Word(word.w, energy.field(word.w))
        nothing = jnp.zeros_like(word.w)
        (word, total, squares), energies = jax.lax.scan(measuring, (word, nothing, nothing), jnp.arange(sweeps))
        return total / sweeps, squares / sweeps, energies, word.w

    weights, squares, energies, final = jax.vmap(chain)(jax.random.split(key, chains))
    within, between = jnp.maximum(squares - weights**2, 0.0).mean(0).sum(), weights.var(0, ddof=1).sum()
    # Where nothing moves and all agree, both are rounding errors.
    negligible = _STILL * weights.shape[1] * jnp.mean(levels**2)
    of_energy, of_weights = spread(energies), jnp.sqrt((within + between + negligible) / (within + negligible))
    return GibbsSample(
        weights=weights.mean(0),
        energy=energies.mean(),
        chain_weights=weights,
        chain_energy=energies.mean(1),
        final=final,
        energy_spread=of_energy,
        weight_spread=of_weights,
        mixed=(of_energy < _MIXED) & (of_weights < _MIXED),
    )
