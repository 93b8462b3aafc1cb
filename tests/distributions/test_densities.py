"""Densities, tails, quantiles and partial moments against scipy and mpmath."""

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import pytest
from scipy import integrate, stats

from replicajax import formats
from replicajax.distributions import GeneralizedNormal, Laplace, Normal, StudentT, fit
from replicajax.distributions._continuous import HeavyStudentT

LAWS = {
    "Normal": (Normal(1.3), stats.norm(scale=1.3)),
    "Laplace": (Laplace(0.7), stats.laplace(scale=0.7 / np.sqrt(2))),
    "t 2.3": (StudentT(2.3), stats.t(2.3, scale=np.sqrt(0.3 / 2.3))),
    "t 5": (StudentT(5.0, 2.0), stats.t(5, scale=2 * np.sqrt(3 / 5))),
    "t 300": (StudentT(300.0), stats.t(300, scale=np.sqrt(298 / 300))),
    "shape 0.6": (GeneralizedNormal(0.6), stats.gennorm(0.6, scale=1 / stats.gennorm(0.6).std())),
    "shape 4": (GeneralizedNormal(4.0, 0.1), stats.gennorm(4, scale=0.1 / stats.gennorm(4).std())),
}


SOME = [pytest.param(n, marks=[pytest.mark.slow] if n in ("t 300", "shape 4", "t 5") else []) for n in LAWS]


@pytest.mark.parametrize("name", SOME)
def test_against_scipy(name):
    law, reference = LAWS[name]
    rms = float(jnp.sqrt(law.second_moment()))
    x = rms * np.array([-30.0, -4.0, -0.5, -1e-7, 0.0, 1e-3, 0.8, 3.0, 12.0])
    np.testing.assert_allclose(reference.std(), rms, rtol=1e-9)
    np.testing.assert_allclose(law.pdf(x), reference.pdf(x), rtol=1e-11, atol=1e-300)
    np.testing.assert_allclose(law.cdf(x), reference.cdf(x), rtol=2e-11)
    p = np.array([1e-12, 1e-3, 0.3, 0.5, 0.9, 1 - 1e-9])
    np.testing.assert_allclose(law.quantile(p), reference.ppf(p), rtol=2e-9, atol=1e-12)
    np.testing.assert_allclose(law.cdf(-law.upper_quantile(np.array([1e-200, 1e-40]))), [1e-200, 1e-40], rtol=1e-10)
    np.testing.assert_allclose(law.entropy(), reference.entropy(), rtol=1e-9)


@pytest.mark.parametrize("name", SOME)
def test_partial_moments(name):
    """Between any two points, across 0 and in both tails, against adaptive quadrature; relative in the far tails."""
    law, reference = LAWS[name]
    rms = float(jnp.sqrt(law.second_moment()))
    ends = [(-np.inf, np.inf), (-np.inf, -2 * rms), (-1.5 * rms, -0.2 * rms), (-0.7 * rms, 0.1 * rms), (0.0, 1.0)]
    ends += [(5 * rms, 6 * rms), (-6 * rms, -5 * rms), (0.3, 0.3)]
    for low, high in ends:
        cuts = sorted({low, high, *(c for c in (-8 * rms, 0.0, 8 * rms) if low < c < high)})
        for k, got in enumerate(law.partial_moments(low, high)):
            if low < -1e9 and high > 1e9 and k == 2:
                want = rms**2
            elif np.isinf(low) and "t " in name:
                continue  # quad loses the power law; the next test has it
            else:
                want = sum(
                    integrate.quad(lambda x, k=k: x**k * reference.pdf(x), a, b, epsabs=0, epsrel=1e-12, limit=200)[0]
                    for a, b in zip(cuts, cuts[1:], strict=False)
                )
            np.testing.assert_allclose(got, want, rtol=1e-8, atol=1e-13 * rms**k)


def t_tail(x, df):
    with mpmath.workdps(40):
        x, v = mpmath.mpf(x), mpmath.mpf(df)
        return mpmath.betainc(v / 2, mpmath.mpf(1) / 2, 0, v / (v + x**2), regularized=True) / 2


@pytest.mark.parametrize("df", [5.0, *(pytest.param(v, marks=pytest.mark.slow) for v in (0.05, 0.5, 2.1, 40.0))])
def test_student_tail(df):
    """Tail and its derivative in df, 1e-12 relative down to 1e-250."""
    x = np.array([0.0, 1e-6, 0.1, 1.0, 5.0, 100.0])
    law = HeavyStudentT(jnp.asarray(df), jnp.ones(()))
    tail, density = law.beyond(x), law.pdf(x)
    np.testing.assert_allclose(tail, [float(t_tail(a, df)) for a in x], rtol=1e-12)
    np.testing.assert_allclose(density, stats.t.pdf(x, df), rtol=1e-11)
    slope = jax.jit(jax.jacfwd(lambda v: HeavyStudentT(v, jnp.ones(())).beyond(x)))(jnp.asarray(df))
    with mpmath.workdps(40):
        h = mpmath.mpf(10) ** -12
        want = [float((t_tail(a, mpmath.mpf(df) + h) - t_tail(a, mpmath.mpf(df) - h)) / (2 * h)) for a in x]
    np.testing.assert_allclose(slope, want, rtol=1e-10, atol=1e-13)


