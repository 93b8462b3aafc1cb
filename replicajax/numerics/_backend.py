"""Two ways to run the same equations: NumPy, which answers at once, and JAX, which compiles first and is fast ever after.

A kernel written for a `Backend` uses its array functions `xp` and its loops, and nothing else that differs.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np


class Backend(Protocol):
    xp: Any
    """numpy or jax.numpy."""

    def loop(self, count: Any, body: Callable[[Any, Any], Any], carry: Any) -> Any:
        """carry = body(i, carry) for i < count."""
        ...

    def repeat(self, going: Callable[[Any], Any], body: Callable[[Any], Any], carry: Any) -> Any:
        """carry = body(carry) while going(carry)."""
        ...

    def either(self, which: Any, this: Callable, that: Callable, *arguments: Any) -> Any:
        """this(*arguments) or that(*arguments)."""
        ...

    def once(self, function: Callable, *arguments: Any) -> tuple[Callable, Any]:
        """function for arguments like these, traced here and nowhere else, and a value that will be replaced by its own."""
        ...

    def over_rows(self, body: Callable[..., tuple], rows: Any, tables: tuple, x: Any, count: int) -> tuple:
        """Sums of body(*row of each table), `count` arrays of the shape of x, over the first `rows` rows."""
        ...

    def each_index(self, count: Any, body: Callable[..., Any], carry: Any, fields: tuple) -> Any:
        """carry = body(i, carry, *fields) for i < count, whose sums go through `add` and `add_row`."""
        ...

    def each_node(self, unit: Any, weight: Any, count: Any, body: Callable[[Any, Any, Any], Any], carry: Any) -> Any:
        """carry = body(unit_i, weight_i, carry) for the first `count` nodes; likewise."""
        ...

    def row(self, rows: Any, index: Any) -> Any:
        """With an index from `each_index`."""
        ...

    def add(self, sums: tuple, values: tuple, weight: Any = 1.0) -> tuple:
        """sums + weight values, all of one shape."""
        ...

    def total(self, weight: Any, tree: Any) -> Any:
        """Sums of weight x over the first axis, for all leaves x of a tree, in the shape of the weight."""
        ...

    def pick(self, options: Sequence, index: Any) -> Any:
        """options[index], where the leaves of one are like those of another."""
        ...

    def add_row(self, rows: Any, index: Any, value: Any) -> Any: ...

    def chunk(self, size: int, whole: int) -> int:
        """Rows to look at together."""
        ...

    def rows(self, rows: Any, start: Any, size: int) -> Any: ...

    def add_rows(self, rows: Any, start: Any, values: Any) -> Any: ...

    def erfc(self, x: Any) -> Any: ...

    def log_ndtr(self, x: Any) -> Any: ...

    def constant(self, x: Any) -> Any:
        """x, as far as derivatives are concerned."""
        ...


class _NumPy:
    """All nodes at once, as a leading axis, and fields once for each of many indices; other loops in Python."""

    xp: Any = np

    def loop(self, count, body, carry):
        for i in range(int(count)):
            carry = body(i, carry)
        return carry

    def repeat(self, going, body, carry):
        while going(carry):
            carry = body(carry)
        return carry

    def either(self, which, this, that, *arguments):
        return (this if which else that)(*arguments)

    def once(self, function, *arguments):
        return function, None

    def over_rows(self, body, rows, tables, x, count):
        each = body(*(t[:rows].reshape(rows, *(1,) * (x.ndim - 1), t.shape[-1]) for t in tables))
        return tuple(np.array(each).sum(1))

    def each_index(self, count, body, carry, fields):
        for start in range(0, int(count), _TOGETHER):
            i = np.arange(start, min(start + _TOGETHER, int(count)))
            carry = body(np.repeat(i, fields[0].shape[-1]), carry, *(np.concatenate([x] * i.size, -1) for x in fields))
        return carry

    def each_node(self, unit, weight, count, body, carry):
        return body(unit[: int(count), None], weight[: int(count), None], carry)

    def row(self, rows, index):
        return rows[index, np.arange(index.shape[-1])]

    def add(self, sums, values, weight=1.0):
        return tuple(map(np.add, sums, (weight * np.array(values)).reshape(len(sums), -1, sums[0].size).sum(1)))

    def total(self, weight, tree):
        leaves, structure = jax.tree.flatten(tree)
        return jax.tree.unflatten(structure, (weight * np.array([x.reshape(weight.shape) for x in leaves])).sum(1))

    def pick(self, options, index):
        return options[index]

    def add_row(self, rows, index, value):
        rows = rows.copy()
        np.add.at(rows, (index, np.arange(index.size) % rows.shape[1]), value.sum(0) if value.ndim > 1 else value)
        return rows

    def chunk(self, size, whole):
        return min(_TOGETHER * size, whole)

    def rows(self, rows, start, size):
        return rows[start : start + size]

    def add_rows(self, rows, start, values):
        rows = rows.copy()
        rows[start : start + len(values)] += values.reshape(len(values), -1, rows.shape[1]).sum(1)
        return rows

    def erfc(self, x):
        return np.asarray(_ERFC(x), float)

    def log_ndtr(self, x):
        from scipy.special import log_ndtr

        return log_ndtr(x)

    def constant(self, x):
        return x


class _JAX:
    """One node after the other, so that they stay in cache; loops compiled."""

    xp: Any = jnp

    def loop(self, count, body, carry):
        return jax.lax.fori_loop(0, count, body, carry)

    def repeat(self, going, body, carry):
        return jax.lax.while_loop(going, body, carry)

    def either(self, which, this, that, *arguments):
        return jax.lax.cond(which, this, that, *arguments)

    def once(self, function, *arguments):
        traced = eqx.filter_closure_convert(function, *arguments)
        return traced, jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), traced.out_struct)

    def over_rows(self, body, rows, tables, x, count):
        def add(i, sums):
            return tuple(map(jnp.add, sums, body(*(t[i] for t in tables))))

        return jax.lax.fori_loop(0, rows, add, (jnp.zeros_like(x),) * count)

    def each_index(self, count, body, carry, fields):
        return jax.lax.fori_loop(0, count, lambda i, carry: body(i, carry, *fields), carry)

    def each_node(self, unit, weight, count, body, carry):
        return jax.lax.fori_loop(0, count, lambda i, carry: body(unit[i], weight[i], carry), carry)

    def row(self, rows, index):
        return rows[index]

    def add(self, sums, values, weight=1.0):
        return tuple(total + weight * value for total, value in zip(sums, values, strict=True))

    def total(self, weight, tree):
        return jax.tree.map(lambda x: (weight * x.reshape(weight.shape)).sum(0), tree)

    def pick(self, options, index):
        return jax.tree.map(lambda *each: jnp.stack([jnp.asarray(x) for x in each])[index], *options)

    def add_row(self, rows, index, value):
        return rows.at[index].add(value, mode="promise_in_bounds")

    def chunk(self, size, whole):
        return min(size, whole)

    def rows(self, rows, start, size):
        return jax.lax.dynamic_slice_in_dim(rows, start, size)

    def add_rows(self, rows, start, values):
        return jax.lax.dynamic_update_slice_in_dim(rows, self.rows(rows, start, len(values)) + values, start, 0)

    def erfc(self, x):
        return jax.lax.erfc(x)

    def log_ndtr(self, x):
        return jax.scipy.special.log_ndtr(x)

    def constant(self, x):
        return jax.lax.stop_gradient(x)


def backend_of(*arrays: Any) -> Backend:
    """JAX if one of the arrays is its own (traced or not), else NumPy."""
    return JAX if any(isinstance(x, jax.Array) for x in arrays) else NUMPY


_TOGETHER = 16
"""Indices at once: as many as keep arrays of nodes, indices and a few fields in cache."""
_ERFC = np.frompyfunc(math.erfc, 1, 1)
NUMPY: Backend = _NumPy()
JAX: Backend = _JAX()
