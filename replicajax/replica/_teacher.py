"""The teachers of a batch as mixtures of Gaussians."""

from typing import NamedTuple

import equinox as eqx
import jax
import numpy as np

from replicajax.distributions import GaussBernoulli, Mixture, Normal, Symmetric
from replicajax.models import Task, Taught


class Law(NamedTuple):
    """What must be known of a teacher before compiling."""

    centred: bool
    """All components of its mixture have mean 0."""
    components: int


def traits_of(tasks: Task) -> Law:
    if not isinstance(tasks, Taught):
        return Law(True, 1)
    teacher = tasks.teacher
    centred = isinstance(teacher, (Symmetric, GaussBernoulli))
    if isinstance(teacher, Normal):
        return Law(centred, 1)
    one = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), teacher)
    return Law(centred, jax.eval_shape(lambda law: law.mixture().weight, one).shape[0])


def mixtures(tasks: Task) -> Mixture:
    """(points, components), scaled to second moment `signal`; weights that nobody knows are 0."""
    signal = np.asarray(tasks.signal, np.float64)
    if not isinstance(tasks, Taught):
        return Mixture(np.ones((signal.size, 1)), np.zeros((signal.size, 1)), np.zeros((signal.size, 1)))
    teacher = tasks.teacher
    if isinstance(teacher, Normal):
        return Mixture(np.ones((signal.size, 1)), np.zeros((signal.size, 1)), signal[:, None])
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
