"""Real rows made into what the theory is about: whitened, rotated, and split into rows to train on and rows held out."""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from replicajax import _checks
from replicajax.models import Whitening, whitening

_FEWEST_HELD_OUT = 8


class Rows(NamedTuple):
    """Whitened features (all rows take part in that, labels none) and centred labels."""

    whitening: Whitening
    Z: Float[Array, "rows features"]
    y: Float[Array, " rows"]
    y_mean: Float[Array, ""]
    training: int


class Split(NamedTuple):
    X: Float[Array, "training features"]
    y: Float[Array, " training"]
    X_test: Float[Array, "held_out features"]
    y_test: Float[Array, " held_out"]
    map: Float[Array, "columns features"]
    """From centred columns to X, whose entries have variance 1/features."""


def prepare(X, y, alpha) -> Rows:
    """Raises ValueError where `alpha` leaves fewer than 8 rows to test on."""
    X = _checks.matrix("X", X)
    y = _checks.vector("y", y, X.shape[0], "row of X")
    whiten = whitening(X)
    Z = whiten(X)
    rows, features = Z.shape
    training = int(round(float(_checks.positive("alpha", alpha)) * features))
    if not 1 <= training <= rows - _FEWEST_HELD_OUT:
        raise ValueError(
            f"alpha must leave at least {_FEWEST_HELD_OUT} of the {rows} rows to test on, got alpha {float(alpha):.4g}, "
            f"that is {training} training rows of {features} features"
        )
    return Rows(whiten, Z, y - y.mean(), y.mean(), training)


def check_rows(X, y, alpha) -> None:
    """Raises ValueError, before anything is trained, where `alpha` leaves fewer than 8 rows to test on."""
    prepare(X, y, alpha)


@eqx.filter_jit
def split(rows: Rows, for_rows: PRNGKeyArray, for_axes: PRNGKeyArray, rotate: bool) -> Split:
    """Training rows at random; whitening leaves a rotation free, and `rotate` draws it."""
    n, features = rows.Z.shape
    dtype = rows.Z.dtype
    axes = jax.random.orthogonal(for_axes, features, dtype=dtype) if rotate else jnp.eye(features, dtype=dtype)
    axes = axes / jnp.sqrt(features)
    Z = rows.Z @ axes
    order = jax.random.permutation(for_rows, n)
    train, test = order[: rows.training], order[rows.training :]
    return Split(Z[train], rows.y[train], Z[test], rows.y[test], rows.whitening.map @ axes)
