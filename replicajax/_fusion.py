"""XLA's former code generator for CPUs: programs of many small loops compile in a half to five sixths of the time, and run
about as fast.

Those that go over large arrays, as the averages of the square loss at thousands of points, run at six tenths of the speed.
JAX 0.11 has it no more.
"""

import os
from typing import Any

import jax

_NAME = "xla_cpu_use_fusion_emitters"
_THERE = jax.__version_info__ < (0, 11)  # XLA stops at a flag it does not know

FLAGS = [f"--{_NAME}=false"] if _THERE else []
OLDER: dict[str, Any] = {"compiler_options": {_NAME: False}} if _THERE else {}
"""For `jax.jit`, of what is compiled on its own and not within another program."""


def use_older() -> None:
    """For the rest of this process, where nothing is compiled yet and nobody has said otherwise."""
    if FLAGS:
        os.environ.setdefault("XLA_FLAGS", " ".join(FLAGS))
