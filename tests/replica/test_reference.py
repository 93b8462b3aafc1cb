"""Numbers computed independently of this package (float64, nine digits)."""

import jax.numpy as jnp
import numpy as np
import pytest

import replicajax as rj

# alpha, noise, bits, width, beta, then m, q, chi, eg, replicon, f; signal 1, ridge 0.
REFERENCE = [
    (2.0, 0.1, 2, 1.5, 5.0, 0.840252413, 0.833298276, 0.724513181, 0.152793449, 0.544224105, 0.102078243),
    (1.3, 0.05, 3, 1.7, 12.0, 0.844742093, 0.858155477, 1.855524265, 0.168671290, 0.399712820, -0.021512543),
    (2.0, 0.1, 2, 1.5, np.inf, 0.846785233, 0.967342087, 0.734282335, 0.273771622, -np.inf, 0.124270122),
]


@pytest.mark.parametrize("row", REFERENCE, ids=lambda r: f"alpha{r[0]}-beta{r[4]}")
def test_order_parameters(row):
    alpha, noise, bits, width, beta, m, q, chi, eg, replicon, f = row
    s = rj.solve(rj.LinearRegression(alpha=alpha, signal=1.0, noise=noise, ridge=0.0), rj.uniform(bits, width), beta)
    assert s.converged
    got = [s.overlap, s.replica_overlap, s.susceptibility, s.generalization_error, s.replicon, s.free_energy]
    np.testing.assert_allclose(got, [m, q, chi, eg, replicon, f], rtol=0, atol=1e-8)
    np.testing.assert_allclose(s.self_overlap, q + chi / beta, atol=1e-8)
    np.testing.assert_allclose(s.test_error, eg + noise, atol=1e-8)
    assert bool(s.stable) == (replicon > 0)


def test_optimal_width():
    best = rj.optimal_width(rj.LinearRegression(alpha=2.0, signal=1.0, noise=0.1), bits=2, beta=5.0)
    assert best.converged
    assert not best.at_edge
    np.testing.assert_allclose(best.width, 1.7303579, rtol=0, atol=1e-6)
    np.testing.assert_allclose(best.generalization_error, 0.14121067, rtol=0, atol=1e-8)


def test_nonuniform_levels_are_more_stable():
    """Claim (iv) of [Q]: 1 − replicon falls from 3.33 to 2.88 as the exponent goes from 1 to 1.3."""
    task = rj.LinearRegression(alpha=2.0, signal=1.0, noise=0.1)
    even, uneven = (1 - rj.solve(task, rj.power(2, 3.0, p), 10.0).replicon for p in (1.0, 1.3))
    np.testing.assert_allclose([even, uneven], [3.33, 2.88], atol=0.005)


@pytest.mark.slow
def test_double_descent_peaks_earlier_with_fewer_bits():
    """Claim (iii) of [Q]: eg(alpha) peaks at alpha 1.0 for 8 bits of width 6, near 0.7 for 2 bits of width 1.5."""
    peaks = []
    for bits, width, alphas in ((2, 1.5, [0.5, 0.6, 0.65, 0.7, 0.75, 0.8, 1.0]), (8, 6.0, [0.95, 1.0, 1.05])):
        book = rj.uniform(bits, width)
        eg = [rj.solve(rj.LinearRegression(alpha=a, noise=0.1), book, 200.0).generalization_error for a in alphas]
        peaks.append(alphas[int(jnp.argmax(jnp.stack(eg)))])
    np.testing.assert_allclose(peaks, [0.7, 1.0], atol=0.051)
