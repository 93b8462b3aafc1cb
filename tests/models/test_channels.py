"""Channels against iterated quadrature that shares no code, and against their own potential."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import quad
from scipy.special import logsumexp
from scipy.stats import norm

import replicajax as rj

LOSSES = {
    "logistic": (lambda y, u: np.logaddexp(0, -y * u), rj.losses.Logistic()),
    "hinge": (lambda y, u: np.maximum(0, 1 - y * u), rj.losses.Hinge()),
    "square": (lambda y, u: (y - u) ** 2 / 2, rj.losses.Square()),
    "absolute": (lambda y, u: np.abs(y - u), rj.losses.Absolute()),
    "huber": (
        lambda y, u: np.where(np.abs(y - u) < 0.7, (y - u) ** 2 / 2, 0.7 * (np.abs(y - u) - 0.35)),
        rj.losses.Huber(0.7),
    ),
    "quantile": (lambda y, u: np.where(y > u, 0.3, -0.7) * (y - u), rj.losses.Quantile(0.3)),
}
M, Q, CHI = 0.6, 0.7, 0.5


def log_partition(loss, y, v, chi, beta):
    """log ∫Dt exp(−beta ell), on a grid fine enough for any kink."""
    t = np.linspace(-10 - 2 * np.sqrt(chi * beta), 10 + 2 * np.sqrt(chi * beta), 8_001)
    exponent = -beta * loss(y, v[:, None] + np.sqrt(chi / beta) * t) - t**2 / 2
    return logsumexp(exponent, axis=1) + np.log((t[1] - t[0]) / np.sqrt(2 * np.pi))


def envelope(loss, y, v, chi):
    """min over u of (u − v)²/(2 chi) + ell, on a grid that is made finer about its lowest point."""
    low, high = v - 5.0, v + 5.0
    for _ in range(9):
        u = np.linspace(low, high, 41)
        i = np.argmin((u - v) ** 2 / (2 * chi) + loss(y, u), axis=0)
        low, high = (np.take_along_axis(u, np.clip(i + k, 0, 40)[None], 0)[0] for k in (-1, 1))
    u = (low + high) / 2
    return (u - v) ** 2 / (2 * chi) + loss(y, u)


def potential(loss, beta, classes, alpha=2.0, rho=1.0, noise=0.1):
    """alpha E phi on a grid of v; beta None is infinity."""

    def phi(y, v):
        return envelope(loss, y, v, CHI) if beta is None else -log_partition(loss, y, v, CHI, beta) / beta

    if classes:
        v, step = np.linspace(-9, 9, 601, retstep=True)
        weight = step * norm.pdf(v)
        v = np.sqrt(Q) * v
        chance = norm.cdf(M / Q * v / np.sqrt(rho - M**2 / Q + noise))
        mean = sum(weight * p @ phi(y, v) for y, p in ((1, chance), (-1, 1 - chance)))
    else:
        r, step = np.linspace(-9, 9, 601, retstep=True)
        R = rho - 2 * M + Q + noise
        mean = step * norm.pdf(r) @ phi(0.0, np.sqrt(R) * r)
    return alpha * mean


def heat(beta):
    return None if beta is None else jnp.asarray(beta)


@eqx.filter_jit
def channel(task, at, beta):
    return task.channel(*at, beta)


@eqx.filter_jit
def slopes_of_potential(task, at, beta):
    return jax.grad(lambda o: task.channel(*o, beta).potential)(at)


AT = tuple(map(jnp.asarray, (M, Q, CHI)))


def of(name, kind):
    loss = LOSSES[name][1]
    return (
        rj.Classification(2.0, 1.0, 0.1, loss=loss)
        if kind == "classes"
        else rj.LinearRegression(2.0, 1.0, 0.1, loss=loss)
    )


PAIRS = [(name, "classes") for name in ("logistic", "hinge", "square")]
PAIRS += [(name, "numbers") for name in ("absolute", "huber", "quantile")]


@pytest.mark.parametrize("beta", [3.0, 60.0, None])
@pytest.mark.parametrize(("name", "kind"), PAIRS)
def test_potential(name, kind, beta):
    ours = channel(of(name, kind), AT, heat(beta))
    truth = potential(LOSSES[name][0], beta, kind == "classes")
    # The truth's own grids leave 1e-5 at the kinks of a cold loss.
    assert float(ours.potential) == pytest.approx(truth, rel=1e-7 if beta == 3.0 else 2e-6)


@pytest.mark.parametrize("beta", [0.1, 5.0, 1e4, None])
@pytest.mark.parametrize(("name", "kind"), PAIRS)
def test_fields_are_slopes_of_the_potential(name, kind, beta):
    """m_hat = −d/dm, L = 2 d/dq, chi_hat = L/beta − 2 d/dchi, kinks and all."""
    task, cooling = of(name, kind), 0.0 if beta is None else 1 / beta
    c, (by_m, by_q, by_chi) = channel(task, AT, heat(beta)), slopes_of_potential(task, AT, heat(beta))
    scale = abs(float(c.L))
    assert float(c.m_hat + by_m) == pytest.approx(0, abs=1e-10 * scale)
    assert float(c.L - 2 * by_q) == pytest.approx(0, abs=1e-10 * scale)
    assert float(c.chi_hat - (2 * by_q * cooling - 2 * by_chi)) == pytest.approx(0, abs=1e-10 * float(c.chi_hat))


@pytest.mark.parametrize("beta", [5.0, None])
@pytest.mark.parametrize(("name", "kind"), PAIRS)
def test_slopes_of_the_fields(name, kind, beta):
    """The Jacobian by parts is JAX's, and that of differences where a cold loss has kinks."""
    task = of(name, kind)
    slopes = channel(task, AT, heat(beta)).slopes
    truth = jax.jit(jax.jacfwd(lambda o: jnp.stack(task.channel(*o, beta)[1:4])))(jnp.stack(AT))
    if beta is None:
        step = 1e-4
        pairs = [[jnp.stack(AT).at[k].add(sign * step) for sign in (1, -1)] for k in range(3)]
        both = [[jnp.stack(channel(task, tuple(o), None)[1:4]) for o in pair] for pair in pairs]
        differences = np.stack([(up - down) / (2 * step) for up, down in both], 1)
        np.testing.assert_allclose(truth, differences, rtol=0, atol=1e-6 * np.abs(truth).max())
    np.testing.assert_allclose(np.asarray(slopes).T, truth, rtol=0, atol=1e-9 * np.abs(truth).max())


