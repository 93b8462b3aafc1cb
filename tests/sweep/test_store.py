"""Sweeps on disk: killed at any moment they go on where they stopped, and never mix."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest
import xarray as xr

import replicajax as rj

AXES = {"alpha": np.linspace(0.5, 3, 40), "width": np.linspace(0.6, 3, 40)}
SWEEP = """
import sys, numpy as np, jax
jax.config.update("jax_enable_x64", True)
import replicajax as rj
axes = {"alpha": np.linspace(0.5, 3, 40), "width": np.linspace(0.6, 3, 40)}
rj.phase_diagram(rj.LinearRegression(2.0, 1.0, 0.1), 1, 5.0, axes=axes, store=sys.argv[1], chunk=40,
    devices=jax.local_devices())
"""


def run(store, **changes):
    arguments = {"bits": 1, "beta": 5.0, "axes": AXES, "store": store, "chunk": 40} | changes
    return rj.phase_diagram(rj.LinearRegression(2.0, 1.0, 0.1), **arguments)


def marked(store: Path) -> int:
    return len([p for p in (store / "record" / "done" / "c").glob("*") if p.name.isdigit()])


def test_kill_and_resume(tmp_path):
    store = tmp_path / "sweep.zarr"
    process = subprocess.Popen([sys.executable, "-c", SWEEP, str(store)])
    try:
        while marked(store) < 3 and process.poll() is None:
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
    finally:
        process.kill()
        process.wait()
    done = marked(store)
    assert 3 <= done < 40
    partial = rj.open_sweep(store)
    assert 40 * (done - 1) <= int(partial.converged.sum()) <= 40 * (done + 1)

    # What was done is not done again: a number put in its place survives.
    import zarr

    array = zarr.open_group(store, mode="r+")["overlap"]
    array[0, 0] = 7.0
    devices = jax.local_devices()
    resumed = run(store, devices=devices).load()
    whole = run(None, devices=devices)
    assert float(resumed.overlap[0, 0]) == 7.0
    resumed.overlap[0, 0] = whole.overlap[0, 0]
    xr.testing.assert_identical(resumed, whole)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"beta": 6.0}, r"holds a different sweep \(fixed.beta was 5.0, is 6.0\)"),
        (
            {"axes": AXES | {"alpha": np.linspace(0.5, 4, 40)}},
            r"axes.alpha was \[0.5, .* 3.0\] \(40 values\), is \[0.5",
        ),
        ({"observables": ["rate"]}, r"observables was"),
        ({"chunk": 80}, r"chunk was \[1, 40\], is \[2, 40\]"),
    ],
)
def test_another_sweep_is_refused(tmp_path_factory, changes, message):
    store = tmp_path_factory.getbasetemp() / "one.zarr"
    small = {"axes": AXES}
    run(store, **small)
    before = run(store).load()
    with pytest.raises(ValueError, match=message):
        run(store, **changes)
    xr.testing.assert_identical(rj.open_sweep(store).load(), before)


def test_what_is_no_sweep_is_left_alone(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match="store must be a new path or a sweep to go on with"):
        run(tmp_path)
    with pytest.raises(ValueError, match="is no sweep of replicajax"):
        rj.open_sweep(tmp_path)
    with pytest.raises(FileNotFoundError, match="does not exist"):
        rj.open_sweep(tmp_path / "nothing")
    assert [p.name for p in tmp_path.iterdir()] == ["notes.txt"]
    file = tmp_path / "notes.txt"
    with pytest.raises(ValueError, match="store must be a new path"):
        run(file)


def test_a_mark_cut_short_is_no_mark(tmp_path):
    """A crash of the machine may leave an empty file where a mark was being written: that chunk is done again."""
    store = tmp_path / "sweep.zarr"
    whole = run(store, chunk=400).load()
    mark = store / "record" / "done" / "c" / "1"
    mark.write_bytes(b"")
    xr.testing.assert_identical(run(store, chunk=400).load(), whole)
    assert mark.stat().st_size > 0


def test_progress_counts_the_points_left(capfd):
    run(None, progress=True)
    shown = capfd.readouterr().err
    assert "1600/1600" in shown
    assert "points/s" in shown


def test_a_kill_while_it_is_laid_out(tmp_path):
    """Whatever is there while the sibling marker stands is laid out anew."""
    store = tmp_path / "sweep.zarr"
    whole = run(store, chunk=400).load()
    (tmp_path / "sweep.zarr.laying-out").touch()
    (store / "generalization_error" / "zarr.json").unlink()
    xr.testing.assert_identical(run(store, chunk=400).load(), whole)
