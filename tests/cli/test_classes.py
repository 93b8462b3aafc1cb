"""Tables whose label takes two values: recognised, fitted as ±1, scored by accuracy, predicted by name."""

import json

import numpy as np
import pytest

from replicajax.cli import _table
from replicajax.cli._classes import Classes, coded, matched
from replicajax.cli._request import ProblemError

QUICK = ("--bits", "2", "--width", "1.2", "--beta", "2", "--sweeps", "200", "--seed", "1")


@pytest.fixture
def frame(tmp_path):
    """120 rows of 5 features and their class; writes tables with any two words for it."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(120, 5)).round(4)
    plus = X @ [1.0, -0.8, 0.5, 0.0, 0.2] + 0.5 * rng.normal(size=120) > 0

    def write(minus="no", yes="yes", separator=","):
        lines = [separator.join([*"abcde", "churn"])]
        lines += [separator.join([*map(str, x), yes if p else minus]) for x, p in zip(X, plus, strict=True)]
        path = tmp_path / "table.csv"
        path.write_text("\n".join(lines))
        return path

    return write, X, plus


@pytest.mark.parametrize(
    ("values", "classes"),
    [
        ([0, 1, 1], ("0", "1")),
        ([-1.0, 1.0, 1.0], ("-1", "1")),
        ([1.5, 2.25, 2.25], ("1.5", "2.25")),
        (["no", "yes", "yes"], ("no", "yes")),
        ([False, True, True], ("False", "True")),
    ],
)
def test_two_values_are_classes(values, classes):
    column = np.array(values, object if isinstance(values[0], str) else None)
    labels, found = coded("label", column)
    np.testing.assert_array_equal(labels, [-1, 1, 1])
    assert found == classes
    assert found is not None
    np.testing.assert_array_equal(matched("label", column, found), labels)
    assert found.of(labels) == [classes[0], classes[1], classes[1]]


def test_other_labels():
    labels, classes = coded("label", np.array([1, 2, 3]))
    assert classes is None
    np.testing.assert_array_equal(labels, [1.0, 2.0, 3.0])
    with pytest.raises(ProblemError, match="numbers, or two classes such as no and yes, got 3 words: a, b, c"):
        coded("label", np.array(["a", "b", "c"], object))
    with pytest.raises(ProblemError, match="label is 'a' in every row"):
        coded("label", np.array(["a", "a"], object))
    with pytest.raises(ProblemError, match="must be no or yes, as trained on, got 'maybe'"):
        matched("label", np.array(["no", "maybe"], object), Classes("no", "yes"))


@pytest.mark.parametrize(("minus", "plus"), [("no", "yes"), ("0", "1"), ("False", "True"), (" no", "yes ")])
def test_named_with_their_numbers(command, frame, minus, plus):
    """Which is +1, the errors a fit of numbers has, and how many are expected right."""
    path = frame[0](minus, plus)
    code, out, _ = command("solve", "--data", path, "--target", "churn", "--bits", 2, "--width", 1.2, "--beta", 2)
    assert code == 0
    assert f"label {minus.strip()} as −1, {plus.strip()} as +1" in out
    assert "share of rows left out one by one expected right" in out
    line = ("solve", "--data", path, "--target", "churn", "--bits", 2, "--width", 1.2, "--beta", 2, "--json")
    report = json.loads(command(*line)[1])
    assert report["classes"] == [minus.strip(), plus.strip()]
    assert 0.7 < report["rounded_accuracy"] <= report["accuracy"] < 0.95


@pytest.mark.parametrize("separator", [";", "\t"])
def test_words_beside_points_or_commas(frame, separator):
    """Words for labels do not turn points into text."""
    table = _table.read_csv(frame[0](separator=separator), "churn")
    np.testing.assert_array_equal(table[[*"abcde"]].to_numpy(float), frame[1])
    assert set(table["churn"]) == {"no", "yes"}


def test_optimize_compares_accuracies(command, frame):
    path = frame[0]()
    code, out, _ = command("optimize", "--data", path, "--target", "churn", "--bits", "2,7")
    assert code == 0
    assert "acc. rounded" in out
    assert "nan" not in out
    share = max(frame[2].mean(), 1 - frame[2].mean())
    assert f"is {share:.4f} of all rows" in out


def test_measured_accuracy(command, frame):
    line = ("optimize", "--data", frame[0](), "--target", "churn", "--bits", "2", "--beta", 2, "--measure")
    code, out, _ = command(*line, "--splits", 3, "--sweeps", 100, "--json")
    assert code == 0
    measured = json.loads(out)["results"][0]["measured"]
    gap = np.array(measured["accuracy"]) - measured["theory_accuracy"]
    assert np.abs(gap).mean() < 0.05
    assert 0.7 < measured["ridge_accuracy"] < 1
    code, out, _ = command(*line, "--splits", 3, "--sweeps", 100)
    assert "measured accuracy" in out


def test_names_are_predicted(command, frame, tmp_path):
    write, X, plus = frame
    path, model, out = write("no", "yes, sir"), tmp_path / "m.npz", tmp_path / "p.csv"
    path.write_text(path.read_text().replace("yes, sir", '"yes, sir"'))
    code, text, _ = command("amp", "--data", path, "--target", "churn", *QUICK, "--out", model)
    assert code == 0
    assert "most frequent label, held out" in text
    archive = np.load(model)
    assert archive["classes"].tolist() == ["no", "yes, sir"]
    scores = (X - archive["x_mean"]) @ archive["map"] @ archive["levels"][archive["codes"]]
    said = archive["y_mean"] + archive["y_scale"] * scores > 0
    right = (said == plus).mean()
    code, text, _ = command("predict", model, path, "--out", out)
    assert code == 0
    assert f"accuracy {right:.4f} ±" in text
    assert "churn (no −1, yes, sir +1)" in text
    assert _table.header(out.with_name("table.csv"))[0][-1] == "churn"
    lines = out.read_text().splitlines()
    assert lines[0] == "predicted churn"
    assert lines[1:] == ['"yes, sir"' if p else "no" for p in said]
    report = json.loads(command("predict", model, path, "--json")[1])
    assert report["predicted"] == ["yes, sir" if p else "no" for p in said]
    np.testing.assert_allclose(report["error"]["accuracy"], right)
    path.write_text(path.read_text().replace('"yes, sir"', "maybe"))
    code, _, err = command("predict", model, path)
    assert code == 2
    assert "label column churn must be no or yes, sir, as trained on, got 'maybe'" in err


def test_amp_report(command, frame):
    code, out, _ = command("amp", "--data", frame[0](), "--target", "churn", *QUICK, "--json")
    assert code == 0
    report = json.loads(out)
    shares = report["accuracy"]
    assert set(shares["held_out"]) == set(shares["standard_error"])
    for kind, share in shares["held_out"].items():
        assert 0 <= share <= 1
        assert 0.02 < shares["standard_error"][kind] < 0.12
    assert abs(shares["held_out"]["amp"] - shares["theory"]["mean"]) < 3 * shares["standard_error"]["amp"]
