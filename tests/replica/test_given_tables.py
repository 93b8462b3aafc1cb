"""Real tables: held-out errors predicted from the training rows, beside Gibbs sampling on the same splits.

Whitened by the rows trained on, held-out rows are long in what were directions of little variance: their error is mostly
that of the noise of quantization, whose variance is smaller by some 4/N than the theory of many weights has it (by .055 at
N = 64, where all eigenvalues are the same and averages over turns can be taken exactly).

`python tests/replica/test_given_tables.py` prints the table.
"""

from functools import lru_cache
from itertools import product

import jax
import numpy as np
import pytest
from sklearn.datasets import load_breast_cancer, load_diabetes, load_digits, load_wine
from sklearn.preprocessing import PolynomialFeatures

import replicajax as rj
from replicajax.models import whitening
from replicajax.trials import predict_widths, split
from replicajax.trials._measure import _sampled

SPLITS, BETA, FACTORS = 8, 2.0, np.array([0.5, 1.0, 1.5, 2.0])


def squares():
    X, y = load_diabetes(return_X_y=True)
    return PolynomialFeatures(2, include_bias=False).fit_transform(X / X.std(0)), y


TABLES = {
    "digits": (lambda: load_digits(return_X_y=True), 179),
    "diabetes with squares": (squares, 265),
    "breast cancer": (lambda: load_breast_cancer(return_X_y=True), 341),
    "wine": (lambda: load_wine(return_X_y=True), 106),
    "diabetes with squares, few rows": (squares, 33),
    "digits, few rows": (lambda: load_digits(return_X_y=True), 30),
}
CASES = [
    (name, kind, bits)
    for name, kind, bits in product(TABLES, ("raw", "whitened"), (2, 3))
    if not (kind == "whitened" and "few" in name)
]


@lru_cache
def study(name: str, kind: str, bits: int) -> dict[str, np.ndarray]:
    """By split and width: measured, predicted held out and left out, what section 1 says of two moments, entropy, replicon."""
    load, count = TABLES[name]
    X, y = load()
    found = {key: [] for key in ("measured", "held out", "left out", "moments", "entropy", "replicon", "columns")}
    for seed in range(SPLITS):
        rows = split(X, y, count, np.random.default_rng(seed))
        train, test = rows.X, rows.X_test
        if kind == "whitened":
            white = whitening(train)
            axes = np.linalg.qr(np.random.default_rng(seed).normal(size=(white.map.shape[1],) * 2))[0]
            train, test = (white(x) @ axes / np.sqrt(len(axes)) for x in (train, test))
        task, left_out = rj.GivenData(train, rows.y, 0.0, test, rows.y_test), rj.GivenData(train, rows.y)
        widths = FACTORS * np.sqrt(float(task.signal))
        theory = predict_widths(task, bits, widths, BETA)
        levels = widths[:, None] * np.linspace(-1, 1, 2**bits)
        key = jax.random.key(seed)
        predicted = np.asarray(_sampled(train, rows.y, test, levels, BETA, 0.0, 2000, key)[0])
        found["measured"].append(((predicted - rows.y_test) ** 2).mean(1))
        found["held out"].append(theory.generalization_error)
        found["left out"].append(predict_widths(left_out, bits, widths, BETA).generalization_error)
        old = rj.LinearRegression(task.alpha, task.signal, task.noise)
        found["moments"].append(predict_widths(old, bits, widths, BETA).test_error)
        found["entropy"].append(theory.entropy)
        found["replicon"].append(theory.replicon)
        found["columns"].append(train.shape[1])
    return {key: np.array(values) for key, values in found.items()}


def deviation(one, other):
    """Mean difference over splits, in units of `other`, and its standard error."""
    difference = one / other - 1
    return difference.mean(0), difference.std(0, ddof=1) / np.sqrt(len(difference))


@pytest.mark.slow
@pytest.mark.parametrize(("name", "kind", "bits"), CASES)
def test_predicted_errors_are_those_of_gibbs_sampling(name, kind, bits):
    """Within three standard errors or 1 % (whitened, 4/N), where entropy exceeds 0.4 nats and the replicon 0 on every split."""
    s = study(name, kind, bits)
    trusted = (s["entropy"].min(0) > 0.4) & (s["replicon"].min(0) > 0)
    mean, error = deviation(s["measured"], s["held out"])
    finite = 0.01 if kind == "raw" else 4 / s["columns"].max()
    assert (np.abs(mean) <= np.maximum(3 * error, finite))[trusted].all(), (mean, error, trusted)
    mean, error = deviation(s["left out"], s["held out"])
    assert (np.abs(mean) <= 3 * error)[trusted].all(), (mean, error, trusted)


if __name__ == "__main__":
    jax.config.update("jax_enable_x64", True)
    print(f"{'':42s}width/√signal {FACTORS}: measured | held out | left out | two moments; * not trusted")
    for case in CASES:
        s = study(*case)
        trusted = (s["entropy"].min(0) > 0.4) & (s["replicon"].min(0) > 0)
        mean, error = deviation(s["measured"], s["held out"])
        cells = [
            "{:.3f} {:.3f} {:.3f} {:.3f} ({:+.2%} ± {:.2%}){}".format(
                *(s[key].mean(0)[k] for key in ("measured", "held out", "left out", "moments")),
                mean[k],
                error[k],
                "" if trusted[k] else "*",
            )
            for k in range(len(FACTORS))
        ]
        print(f"{case[0]:32s}{case[1]:9s}{case[2]}  " + "  ".join(cells), flush=True)
