"""An actual data set of a task: design, teacher and labels drawn at random."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray

from replicajax import _checks
from replicajax.models._features import Features
from replicajax.models._task import Taught
from replicajax.numerics import backend_of


class Instance(NamedTuple):
    """Labels y of X weights."""

    X: Float[Array, "rows columns"]
    y: Float[Array, " rows"]
    weights: Float[Array, " columns"]
    """The teacher's."""


def _gaussian(key, shape, dtype):
    return jax.random.normal(key, shape, dtype) / np.sqrt(shape[1]).astype(dtype)


def _rademacher(key, shape, dtype):
    return jax.random.rademacher(key, shape, dtype) / np.sqrt(shape[1]).astype(dtype)


def _normalized(key, shape, dtype):
    rows = jax.random.normal(key, shape, dtype)
    return rows / jnp.linalg.norm(rows, axis=1, keepdims=True)


Design = Callable[[PRNGKeyArray, tuple[int, int], jnp.dtype], Array]

DESIGNS: dict[str, Design] = {"gaussian": _gaussian, "rademacher": _rademacher, "normalized": _normalized}
"""Entries N(0, 1/N); entries ±1/sqrt N; rows uniform on the unit sphere."""


def draw(task: Taught, size: int, key: PRNGKeyArray, *, design: str | Design = "gaussian", dtype=None) -> Instance:
    """Draw a data set of `task` with N = size weights and round(alpha N) rows.

    Args:
      task: the learning problem; alpha must have a value (not traced), since it decides a shape.
      size: N, the number of weights.
      key: of `jax.random`.
      design: "gaussian" (what the theory averages over), "rademacher", "normalized" (rows of unit norm), or a function
        (key, (rows, columns), dtype) -> X with rows of variance 1/columns; correlated features, and rows of unequal length,
        are made of these.
      dtype: of the data; the default float if None.

    Raises:
      TypeError, ValueError: bad arguments.
    """
    _checks.instance("task", task, Taught, "LinearRegression(alpha=2.0)")
    size = _checks.integer("size", size, 1, 10**8)
    if _checks.is_traced(task.alpha):
        raise TypeError("task.alpha must have a value, not be traced by jit or vmap: it decides the number of rows")
    if not callable(design):
        design = DESIGNS[_checks.choice("design", design, list(DESIGNS))]
    dtype = jnp.dtype(jnp.result_type(float) if dtype is None else dtype)
    rows = max(1, round(float(task.alpha) * size))
    for_design, for_teacher, for_noise = jax.random.split(key, 3)
    X = design(for_design, (rows, size), dtype)
    weights = task.teacher_scale.astype(dtype) * task.teacher.sample(for_teacher, (size,), dtype)
    if task.features is not None:
        which, axes = _axes(task.features, size, key)
        scale, power = (_chosen(x, which) ** 0.5 for x in (task.features.eigenvalues, task.features.teacher))
        X, weights = X * scale.astype(dtype), weights * power.astype(dtype)
        if axes is not None:
            X, weights = (x @ axes.T.astype(dtype) for x in (X, weights))
    if task.rows is not None:
        squares = jax.random.choice(jax.random.fold_in(key, 1), task.rows.squares, (rows, 1), p=task.rows.share)
        X = X * jnp.sqrt(squares).astype(dtype)
    return Instance(X, task.labelled(X @ weights, for_noise).astype(dtype), weights)


def covariance(task: Taught, size: int, key: PRNGKeyArray) -> Float[Array, "columns columns"]:
    """Sigma, N times the covariance of the rows that `draw` makes of the same task, size and key."""
    if task.features is None:
        return jnp.eye(size)
    which, axes = _axes(task.features, size, key)
    eigenvalues = _chosen(task.features.eigenvalues, which)
    return jnp.diag(eigenvalues) if axes is None else (axes * eigenvalues) @ axes.T


def directions(features: Features, size: int) -> Int[Any, " columns"]:
    """Which eigenvalue each direction has that `draw` makes, by their shares."""
    share = _checks.known(features.share)
    xp = backend_of(share).xp
    return xp.minimum(xp.searchsorted(xp.cumsum(share), (np.arange(size) + 0.5) / size), share.size - 1)


def _chosen(values: Array, which: Any) -> Any:
    """NumPy's, if both are known."""
    return (values if _checks.is_traced(which) else _checks.known(values))[which]


def _axes(features: Features, size: int, key: PRNGKeyArray) -> tuple[Array, Array | None]:
    """`directions`; and the directions, None for those of the weights."""
    which = directions(features, size)
    if not features.turned:
        return which, None
    q, r = jnp.linalg.qr(jax.random.normal(jax.random.fold_in(key, 2), (size, size)))
    return which, q * jnp.sign(jnp.diag(r))
