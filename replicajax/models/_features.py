"""Features: how their covariance spectrum and the lengths of their rows are distributed.  theory 7.1, 7.2"""

from __future__ import annotations

from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float

from replicajax import _checks
from replicajax.models._population import population, variances
from replicajax.numerics import gamma_nodes

AXES = ("rotated", "aligned")


class Features(eqx.Module):
    """Rows x ~ N(0, Sigma/N), Sigma with these eigenvalues.

    Attributes:
      eigenvalues: (eigenvalues,) of Sigma, >= 0.
      teacher: (eigenvalues,) mean square of the teacher's components along each, in units of the task's `signal`.
      share: (eigenvalues,) of the directions, in all 1.
      axes: "rotated", weights are quantized in axes turned at random against those of Sigma (as by a random rotation
        before quantizing); "aligned", in the axes of Sigma, so that weight i has its own eigenvalue.
    """

    eigenvalues: Float[Array, " eigenvalues"]
    teacher: Float[Array, " eigenvalues"]
    share: Float[Array, " eigenvalues"]
    axes: str = eqx.field(static=True)

    def __init__(
        self,
        eigenvalues: ArrayLike,
        teacher: ArrayLike | None = None,
        axes: Literal["rotated", "aligned"] = "rotated",
        share: ArrayLike | None = None,
    ):
        """A teacher of power 1 in every direction, and equal shares, if None; shares are normalised to 1.

        Raises ValueError on lengths that disagree, negative numbers, NaN, inf, or eigenvalues all 0.
        """
        self.axes = _checks.choice("axes", axes, AXES)
        self.eigenvalues = _row("eigenvalues", eigenvalues)
        size = self.eigenvalues.shape[0]
        self.teacher = _row("teacher", np.ones(size) if teacher is None else teacher, size)
        self.share = _shares(share, size)

    @classmethod
    def power_law(
        cls,
        exponent: ArrayLike,
        count: int = 64,
        *,
        teacher: ArrayLike = 0.0,
        axes: Literal["rotated", "aligned"] = "rotated",
    ) -> Features:
        """Eigenvalues i^(−exponent) of mean 1, and a teacher of power i^(−teacher) of mean 1, for i = 1 to `count`."""
        rank = np.arange(1.0, _checks.integer("count", count, 1, 10**6) + 1)

        def law(name: str, power: ArrayLike) -> Array:
            law = rank ** -_checks.known(_checks.finite(name, power))
            return law / law.mean()

        return cls(law("exponent", exponent), law("teacher", teacher), axes)

    @classmethod
    def of_rows(cls, X: ArrayLike, *, axes: Literal["rotated", "aligned"] = "rotated", count: int = 64) -> Features:
        """Of data: N times the covariance of the rows of X, in N columns, as what `draw` makes; a teacher of power 1.

        Few rows, also fewer than columns, will do: "rotated" finds the spectrum of all there are, not of those in hand
        (`_population`).  It counts on rows of about equal length: divide others by theirs, over its root mean square, first.

        Args:
          X: (rows, columns), any scale; centred here.
          axes: "rotated", eigenvalues of the covariance; "aligned", variances of columns.
          count: points of the grid that eigenvalues are found on, from 8; or groups of columns of about equal variance.

        Raises:
          ValueError: not a finite matrix, fewer than 8 rows, no column varies, or bad `axes` or `count`.
        """
        turned = _checks.choice("axes", axes, AXES) == "rotated"
        count = _checks.integer("count", count, 8 if turned else 1, 10**4)
        eigenvalues, share = (population if turned else variances)(X, count)
        return cls(eigenvalues, axes=axes, share=share)

    @property
    def turned(self) -> bool:
        return self.axes == "rotated"

    def mean(self, x: Array) -> Array:
        """Over directions."""
        return (self.share * x).sum(-1)

    def __str__(self) -> str:
        return f"{self.eigenvalues.shape[-1]} eigenvalues of mean {float(self.mean(self.eigenvalues)):.4g}, {self.axes}"


class RowLengths(eqx.Module):
    """Rows sqrt(t) x of unequal length (elliptical data): t has mean 1 and takes these values.  theory 7.1

    Attributes:
      squares: (values,) t, > 0; mean 1.
      share: (values,) of the rows, in all 1.
    """

    squares: Float[Array, " values"]
    share: Float[Array, " values"]

    def __init__(self, squares: ArrayLike, share: ArrayLike | None = None):
        """Values up to a common factor, as t of mean 1 is what is meant; equal shares if None.

        Raises ValueError on lengths that disagree, negative numbers, NaN, inf, or rows all 0.
        """
        given: Any = _checks.known(_row("squares", squares))
        self.share = _shares(share, given.shape[0])
        self.squares = jnp.asarray(given / (_checks.known(self.share) * given).sum(), given.dtype)

    @classmethod
    def student_t(cls, df: float, count: int = 40) -> RowLengths:
        """Of rows drawn from a multivariate t law, t = (df − 2)/chi²: averages of 1/(1 + t x) within 1e-8.

        The longest, too few to count otherwise, make up what others lack of the mean 1.  Raises ValueError unless df > 2.
        """
        if not float(_checks.scalar("df", df)) > 2:
            raise ValueError(f"df must exceed 2, where rows have a mean square, got {df}")
        with jax.ensure_compile_time_eval():
            nodes = gamma_nodes(jnp.asarray(float(df) / 2), 0.0, _checks.integer("count", count, 8, 1000))
        half_chi2, share = map(np.array, nodes)
        squares = (float(df) / 2 - 1) / half_chi2
        share[0] += max(1 - share @ squares, 0) / squares[0]
        return cls(squares, share)

    @classmethod
    def of_rows(cls, X: ArrayLike, count: int = 40) -> RowLengths:
        """Of data: mean squares of the rows of X, in `count` groups of about equal size."""
        rows = np.asarray(_checks.finite("X", X))
        if rows.ndim != 2:
            raise ValueError(f"X must be (rows, columns), got shape {rows.shape}")
        groups = np.array_split(np.sort((rows**2).mean(1)), min(_checks.integer("count", count, 1, 10**4), len(rows)))
        return cls(np.array([group.mean() for group in groups]), np.array([group.size for group in groups]))

    def __str__(self) -> str:
        second = float((self.share * self.squares**2).sum())
        return f"rows of squared length 1 ± {max(second - 1, 0.0) ** 0.5:.3g}"


def _shares(share: ArrayLike | None, size: int) -> Float[Array, " values"]:
    """In all 1; equal if None."""
    given: Any = _checks.known(_row("share", np.ones(size) if share is None else share, size))
    return jnp.asarray(given / given.sum(), given.dtype)


def _row(name: str, values: ArrayLike, size: int | None = None) -> Float[Array, " values"]:
    """A row of numbers >= 0, some of them positive."""
    row = _checks.nonnegative(name, values)
    if row.ndim != 1 or not row.shape[0] or size not in (None, row.shape[0]):
        want = "a row of at least one number" if size is None else f"a row of {size} numbers, one each"
        raise ValueError(f"{name} must be {want}, got shape {row.shape}")
    if not _checks.is_traced(row) and not _checks.known(row).any():
        raise ValueError(f"{name} must not all be 0, got {_checks.brief(row)}")
    return row
