"""Gibbs sampling over a codebook: the ground truth at finite size, on actual data."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, PRNGKeyArray

from replicajax import _checks
from replicajax.codebooks import Codebook

_HOT = 1e-2
"""Annealing starts at this fraction of beta."""


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

    One site given the rest: with residual r and g = |X_i|², p(w_i = a) ∝ exp{beta [(X_i·r + g w_i) a − ½ (g + ridge) a²]}.

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
    X = _checks.matrix("X", X)
    y = _checks.vector("y", y, X.shape[0], "row of X")
    _checks.instance("codebook", codebook, Codebook, "uniform(bits=2, width=1.5)")
    beta, ridge = _checks.positive("beta", beta), _checks.nonnegative("ridge", ridge)
    sweeps = _checks.integer("sweeps", sweeps, 1, 10**9)
    annealing = sweeps // 2 if annealing is None else _checks.integer("annealing", annealing, 0, 10**9)
    chains = _checks.integer("chains", chains, 2, 10**6)
    key = jax.random.key(0) if key is None else key
    return _gibbs(X, y, codebook.levels, beta, ridge, sweeps, annealing, chains, key)


@eqx.filter_jit
def _gibbs(X, y, levels, beta, ridge, sweeps: int, annealing: int, chains: int, key) -> GibbsSample:
    columns = X.shape[1]
    sites, norms = X.T, jnp.sum(X**2, axis=0)

    def site(beta, carry, inputs):
        w, r = carry
        i, u = inputs
        h = sites[i] @ r + norms[i] * w[i]
        p = jax.nn.softmax(beta * (h * levels - (norms[i] + ridge) * levels**2 / 2))
        new = levels[jnp.minimum(jnp.sum(jnp.cumsum(p) < u), levels.shape[0] - 1)]
        return (w.at[i].set(new), r - sites[i] * (new - w[i])), p @ levels

    def sweep(beta, state, key):
        uniforms = jax.random.uniform(key, (columns,), X.dtype)
        return jax.lax.scan(lambda c, s: site(beta, c, s), state, (jnp.arange(columns), uniforms))

    def chain(key):
        start, heat, run = jax.random.split(key, 3)
        w = jax.random.choice(start, levels, (columns,))
        state = (w, y - X @ w)
        betas = beta * jnp.geomspace(_HOT, 1.0, annealing)
        state, _ = jax.lax.scan(lambda s, bk: (sweep(bk[0], s, bk[1])[0], None), state, (betas, _keys(heat, annealing)))

        def measure(carry, key):
            state, total = carry
            (w, r), means = sweep(beta, state, key)
            energy = (r @ r + ridge * w @ w) / (2 * columns)
            return ((w, r), total + means), energy

        # The residual is updated in place for a long time: start the run from a fresh one.
        state = (state[0], y - X @ state[0])
        (state, total), energies = jax.lax.scan(measure, (state, jnp.zeros_like(w)), _keys(run, sweeps))
        return total / sweeps, energies, state[0]

    weights, energies, final = jax.vmap(chain)(jax.random.split(key, chains))
    within, between = energies.var(axis=1).mean(), energies.mean(axis=1).var(ddof=1)
    return GibbsSample(
        weights=weights.mean(0),
        energy=energies.mean(),
        chain_weights=weights,
        chain_energy=energies.mean(1),
        final=final,
        energy_spread=jnp.sqrt((within + between) / jnp.where(within > 0, within, 1.0)),
    )


def _keys(key, count: int):
    return jax.random.split(key, count) if count else jnp.zeros((0,), key.dtype)
