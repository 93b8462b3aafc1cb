"""Gibbs sampling over a codebook, annealed: the ground truth at finite size, on actual data."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, PRNGKeyArray

from replicajax import _checks
from replicajax.amp._heat_bath import HOT, Energy, Word, checked, random_word, spread, sweep
from replicajax.codebooks import Codebook


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

    def __str__(self) -> str:
        if np.ndim(self.energy):
            return f"GibbsSample of shape {self.energy.shape}: R-hat at most {float(self.energy_spread.max()):.3f}"
        return (
            f"Gibbs sample of {len(self.weights)} weights, {len(self.chain_energy)} chains: energy "
            f"{float(self.energy):.6g} per weight, R-hat {float(self.energy_spread):.3f}"
        )


def gibbs(
    X: ArrayLike,
    y: ArrayLike,
    codebook: Codebook,
    beta: ArrayLike,
    *,
    ridge: ArrayLike = 0.0,
    sweeps: int = 1000,
    annealing: int | None = None,
    chains: int = 4,
    key: PRNGKeyArray | None = None,
) -> GibbsSample:
    """Single-site heat bath for p(w) ∝ exp(−beta H(w)) over codewords, H = ½|y − Xw|² + ½ ridge |w|².

    Holds the columns × columns matrix XᵀX; a sweep costs its size.

    Args:
      X: (rows, columns); the theory has rows of variance 1/columns.
      y: (rows,).
      codebook: the levels.
      beta: inverse temperature, > 0 and finite.
      ridge: coefficient of |w|²/2.
      sweeps: sweeps averaged over, after annealing.
      annealing: sweeps from beta/100 up to beta, geometrically; half of `sweeps` if None.
      chains: independent chains, at least 2.
      key: of `jax.random`; key 0 if None.

    Raises:
      TypeError, ValueError: shapes that disagree, NaN or inf in the data, beta <= 0 or inf.
    """
    X, y, levels, beta, ridge = checked(X, y, codebook, beta, ridge)
    sweeps = _checks.integer("sweeps", sweeps, 1, 10**9)
    annealing = sweeps // 2 if annealing is None else _checks.integer("annealing", annealing, 0, 10**9)
    chains = _checks.integer("chains", chains, 2, 10**6)
    key = jax.random.key(0) if key is None else key
    return _gibbs(X, y, levels, beta, ridge, sweeps, annealing, chains, key)


@eqx.filter_jit
def _gibbs(X, y, levels, beta, ridge, sweeps: int, annealing: int, chains: int, key) -> GibbsSample:
    energy = Energy.of(X, y, levels, ridge)

    def chain(key):
        start, heat, run = jax.random.split(key, 3)

        def heating(word, t):
            cool = beta * HOT ** (1 - t / max(annealing - 1, 1))
            return sweep(energy, cool, word, jax.random.fold_in(heat, t))[0], None

        def measuring(carry, t):
            word, total = carry
            word, means = sweep(energy, beta, word, jax.random.fold_in(run, t))
            return (word, total + means), energy.per_weight(*word)

        word, _ = jax.lax.scan(heating, random_word(energy, start), jnp.arange(annealing))
        # The field is updated in place for a long time: start the run from a fresh one.
        word = Word(word.w, energy.field(word.w))
        (word, total), energies = jax.lax.scan(measuring, (word, jnp.zeros_like(word.w)), jnp.arange(sweeps))
        return total / sweeps, energies, word.w

    weights, energies, final = jax.vmap(chain)(jax.random.split(key, chains))
    return GibbsSample(
        weights=weights.mean(0),
        energy=energies.mean(),
        chain_weights=weights,
        chain_energy=energies.mean(1),
        final=final,
        energy_spread=spread(energies),
    )
