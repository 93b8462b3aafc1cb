"""Where straight-through training ends: laws that stay as they are, for any one value of the error, and the errors that agree.

    p(w) ∝ exp{ −(1/T) int (kappa2 phi + ridge w − kappa1 w*) dw },     T = step kappa2 eps / 2,          (theory 11, [T])

piece by piece an exponential or, with ridge, a Gaussian; eps = F(eps) is one equation in one number.
"""

from typing import NamedTuple

import numpy as np
from scipy.special import log_ndtr, logsumexp

from replicajax.dynamics._fokker_planck import Setting
from replicajax.numerics import bracketed_roots

_GRID = 400
"""Errors tried, from one where nothing but the step's noise is left to one that no codebook exceeds."""


class Stationary(NamedTuple):
    """Attributes:
    generalization_error: eps without the noise; NaN where weights drift away for ever.
    all: every solution, the smallest first (one, unless several laws stay as they are).
    confined: whether the outermost levels hold the weights back, for every value of the teacher's.
    """

    generalization_error: float
    all: tuple[float, ...]
    confined: bool
    setting: Setting
    step: float

    def density(self, w: np.ndarray) -> np.ndarray:
        """p(w), the mean over the teacher's values.

        Raises:
          ValueError: nothing is stationary.
        """
        if not np.isfinite(self.generalization_error):
            raise ValueError("weights drift away for ever: no law is stationary")
        s = self.setting
        heat = self.step * s.kappa2 * (self.generalization_error + s.noise) / 2
        log_mass, at = _cells(s, heat)
        cell = np.searchsorted(s.cuts, w)
        first = np.maximum(cell - 1, 0)
        slope = s.kappa2 * s.levels[cell] - s.kappa1 * s.teacher[:, None]
        climb = slope * (w - s.cuts[first]) + s.ridge / 2 * (w**2 - s.cuts[first] ** 2)
        each = np.exp(at[:, first] - climb / heat - logsumexp(log_mass, axis=1, keepdims=True))
        return np.where((w >= s.low) & (w <= s.high), s.shares @ each, 0.0)


def stationary(setting: Setting, step: float, confined: bool, clipped: bool, near: float) -> Stationary:
    """The solution nearest to `near` among those of the equation."""
    s = Setting(*(np.asarray(x, float) for x in setting))
    s = s if clipped else s._replace(low=-np.inf, high=np.inf)
    if not confined and not clipped:
        return Stationary(np.nan, (), confined, s, step)
    # eps is a mean of what the codebook can do, w by w.
    of_levels = s.kappa2 * s.levels**2 - 2 * s.kappa1 * s.levels * s.teacher[:, None]
    low = s.square + s.noise + s.shares @ of_levels.min(1)
    high = s.square + s.noise + s.shares @ of_levels.max(1)
    floor = max(low, 1e-9 * high)
    tried = np.geomspace(floor * (1 + 1e-9), high, _GRID)
    off = np.array([_error(s, step, eps) + s.noise - eps for eps in tried])
    change = np.flatnonzero(off[:-1] * off[1:] <= 0)
    if not change.size:
        return Stationary(np.nan, (), confined, s, step)
    roots, _ = bracketed_roots(
        lambda x, _: np.array([_error(s, step, eps) + s.noise - eps for eps in x]),
        tried[change],
        tried[change + 1],
        off[change],
        off[change + 1],
        1e-13,
    )
    found = np.unique(roots) - s.noise
    return Stationary(float(found[np.argmin(np.abs(found - near))]), tuple(map(float, found)), confined, s, step)


def _error(s: Setting, step: float, eps: float) -> float:
    log_mass, _ = _cells(s, step * s.kappa2 * eps / 2)
    p = np.exp(log_mass - logsumexp(log_mass, axis=1, keepdims=True))
    phi, phi_square = p @ s.levels, p @ s.levels**2
    return float(s.error(s.shares @ phi, (s.shares * s.teacher) @ phi, s.shares @ phi_square))


def _cells(s: Setting, heat: float) -> tuple[np.ndarray, np.ndarray]:
    """(values, levels): log mass of every cell before it is normalized, and −potential/heat at each threshold."""
    slope = s.kappa2 * s.levels - s.kappa1 * s.teacher[:, None]
    at = np.cumsum(slope[:, 1:-1] * np.diff(s.cuts), 1)
    at = -(np.pad(at, ((0, 0), (1, 0))) + s.ridge / 2 * s.cuts**2) / heat
    edges = np.concatenate([[s.low], s.cuts, [s.high]])
    # From the threshold of each cell that is always there.
    known = np.concatenate([at[:, :1], at], 1)
    start = np.concatenate([s.cuts[:1], s.cuts])
    if s.ridge > 0:
        # exp of −(x − middle)² / (2 variance), but for what it is at the threshold
        variance, middle = heat / s.ridge, -slope / s.ridge
        low, high = ((edge - middle) / np.sqrt(variance) for edge in (edges[:-1], edges[1:]))
        flip = low > 0
        low, high = np.where(flip, -high, low), np.where(flip, -low, high)
        upper, lower = log_ndtr(high), log_ndtr(low)
        inside = upper + np.log1p(-np.exp(np.minimum(lower - upper, -1e-300)))
        whole = known + (start - middle) ** 2 / (2 * variance) + np.log(2 * np.pi * variance) / 2
        return whole + inside, at
    # An exponential: from its higher end.
    rate, length = np.abs(slope) / heat, np.diff(edges)
    with np.errstate(divide="ignore", invalid="ignore"):
        mass = np.where(rate * length > 1e-8, np.log(-np.expm1(-rate * length) / rate), np.log(length))
    at_edges = []
    for edge in (edges[:-1], edges[1:]):
        finite = np.isfinite(edge)
        away = np.where(finite, edge, 0.0) - start
        at_edges.append(np.where(finite, known - slope / heat * away, -np.inf))
    return np.maximum(*at_edges) + mass, at
