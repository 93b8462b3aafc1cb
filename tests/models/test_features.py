"""Spectra and lengths of rows: bad ones are refused, drawn ones are as promised, few rows give back theirs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import integrate, special, stats

import replicajax as rj
from replicajax.models import covariance

ROWS = np.random.default_rng(0).normal(size=(20, 5))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: rj.Features([1.0, -0.1]), r"eigenvalues must be finite and not negative, got \[1, -0.1\]"),
        (lambda: rj.Features([1.0, np.nan]), "eigenvalues must not be NaN"),
        (lambda: rj.Features([1.0, np.inf]), "eigenvalues must be finite"),
        (lambda: rj.Features([0.0, 0.0]), r"eigenvalues must not all be 0, got \[0, 0\]"),
        (lambda: rj.Features([]), r"eigenvalues must be a row of at least one number, got shape \(0,\)"),
        (lambda: rj.Features([[1.0]]), r"eigenvalues must be a row of at least one number, got shape \(1, 1\)"),
        (lambda: rj.Features([1.0, 2.0], [1.0]), r"teacher must be a row of 2 numbers, one each, got shape \(1,\)"),
        (lambda: rj.Features([1.0, 2.0], share=[1.0, 2.0, 3.0]), r"share must be a row of 2 numbers, .* \(3,\)"),
        (lambda: rj.Features([1.0, 2.0], teacher=[1.0, -1.0]), "teacher must be finite and not negative"),
        (lambda: rj.Features([1.0], axes="rotate"), "axes must be one of rotated, aligned, got 'rotate'"),
        (lambda: rj.Features.power_law(np.nan), "exponent must not be NaN"),
        (lambda: rj.Features.power_law(1.0, 0), "count must be a whole number from 1 to 1000000, got 0"),
        (lambda: rj.Features.of_rows(ROWS[0]), r"X must be a matrix \(rows, columns\) .* got shape \(5,\)"),
        (lambda: rj.Features.of_rows(ROWS[:7]), "X must have at least 8 rows to tell a spectrum from, got 7"),
        (lambda: rj.Features.of_rows(np.where(ROWS > 1, np.nan, ROWS)), "X must not be NaN"),
        (lambda: rj.Features.of_rows(np.ones((9, 5))), "X must have a column that varies, got 5 constant columns"),
        (lambda: rj.Features.of_rows(ROWS, axes="turned"), "axes must be one of rotated, aligned, got 'turned'"),
        (lambda: rj.Features.of_rows(ROWS, count=7), "count must be a whole number from 8 to 10000, got 7"),
        (lambda: rj.RowLengths([1.0, -1.0]), "squares must be finite and not negative"),
        (lambda: rj.RowLengths([0.0]), r"squares must not all be 0, got \[0\]"),
        (lambda: rj.RowLengths([1.0, 2.0], [1.0]), r"share must be a row of 2 numbers, one each, got shape \(1,\)"),
        (lambda: rj.RowLengths.student_t(2.0), "df must exceed 2, where rows have a mean square, got 2.0"),
        (lambda: rj.RowLengths.student_t(-1.0), "df must be positive and finite, got -1.0"),
        (lambda: rj.RowLengths.student_t(5.0, 3), "count must be a whole number from 8 to 1000, got 3"),
        (lambda: rj.RowLengths.of_rows(ROWS[0]), r"X must be \(rows, columns\), got shape \(5,\)"),
        (
            lambda: rj.LinearRegression(1.0, teacher=rj.distributions.Laplace(), features=rj.Features([1.0, 2.0])),
            'teacher must be left out in rotated axes, where every teacher is Gaussian, got .* (features with axes="aligned"',
        ),
    ],
)
def test_refusals(make, message):
    with pytest.raises(ValueError, match=message.replace("(features", r"\(features")):
        make()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: rj.LinearRegression(1.0, features=[1.0, 2.0]), "features must be a Features such as .*, got list"),
        (lambda: rj.LinearRegression(1.0, rows=[1.0, 2.0]), "rows must be a RowLengths such as .*, got list"),
    ],
)
def test_parts_of_another_kind(make, message):
    with pytest.raises(TypeError, match=message):
        make()


@pytest.mark.parametrize("df", [2.1, 3.0, 5.0, 30.0])
def test_student_t_lengths(df):
    """E 1/(1 + t x) for t = (df − 2)/chi², by quadrature in log chi²."""
    rows = rj.RowLengths.student_t(df)
    np.testing.assert_allclose([rows.share.sum(), rows.share @ rows.squares], 1, rtol=1e-12)
    for x in (0.01, 0.1, 1.0, 10.0, 100.0):

        def integrand(v, x=x):
            half = np.exp(v)
            return np.exp(df / 2 * v - half - special.gammaln(df / 2)) / (1 + (df / 2 - 1) / half * x)

        exact, _ = integrate.quad(integrand, -60, 5, points=[-20, -5, 0, np.log(df / 2)], epsabs=1e-13, limit=500)
        assert abs(rows.share @ (1 / (1 + rows.squares * x)) - exact) < 1e-8


def test_lengths_of_rows():
    """In groups of about equal size, of mean 1; of 20 000 rows of a t law, what the law says within sampling error."""
    rng = np.random.default_rng(1)
    two = rj.RowLengths.of_rows(np.array([[1.0, 1.0], [3.0, 3.0], [1.0, -1.0]]), 2)
    np.testing.assert_allclose(two.squares, np.array([1.0, 9.0]) / (11 / 3))
    np.testing.assert_allclose(two.share, [2 / 3, 1 / 3])
    t = 3 / rng.chisquare(5, 20_000)
    many = rj.RowLengths.of_rows(np.sqrt(t)[:, None] * rng.choice([-1.0, 1.0], (20_000, 3)), 400)
    law = rj.RowLengths.student_t(5.0)
    for x in (0.1, 1.0, 10.0):
        value = 1 / (1 + t * x)
        found, expected = (rows.share @ (1 / (1 + rows.squares * x)) for rows in (many, law))
        assert abs(found - expected) < 4 * value.std() / np.sqrt(t.size) + 1e-3


@pytest.mark.parametrize("axes", ["rotated", "aligned"])
def test_draws_have_the_covariance_promised(axes):
    """|S − Sigma|²/N² against its mean (mean lambda)²/n, times mean t² for rows of unequal length."""
    features = rj.Features([0.2, 0.8, 2.0], [2.0, 1.0, 0.5], axes, [1.0, 2.0, 1.0])
    task = rj.LinearRegression(400.0, 1.5, features=features, rows=rj.RowLengths([0.5, 1.5]))
    key = jax.random.key(0)
    X, y, w = rj.draw(task, 40, key)
    Sigma = covariance(task, 40, key)
    np.testing.assert_allclose(jnp.linalg.eigvalsh(Sigma), np.repeat([0.2, 0.8, 2.0], [10, 20, 10]), atol=1e-10)
    assert (np.count_nonzero(Sigma - jnp.diag(jnp.diag(Sigma))) == 0) == (axes == "aligned")
    S = X.T @ X * 40 / len(X)
    off = jnp.mean((S - Sigma) ** 2) * 40**2 / (jnp.trace(Sigma) ** 2 * 1.25 / len(X))
    assert 0.8 < off < 1.2 + 2 / 40
    assert abs(jnp.var(y) / (w @ Sigma @ w / 40 + task.noise) - 1) < 4 * np.sqrt(3 / len(y))
    lengths = (X**2).sum(1) / jnp.trace(Sigma) * 40
    np.testing.assert_allclose(lengths.mean(), 1, atol=0.02)
    np.testing.assert_allclose(lengths.var(), 0.25 + 1.25 * 2 * (Sigma**2).sum() / jnp.trace(Sigma) ** 2, rtol=0.05)


def test_powers_of_the_teacher_are_those_promised():
    """Mean squares along eigenvectors, of 100 directions of each eigenvalue."""
    features = rj.Features([0.2, 0.8, 2.0], [8.0, 1.0, 0.1])
    task, key = rj.LinearRegression(0.01, 1.5, features=features), jax.random.key(3)
    _, along = np.linalg.eigh(covariance(task, 300, key))
    found = ((along.T @ np.asarray(rj.draw(task, 300, key).weights)) ** 2).reshape(3, 100).mean(1)
    np.testing.assert_allclose(found, 1.5 * features.teacher, rtol=4 * np.sqrt(2 / 100))


@pytest.mark.parametrize(("labels", "noise"), [("probit", 0.5), ("logit", 0.0)])
def test_labels_have_the_frequencies_promised(labels, noise):
    """In tenths of the truth, within 4 standard errors."""
    features = rj.Features.power_law(1.0, 16, axes="aligned")
    task = rj.Classification(200.0, 2.0, noise, labels=labels, features=features, rows=rj.RowLengths.student_t(5.0))
    X, y, w = rj.draw(task, 40, jax.random.key(1))
    truth = np.asarray(X @ w)
    law = stats.norm.cdf(truth / np.sqrt(noise)) if labels == "probit" else special.expit(truth)
    assert set(np.unique(y)) == {-1.0, 1.0}
    for tenth in np.array_split(np.argsort(truth), 10):
        p = law[tenth]
        assert abs((np.asarray(y)[tenth] > 0).mean() - p.mean()) < 4 * np.sqrt((p * (1 - p)).sum()) / len(p) + 1e-12


N = 400
SPECTRA = {
    "one": rj.Features([1.0]),
    "three": rj.Features([0.2, 0.8, 2.0]),
    "power law": rj.Features.power_law(1.0),
}


def functionals(eigenvalues, share) -> np.ndarray:
    """Mean lambda, mean lambda², and mean lambda/(lambda + u) for u = 0.1, 1, 10."""
    eigenvalues, share = np.asarray(eigenvalues), np.asarray(share)
    terms = [eigenvalues, eigenvalues**2, *(eigenvalues / (eigenvalues + u) for u in (0.1, 1.0, 10.0))]
    return np.array([np.sum(share * term) for term in terms])


@pytest.mark.parametrize("ratio", [0.5, 1.0, 3.0])
@pytest.mark.parametrize("name", list(SPECTRA))
def test_spectrum_of_few_rows(name, ratio):
    """Means over 4 seeds within 3%, that of mean lambda² within 6%; the eigenvalues in hand miss two or more by more.

    Measured of 6 seeds, in percent, at most of any spectrum: of mean lambda/(lambda + u) 0.6 at ratio 0.5, 0.2 at 1 and 0.1 at
    3, of single seeds 3.5, 0.7 and 0.4; in hand 50, 24 and 8.  Of mean lambda 0.9, as in hand; of mean lambda² 1, but 4
    (single seeds 12) of the power law, whose largest eigenvalues are few; in hand 7 to 200.
    """
    eigenvalues = np.sort(np.resize(SPECTRA[name].eigenvalues, N))
    truth, found, X = functionals(eigenvalues, 1 / N), [], np.empty(0)
    for seed in range(4):
        X = np.random.default_rng(seed).normal(size=(round(ratio * N), N)) * np.sqrt(eigenvalues / N) + 1
        features = rj.Features.of_rows(X)
        found.append(functionals(features.eigenvalues, features.share) / truth - 1)
    in_hand = functionals(np.linalg.eigvalsh(np.cov(X.T)) * N, 1 / N) / truth - 1
    tolerance = np.array([0.03, 0.06, 0.03, 0.03, 0.03])
    assert (np.abs(np.mean(found, 0)) < tolerance).all(), np.mean(found, 0)
    assert (np.abs(found) < 3 * tolerance).all(), found
    assert (np.abs(in_hand) > tolerance).sum() >= 2, in_hand


def test_spectrum_of_rows_of_unequal_length():
    """Over their lengths, rows of a t law say what Gaussian rows would, here within 0.7%; as they are, they miss by 80%."""
    features = rj.Features([0.2, 0.8, 2.0], axes="aligned")
    task = rj.LinearRegression(1.0, features=features, rows=rj.RowLengths.student_t(5.0))
    X = np.asarray(rj.draw(task, N, jax.random.key(0)).X)
    lengths = np.sqrt((X**2).sum(1, keepdims=True))
    of_equal, as_they_are = (rj.Features.of_rows(x) for x in (X / lengths * np.sqrt((lengths**2).mean()), X))
    truth = functionals(features.eigenvalues / features.eigenvalues.mean(), features.share)
    found, wide = (
        functionals(f.eigenvalues / f.mean(f.eigenvalues), f.share) / truth - 1 for f in (of_equal, as_they_are)
    )
    assert np.abs(found).max() < 0.03, found
    assert np.abs(wide).max() > 0.1, wide


def test_scale_and_float32_of_the_data():
    X = np.random.default_rng(0).normal(size=(60, 40))
    one, large, single = (rj.Features.of_rows(x) for x in (X, 1e6 * X, X.astype(np.float32)))
    np.testing.assert_allclose(large.eigenvalues, 1e12 * one.eigenvalues, rtol=1e-6)
    values = [functionals(x.eigenvalues, x.share) for x in (one, single)]
    np.testing.assert_allclose(*values, rtol=1e-4)


def test_odd_rows_have_a_spectrum():
    """Repeated rows and columns, one column, orthogonal rows, one direction, far more columns than rows: of their own mean."""
    rng = np.random.default_rng(0)
    small = rng.normal(size=(50, 10))
    odd = [
        np.repeat(small, 5, 1),
        np.tile(small, (2, 1)),
        rng.normal(size=(100, 1)),
        np.eye(20),
        rng.normal(size=(300, 1)) @ np.ones((1, 30)),
        rng.normal(size=(8, 1000)),
        rng.integers(0, 2, (60, 30)),
    ]
    for X in odd:
        features = rj.Features.of_rows(X)
        variance = X.var(0, ddof=1).sum()
        np.testing.assert_allclose(features.mean(features.eigenvalues), variance, rtol=1e-4)


def test_aligned_takes_variances_of_columns():
    rng = np.random.default_rng(0)
    scales = np.array([3.0, 1.0, 3.0, 1.0, 2.0])
    X = rng.normal(size=(500, 5)) * scales + 7
    own = rj.Features.of_rows(X, axes="aligned")
    assert own.axes == "aligned"
    np.testing.assert_allclose(own.eigenvalues, np.sort(5 * X.var(0, ddof=1)))
    grouped = rj.Features.of_rows(X, axes="aligned", count=2)
    np.testing.assert_allclose(grouped.share, [3 / 5, 2 / 5])
    np.testing.assert_allclose(grouped.mean(grouped.eigenvalues), own.mean(own.eigenvalues))
