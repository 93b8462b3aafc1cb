"""One sweep on one device, on eight, and on two processes: the same numbers."""

import os
import socket
import subprocess
import sys

import numpy as np
import pytest
import xarray as xr

import replicajax as rj

SWEEP = """
import sys, numpy as np, jax
jax.config.update("jax_enable_x64", True)
rank, port, store, out = int(sys.argv[1]), sys.argv[2], sys.argv[3] or None, sys.argv[4]
if port != "0":
    jax.distributed.initialize(f"localhost:{port}", num_processes=2, process_id=rank)
    assert jax.process_count() == 2
else:
    assert len(jax.local_devices()) == 8
import replicajax as rj
axes = {"alpha": np.linspace(0.3, 3, 20), "width": np.linspace(0.6, 3, 31), "beta": [20.0, np.inf]}
task = rj.LinearRegression(2.0, 1.0, 0.1)
rj.phase_diagram(task, 4, axes=axes, store=store, chunk=300).to_netcdf(out)
"""


@pytest.fixture(scope="module")
def alone():
    axes = {"alpha": np.linspace(0.3, 3, 20), "width": np.linspace(0.6, 3, 31), "beta": [20.0, np.inf]}
    return rj.phase_diagram(rj.LinearRegression(2.0, 1.0, 0.1), 4, axes=axes)


def check(path, alone):
    other = xr.open_dataset(path).load()
    assert bool(other.converged.all())
    assert bool(other.interpolates.any())
    for name in alone.data_vars:
        np.testing.assert_allclose(other[name], alone[name], rtol=1e-12, atol=1e-12, err_msg=str(name))


def launch(*arguments, devices=1):
    flags = f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count={devices}"
    environment = os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-c", SWEEP, *map(str, arguments)]
    return subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)


def finish(*processes):
    try:
        for process in processes:
            _, errors = process.communicate(timeout=180)
            assert process.returncode == 0, errors
    finally:
        for process in processes:
            process.kill()


def test_eight_devices(alone, tmp_path):
    finish(launch(0, 0, "", tmp_path / "out.nc", devices=8))
    check(tmp_path / "out.nc", alone)


@pytest.mark.slow
@pytest.mark.parametrize("stored", [False, True])
def test_two_processes(alone, tmp_path, stored):
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    store = tmp_path / "store" if stored else ""
    finish(*(launch(rank, port, store, tmp_path / f"{rank}.nc") for rank in (0, 1)))
    for rank in (0, 1):
        check(tmp_path / f"{rank}.nc", alone)
