"""`--loss`, and what a problem file says of loss, features and rows: the tasks that are made, and what is refused."""

import json

import numpy as np
import pytest

import replicajax as rj
from replicajax.cli._loss import read_loss
from replicajax.cli._request import ProblemError

POINT = ("--width", 1, "--bits", 2, "--beta", 5)


@pytest.fixture
def posed(command, monkeypatch):
    """The task that `solve` is asked of, which is not solved."""

    def of(*arguments):
        tasks = []

        def stop(task, *_, **__):
            tasks.append(task)
            raise KeyboardInterrupt

        with monkeypatch.context() as stopped:
            stopped.setattr(rj, "solve", stop)
            assert command("solve", *arguments, *POINT)[0] == 130
        return tasks[0]

    return of


@pytest.mark.parametrize(
    ("text", "loss"),
    [
        ("square", rj.losses.Square()),
        ("absolute", rj.losses.Absolute()),
        ("huber", rj.losses.Huber(1.0)),
        ("huber:0.5", rj.losses.Huber(0.5)),
        ("quantile:0.9", rj.losses.Quantile(0.9)),
        ("logistic", rj.losses.Logistic()),
        ("hinge", rj.losses.Hinge()),
        ("perceptron", rj.losses.Perceptron(0.0)),
        ("perceptron:-0.2", rj.losses.Perceptron(-0.2)),
    ],
)
def test_every_loss_has_a_name(text, loss):
    assert str(read_loss(text).made()) == str(loss)
    assert read_loss(text).classifies == isinstance(loss, rj.models.MarginLoss)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("hubr", "must be square, absolute, .* got 'hubr'"),
        ("huber:0", "its delta must be positive and finite, as in huber:1, got 'huber:0'"),
        ("huber:", "its delta must be positive"),
        ("quantile", "its level must be between 0 and 1, as in quantile:0.5"),
        ("quantile:1", "its level must be between 0 and 1"),
        ("hinge:1", "hinge takes no number"),
        ("perceptron:inf", "its margin must be finite"),
    ],
)
def test_names_that_are_none(text, message):
    with pytest.raises(ProblemError, match=message):
        read_loss(text)


def test_flags_make_the_task(posed):
    task = posed("--alpha", 3, "--noise", 0.2, "--loss", "huber:0.5")
    assert isinstance(task, rj.LinearRegression)
    assert str(task.loss) == "huber loss (delta 0.5)"
    task = posed("--alpha", 3, "--loss", "logistic")
    assert isinstance(task, rj.Classification)
    assert (float(task.alpha), float(task.noise)) == (3.0, 0.1)


