"""The cache of compiled programs: shared by processes, and never in the way."""

import os
import subprocess
import sys
from pathlib import Path

import jax
import pytest

from replicajax import _cache, enable_cache

PROGRAM = """
import sys
import jax, jax.numpy as jnp
from jax import monitoring
import replicajax as rj
seen = []
monitoring.register_event_listener(lambda name, **_: seen.append(name.rpartition("/")[2]))
folder = rj.enable_cache()
assert abs(float(jax.jit(lambda x: jnp.sin(x) ** 2 + jnp.cos(x) ** 2 + 1)(0.3)) - 2) < 1e-6
print(folder, seen.count("cache_hits"), seen.count("cache_misses"))
"""


def start(folder: Path | str, cwd: Path) -> subprocess.Popen:
    environment = os.environ | {"REPLICAJAX_CACHE": str(folder)}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen([sys.executable, "-c", PROGRAM], cwd=cwd, env=environment, text=True, **pipes)


def finish(process: subprocess.Popen) -> tuple[str, int, int]:
    """Folder, programs found in the cache, programs written to it."""
    out, err = process.communicate()
    assert (process.returncode, err) == (0, "")
    folder, hits, misses = out.split()
    return folder, int(hits), int(misses)


def test_processes_share_what_they_compile(tmp_path):
    folder, elsewhere = tmp_path / "cache", tmp_path / "elsewhere"
    elsewhere.mkdir()
    for _, hits, misses in map(finish, [start(folder, tmp_path), start(folder, tmp_path)]):  # two at once
        assert hits + misses > 0
    entries = list(folder.glob("*-cache"))
    assert entries
    assert finish(start(folder, elsewhere)) == (str(folder), len(entries), 0)
    for entry in entries:
        entry.write_bytes(entry.read_bytes()[:100])
    assert finish(start(folder, tmp_path))[1] == 0


@pytest.mark.parametrize("place", ["off", "/proc/replicajax", f"{__file__}/cache", "~nobody-here/cache"])
def test_no_cache_says_nothing(monkeypatch, place):
    monkeypatch.setenv("REPLICAJAX_CACHE", place)
    before = jax.config.jax_compilation_cache_dir
    assert enable_cache() is None
    assert jax.config.jax_compilation_cache_dir == before


def test_the_oldest_programs_go(tmp_path, monkeypatch):
    monkeypatch.setattr(_cache, "_LIMIT", 250)
    for age, size in ((5, 100), (4, 0), (3, 100), (2, 100), (1, 0)):
        path = tmp_path / f"{age}-cache"
        path.write_bytes(bytes(size))
        os.utime(path, (1e9 - age, 1e9 - age))
    _cache._prune(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"2-cache", "3-cache"}
