"""Every file the command writes: never over its input, never half, one line where it cannot be."""

import errno
import json
import os
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from rich.console import Console

from replicajax import _writing, formats
from replicajax.cli import _request
from replicajax.cli._allocate import request, show
from replicajax.cli._budget import Budget

BEFORE = b"what was there"


def safetensors(path: Path, **tensors: tuple[str, np.ndarray]) -> Path:
    header, data = {}, b""
    for name, (dtype, array) in tensors.items():
        offsets = [len(data), len(data) + array.nbytes]
        header[name] = {"dtype": dtype, "shape": list(array.shape), "data_offsets": offsets}
        data += array.tobytes()
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)
    return path


def normal(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """One input of every kind, each under a name that an output may have."""
    table = "a,b,y\n" + "".join(f"{x:.4f},{y:.4f},{x + 0.5 * y:.4f}\n" for x, y in normal(40, 2))
    for name in ("t.png", "t.npz"):
        (tmp_path / name).write_text(table)
    (tmp_path / "p.png").write_text("alpha = 2\n")
    (tmp_path / "c.png").write_text("bits = [2, 16]\nprice = [0.02, 1.0]\n")
    safetensors(tmp_path / "w.safetensors", w=("F32", normal(8, 8)))
    safetensors(tmp_path / "f.safetensors", w=("F32", normal(8, 8) ** 2))
    monkeypatch.chdir(tmp_path)
    return tmp_path


WRITERS = {
    "optimize --data {} --target y --figure {}": "t.png",
    "optimize --problem {} --figure {}": "p.png",
    "amp --data {} --target y --out {}": "t.npz",
    "scaling risk --data {} --target y --figure {}": "t.png",
    "scaling allocate --costs {} --figure {}": "c.png",
    "allocate {} --quantize {}": "w.safetensors",
    "allocate w.safetensors --fisher {} --quantize {}": "f.safetensors",
    "phase-diagram --alpha 1:2:3 --width 1 --beta {} --figure {}": None,
    "plot {} --figure {}": None,
    "formats --bits {} --figure {}": None,
}


@pytest.mark.parametrize(("line", "name"), [item for item in WRITERS.items() if item[1]])
def test_never_over_the_input(command, folder, line, name):
    source = folder / name
    before = source.read_bytes()
    (folder / f"link{source.suffix}").symlink_to(source)
    os.link(source, folder / f"hard{source.suffix}")
    (folder / "sub").mkdir()
    for alias in (name, f"./sub/../{name}", source, f"link{source.suffix}", f"hard{source.suffix}"):
        for pair in ((name, alias), (alias, name)):
            code, out, err = command(*line.format(*pair).split())
            assert (code, out, err.count("\n")) == (2, "", 1)
            assert "would overwrite" in err
    assert source.read_bytes() == before


@pytest.mark.parametrize(("line", "name"), WRITERS.items())
def test_places_that_take_no_file(command, folder, monkeypatch, line, name):
    suffix = "x.npz" if "--out" in line else "x.safetensors" if "--quantize" in line else "x.png"
    source = name or (folder if line.startswith("plot") else "3")
    (folder / suffix).mkdir()
    for place, message in ((suffix, "is a directory"), (f"nowhere/{suffix}", "folder that exists")):
        code, out, err = command(*line.format(source, place).split())
        assert (code, out, err.count("\n")) == (2, "", 1)
        assert message in err

    def read_only(**_):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(_request, "TemporaryFile", read_only)
    code, out, err = command(*line.format(source, f"new{suffix}").split())
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "cannot be written: Read-only file system" in err


def test_the_library_refuses_too(folder):
    plan = formats.Allocation([], np.zeros(0), np.zeros(0), np.zeros(0), [])
    with pytest.raises(ValueError, match="would overwrite"):
        formats.quantize_file("w.safetensors", folder / "sub" / ".." / "w.safetensors", plan)


@pytest.fixture
def full_disk(monkeypatch):
    def fails(_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(_writing.os, "fsync", fails)


def refused(result, path: Path, message: str = "cannot be written: No space left on device") -> None:
    """One line, exit code 2, and what was there is there."""
    code, _, err = result
    assert code == 2
    assert err.count("\n") == 1
    assert message in err
    assert path.read_bytes() == BEFORE
    assert not list(path.parent.glob(".*.part"))


SWEEP = "phase-diagram --alpha 1:2:3 --width 1:2:2 --bits 1 --beta 5".split()  # noqa: SIM905


def test_full_disk_and_figures(command, tmp_path, full_disk):
    figure = tmp_path / "x.png"
    figure.write_bytes(BEFORE)
    refused(command(*SWEEP, "--store", tmp_path / "s", "--figure", figure), figure)
    refused(command("plot", tmp_path / "s", "--figure", figure), figure)
    risk = ("scaling", "risk", "--size", 20, "--bits", "inf", "--steps", "1e3", "--figure", figure)
    refused(command(*risk), figure)


def test_full_disk_and_stores(command, tmp_path, monkeypatch):
    from replicajax.sweep._store import Store

    def fails(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as full:
        full.setattr(Store, "write", fails)
        code, out, err = command(*SWEEP, "--store", tmp_path / "s")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "--store" in err
    assert "No space left on device" in err
    assert command(*SWEEP, "--store", tmp_path / "s")[0] == 0  # and goes on from there


NAMES = [f"model.encoder.layers.{i}.attention.self.query.weight" for i in range(3)]


def test_a_file_of_every_kind_of_tensor(command, tmp_path, monkeypatch):
    """Long names, markup, no weights, floats of 8 bits; then the same onto a full disk, and interrupted."""
    path, target = tmp_path / "w.safetensors", tmp_path / "q.safetensors"
    small = normal(64, 64).astype(ml_dtypes.float8_e4m3fn)
    tensors = {name: ("F32", normal(64, 64) * (i + 1)) for i, name in enumerate(NAMES)}
    safetensors(path, **tensors, **{"b[red]": ("F8_E4M3", small), "none": ("F32", np.zeros((0, 8), np.float32))})
    code, out, _ = command("allocate", path, "--bits", "5", "--quantize", target)
    assert code == 0
    for name in (*NAMES, "b[red]", "none"):
        assert name in out
    back = formats.dequantize_file(target)
    assert back["none"].shape == (0, 8)
    wide = small.astype(np.float32)
    assert np.sqrt(np.mean((back["b[red]"] - wide) ** 2) / np.mean(wide**2)) < 0.4

    measured = formats.measure_formats(path, formats.menu("all"))
    with (tmp_path / "narrow.txt").open("w") as file:
        asked = request(measured, Budget(5.0, None), [], [])
        show(asked, asked.plan(), Console(width=80, file=file))
    lines = (tmp_path / "narrow.txt").read_text().splitlines()

    head = next(i for i, line in enumerate(lines) if line.startswith(" tensor") or line.startswith("tensor"))
    rows = lines[head:]
    assert max(len(line) for line in rows[: rows.index(next(x for x in rows if "weights in" in x))]) <= 80
    first = "".join(line.split()[0] if line.strip() else " " for line in rows)
    for name in NAMES:
        assert name in first  # folded, not cut

    target.write_bytes(BEFORE)
    with monkeypatch.context() as stopped:
        stopped.setattr(formats._tensor, "pack", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        assert command("allocate", path, "--bits", "5", "--quantize", target)[0] == 130
    assert target.read_bytes() == BEFORE
    with monkeypatch.context() as full:
        full.setattr(
            _writing.os, "fsync", lambda _: (_ for _ in ()).throw(OSError(errno.ENOSPC, "No space left on device"))
        )
        refused(command("allocate", path, "--bits", "5", "--quantize", target, "--json"), target)
