"""The implicit function theorem as a function transformation."""

import equinox as eqx
import jax
import jax.numpy as jnp


@eqx.filter_custom_jvp
def implicit_root(search, condition, inputs):
    """`search(inputs) -> (y, info)`, differentiated not through the search but through condition(y, info, inputs) = 0:

        dy = −(d condition/d y)^{-1} (d condition/d inputs) d inputs.

    Any search will do: several phases, no phase differentiable.  `y` is a real vector; `info` carries no derivative.  The
    rule applies to itself, so derivatives of every order and mode are right; where the search failed they are as
    meaningless as y is, and never raise.  `search` and `condition` must not close over traced values.
    """
    del condition
    return search(inputs)


@implicit_root.def_jvp
def _implicit_root_jvp(primals, tangents):
    search, condition, inputs = primals
    _, _, t_inputs = tangents
    y, info = implicit_root(search, condition, inputs)
    moving, still = eqx.partition(inputs, jax.tree.map(lambda t: t is not None, t_inputs, is_leaf=lambda t: t is None))

    jacobian = jax.jacfwd(lambda y: condition(y, info, inputs))(y)
    _, drift = jax.jvp(lambda moving: condition(y, info, eqx.combine(moving, still)), (moving,), (t_inputs,))
    t_y = -jnp.linalg.solve(jacobian, drift)
    return (y, info), (t_y, jax.tree.map(lambda _: None, info))
