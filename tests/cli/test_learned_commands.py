"""codebook and train, as a user would call them."""

import json

import numpy as np
import pytest

import replicajax as rj


def test_train(command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, out, err = command(*["train", "--input-bits", "2", "--times", "5,10,20", "--figure", "t.png"])
    assert (code, err) == (0, "")
    book = rj.uniform(2, 2.0)
    course = rj.dynamics.straight_through(book, book, 0.2, times=[5.0, 10.0, 20.0])
    for error in course.generalization_error:
        assert f"{float(error):.6f}" in out
    assert f"training ends at {course.stationary.generalization_error:.6f}" in out
    assert (tmp_path / "t.png").stat().st_size > 10_000
    code, out, _ = command(*["train", "--width", "0.5", "--teacher", "0.4,1.5", "--noise", "0.1", "--json"])
    found = json.loads(out)
    assert code == 0
    assert found["confined"] is False
    assert found["stationary_error"] is None
    assert np.shape(found["level_probabilities"]) == (7, 4)


def test_codebook(command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, out, _ = command(
        *["codebook", "--alpha", "2", "--noise", "0.1", "--beta", "5", "--count", "4", "--figure", "c.png"]
    )
    assert code == 0
    assert "0.1391226" in out
    assert "0.1412106" in out  # the uniform one
    assert (tmp_path / "c.png").stat().st_size > 5_000
    code, out, _ = command(*["codebook", "--alpha", "2", "--noise", "0.1", "--beta", "5", "--count", "4", "--json"])
    found = json.loads(out)
    assert code == 0
    assert found["converged"]
    assert found["levels"] == pytest.approx([-1.75158818, -0.54074673, 0.54074673, 1.75158818], abs=1e-7)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("train --times 5,3", "--times must be increasing"),
        ("train --times 0,3", "--times must be increasing numbers above 0"),
        ("train --step -1", "--step must be positive and finite"),
        ("train --noise -1", "--noise must be finite and not negative"),
        ("train --bits 1-3", "--bits must be one number without --optimal"),
        ("train --optimal --width 2", "--optimal finds --width and --step"),
        ("train --teacher one", "--teacher must be numbers"),
        ("train --figure t.doc", "--figure must end in"),
        ("codebook --rate-weight -1", "--rate-weight must be finite and not negative"),
        ("codebook --breaking 1 --rate-weight 1", "--rate-weight must be 0 with --breaking 1"),
        ("codebook --count 1", "--count"),
    ],
)
def test_requests_that_are_refused(command, line, message):
    code, _, err = command(*line.split())
    assert code == 2
    assert message in " ".join(err.split())
