"""Exponents and effective sizes measured from exact risks, against what theory 5.3 says of them."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import brentq
from scipy.special import zeta

from replicajax import distributions, scaling
from replicajax.codebooks import uniform
from replicajax.scaling import Precision, power_law, quantization_floor, sgd_risk, step_limit


@partial(jax.jit, static_argnames="kind")
def excess(M, exponent, N, eps=0.0, kind="additive"):
    problem, precision = power_law(M, exponent, noise=1.0), Precision(kind, data=eps)
    return sgd_risk(problem, precision, N, 0.5 * step_limit(problem, precision)).excess


def slope(x, y):
    return np.polyfit(np.log(x), np.log(y), 1)[0]


@pytest.mark.parametrize("a", [1.5, 2.0, 2.5])
def test_exponents_of_full_precision(a):
    """M over 3 decades with N = 1e18, and N over 4 with M = 1e9: a − 1 and (a − 1)/a within 3%."""
    M = np.geomspace(200, 2e5, 13)
    np.testing.assert_allclose(slope(M, [excess(m, a, 1e18) for m in M]), -(a - 1), rtol=0.03)
    N = np.geomspace(1e4, 1e8, 17)
    per_stage = np.asarray(scaling.effective_steps(N))
    np.testing.assert_allclose(slope(per_stage, [excess(1e9, a, n) for n in N]), -(a - 1) / a, rtol=0.03)


@pytest.mark.parametrize("a", [1.5, 2.0, 2.5])
def test_additive_noise_saturates_the_model_size(a):
    """M_eff follows eps^(−1/a) within 5%, and is what the tail sum of a truncated power law says."""
    eps = np.geomspace(1e-8, 1e-4, 9)
    problem = power_law(1e8, a)
    found = [float(scaling.effective_model_size(problem, Precision("additive", data=e))) for e in eps]
    np.testing.assert_allclose(slope(eps, found), -1 / a, rtol=0.05)
    for e, size in zip(eps[::4], found[::4], strict=True):
        lost = float(problem.approximation + quantization_floor(problem, Precision("additive", data=e)))
        np.testing.assert_allclose(size, brentq(lambda m, lost=lost: zeta(a, m + 1) - lost, 1, 1e8), rtol=0.02)


def test_multiplicative_noise_keeps_the_model_size():
    """The exponent of M is that of full precision; the floor is (eps/(1 + eps))² v*ᵀGv*."""
    a, eps = 1.5, 0.01
    M = np.geomspace(200, 2e5, 9)
    floors = [(eps / (1 + eps)) ** 2 * float(power_law(m, a).signal) for m in M]
    risks = np.array([excess(m, a, 1e18, eps, "multiplicative") for m in M])
    np.testing.assert_allclose(slope(M, risks - floors), -(a - 1), rtol=0.03)
    np.testing.assert_allclose(risks, np.array(floors) + zeta(a, M + 1), rtol=1e-6)
    problem, precision = power_law(1000, a), Precision("multiplicative", data=eps)
    assert float(scaling.effective_model_size(problem, precision)) == 1000
    np.testing.assert_allclose(
        quantization_floor(problem, precision), (eps / (1 + eps)) ** 2 * problem.signal, rtol=1e-12
    )


def test_floats_after_a_sketch_are_additive():
    """diag G is tr G/M but for fluctuations: the floor is of the order of additive eps tr G/M's, not the multiplicative one."""
    spectrum = np.arange(1, 3001.0) ** -1.5
    for M in (64, 256):
        problem = scaling.sketched(spectrum, np.ones(3000), M, jax.random.key(0))
        eps = 1e-3
        found, additive, multiplicative = (
            float(quantization_floor(problem, Precision(kind, data=e)))
            for kind, e in (
                ("elementwise", eps),
                ("additive", eps * float(problem.eigenvalues.sum()) / M),
                ("multiplicative", eps),
            )
        )
        assert 0.5 < found / additive < 3
        assert found > 3 * multiplicative


