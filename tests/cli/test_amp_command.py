"""`replicajax amp`: what it prints, the archive it writes, how it refuses."""

import errno
import json
import os

import numpy as np
import pytest

from replicajax import _writing, trials

QUICK = ("--bits", "2", "--width", "1.2", "--beta", "4", "--sweeps", "200", "--seed", "1")


@pytest.fixture
def wide(tmp_path):
    """240 rows of 40 features, labels of scale 7 about 100."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(240, 40)) * np.geomspace(0.1, 10, 40) + 3.0
    y = (X - 3.0) / np.geomspace(0.1, 10, 40) @ rng.normal(size=40) / np.sqrt(40) + 0.4 * rng.normal(size=240)
    path = tmp_path / "wide.csv"
    names = [f"x{i}" for i in range(40)] + ["label"]
    np.savetxt(path, np.column_stack([X, 100 + 7 * y]), delimiter=",", header=",".join(names), comments="")
    return path


def test_archive_predicts_the_label(command, wide, tmp_path):
    """From the archive alone, in numpy: predictions in the label's own scale, about as good as the printed error says."""
    code, text, _ = command("amp", "--data", wide, "--target", "label", *QUICK, "--out", tmp_path / "w.npz", "--json")
    report = json.loads(text)
    assert code == 0
    assert report["amp"]["converged"] is True
    assert report["method"] == "amp"
    assert report["training_rows"] + report["held_out_rows"] == 240
    archive = np.load(tmp_path / "w.npz")
    assert archive["codes"].dtype == np.uint8
    np.testing.assert_array_equal(archive["codes"], report["codes"])
    np.testing.assert_allclose(archive["levels"], [-1.2, -0.4, 0.4, 1.2])
    table = np.loadtxt(wide, delimiter=",", skiprows=1)
    X, y = table[:, :-1], table[:, -1]
    weights = archive["map"] @ archive["levels"][archive["codes"]]
    predicted = archive["y_mean"] + archive["y_scale"] * (X - archive["x_mean"]) @ weights
    error = np.mean((y - predicted) ** 2) / np.var(y)
    held_out, estimated = report["amp"]["held_out_rounded_error"], report["amp"]["estimated_rounded_test_error"]
    assert 0.5 < error / held_out < 1.1  # 192 of the 240 rows were trained on
    assert held_out < 0.8
    assert 0.5 < estimated / held_out < 2.0  # 48 rows held out
    np.testing.assert_allclose(report["amp"]["held_out_error"], report["gibbs"]["held_out_error"], rtol=0.1)


def test_predict(command, wide, tmp_path):
    """The same predictions by the command, columns in another order; its error where the label is there."""
    model, out = tmp_path / "w.npz", tmp_path / "labels.csv"
    command("amp", "--data", wide, "--target", "label", *QUICK, "--out", model)
    header = wide.read_text().splitlines()[0].split(",")
    table = np.loadtxt(wide, delimiter=",", skiprows=1)
    archive = np.load(model)
    assert archive["columns"].tolist() == header[:-1]
    assert archive["target"] == "label"
    X = table[:, :-1] - archive["x_mean"]
    wanted = archive["y_mean"] + archive["y_scale"] * (X @ archive["map"] @ archive["levels"][archive["codes"]])
    turned = tmp_path / "turned.csv"
    np.savetxt(turned, table[:, ::-1], delimiter=",", header=",".join(header[::-1]), comments="")
    code, text, _ = command("predict", model, turned, "--out", out)
    assert code == 0
    np.testing.assert_allclose(np.loadtxt(out, skiprows=1), wanted, rtol=1e-12)
    assert f"{np.mean((table[:, -1] - wanted) ** 2):.6g}" in text
    np.savetxt(turned, table[:, :-1], delimiter=",", header=",".join(header[:-1]), comments="")
    code, text, error = command("predict", model, turned)
    assert (code, error) == (0, "")
    np.testing.assert_allclose(np.array(text.split(), float), wanted, rtol=1e-6)
    for wrong, message in (
        ((model, wide, "--out", wide), "would overwrite"),
        ((wide, wide), "model must end in .npz"),
        ((model, tmp_path / "none.csv"), "does not exist"),
    ):
        code, _, error = command("predict", *wrong)
        assert code == 2
        assert message in error
    np.savetxt(turned, table[:, 3:], delimiter=",", header=",".join(header[3:]), comments="")
    code, _, error = command("predict", model, turned)
    assert code == 2
    assert "lacks columns the model was trained on: x0, x1, x2" in error


def test_version(command):
    code, text, _ = command("--version")
    assert code == 0
    assert text.startswith("replicajax 0.")


def test_table(command, wide):
    code, text, _ = command("amp", "--data", wide, "--target", "label", *QUICK)
    assert code == 0
    for part in (
        "theory, left out",
        "theory, held out",
        "AMP, its own estimate",
        "converged in",
        "R-hat",
        "mean label",
    ):
        assert part in text


def test_theory_comes_first(command, wide, monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(trials, "train", interrupted)
    code, text, error = command("amp", "--data", wide, "--target", "label", *QUICK)
    assert (code, error) == (130, "replicajax: interrupted\n")
    assert "expected test error" in text


def test_a_full_disk_leaves_the_old_archive(command, wide, tmp_path, monkeypatch):
    out = tmp_path / "w.npz"
    out.write_bytes(b"what was there")

    def full(_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(_writing.os, "fsync", full)
    code, _, error = command("amp", "--data", wide, "--target", "label", *QUICK, "--out", out)
    assert code == 2
    assert error.endswith("w.npz' cannot be written: No space left on device\n")
    assert out.read_bytes() == b"what was there"


def test_too_few_iterations_exit_1_and_keep_the_samplers_codes(command, wide, tmp_path):
    out = tmp_path / "w.npz"
    code, text, _ = command("amp", "--data", wide, "--target", "label", *QUICK, "--iterations", "2", "--out", out)
    assert code == 1
    assert "NOT CONVERGED in 2 iterations" in text
    assert "try --damping" in text
    assert np.load(out)["method"] == "gibbs"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "amp needs data: give --data FILE.csv"),
        (("--data", "digits", "--out", "w.txt"), "--out must end in .npz in a folder that exists"),
        (("--data", "digits", "--beta", "inf"), "amp needs a finite --beta"),
        (("--data", "nowhere.csv", "--target", "y"), "nowhere.csv does not exist"),
        (("--data", "diabetes", "--alpha", "44.2", *QUICK), "alpha must leave at least 8"),
        (("--data", "diabetes", *QUICK, "--damping", "1"), "--damping must be in [0, 1), got 1.0"),
    ],
)
def test_refusals_are_one_line_and_exit_code_2(command, arguments, message):
    code, _, text = command("amp", *arguments)
    assert code == 2
    assert message in " ".join(text.split())
    assert text.count("\n") == 1
