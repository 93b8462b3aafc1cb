"""The suite runs in float64; its workers share what they compile; CLI tests start their own processes.

Most of its time is compiling, and most programs run once: neither XLA nor LLVM spends anything on making them fast, and
little where tests are marked `optimized`, whose programs run for longer.  Slow ones are compiled as users' are.
"""

import gc
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import jax
import jax.monitoring
import pytest

import replicajax as rj
from replicajax import _fusion

# A worker for every core: more threads than that wait for each other.  Programs in one piece are less work and fewer maps.
_ALONE = ["--xla_cpu_multi_thread_eigen=false", "--xla_cpu_parallel_codegen_split_count=1"]
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # read by NumPy when a worker starts
_QUICK = os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1") == "1"  # by processes that tests start, too
# When the first program is compiled.
_FLAGS = ["--xla_backend_optimization_level=1", *_fusion.FLAGS] if _QUICK else []
os.environ.setdefault("XLA_FLAGS", " ".join(_ALONE + _FLAGS))
jax.config.update("jax_enable_x64", True)

_COMPILED = "/jax/core/compile/backend_compile_duration"
_MOST_MAPS = 14_000
"""Memory maps at which compiled programs are let go: each holds some ten, and the kernel allows 65,530."""


def pytest_configure(config: pytest.Config) -> None:
    rj.enable_cache(config.rootpath / ".pytest_cache" / "programs")
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)  # small ones are sooner made than written
    gc.set_threshold(100_000, 50, 100)  # looking for garbage among what JAX holds is a twentieth of the time


def memory_maps() -> int:
    maps = Path("/proc/self/maps")
    return maps.read_bytes().count(b"\n") if maps.exists() else 0


@pytest.fixture(autouse=True)
def _optimized(request: pytest.FixtureRequest) -> None:
    slowly = request.node.get_closest_marker("optimized") is not None
    jax.config.update("jax_disable_most_optimizations", _QUICK and not slowly)


_since_counted = 0
_OFTEN = 20 if _QUICK else 1
"""Programs between two counts of the maps, which takes a hundredth of a second; optimized ones hold some hundred each."""


def _compiled(event: str, seconds: float, **_: object) -> None:
    global _since_counted
    _since_counted += event == _COMPILED


jax.monitoring.register_event_duration_secs_listener(_compiled)


@pytest.fixture(autouse=True)
def _few_memory_maps() -> Iterator[None]:
    global _since_counted
    yield
    if _since_counted > _OFTEN:
        _since_counted = 0
        if memory_maps() > _MOST_MAPS:
            jax.clear_caches()
            gc.collect()


@pytest.fixture
def programs() -> Callable:
    """`with programs() as count: ...`, after which count() is how many programs were compiled."""

    @contextmanager
    def counting() -> Iterator[Callable[[], int]]:
        compiled: list[float] = []

        def heard(event: str, seconds: float, **_: object) -> None:
            if event == _COMPILED:
                compiled.append(seconds)

        jax.monitoring.register_event_duration_secs_listener(heard)
        try:
            yield lambda: len(compiled)
        finally:
            jax.monitoring.unregister_event_duration_listener(heard)

    return counting