def test_additive_errors_that_fall_with_size_change_the_exponent():
    """eps tr G/M, which is what floats after a sketch amount to: risk with endless data falls as M^−(a−1)/a, not M^−(a−1)."""
    a, sizes = 1.5, np.geomspace(1e5, 1e8, 7)
    problems = [power_law(M, a) for M in sizes]
    risks = [
        float(
            p.approximation
            + quantization_floor(p, Precision("additive", data=0.1 * p.eigenvalues @ p.multiplicity / M))
        )
        for p, M in zip(problems, sizes, strict=True)
    ]
    np.testing.assert_allclose(slope(sizes, risks), -(a - 1) / a, rtol=0.05)


def test_effective_data_size(programs):
    """Full precision keeps all of it; multiplicative noise costs some, more with more noise."""
    problem = power_law(500, 1.5, noise=1.0)

    def size(eps):
        return float(scaling.effective_data_size(problem, Precision("multiplicative", output=eps), 1e5))

    sizes = [size(0.0)]
    with programs() as compiled:
        sizes += [size(0.1), size(0.3)]
    assert not compiled()
    np.testing.assert_allclose(sizes[0], 1e5, rtol=1e-6)
    assert sizes[0] > 1.02 * sizes[1] > 1.04 * sizes[2] > 3e4


def test_fit_recovers_a_law():
    rng = np.random.default_rng(0)
    M, N = rng.uniform(100, 1e5, 30), rng.uniform(1e4, 1e8, 30)
    true = scaling.Law(3.0, 0.6, 2.0, 0.35, 0.01, 0.0, True)
    for floor in (False, True):
        values = true._replace(floor=0.01 if floor else 0.0).excess(M, N)
        law = scaling.fit_law(M, N, values, floor=floor)
        assert law.converged
        found = [law.model_constant, law.model_exponent, law.data_constant, law.data_exponent]
        np.testing.assert_allclose(found, true[:4], rtol=1e-5)
        assert law.error < 1e-6


def test_relaxed_power_law_is_the_exact_one():
    """A quadrature for the directions beyond the 96th: all sums to 1e-9, M up to a million by brute force."""
    for a, b in ((1.5, 1.5), (2.5, 1.2)):
        for M in (200, 4000):
            exact, relaxed = power_law(M, a, source=b), power_law(float(M), a, source=b)
            np.testing.assert_allclose(relaxed.size, M, rtol=1e-12)
            np.testing.assert_allclose(relaxed.signal, exact.signal, rtol=1e-9)
            np.testing.assert_allclose(relaxed.approximation, exact.approximation, rtol=1e-12)
            risks = [sgd_risk(p, Precision("additive", data=1e-3), 10**5, 0.1).excess for p in (exact, relaxed)]
            np.testing.assert_allclose(risks[1], risks[0], rtol=1e-9)
    np.testing.assert_allclose(power_law(1e6, 1.5).signal, (np.arange(1.0, 1e6 + 1) ** -1.5).sum(), rtol=1e-9)


def test_sketch():
    """G = S Λ Sᵀ, v* and the approximation error, by plain linear algebra."""
    spectrum, w = np.arange(1, 31.0) ** -1.5, np.linspace(1, -1, 30)
    key = jax.random.key(5)
    problem = scaling.sketched(spectrum, w, 8, key, noise=0.2)
    S = np.asarray(jax.random.normal(key, (8, 30))) / np.sqrt(8)
    G, c = S * spectrum @ S.T, S @ (spectrum * w)
    basis = np.asarray(problem.basis)
    np.testing.assert_allclose(basis * np.asarray(problem.eigenvalues) @ basis.T, G, atol=1e-13)
    v = np.linalg.solve(G, c)
    np.testing.assert_allclose(basis @ np.asarray(problem.target), v, rtol=1e-9)
    np.testing.assert_allclose(problem.approximation, spectrum @ w**2 - v @ G @ v, rtol=1e-9)
    given = scaling.sketched(spectrum, w, S, noise=0.2)
    np.testing.assert_allclose(given.eigenvalues, problem.eigenvalues, rtol=1e-12)


