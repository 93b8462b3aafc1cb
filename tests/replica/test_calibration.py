"""What a classifier says of its own certainty, against fresh rows of instances that message passing has learned."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import replicajax as rj


@pytest.mark.slow
@pytest.mark.parametrize(
    ("task", "beta"),
    [
        (rj.Classification(3.0, noise=0.2), 4.0),
        (rj.Classification(4.0, labels="logit", signal=4.0), 1.0),
    ],
    ids=["probit", "logit"],
)
def test_fresh_rows_agree(task, beta):
    """In each tenth of what is said, over 16 instances of 400 weights."""
    size, fresh, draws = 400, 60, 16
    book = rj.uniform(2, 1.5)
    s = rj.solve(task, book, beta)
    assert s.stable
    more = rj.Classification(task.alpha + fresh, task.signal, task.noise, labels=task.labels)
    rows, missed = int(float(task.alpha) * size), []
    for k in range(draws):
        X, y, _ = rj.draw(more, size, jax.random.key(k))
        found = rj.amp(X[:rows], y[:rows], book, beta, loss=task.loss)
        said = np.asarray(jax.nn.sigmoid(X[rows:] @ found.weights))
        off = (np.asarray(y[rows:]) > 0) - np.asarray(s.calibration(said))
        which = np.minimum((10 * said).astype(int), 9)
        missed.append([off[which == i].mean() for i in range(10)])
    z = np.mean(missed, 0) / (np.std(missed, 0, ddof=1) / np.sqrt(draws))
    print(z, np.mean(missed, 0))
    assert np.abs(z).max() < 4
    assert np.std(missed, 0, ddof=1).max() / np.sqrt(draws) < 0.01


def test_rows_of_two_lengths():
    """Plain sampling of truth and prediction at the theory's overlaps."""
    task = rj.Classification(3.0, noise=0.2, rows=rj.RowLengths([0.25, 1.75], [0.5, 0.5]))
    s = rj.solve(task, rj.uniform(2, 1.5), 4.0)
    m, q = float(s.label_overlap), float(s.label_replica_overlap)
    rng, n = np.random.default_rng(0), 200_000
    t = np.sqrt(rng.choice(np.asarray(task.rows.squares), n))
    v = t * np.sqrt(q) * rng.normal(size=n)
    truth = m / q * v + t * np.sqrt(1 - m**2 / q) * rng.normal(size=n)
    y = truth + np.sqrt(0.2) * rng.normal(size=n) > 0
    edges = np.array([0.1, 0.3, 0.5, 0.7, 0.9])
    said = 1 / (1 + np.exp(-v))
    for low, high in zip(edges[:-1], edges[1:], strict=True):
        inside = (said > low) & (said < high)
        expected = np.asarray(s.calibration(said[inside]))
        z = (y[inside] - expected).sum() / np.sqrt((expected * (1 - expected)).sum())
        assert abs(z) < 3.5, (low, z)


def test_it_is_even_and_has_derivatives():
    def of(noise, said):
        return rj.solve(rj.Classification(3.0, noise=noise), rj.uniform(2, 1.5), 4.0).calibration(said)

    said = jnp.array([[0.2, 0.5], [0.8, 0.95]])
    found = of(0.2, said)
    assert found.shape == (2, 2)
    assert found[0, 1] == pytest.approx(0.5)
    assert found[0, 0] + found[1, 0] == pytest.approx(1.0)
    assert found[1, 1] > 0.95  # weights as narrow as the truth's, of labels that are nearly certain: too modest
    bold = rj.solve(rj.Classification(1.5, noise=1.0), rj.uniform(2, 6.0), 4.0)
    assert bold.calibration(0.95) < 0.85  # wide ones, of few rows: too sure
    step = 1e-5
    difference = (of(0.2 + step, 0.9) - of(0.2 - step, 0.9)) / (2 * step)
    assert float(jax.grad(of)(0.2, 0.9)) == pytest.approx(float(difference), rel=1e-6)
    tossed = rj.solve(rj.Classification(0.3, labels="random"), rj.uniform(2, 1.5), 1.0)
    np.testing.assert_allclose(tossed.calibration(0.9), 0.5)


def test_bad_arguments():
    s = rj.solve(rj.Classification(3.0, noise=0.2), rj.uniform(2, 1.5), 4.0)
    with pytest.raises(ValueError, match=r"confidence must be inside \(0, 1\), got 1"):
        s.calibration(1.0)
    regression = rj.solve(rj.LinearRegression(2.0, noise=0.1), rj.uniform(2, 1.5), 4.0)
    with pytest.raises(ValueError, match="calibration is that of a Classification, got LinearRegression"):
        regression.calibration(0.5)
