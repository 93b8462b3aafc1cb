"""A mistake of the request is one line; a bug keeps its traceback."""

import subprocess
import sys

import jax.numpy as jnp
import numpy as np
import pytest

import replicajax as rj
from replicajax.cli import _console, _progress
from replicajax.cli._refusal import refused

POINT = ("solve", "--alpha", "2", "--width", "1", "--bits", "1", "--beta", "5")


@pytest.mark.parametrize(
    "slip",
    [
        lambda *_, **__: np.zeros(3).reshape(2),
        lambda *_, **__: jnp.ones(3) @ jnp.ones(4),
        lambda *_, **__: int("x"),
        lambda *_, **__: np.load("/nowhere/x.npy"),
        lambda *_, **__: None + 1,  # type: ignore[operator]
    ],
)
def test_a_bug_keeps_its_traceback(command, monkeypatch, slip):
    monkeypatch.setattr(rj, "solve", slip)
    with pytest.raises((ValueError, TypeError, OSError)) as caught:
        command(*POINT)
    assert caught.traceback[-1].name != "main"


def test_what_the_package_itself_refuses_is_one_line(command, monkeypatch):
    monkeypatch.setattr(rj, "solve", lambda task, book, beta, breaking: rj.uniform(0, 1.0))
    code, out, err = command(*POINT)
    assert (code, out) == (2, "")
    assert err == "replicajax: bits must be a whole number from 1 to 16, got 0\n"


def test_a_slip_in_a_line_of_the_package_is_a_bug():
    """The same frame, once with a `raise` and once without."""

    def caught(line: str) -> ValueError:
        try:
            exec(compile(f"def f():\n    {line}\nf()", rj.__file__, "exec"), {})
        except ValueError as error:
            return error
        raise AssertionError

    assert refused(caught("raise ValueError('alpha must be positive')"))
    assert not refused(caught("int('alpha')"))
    assert not refused(caught("[].index(1)"))


def test_messages_are_one_line_whatever_they_hold(capsys):
    _console.complain("levels must\n  be [1, 2] and not [/bold] or [red]x[/]" + " long" * 60)
    assert capsys.readouterr().err.count("\n") == 1


def test_standard_output_on_a_full_disk():
    done = subprocess.run(
        [sys.executable, "-c", "from replicajax.cli import main; main()", "--help"],
        stdout=open("/dev/full", "w"),  # noqa: SIM115
        stderr=subprocess.PIPE,
        text=True,
    )
    assert (done.returncode, done.stderr) == (2, "replicajax: No space left on device\n")


def test_progress_in_a_pipe_is_plain_lines(capsys, monkeypatch):
    monkeypatch.setattr(_progress, "_EVERY", 0.02)
    with _progress.Progress("theory") as progress:
        progress.stage("held-out rows", 8)
        progress.advance(3)
        progress._over.wait(0.1)
    lines = capsys.readouterr().err.splitlines()
    assert "replicajax: held-out rows, 3 of 8, 0 s" in lines
    assert not any("\x1b" in line for line in lines)
