"""The implicit function theorem as a function transformation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


@eqx.filter_custom_jvp
def implicit_root(search, condition, inputs):
    """`search(inputs) -> (y, info)`, differentiated not through the search but through condition(y, info, inputs) = 0:

        dy = −(d condition/d y)^{-1} (d condition/d inputs) d inputs.

    Any search will do: several phases, no phase differentiable, none in JAX where the inputs are known.  `y` is a real
    vector; `info` carries no derivative.  The rule applies to itself, so derivatives of every order and mode are right;
    where the search failed they are as meaningless as y is, and never raise.  `search` and `condition` must not close over
    traced values.
    """
    del condition
    return search(inputs)


@implicit_root.def_jvp
def _implicit_root_jvp(primals, tangents):
    search, condition, inputs = primals
    y, info = implicit_root(search, condition, inputs)
    t_y = _slope(condition, y, info, inputs, tangents[2])
    return (y, info), (t_y, jax.tree.map(lambda _: None, info))


@eqx.filter_jit
def _slope(condition, y, info, inputs, change):
    return slope_of_root(lambda y, inputs: (condition(y, info, inputs), None), y, inputs, change)[0]


def slope_of_root(
    function: Callable[[Float[Array, " n"], Any], tuple[Float[Array, " n"], Any]],
    y: Float[Array, " n"],
    inputs: Any,
    change: Any,
) -> tuple[Float[Array, " n"], Any, Any]:
    """For function(y, inputs) = (0, value): dy and value and dvalue, as the inputs change (None: they do not)."""
    moving, still = eqx.partition(inputs, jax.tree.map(lambda t: t is not None, change, is_leaf=lambda t: t is None))
    (_, value), linear = jax.linearize(lambda y, moving: function(y, eqx.combine(moving, still)), y, moving)
    at_rest = jax.tree.map(jnp.zeros_like, moving)
    jacobian = jax.vmap(lambda e: linear(e, at_rest)[0], out_axes=1)(jnp.eye(y.size, dtype=y.dtype))
    drift, _ = linear(jnp.zeros_like(y), change)
    dy = -jnp.linalg.solve(jacobian, drift)
    return dy, value, linear(dy, change)[1]
