"""Values of the teacher's weights that stand for their law."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import ArrayLike

from replicajax import _checks
from replicajax.distributions import Distribution

_REACH, _POINTS = 9.0, 60_001
"""Deviations of the widest component, and points, of the sums that stand for integrals."""
_NODES = 4
"""Of each stretch of w* between the values where a level's drift changes sign, at which the law of w has kinks in w*."""


def teacher_values(
    teacher: ArrayLike | Sequence[float] | Distribution, kinks: np.ndarray | None
) -> tuple[Any, np.ndarray, Any]:
    """w* (values,), their probabilities, and E w*² that they lack; of a law, a Gauss rule on every stretch between kinks.

    Kinks that are not known (None) are replaced by evenly spaced ones.

    Raises:
      ValueError: a law whose parameters are traced (inside jit, grad or vmap), values that are not numbers.
    """
    if not isinstance(teacher, Distribution):
        values = _checks.known(_checks.finite("teacher", teacher)).reshape(-1)
        return values, np.full(values.size, 1 / values.size), 0.0
    if _checks.is_traced(teacher):
        raise ValueError("teacher must be a law of known numbers: inside jax.grad give values of w*")
    if kinks is None:
        kinks = np.asarray(teacher.second_moment()) ** 0.5 * np.linspace(-3, 3, 9)
    weight, mean, variance = (np.asarray(x, float) for x in teacher.mixture())
    sharp = variance <= 0
    end = max(float(np.abs(mean).max() + _REACH * np.sqrt(variance.max())), 1e-9)
    x = np.linspace(-end, end, _POINTS)
    p = np.zeros_like(x)
    for w, m, v in zip(weight[~sharp], mean[~sharp], variance[~sharp], strict=True):
        p += w * np.exp(-((x - m) ** 2) / (2 * v)) / np.sqrt(2 * np.pi * v)
    p *= x[1] - x[0]
    p *= weight[~sharp].sum() / p.sum() if p.any() else 1.0
    cell = np.searchsorted(np.sort(np.asarray(kinks)), x)
    rules = [(mean[sharp], weight[sharp])] + [_gauss(x[cell == i], p[cell == i]) for i in np.unique(cell)]
    values, shares = (np.concatenate(part) for part in zip(*rules, strict=True))
    some = shares > 1e-14
    values, shares = values[some], shares[some] / shares[some].sum()
    return values, shares, float(teacher.second_moment()) - float(shares @ values**2)


def _gauss(x: np.ndarray, p: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Nodes and weights with the first moments of point masses: eigenvalues of their Jacobi matrix, by Lanczos."""
    total = p.sum()
    if total <= 1e-14:
        return np.zeros(0), np.zeros(0)
    basis, alpha, beta = [np.sqrt(p / total)], [], []
    for _ in range(_NODES):
        v = x * basis[-1]
        alpha.append(float(basis[-1] @ v))
        for _ in range(2):
            v = v - sum((b @ v) * b for b in basis)
        norm = float(np.linalg.norm(v))
        if norm <= 1e-12 * np.abs(x).max():
            break
        beta.append(norm)
        basis.append(v / norm)
    off = beta[: len(alpha) - 1]
    nodes, vectors = np.linalg.eigh(np.diag(alpha) + np.diag(off, 1) + np.diag(off, -1))
    return nodes, total * vectors[0] ** 2