def test_derivative_of_moments_in_df():
    """Of all partial moments of a t beyond a point, in one program."""

    @jax.jit
    def moments(df):
        return jnp.stack(StudentT(df).partial_moments(0.4, jnp.inf))

    at, step = 3.1, 1e-5
    difference = (moments(at + step) - moments(at - step)) / (2 * step)
    np.testing.assert_allclose(jax.jit(jax.jacfwd(moments))(at), difference, rtol=1e-6)


@pytest.mark.parametrize(
    "build",
    [pytest.param(law, marks=pytest.mark.slow) for law in (StudentT, GeneralizedNormal)],
)
def test_derivatives_in_parameters(build):
    """Of cdf, quantile and second partial moment."""
    for of in (
        lambda law: law.cdf(1.7),
        lambda law: law.quantile(0.97),
        lambda law: law.partial_moments(0.4, jnp.inf)[2],
        lambda law: law.tempered(1 / 3).quantile(0.8),
        lambda law: law.entropy(),
    ):
        at, step = 3.1, 1e-5
        difference = (of(build(at + step)) - of(build(at - step))) / (2 * step)
        np.testing.assert_allclose(jax.grad(lambda v, of=of: of(build(v)))(at), difference, rtol=1e-6, atol=1e-11)


@pytest.mark.parametrize(
    ("family", "law"),
    [
        ("normal", Normal(0.02)),
        ("laplace", Laplace(3.0)),
        ("student_t", StudentT(4.0, 0.5)),
        (None, StudentT(4.0, 0.5)),
    ],
)
def test_fit_finds_the_law(family, law):
    """Parameters within four standard errors (the width of the likelihood), and the family by likelihood."""
    weights = law.sample(jax.random.key(0), (2**16,))
    found = fit(weights, family)
    assert found.converged
    assert type(found.law) is type(law)
    np.testing.assert_allclose(found.law.rms, law.rms, rtol=0.03)
    np.testing.assert_allclose(found.log_likelihood, law.log_pdf(weights).mean(), atol=1e-4)
    if isinstance(law, StudentT):
        np.testing.assert_allclose(found.law.df, law.df, rtol=0.05)


@pytest.mark.parametrize("build", [Normal, Laplace, lambda: StudentT(5.0), lambda: GeneralizedNormal(0.7)])
def test_laws_made_in_float32(build):
    """Before float64 was switched on, say: they stay float32 throughout."""
    with jax.enable_x64(False):
        law = build()
    assert law.quantile(jnp.float32(0.9)).dtype == jnp.float32
    np.testing.assert_allclose(law.quantile(0.9), build().quantile(0.9), rtol=1e-5)
    for fmt in (formats.nf4(), formats.BlockFormat(formats.nf4(), 64)):
        want = formats.relative_rms_error(build(), fmt)
        np.testing.assert_allclose(formats.relative_rms_error(law, fmt), want, rtol=1e-4)


def test_fit_prefers_the_simpler():
    assert isinstance(fit(Normal().sample(jax.random.key(1), (2**16,))).law, Normal)
    assert isinstance(fit(Laplace().sample(jax.random.key(1), (2**16,))).law, Laplace)


@pytest.mark.parametrize("law", [Normal(2.0), Laplace(2.0), StudentT(5.0, 2.0), GeneralizedNormal(0.7, 2.0)])
def test_samples(law):
    """Kolmogorov-Smirnov."""
    draws = np.asarray(law.sample(jax.random.key(3), (20000,)))
    assert stats.kstest(draws, lambda x: np.asarray(law.cdf(x))).pvalue > 1e-3


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Normal(0.0), "rms must be positive"),
        (lambda: StudentT(2.0), "df must exceed 2"),
        (lambda: StudentT([3.0, 4.0]), "df must be a single number"),
        (lambda: GeneralizedNormal(-1.0), "shape must be positive"),
        (lambda: GeneralizedNormal(1.0).mixture(), "cannot be a teacher"),
        (lambda: StudentT(5.0).tempered(0.1), "exponent must exceed"),
        (lambda: fit(np.zeros(100)), "not all 0"),
        (lambda: fit([1.0, np.nan] * 20), "finite numbers"),
        (lambda: fit(np.ones(100), "cauchy"), "family must be one of"),
    ],
)
def test_bad_arguments(call, message):
    with pytest.raises((ValueError, TypeError), match=message):
        call()
