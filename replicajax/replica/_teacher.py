"""The teachers of a batch as mixtures of Gaussians."""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import numpy as np

from replicajax.distributions import Distribution, GaussBernoulli, Mixture, Normal, Symmetric
from replicajax.models import Task, Taught, Weights, along_axes


class Law(NamedTuple):
    """What must be known of a teacher before compiling."""

    centred: bool
    """All components of its mixture have mean 0."""
    components: int


def traits_of(tasks: Task) -> Law:
    if not isinstance(tasks, Taught) or tasks.turned:
        return Law(True, 1)
    teacher, each = tasks.teacher, 1 if tasks.features is None else tasks.features.eigenvalues.shape[-1]
    centred = isinstance(teacher, (Symmetric, GaussBernoulli))
    if isinstance(teacher, Normal):
        return Law(centred, each)
    one = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), teacher)
    return Law(centred, each * jax.eval_shape(lambda law: law.mixture().weight, one).shape[0])


def mixtures(tasks: Task) -> Weights:
    """(points, components), scaled to second moment `signal`; weights that nobody knows are 0."""
    signal = np.asarray(tasks.signal, np.float64)
    if not isinstance(tasks, Taught) or tasks.turned:
        one: Any = np.ones((signal.size, 1))
        return Weights(one, 0 * one, 0 * one)
    law = _mixtures(tasks.teacher, signal)
    return Weights(*law) if tasks.features is None else along_axes(law, tasks.features)


def _mixtures(teacher: Distribution, signal: np.ndarray) -> Mixture:
    if isinstance(teacher, Normal):
        one: Any = np.ones((signal.size, 1))
        return Mixture(one, 0 * one, signal[:, None] * one)
    leaves = [np.asarray(leaf, np.float64).reshape(signal.size, -1) for leaf in jax.tree.leaves(teacher)]
    _, first, inverse = np.unique(np.concatenate(leaves, 1), axis=0, return_index=True, return_inverse=True)
    with jax.enable_x64(True):
        each = [_mixture(jax.tree.map(lambda x, i=i: np.asarray(x[i], np.float64), teacher)) for i in first]
    weight, mean, variance, moment = (np.stack([np.asarray(m[k]) for m in each])[inverse.ravel()] for k in range(4))
    scale = np.sqrt(signal / moment)[:, None]
    return Mixture(weight, scale * mean, scale**2 * variance)


@eqx.filter_jit
def _mixture(teacher):
    return *teacher.mixture(), teacher.second_moment()
