"""The command, run as a user runs it, in this process."""

import sys

import pytest

from replicajax.cli import _progress, main


def run(capsys, monkeypatch, *arguments: str):
    """(exit code, standard output, standard error) of the command, in this process."""
    monkeypatch.setattr(sys, "argv", ["replicajax", *arguments])
    with pytest.raises(SystemExit) as stop:
        main()
    captured = capsys.readouterr()
    return stop.value.code or 0, captured.out, captured.err


@pytest.fixture
def command(capsys, monkeypatch):
    monkeypatch.setenv("REPLICAJAX_CACHE", "off")  # of this process, which runs other tests too
    monkeypatch.setattr(_progress, "_EVERY", 1e3)  # a slow machine says no more than a fast one
    return lambda *arguments: run(capsys, monkeypatch, *map(str, arguments))
