"""How many bits are enough: the error at the best width of every bit width, against unquantized weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Bool, Float, Int

from replicajax import _checks
from replicajax.models import GivenData, LinearRegression, Task, square_only
from replicajax.replica import optimal_ridge, ridge_regression
from replicajax.search._width import OptimalWidth, optimal_width


class BitsCurve(eqx.Module):
    """Best width and error per bit width; one row a bit width."""

    bits: Int[np.ndarray, " n"]
    width: Float[Array, " n"]
    generalization_error: Float[Array, " n"]
    ratio: Float[Array, " n"]
    """generalization_error / unquantized_error."""
    stable: Bool[Array, " n"]
    converged: Bool[Array, " n"]
    unquantized_error: Float[Array, ""]
    """eg of optimally regularised ridge regression (`optimal_ridge`)."""
    factor: float = eqx.field(static=True)
    best: int | None = eqx.field(static=True)
    """The fewest bits whose ratio is at most `factor`; None if none of them is."""
    details: tuple[OptimalWidth, ...] = ()

    def __str__(self) -> str:
        lines = ["bits      width   gen. error      ratio   phase"]
        for i, bits in enumerate(self.bits):
            phase = "none found" if not self.converged[i] else "stable" if self.stable[i] else "unstable"
            mark = "  <- cheapest" if self.best == bits else ""
            lines.append(
                f"{bits:4d}{self.width[i]:11.5f}{self.generalization_error[i]:13.6f}{self.ratio[i]:11.4f}   {phase}{mark}"
            )
        return "\n".join(
            [*lines, f"unquantized: {self.unquantized_error:.6f} (optimal ridge); wanted: ratio <= {self.factor:g}"]
        )


def optimal_bits(
    task: Task,
    beta: ArrayLike,
    *,
    factor: float = 1.1,
    bits: Sequence[int] = range(1, 7),
    require_stable: bool = False,
    breaking: int | str = 0,
) -> BitsCurve:
    """The fewest bits whose best width keeps eg within `factor` of unquantized ridge, and the whole bits-error curve.

    Args:
      task: the learning problem.
      beta: inverse temperature, > 0; may be inf.
      factor: how many times the unquantized error is acceptable, >= 1.
      bits: bit widths to try, each from 1 to 8.
      require_stable: as in `optimal_width`; a bit width without a stable width is not chosen.
      breaking: as in `optimal_width`.

    Raises:
      TypeError, ValueError: bad arguments, or no bits to try.
    """
    if not isinstance(task, GivenData):
        _checks.instance("task", task, LinearRegression, "LinearRegression(alpha=2.0)")
        square_only(task, "a comparison with unquantized weights")
    if not float(_checks.positive("factor", factor)) >= 1:
        raise ValueError(f"factor must be at least 1, got {factor}")
    tried = sorted({_checks.integer("bits", b, 1, 8) for b in bits})
    if not tried:
        raise ValueError(f"bits must name at least one bit width from 1 to 8, got {bits!r}")
    found = [optimal_width(task, b, beta, require_stable=require_stable, breaking=breaking) for b in tried]
    unquantized = ridge_regression(task, optimal_ridge(task)).generalization_error
    errors = np.stack([f.generalization_error for f in found])
    converged = np.stack([f.converged for f in found])
    return BitsCurve(
        bits=np.array(tried),
        width=jnp.asarray(np.stack([f.width for f in found])),
        generalization_error=jnp.asarray(errors),
        ratio=jnp.asarray(errors / np.asarray(unquantized)),
        stable=jnp.asarray(np.stack([f.solution.stable for f in found]) & converged),
        converged=jnp.asarray(converged),
        unquantized_error=unquantized,
        factor=float(factor),
        best=fewest_bits(dict(zip(tried, found, strict=True)), factor * float(unquantized)),
        details=tuple(found),
    )


def fewest_bits(found: Mapping[int, OptimalWidth], limit: float) -> int | None:
    """The fewest bits whose best width was found and has a generalisation error of at most `limit`; None if none has."""
    return min((b for b, f in found.items() if f.converged and float(f.generalization_error) <= limit), default=None)
