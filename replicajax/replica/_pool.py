"""Many points in blocks that stay in cache, batches that hide the call, and all devices at once."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from threading import Lock
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, PartitionSpec
from jaxtyping import Array

from replicajax import _fusion
from replicajax.numerics import JAX

CACHED = 512
"""Fields of a block that keeps its working set in a core's cache."""
_RESIDENT = 2**19
"""The same for an accelerator, which wants many at once."""
_LAUNCHED, _GROWTH = 2**13, 8
"""Fields below which an accelerator is no faster, and by how much the next larger program is."""
_FEWEST, _MOST, _CACHE = 64, 256, 1024
"""Fields of a block in NumPy; and thresholds of all, if there are so few: more would not stay in cache, fewer hide no call."""
QUADRATURE = CACHED // 2
"""Fields that the quadrature of a channel is worth: in blocks of two few wait for another, and one alone pays twice."""
_BATCH = 4096
"""Points of one call on a CPU: enough to hide the call, few enough that threads share the work evenly."""


Device = Any
"""A jax.Device."""
_BY_POINT = PartitionSpec("points")


class Pool:
    """Devices, and the size of what they are handed: blocks that stay in cache, batches that hide the call."""

    def __init__(self, fields: int, devices: Sequence[Device] = (), *, older_fusion: bool = False):
        """`fields` are those of one point, or as many as its work is worth; all local devices if none are given."""
        self.blocks = _blocks_by_older_fusion if older_fusion else _blocks
        self.devices = list(devices) or jax.local_devices()
        self.mesh = Mesh(np.array(self.devices), ("points",)) if len(self.devices) > 1 else None
        self.fields, self.on_cpu = fields, self.devices[0].platform == "cpu"
        self.threads = (os.cpu_count() or 1) if self.on_cpu and self.mesh is None else 1

    def sizes(self, points: int) -> tuple[int, int]:
        """Of a block and of a batch, for so many points; few different ones, since each is a program."""
        if self.on_cpu:
            block = max(1, CACHED // self.fields)
            return block, len(self.devices) * block * max(1, _BATCH // block)
        resident, each = _LAUNCHED, -(-points // len(self.devices)) * self.fields
        while resident < min(each, _RESIDENT):
            resident *= _GROWTH
        block = max(1, resident // self.fields)
        return block, len(self.devices) * block

    def run(self, kernel: Callable, inputs, which: np.ndarray, into: Any = None) -> Any:
        """kernel on the points where `which`, at least one, written into the arrays `into` (new if None), which come back."""
        chosen = np.flatnonzero(which)
        block, batch_size = self.sizes(chosen.size)
        out = [] if into is None else [into]
        writing, precision = Lock(), jax.config.read("jax_enable_x64")  # which may be set for the calling thread alone

        def one(part: np.ndarray) -> None:
            padded = np.concatenate([part, np.full(batch_size - part.size, part[0])])
            batch = jax.tree.map(lambda x: x[padded], inputs)
            with jax.enable_x64(precision):
                if self.mesh is None:
                    batch = jax.device_put(batch, self.devices[0])
                found = jax.tree.map(np.asarray, self.blocks(kernel, batch, np.int32(part.size), block, self.mesh))
            with writing:
                if not out:
                    out.append(jax.tree.map(lambda x: np.zeros((which.size, *x.shape[1:]), x.dtype), found))
                jax.tree.map(partial(put, part), out[0], found)

        calls = max(-(-chosen.size // batch_size), min(self.threads, -(-chosen.size // block)))
        with ThreadPoolExecutor(self.threads) as pool:
            for _ in pool.map(one, np.array_split(chosen, calls)):
                pass
        return out[0]


class Here:
    """A few points on this processor, with nothing compiled."""

    def __init__(self, fields: int, thresholds: int):
        """`fields` as in `Pool`, each of so many thresholds."""
        self.block = max(1, min(max(_CACHE // thresholds, _FEWEST), _MOST) // fields)

    def run(self, kernel: Callable, inputs, which: np.ndarray, into: Any = None) -> Any:
        """As `Pool.run`."""
        chosen = np.flatnonzero(which)
        for part in np.split(chosen, range(self.block, chosen.size, self.block)):
            padded = np.resize(part, max(2, part.size))  # NumPy adds up a single column in another order than many
            found = kernel(*jax.tree.map(lambda x, padded=padded: x[padded], inputs))
            if into is None and part.size == which.size:
                return jax.tree.map(lambda x: np.array(x[: which.size]), found)
            if into is None:
                into = jax.tree.map(lambda x: np.zeros((which.size, *x.shape[1:]), x.dtype), found)
            jax.tree.map(partial(put, part), into, found)
        return into


def put(where: np.ndarray, whole: np.ndarray, part) -> None:
    """The first rows of `part` into the rows `where` of `whole`."""
    whole[where] = part[: where.size]


def _in_blocks(kernel: Callable, inputs, live: Array | np.integer, block: int, mesh: Mesh | None):
    """kernel on block after block of the first `live` points, each device its share of them; the rest is zeros."""

    def share(kernel, inputs, live):
        split = jax.tree.map(lambda x: x.reshape(-1, block, *x.shape[1:]), inputs)
        size = jax.tree.leaves(inputs)[0].shape[0]
        if mesh is not None:
            live = live - size * jax.lax.axis_index("points")
        kernel, first = JAX.once(kernel, *jax.tree.map(lambda x: x[0], split))
        found = jax.tree.map(lambda x: jnp.zeros((size // block, *x.shape), x.dtype), first)

        def add(i, found):
            each = kernel(*jax.tree.map(lambda x: x[i], split))
            return jax.tree.map(lambda whole, part: whole.at[i].set(part), found, each)

        found = jax.lax.fori_loop(0, jnp.clip(-(-live // block), 0, size // block), add, found)
        return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), found)

    if mesh is None:
        return share(kernel, inputs, live)
    everywhere = PartitionSpec()
    dynamic, static = eqx.partition(kernel, eqx.is_array)
    return jax.shard_map(
        lambda dynamic, *rest: share(eqx.combine(dynamic, static), *rest),
        mesh=mesh,
        in_specs=(everywhere, _BY_POINT, everywhere),
        out_specs=_BY_POINT,
        check_vma=False,
    )(dynamic, inputs, live)


_blocks = eqx.filter_jit(_in_blocks)
_blocks_by_older_fusion = eqx.filter_jit(_in_blocks, **_fusion.OLDER)
