"""Measurements at finite size taken to infinite size, with what is not known of the power of the approach in the error."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from replicajax.trials._controls import Estimate

POWERS = -1.0, -2 / 3
"""Of N: what states apart from each other differ by, and ground states of glasses that are broken for good."""

_LEAST = 1e-12
"""Standard error, where all instances agree."""


class Extrapolated(NamedTuple):
    """The mean of two weighted fits a + b N^power."""

    mean: float
    standard_error: float
    """Scatter of the fits, and half the difference between them, in square."""
    fits: tuple[Estimate, ...]
    """One for each of `POWERS`."""
    chi_square: tuple[float, ...]
    """Of each fit, for sizes − 2 degrees of freedom."""

    def z(self, theory: float) -> float:
        return (self.mean - float(theory)) / self.standard_error

    def __str__(self) -> str:
        fits = ", ".join(f"{fit} in N^{power:.2g}" for fit, power in zip(self.fits, POWERS, strict=True))
        return f"{self.mean:.6f} ± {self.standard_error:.6f} ({fits})"


def extrapolate(sizes: Sequence[int], measured: Sequence[Estimate]) -> Extrapolated:
    """To N = inf, from two sizes or more."""
    means, errors = np.array(measured, float).T
    errors = errors + _LEAST
    fits, misfits = [], []
    for power in POWERS:
        design = np.stack([np.ones(len(sizes)), np.asarray(sizes, float) ** power], 1) / errors[:, None]
        covariance = np.linalg.inv(design.T @ design)
        found = covariance @ design.T @ (means / errors)
        fits.append(Estimate(float(found[0]), float(np.sqrt(covariance[0, 0]))))
        misfits.append(float(((means / errors - design @ found) ** 2).sum()))
    ends, scatter = np.array(fits).T
    apart = np.ptp(ends) / 2
    return Extrapolated(float(ends.mean()), float(np.hypot(scatter.max(), apart)), tuple(fits), tuple(misfits))
