"""What one step of breaking leaves, at zero temperature: k steps by plain sums, which share nothing with the package (slow).

With overlaps q_0 < ... < q_k, Parisi parameters y_1 < ... < y_k, G_{k+1} = 1 + chi and G_i = G_{i+1} + y_i (q_i − q_{i−1}),
the square loss has

    f = alpha/2 [Σ_i log(G_i/G_{i+1})/y_i + (1 − 2m + q_0 + noise)/G_1] + m_hat m − L q_k/2
        + ½ [r_k chi + Σ_i y_i (r_i q_i − r_{i−1} q_{i−1})] − E phi_1(m_hat w0 + sqrt(c_0) z),      r_i = c_0 + ... + c_i,

with phi_i(h) = log E_z exp(y_i phi_{i+1}(h + sqrt(c_i) z))/y_i and phi_{k+1}(h) = max_a (h a − L a²/2).
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.scipy.special import log_ndtr, logsumexp
from scipy.optimize import root

import replicajax as rj


def trapezoid(points):
    z = np.linspace(-8.2, 8.2, points)
    return z, -(z**2) / 2 - np.log(np.exp(-(z**2) / 2).sum())


OUTER, INNER = trapezoid(401), trapezoid(101)
NEVER = 1e3


def innermost(levels, L, y, c, h):
    """phi_k: thresholds cut a Gaussian, tilted, into cells."""
    cuts = (L * (levels[1:] + levels[:-1]) / 2 - h[..., None, None] - y * c * levels[:, None]) / jnp.sqrt(c)
    end, each = jnp.full((*cuts.shape[:-1], 1), NEVER), np.arange(levels.size)
    below = jnp.concatenate([-end, cuts], -1)[..., each, each]
    above = jnp.concatenate([cuts, end], -1)[..., each, each]
    low, high = jnp.where(below > 0, -above, below), jnp.where(below > 0, -below, above)
    mass = log_ndtr(high) + jnp.log1p(-jnp.exp(jnp.minimum(log_ndtr(low) - log_ndtr(high), -1e-15)))
    return logsumexp(y * (h[..., None] * levels - L * levels**2 / 2) + (y * levels) ** 2 * c / 2 + mass, -1) / y


def energetic(levels, m_hat, L, c, y):
    """E phi_1."""

    def phi(i, h):
        if i == len(y):
            return innermost(levels, L, y[-1], c[-1], h)
        return logsumexp(y[i - 1] * phi(i + 1, h[..., None] + jnp.sqrt(c[i]) * INNER[0]) + INNER[1], -1) / y[i - 1]

    return (np.exp(OUTER[1]) * phi(1, jnp.sqrt(m_hat**2 + c[0]) * OUTER[0])).sum()


def ladder(q, chi, y):
    """G_1 to G_{k+1}."""
    G = [1 + chi]
    for i in range(len(y), 0, -1):
        G.insert(0, G[0] + y[i - 1] * (q[i] - q[i - 1]))
    return G


def fields(alpha, noise, m, q, chi, y):
    G = ladder(q, chi, y)
    steps = [alpha * (1 / G[i + 1] - 1 / G[i]) / y[i] for i in range(len(y))]
    return alpha / G[0], alpha / G[-1], jnp.stack([alpha * (1 - 2 * m + q[0] + noise) / G[0] ** 2, *steps])


def free_energy(levels, alpha, noise, m, q, chi, y):
    """f, with the fields that are stationary."""
    G, (m_hat, L, c) = ladder(q, chi, y), fields(alpha, noise, m, q, chi, y)
    share = (1 - 2 * m + q[0] + noise) / G[0] + sum(jnp.log(G[i] / G[i + 1]) / y[i] for i in range(len(y)))
    r = jnp.cumsum(c)
    coupling = r[-1] * chi + sum(y[i] * (r[i + 1] * q[i + 1] - r[i] * q[i]) for i in range(len(y)))
    return alpha * share / 2 + m_hat * m - L * q[-1] / 2 + coupling / 2 - energetic(levels, m_hat, L, c, y)


def order_parameters(levels, m_hat, L, c, y):
    m, by_L, by_c = jax.grad(energetic, (1, 2, 3))(levels, m_hat, L, c, y)
    by_r = by_c - jnp.append(by_c[1:], 0.0)
    between = 2 * by_r[:-1] / (jnp.append(0.0, y[:-1]) - y)
    return m, jnp.append(between, -2 * by_L), 2 * by_r[-1] + 2 * y[-1] * by_L


def settled(levels, alpha, noise):
    @jax.jit
    def iterate(at, y):
        def step(carry):
            at, _, number = carry
            new = order_parameters(levels, *fields(alpha, noise, *at, y), y)
            moved = jax.tree.map(lambda new, old: new - old, new, at)
            size = jnp.max(jnp.abs(jnp.concatenate([jnp.ravel(x) for x in moved])))
            return jax.tree.map(lambda x, d: x + 0.7 * d, at, moved), size, number + 1

        return jax.lax.while_loop(lambda c: (c[1] > 1e-12) & (c[2] < 1000), step, (at, 1.0, 0))

    value = jax.jit(jax.value_and_grad(lambda y, at: free_energy(levels, alpha, noise, *at, y)))
    return iterate, value


@pytest.mark.slow
def test_two_steps():
    """One step again, to 1e-12; a second one raises the energy by a hundredth of what the first did."""
    alpha, noise, book = 2.0, 0.1, rj.uniform(2, 1.5)
    task, levels = rj.LinearRegression(alpha, 1.0, noise), np.asarray(book.levels)
    rs, s = (rj.solve(task, book, np.inf, breaking=b) for b in (0, 1))
    iterate, value = settled(levels, alpha, noise)

    y, q0, q1 = (float(x) for x in (s.parisi, s.outer_overlap, s.inner_overlap))
    at = tuple(jnp.asarray(x) for x in (s.overlap, [q0, q1], s.susceptibility))
    at, size, _ = iterate(at, jnp.array([y]))
    f, slope = value(jnp.array([y]), at)
    assert size < 1e-11
    assert float(f) == pytest.approx(float(s.free_energy), abs=1e-12)
    assert abs(float(slope[0])) < 1e-12

    place = [(at[0], q0 + (q1 - q0) * jnp.array([-0.1, 0.7, 1.05]), at[2])]

    def slopes(log_y):
        place[0], size, _ = iterate(place[0], jnp.exp(log_y))
        assert size < 1e-11
        return 1e4 * np.asarray(value(jnp.exp(log_y), place[0])[1] * jnp.exp(log_y))

    found = root(slopes, np.log([0.7 * y, 2.5 * y]), options={"factor": 0.1, "xtol": 1e-7})
    assert np.abs(slopes(found.x)).max() < 1e-6
    m, q, chi = place[0]
    energy, error = float(value(jnp.exp(found.x), place[0])[0]), float(1 - 2 * m + q[-1])
    print(f"\ny {np.exp(found.x)}, q {q}, chi {chi:.6f}: energy {energy:.8f}, eg {error:.8f}")
    assert (np.diff(q) > 0.005).all()
    gained, left = float(s.free_energy - rs.free_energy), energy - float(s.free_energy)
    assert 0 < left < 0.015 * gained
    assert abs(error - float(s.generalization_error)) < 0.01 * float(rs.generalization_error - s.generalization_error)
