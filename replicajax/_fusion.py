"""XLA's former code generator for CPUs: programs of many small loops compile in little more than half the time, and run
as fast.

Those that go over large arrays, as the averages of the square loss at thousands of points, run a third slower.  JAX 0.11 has
it no more.
"""

import os
from typing import Any

import jax

_THERE = jax.__version_info__ < (0, 11)  # XLA stops at a flag it does not know
_FLAG = "xla_cpu_use_fusion_emitters"

OLDER: dict[str, Any] = {"compiler_options": {_FLAG: False}} if _THERE else {}
"""For `jax.jit`, of what is compiled on its own and not within another program."""


def use_older() -> None:
    """For the rest of this process, where nothing is compiled yet and nobody has said otherwise."""
    if _THERE:
        os.environ.setdefault("XLA_FLAGS", f"--{_FLAG}=false")