def test_a_file_makes_the_task(posed, tmp_path):
    path = tmp_path / "p.toml"
    path.write_text('loss = "hinge"\nfeatures = {exponent = 1.2, count = 8, teacher = 0.5}\n[task]\nalpha = 2\n')
    task = posed("--problem", path)
    assert str(task.loss) == "hinge loss"
    wanted = rj.Features.power_law(1.2, 8, teacher=0.5)
    np.testing.assert_array_equal(task.features.eigenvalues, wanted.eigenvalues)
    np.testing.assert_array_equal(task.features.teacher, wanted.teacher)
    path.write_text(
        'alpha = 2\n[features]\neigenvalues = [1, 3]\nteacher = [2, 1]\naxes = "aligned"\n[rows]\nsquares = [1, 3]\n'
    )
    task = posed("--problem", path, "--loss", "absolute")
    assert (str(task.loss), task.features.axes) == ("absolute loss", "aligned")
    np.testing.assert_array_equal(task.features.teacher, [2, 1])
    np.testing.assert_allclose(task.rows.squares, [0.5, 1.5])
    path.write_text("alpha = 2\nrows = {student_t = 5}\n")
    np.testing.assert_allclose(posed("--problem", path).rows.squares, rj.RowLengths.student_t(5.0).squares)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("loss = 3", 'loss must be text, as in "huber:0.5", got 3'),
        ('loss = "hubr"', "loss must be square, absolute"),
        ("features = [1, 2]", "features must be a table, as in {eigenvalues = [0.2, 0.8, 2.0]}"),
        (
            "[features]\neigenvalues = [1, -2]",
            "features.eigenvalues must be a list of numbers, not negative and not all 0",
        ),
        (
            "[features]\neigenvalues = [1, 2]\nteacher = [1]",
            "features: lists must be of one length, got 2 of eigenvalues, 1 of teacher",
        ),
        ("[features]\nexponent = 1\neigenvalues = [1]", "must have either eigenvalues or exponent"),
        ("[features]\nexponent = 1\ncount = 2.5", "features.count must be a whole number from 1 to 10000, got 2.5"),
        ("[features]\nexponent = nan", "features.exponent must be a finite number, got nan"),
        ('[features]\nexponent = 1\naxes = "x"', "features.axes must be one of rotated, aligned, got 'x'"),
        ("[rows]\nstudent_t = 2", "rows.student_t, degrees of freedom, must exceed 2"),
        (
            "[features]\nexponent = 1\nshare = [1]",
            "a key beside exponent must be one of exponent, count, teacher, axes, got 'share'",
        ),
        ("[features]\nexponent = 1\nteacher = [1]", "features.teacher must be a number, got [1]"),
        ("[rows]\nsquares = 3", "rows.squares must be a list of numbers"),
        ("[rows]\ndf = 3", "rows must have either squares or student_t, got df"),
        ("rows = {}", "rows must have either squares or student_t, got nothing"),
        (
            'noise = 0\nloss = "perceptron"',
            "--beta must be finite with --loss perceptron:0, got inf, which is 1/noise: give --beta",
        ),
    ],
)
def test_files_that_are_refused(command, tmp_path, text, message):
    path = tmp_path / "p.toml"
    path.write_text(f"alpha = 2\n{text}\n")
    code, out, err = command("solve", "--problem", path)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert message in err


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("solve --alpha 2 --loss perceptron --beta inf", "--beta must be finite with --loss perceptron:0, got inf"),
        ("optimize --alpha 2 --loss perceptron --noise 0", "got inf, which is 1/noise: give --beta"),
        ("phase-diagram --alpha 1:2:3 --width 1 --loss perceptron --beta 5,inf", "--beta must be finite with --loss"),
        ("optimize --data digits --loss huber", "--data takes the square loss only"),
        ("solve --alpha 2 --loss hubr", "--loss must be square"),
    ],
)
def test_requests_that_are_refused(command, line, message):
    code, out, err = command(*line.split())
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert message in err


def test_ridge_regression_beside_features(command, tmp_path):
    path = tmp_path / "p.toml"
    path.write_text("alpha = 3\nbeta = 10\nfeatures = {eigenvalues = [0.2, 0.8, 2.0]}\n")
    report = json.loads(command("optimize", "--problem", path, "--bits", "2", "--json")[1])
    task = rj.LinearRegression(3.0, noise=0.1, features=rj.Features([0.2, 0.8, 2.0]))
    error = float(rj.ridge_regression(task, rj.optimal_ridge(task)).generalization_error)
    best = rj.optimal_width(task, 2, 10.0)
    assert report["results"][0]["ratio"] == pytest.approx(float(best.generalization_error) / error, rel=1e-9)


def test_no_ridge_regression_beside_unequal_rows(command, tmp_path):
    """The table of widths without the columns that compare, one line that says so, and the choice that is left."""
    path = tmp_path / "p.toml"
    path.write_text("alpha = 3\nbeta = 10\nrows = {squares = [0.5, 1.5]}\n")
    code, out, _ = command("optimize", "--problem", path, "--bits", "2")
    assert code == 0
    assert "ratio" not in out
    assert "No comparison with unquantized weights: that of ridge regression is not for rows of unequal" in out
    task = rj.LinearRegression(3.0, noise=0.1, rows=rj.RowLengths([0.5, 1.5]))
    assert f"Least error: 2 bits, width {rj.optimal_width(task, 2, 10.0).width:.4f}" in out
    report = json.loads(command("optimize", "--problem", path, "--bits", "2", "--json")[1])
    assert report["unquantized"] is report["results"][0]["ratio"] is report["cheapest_bits"] is None


@pytest.mark.slow
def test_losses_end_to_end(command, tmp_path):
    figure = tmp_path / "f.png"
    line = ("--alpha", 3, "--noise", 0.2, "--loss", "logistic", "--beta", 5)
    code, out, _ = command("solve", *line, "--bits", 2, "--width", 1.5)
    assert code == 0
    assert "0.250215907   share of fresh labels that the mean predictor misses" in out
    code, out, _ = command("optimize", *line, "--bits", 2, "--figure", figure)
    assert code == 0
    assert "error: share of fresh labels that the mean predictor misses" in out
    assert "not for the logistic loss" in out
    assert figure.read_bytes().startswith(b"\x89PNG")
    code, out, _ = command("phase-diagram", *line, "--width", "1:2:3")
    assert code == 0
    assert "logistic loss, alpha 3" in out
    assert "least classification error" in out
