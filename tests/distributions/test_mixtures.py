"""Weight laws: their mixtures against scipy's densities, their samplers against their mixtures."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import integrate, stats

import replicajax as rj
from replicajax.distributions import Discrete, GaussBernoulli, Laplace, Normal, StudentT

CONTINUOUS = {
    "Normal": (Normal(), stats.norm()),
    "Laplace": (Laplace(), stats.laplace(scale=np.sqrt(0.5))),
    "t 2.1": (StudentT(2.1), stats.t(2.1, scale=np.sqrt(0.1 / 2.1))),
    "t 3": (StudentT(3.0), stats.t(3, scale=np.sqrt(1 / 3))),
    "t 30": (StudentT(30.0), stats.t(30, scale=np.sqrt(28 / 30))),
    "t 1e4": (StudentT(1e4), stats.t(1e4, scale=np.sqrt(1 - 2e-4))),
}


@pytest.mark.parametrize("name", CONTINUOUS)
@pytest.mark.parametrize("noise", [0.01, 0.3])
def test_mixture_through_a_gaussian_channel(name, noise):
    """Density of w + sqrt(noise) z, and E[w | that], at several points: within 2e-11."""
    law, reference = CONTINUOUS[name]
    weight, mean, variance = (np.asarray(x) for x in law.mixture())
    assert not mean.any()
    for h in (0.0, 0.4, 1.5, 4.0):
        total = noise + variance
        density = weight * stats.norm.pdf(h, scale=np.sqrt(total))
        moment = density @ (variance / total * h)

        def joint(w, power, h=h):
            return w**power * reference.pdf(w) * stats.norm.pdf(h - w, scale=np.sqrt(noise))

        at = sorted({0.0, h, *(h + np.sqrt(noise) * np.arange(-10, 11, 2))})
        exact = [
            sum(
                integrate.quad(joint, a, b, args=(k,), epsabs=1e-14, epsrel=1e-13)[0]
                for a, b in zip(at, at[1:], strict=False)
            )
            for k in (0, 1)
        ]
        np.testing.assert_allclose([density.sum(), moment], exact, rtol=0, atol=2e-11)


@pytest.mark.parametrize(
    "law",
    [*(law for law, _ in CONTINUOUS.values()), GaussBernoulli(0.2), Discrete(rj.uniform(2, 1.5), [0.1, 0.2, 0.3, 0.4])],
)
def test_moments(law):
    weight, mean, variance = law.mixture()
    np.testing.assert_allclose(weight.sum(), 1, rtol=1e-12)
    # A t with 2.1 degrees has a tenth of its variance beyond w² = 1e13, further out than theory looks.
    exact = law.second_moment()
    np.testing.assert_allclose(weight @ (mean**2 + variance), exact, rtol=0.3 if "2.1" in str(law) else 1e-8)


@pytest.mark.parametrize("name", [n for n in CONTINUOUS if n != "t 2.1"])
def test_continuous_samples(name):
    law, reference = CONTINUOUS[name]
    draws = np.asarray(law.sample(jax.random.key(1), (20_000,)))
    assert stats.kstest(draws, reference.cdf).pvalue > 1e-3


def test_discrete_samples():
    draws = GaussBernoulli(0.2).sample(jax.random.key(2), (40_000,))
    assert abs(float(jnp.mean(draws != 0)) - 0.2) < 4 * np.sqrt(0.16 / 40_000)
    np.testing.assert_allclose(jnp.mean(draws**2), 1, atol=4 * np.sqrt((3 / 0.2 - 1) / 40_000))
    p = np.array([0.1, 0.2, 0.3, 0.4])
    draws = Discrete(rj.uniform(2, 1.5), p).sample(jax.random.key(3), (40_000,), jnp.float32)
    assert draws.dtype == jnp.float32
    counts = [int((jnp.abs(draws - a) < 1e-6).sum()) for a in (-1.5, -0.5, 0.5, 1.5)]
    assert stats.chisquare(counts, 40_000 * p).pvalue > 1e-3


def test_bad_arguments():
    with pytest.raises(ValueError, match="df must exceed 2 for a finite variance, got 2"):
        StudentT(2.0)
    with pytest.raises(ValueError, match=r"density must be below 1 \(Normal\(\) is density 1\), got 1"):
        GaussBernoulli(1.0)
    with pytest.raises(
        ValueError, match=r"probabilities must have shape \(2,\), one entry per level, got shape \(3,\)"
    ):
        Discrete(rj.uniform(1, 1.0), [0.2, 0.3, 0.5])
    with pytest.raises(ValueError, match="probabilities must sum to 1, got 0.9"):
        Discrete(rj.uniform(1, 1.0), [0.4, 0.5])
    with pytest.raises(TypeError, match="teacher must be a Distribution"):
        rj.LinearRegression(2.0, teacher="laplace")