def test_from_data():
    rng = np.random.default_rng(2)
    X = rng.standard_normal((20_000, 4)) @ np.diag([2.0, 1.0, 0.5, 0.1]) @ np.linalg.qr(rng.standard_normal((4, 4)))[0]
    w = np.array([1.0, -1.0, 0.5, 2.0])
    problem = scaling.from_data(X, X @ w + 3.0 + 0.5 * rng.standard_normal(20_000))
    np.testing.assert_allclose(np.sort(problem.eigenvalues), [0.01, 0.25, 1.0, 4.0], rtol=0.05)
    np.testing.assert_allclose(problem.basis @ problem.target, w, atol=0.1)
    np.testing.assert_allclose(problem.noise, 0.25, rtol=0.05)


def test_variances_of_formats():
    """Against sampled rounding, 1e6 draws; theory 5.1's constants."""
    np.testing.assert_allclose(scaling.float_variance(0), 0.0902, atol=5e-5)
    np.testing.assert_allclose(scaling.integer_variance(8, 2.0), (4 / 255) ** 2 / 6, rtol=1e-12)
    np.testing.assert_allclose(scaling.integer_variance(8, 2.0, "nearest"), (4 / 255) ** 2 / 12, rtol=1e-12)
    rng = np.random.default_rng(0)
    x, book = rng.standard_normal(10**6), uniform(4, 2.5)
    levels = np.asarray(book.levels)
    place = np.clip((x - levels[0]) / (levels[1] - levels[0]), 0, 15)
    up = np.floor(place + rng.random(x.size))
    for rounding, index in (("stochastic", up), ("nearest", np.round(place))):
        error = (levels[index.astype(int)] - x) ** 2
        exact = float(scaling.codebook_variance(distributions.Normal(), book, rounding))
        assert abs(error.mean() - exact) < 4 * error.std() / 1e3
    fine = float(scaling.codebook_variance(distributions.Normal(), uniform(8, 6.0)))
    np.testing.assert_allclose(fine, scaling.integer_variance(8, 6.0), rtol=1e-3)
    slope = jax.grad(scaling.integer_variance)(6.0)
    np.testing.assert_allclose(
        slope, (scaling.integer_variance(6.0001) - scaling.integer_variance(5.9999)) / 2e-4, rtol=1e-6
    )


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: scaling.fit_law([1.0, 2.0], [1.0], [1.0]), "must have one length"),
        (lambda: scaling.fit_law(np.ones(5), np.ones(5), -np.ones(5)), "excess must be positive"),
        (lambda: scaling.codebook_variance("normal", uniform(2, 1.0)), "law must be a Symmetric"),
        (lambda: scaling.float_variance(-1), "mantissa_bits must be finite and not negative"),
    ],
)
def test_bad_arguments(call, message):
    with pytest.raises((ValueError, TypeError), match=message):
        call()


def test_negligible_noise_changes_nothing():
    problem = power_law(100, 1.5, noise=0.1)
    risks = [float(sgd_risk(problem, Precision(kind, data=1e-14), 1000, 0.1).total) for kind in scaling.KINDS]
    np.testing.assert_allclose(risks, float(sgd_risk(problem, Precision(), 1000, 0.1).total), rtol=1e-12)
    assert jnp.isfinite(jnp.asarray(risks)).all()


def test_sketch_in_the_limit():
    """Without a key: size, trace and label variance by sum rules; risks against the mean of 16 sampled sketches."""
    spectrum, w, M = np.arange(1, 501.0) ** -1.5, np.ones(500), 100
    limit = scaling.sketched(spectrum, w, M, noise=0.1)
    np.testing.assert_allclose(limit.size, M, rtol=1e-5)
    np.testing.assert_allclose(limit.multiplicity @ limit.eigenvalues, spectrum.sum(), rtol=1e-5)
    np.testing.assert_allclose(limit.signal + limit.approximation, spectrum.sum(), rtol=1e-5)
    sampled = [scaling.sketched(spectrum, w, M, key, noise=0.1) for key in jax.random.split(jax.random.key(0), 16)]
    for steps, eps in ((100, 0.01), (10**4, 0.0), (10**7, 0.01)):
        precision = Precision("additive", data=eps)
        risks = np.array([sgd_risk(problem, precision, steps, 0.05).excess for problem in sampled])
        found = float(sgd_risk(limit, precision, steps, 0.05).excess)
        assert abs(found - risks.mean()) < 3.5 * risks.std() / np.sqrt(16) + risks.mean() / M