@pytest.mark.parametrize("labels", ["logit", "random"])
def test_other_labels(labels):
    task = rj.Classification(2.0, loss=rj.losses.Logistic(), labels=labels)
    c, by = channel(task, AT, jnp.asarray(5.0)), slopes_of_potential(task, AT, jnp.asarray(5.0))
    assert float(c.m_hat) == pytest.approx(-float(by[0]), abs=1e-10)
    assert float(c.L) == pytest.approx(2 * float(by[1]), rel=1e-10)
    if labels == "random":
        assert float(task.error(*AT[:2])) == 0.5
        return

    def wrong(v):
        mean, deviation = M / Q * v, np.sqrt(1 - M**2 / Q)
        chance = quad(lambda x: norm.pdf(x) / (1 + np.exp(-(mean + deviation * x))), -9, 9)[0]
        return norm.pdf(v, scale=np.sqrt(Q)) * (1 - chance if v > 0 else chance)

    truth = quad(wrong, -9, 0, epsabs=1e-10)[0] + quad(wrong, 0, 9, epsabs=1e-10)[0]
    assert float(eqx.filter_jit(task.error)(*AT[:2])) == pytest.approx(truth, rel=1e-8)


@pytest.mark.parametrize("name", ["logistic", "huber"])
def test_fresh_loss(name):
    loss = LOSSES[name][0]
    if name == "huber":
        deviation = np.sqrt(1 - 2 * M + Q + 0.1)
        truth = quad(lambda r: norm.pdf(r, scale=deviation) * loss(r, 0.0), -9, 9, points=(-0.7, 0.7))[0]
        ours = of(name, "numbers").fresh_loss
    else:

        def average(v):
            right = norm.cdf(M / Q * v / np.sqrt(1.1 - M**2 / Q))
            return norm.pdf(v, scale=np.sqrt(Q)) * (right * loss(1, v) + (1 - right) * loss(-1, v))

        truth = quad(average, -9, 9)[0]
        ours = of(name, "classes").fresh_loss
    assert float(eqx.filter_jit(ours)(jnp.asarray(M), jnp.asarray(Q))) == pytest.approx(truth, rel=1e-8)


def test_a_loss_of_both_numbers():
    """Neither of y − u nor of y u: the average is over both."""

    class Fair(rj.losses.Loss):
        def __call__(self, y, u):
            return jnp.log(jnp.cosh(y - u)) + 0.1 * u**2

    task = rj.LinearRegression(2.0, 1.0, 0.1, loss=Fair())
    c, by = channel(task, AT, jnp.asarray(5.0)), slopes_of_potential(task, AT, jnp.asarray(5.0))
    assert float(c.m_hat) == pytest.approx(-float(by[0]), rel=1e-10)
    assert float(c.L) == pytest.approx(2 * float(by[1]), rel=1e-10)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: rj.losses.Huber(0.0), "delta must be positive"),
        (lambda: rj.losses.Quantile(1.5), "level must lie between 0 and 1"),
        (lambda: rj.losses.Perceptron(np.nan), "margin must not be NaN"),
        (lambda: rj.LinearRegression(1.0, loss="huber"), "loss must be a Loss such as"),  # type: ignore[arg-type]
        (lambda: rj.Classification(1.0, labels="spin"), "labels must be one of probit, logit, random"),  # type: ignore[arg-type]
        (lambda: rj.Classification(1.0, noise=0.1, labels="logit"), "noise must be 0 for labels 'logit'"),
        (lambda: rj.Classification(-1.0), "alpha must be positive"),
    ],
)
def test_messages(make, message):
    with pytest.raises((TypeError, ValueError), match=message):
        make()
