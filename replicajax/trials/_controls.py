"""Control variates: what is known on average of drawn instances takes the luck of the draw out of a mean over them.

With w0 the teacher's weights, u0 = X w0, xi = y − u0, M rows, and d = w0 − (w0 rounded to the nearest level), the mean of

    |X v|² − M v·Sigma v/N,     |xi|² − M noise,     xi·X v,     xiᵀ A xi − noise tr A,                                (1)

is 0 for any v that X, and any A that xi, has no part in; v = w0 and d, A = X Xᵀ and X (XᵀX + mean)⁻¹ Xᵀ here.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from scipy.special import ndtr

from replicajax.codebooks import Codebook
from replicajax.models import Taught, directions

_PER_CONTROL = 8
"""Instances needed for each control."""


class Drawn(NamedTuple):
    """Instances, and the covariance of their rows."""

    X: Float[np.ndarray, "instances rows columns"]
    y: Float[np.ndarray, "instances rows"]
    teacher: Float[np.ndarray, "instances columns"]
    covariance: Float[np.ndarray, "instances columns columns"]

    def form(self, v: Float[np.ndarray, "instances columns"]) -> Float[np.ndarray, " instances"]:
        """v·Sigma v/N."""
        return _dot(v, _apply(self.covariance, v)) / v.shape[-1]


def controls(task: Taught, codebook: Codebook, drawn: Drawn) -> Float[np.ndarray, "instances controls"]:
    """Of mean 0 for rows of any design of `draw`."""
    X, y, w0, _ = drawn
    rows, columns = X.shape[1:]
    levels = np.asarray(codebook.levels, float)
    d = w0 - _rounded(w0, levels)
    truth, missed = _apply(X, w0), _apply(X, d)
    found = [
        _dot(truth, truth) / columns - rows / columns * drawn.form(w0),
        _dot(missed, missed) / columns - rows / columns * drawn.form(d),
        *_of_teacher(task, levels, drawn, d),
    ]
    if task.adds_noise:
        noise, xi = float(task.noise), y - truth
        back, J = _apply(X.swapaxes(1, 2), xi), X.swapaxes(1, 2) @ X
        trace = np.trace(J, axis1=1, axis2=2)
        inverse = np.linalg.inv(J + (trace / columns / 4)[:, None, None] * np.eye(columns))
        found += [
            (_dot(xi, xi) - noise * rows) / columns,
            _dot(back, w0) / columns,
            _dot(back, d) / columns,
            _dot(back, _apply(J, w0)) / columns,
            _dot(back, _apply(J, d)) / columns,
            (_dot(back, back) - noise * trace) / columns,
            (_dot(back, _apply(inverse, back)) - noise * (inverse * J).sum((1, 2))) / columns,
        ]
    return np.stack([x for x in found if np.ptp(x) > 0], 1)


def _of_teacher(task: Taught, levels: np.ndarray, drawn: Drawn, d: np.ndarray) -> list[Float[np.ndarray, " instances"]]:
    """Mean squares of w0 and of its predictions; of d, where all weights are alike."""
    w0, signal = drawn.teacher, float(task.signal)
    power, size = _dot(w0, w0) / w0.shape[-1], w0.shape[-1]
    if task.features is None:
        return [power - signal, _dot(d, d) / size - _distortion(task, levels)]
    which = np.asarray(directions(task.features, size))
    strength, eigenvalue = (np.asarray(x, float)[which] for x in (task.features.teacher, task.features.eigenvalues))
    return [power - signal * strength.mean(), drawn.form(w0) - signal * (strength * eigenvalue).mean()]


def _distortion(task: Taught, levels: np.ndarray) -> float:
    """Mean square of d: sum over levels a and Gaussians of E (w − a)² where a is nearest."""
    weight, mean, variance = (np.asarray(x, float)[:, None] for x in task.weights()[:3])
    deviation = np.sqrt(variance) + np.finfo(float).tiny
    z = (np.concatenate([[-np.inf], (levels[1:] + levels[:-1]) / 2, [np.inf]]) - mean) / deviation
    density, share = np.exp(-(z**2) / 2) / np.sqrt(2 * np.pi), np.diff(ndtr(z))
    moment = np.where(np.isinf(z), 0.0, z) * density
    away = mean - levels
    inside = (away**2 + variance) * share - 2 * away * deviation * np.diff(density) - variance * np.diff(moment)
    return float((weight * inside).sum())


def _rounded(w: np.ndarray, levels: np.ndarray) -> np.ndarray:
    return levels[np.searchsorted((levels[1:] + levels[:-1]) / 2, w)]


def _apply(matrices: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    return (matrices @ vectors[..., None])[..., 0]


def _dot(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return (x * y).sum(-1)


class Estimate(NamedTuple):
    """A mean over instances."""

    mean: float
    standard_error: float

    def __str__(self) -> str:
        return f"{self.mean:.6f} ± {self.standard_error:.6f}"


def controlled_mean(
    values: Float[np.ndarray, " instances"], controls: Float[np.ndarray, "instances controls"]
) -> Estimate:
    """Mean of `values` less the part that `controls`, of mean 0, explain: each half by the slopes of the other, so without
    bias; of the values as they are where instances are too few for that."""
    left = np.asarray(values, float)
    if len(values) >= _PER_CONTROL * controls.shape[1]:
        halves = np.arange(len(values)) % 2 == 0
        slopes = [_slopes(values[half], controls[half]) for half in (~halves, halves)]
        left = values - np.where(halves, controls @ slopes[0], controls @ slopes[1])
    return Estimate(float(left.mean()), float(left.std(ddof=1) / np.sqrt(len(left))))


def _slopes(values: np.ndarray, controls: np.ndarray) -> Float[np.ndarray, " controls"]:
    return np.linalg.lstsq(np.insert(controls, 0, 1.0, 1), values, rcond=None)[0][1:]
