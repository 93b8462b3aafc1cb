"""The command, run as a user runs it: what it prints, what it writes, how it refuses."""

import errno
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import replicajax as rj
from replicajax import _writing, trials


@pytest.fixture
def table(tmp_path):
    """A CSV file with a linear label, a constant column and a column of words."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(200, 4))
    y = X @ [1.0, -0.5, 0.2, 0.1] + 0.3 * rng.normal(size=200)
    path = tmp_path / "table.csv"
    rows = ["a,b,c,d,label,flat"] + [",".join(f"{v:.6f}" for v in [*x, t, 1.0]) for x, t in zip(X, y, strict=True)]
    path.write_text("\n".join(rows))
    return path


def test_solve(command):
    code, text, _ = command("solve", "--alpha", "2", "--noise", "0.1", "--bits", "2", "--width", "1.5", "--beta", "5")
    assert code == 0
    assert "0.152793449" in text


def test_solve_json(command):
    code, text, _ = command("solve", "--alpha", "2", "--bits", "2", "--width", "1.5", "--beta", "inf", "--json")
    values = json.loads(text)
    assert code == 0
    np.testing.assert_allclose(values["generalization_error"], 0.273771622, atol=1e-8)
    assert values["replicon"] is None  # −inf, which JSON has not
    assert values["converged"] is True


def test_solve_with_a_step_of_breaking(command):
    task = "--alpha", "2", "--noise", "0.1", "--bits", "2", "--width", "1.5", "--beta", "inf"
    code, text, _ = command("solve", *task, "--breaking", "auto", "--json")
    values = json.loads(text)
    assert code == 0
    assert values["breaking"] == 1
    np.testing.assert_allclose(
        (values["generalization_error"], values["parisi"]), (0.2558145568, 12.3361974), rtol=1e-8
    )
    code, _, error = command("solve", *task, "--breaking", "2")
    assert code == 2
    assert "--breaking must be 0, 1 or auto, got 2" in error


@pytest.mark.slow
def test_optimize_with_a_step_of_breaking(command, tmp_path):
    figure = tmp_path / "figure.png"
    arguments = ["--alpha", "2", "--noise", "0.1", "--bits", "1", "--beta", "inf", "--breaking", "auto", "--figure"]
    code, text, _ = command("optimize", *arguments, figure)
    assert code == 0
    assert "0.7119" in text
    assert "one step, unstable" in text
    assert "unquantized error.\n" in text  # of more bits it says nothing
    assert figure.exists()
    curve = rj.optimal_bits(rj.LinearRegression(2.0, noise=0.1), float("inf"), bits=[1], breaking="auto")
    np.testing.assert_allclose(curve.width, 0.711896, rtol=1e-6)


def test_stable_widths_are_of_replica_symmetry(command):
    code, _, error = command("optimize", "--alpha", "2", "--require-stable", "--breaking", "1")
    assert code == 2
    assert "--breaking must be 0 with it, got 1" in error


def test_toml_problem_and_flags_over_it(command, tmp_path):
    path = tmp_path / "problem.toml"
    path.write_text("beta = 5\nbits = 2\nwidth = 1.5\n[task]\nalpha = 9.0\nnoise = 0.1\n")
    code, text, _ = command("solve", "--problem", path, "--alpha", 2, "--json")
    assert code == 0
    np.testing.assert_allclose(json.loads(text)["generalization_error"], 0.152793449, atol=1e-8)


@pytest.mark.slow
def test_optimize_a_csv(command, table, tmp_path):
    figure = tmp_path / "figure.png"
    code, text, _ = command(
        *("optimize", "--data", table, "--target", "label", "--bits", "1", "--alpha", 20, "--measure"),
        *("--splits", 2, "--sweeps", 20, "--figure", figure, "--json"),
    )
    report = json.loads(text)
    assert code == 0
    assert figure.read_bytes().startswith(b"\x89PNG")
    assert report["task"]["alpha"] == 20
    (row,) = report["results"]
    assert row["converged"]
    assert len(row["measured"]["width"]) == len(row["measured"]["error"]) == len(row["measured"]["theory"]) == 9
    frame = pd.read_csv(table)
    y, X = frame.pop("label").to_numpy(), frame.to_numpy()
    rows = trials.split(X, y, trials.training_rows(X, y, 20), np.random.default_rng(0))
    task = rj.GivenData(rows.X, rows.y, 0.0, rows.X_test, rows.y_test)
    again = rj.solve(task, rj.uniform(1, row["width"]), report["beta"])
    np.testing.assert_allclose(again.generalization_error, row["generalization_error"], rtol=1e-9)


def test_optimize_a_small_csv(command, table, tmp_path, monkeypatch):
    """As above in small; what is known is printed first, and a full disk costs the figure alone."""
    figure = tmp_path / "figure.png"
    line = ("optimize", "--data", table, "--target", "label", "--bits", "2", "--alpha", 20, "--beta", 5, "--measure")
    line = (*line, "--splits", 2, "--sweeps", 20, "--figure", figure)
    code, text, _ = command(*line)
    assert code == 0
    assert figure.read_bytes().startswith(b"\x89PNG")
    assert "Cheapest within 1.1 ×" in text or "No bit width tried" in text
    assert (
        text.index("replicon")
        < text.index("measured")
        < text.index("Measured on 2 random splits")
        < text.index("Figure")
    )

    def interrupted(*_, **__):
        raise KeyboardInterrupt

    def full(_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as stopped:
        stopped.setattr(trials, "measure_widths", interrupted)
        code, text, error = command(*line)
    assert (code, error) == (130, "replicajax: interrupted\n")
    assert "replicon" in text
    drawn = figure.read_bytes()
    with monkeypatch.context() as disk:
        disk.setattr(_writing.os, "fsync", full)
        code, text, error = command(*line)
    assert code == 2
    assert "figure.png' cannot be written: No space left on device" in error
    assert "Measured on 2 random splits" in text
    assert figure.read_bytes() == drawn


def test_optimize_prints_a_table(command):
    code, text, _ = command("optimize", "--alpha", 2, "--bits", "2", "--beta", 5, "--factor", 2)
    assert code == 0
    assert "1.7304" in text
    assert "Cheapest within 2 ×: 2 bits" in text


@pytest.mark.slow
def test_unreachable_stability_exits_1(command):
    code, text, _ = command("optimize", "--alpha", 2, "--bits", "1", "--beta", "inf", "--require-stable")
    assert code == 1
    assert "no stable width" in text


def csv(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "bad.csv"
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("text", "target", "message"),
    [
        ("a,b\n1,2\n3\n4,5,6,7\n", "b", "is not readable as CSV"),
        ("", "b", "is not readable as CSV: it is empty"),
        ("a,b\n" + "1,2\n" * 20, "c", "--target c: no such column in .*; its columns are a, b"),
        ("a,b\n" + "".join(f"{i},7\n" for i in range(20)), "b", "the target is the constant 7"),
        ("a,b\n" + "x,1\n" * 20, "b", "column a must be numbers, got 'x'"),
        ("a,b\n1,2\n,3\n" + "2,4\n" * 20, "b", "1 missing or infinite values, the first in column a, data row 2"),
        ("a,b\n1,2\n2,3\n3,5\n", "b", "at least 8 rows"),
        ("a,b\n" + "1,2\n", None, "--target is needed with a CSV file; its columns are a, b"),
    ],
)
def test_bad_csv_is_one_line_and_exit_code_2(command, tmp_path, text, target, message):
    more = () if target is None else ("--target", target)
    code, out, err = command("optimize", "--data", csv(tmp_path, text), *more)
    assert code == 2
    assert out == ""
    assert len(err.strip().splitlines()) == 1
    assert re.search(message, err), err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["solve"], "say what to solve: --alpha"),
        (["solve", "--alpha", "-1"], "alpha must be positive and finite, got -1.0"),
        (["solve", "--alpha", "1", "--noise", "-1"], "noise must be finite and not negative, got -1.0"),
        (["solve", "--alpha", "1", "--levels", "1,0"], "levels must be strictly increasing"),
        (["solve", "--alpha", "1", "--levels", "1,x"], "--levels must be numbers separated by commas"),
        (["solve", "--alpha", "nan"], "--alpha must be positive and finite, got nan"),
        (["optimize", "--alpha", "1", "--bits", "0-3"], "--bits must be whole numbers from 1 to 8"),
        (["optimize", "--alpha", "1", "--measure"], "--measure needs data"),
        (["optimize", "--data", "missing.csv", "--target", "y"], "missing.csv does not exist"),
        (["optimize", "--data", "digits", "--target", "y"], "--target is for CSV files"),
        (["optimize", "--data", "digits", "--alpha", "100"], "at most rows/features = 29.95, got 100"),
        (["optimize", "--data", "digits", "--noise", "1"], "--data estimates signal and noise itself"),
        (["optimize", "--alpha", "1", "--figure", "x.txt"], "--figure must end in .png, .pdf or .svg"),
        (["solve", "--problem", "missing.toml"], "missing.toml: No such file"),
    ],
)
def test_bad_arguments_are_one_line_and_exit_code_2(command, arguments, message):
    code, out, err = command(*arguments)
    assert code == 2
    assert out == ""
    assert len(err.strip().splitlines()) == 1
    assert message in err


@pytest.mark.parametrize("text", ["alpha = ", "alpha = 'two'", "alpha = 1\nwidht = 2"])
def test_bad_toml(command, tmp_path, text):
    path = tmp_path / "bad.toml"
    path.write_text(text)
    code, _, err = command("solve", "--problem", path)
    assert code == 2
    assert "bad.toml" in err


def test_installed_command_prints_help():
    done = subprocess.run([Path(sys.executable).with_name("replicajax"), "--help"], capture_output=True, text=True)
    assert done.returncode == 0
    assert "optimize" in done.stdout
