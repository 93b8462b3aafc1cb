"""Errors of low-precision training, site by site, and how many bits they stand for (theory 5.1, [S]).

A step of SGD with a quantizer at each of five sites:

    v <- v + step · ũ · Qo( ỹ − Qa(ũ·Qp(v)) ),    ũ = Qd(u),  ỹ = Ql(y).

Each quantizer is unbiased given its input x; its error has the covariance

    additive  eps I        multiplicative  eps x xᵀ  (all of x scaled alike)        elementwise  eps diag(x²).
"""

from __future__ import annotations

import math
from typing import final

import equinox as eqx
from jaxtyping import Array, ArrayLike, Float

from replicajax import _checks
from replicajax.codebooks import Codebook
from replicajax.distributions import Symmetric, distortion, stochastic_distortion

KINDS = ("additive", "multiplicative", "elementwise")
SITES = ("data", "label", "parameter", "activation", "output")
ROUNDINGS = ("stochastic", "nearest")


@final
class Precision(eqx.Module):
    """Variances eps of the errors at the five sites.

    Attributes:
      kind: "additive" (integers), "multiplicative" (theory's idealised floating point) or "elementwise" (what it does).
      data, label, parameter, activation, output: eps, 0 for full precision.  Absolute variances if additive, else relative.
    """

    kind: str = eqx.field(static=True)
    data: Float[Array, ""]
    label: Float[Array, ""]
    parameter: Float[Array, ""]
    activation: Float[Array, ""]
    output: Float[Array, ""]

    def __init__(
        self,
        kind: str = "additive",
        data: ArrayLike = 0.0,
        label: ArrayLike = 0.0,
        parameter: ArrayLike = 0.0,
        activation: ArrayLike = 0.0,
        output: ArrayLike = 0.0,
    ):
        """Raises ValueError, TypeError: an unknown kind, negative variances."""
        self.kind = _checks.choice("kind", kind, KINDS)
        for site, value in zip(SITES, (data, label, parameter, activation, output), strict=True):
            eps = _checks.variance(site, value, zero=True)
            if eps.ndim:
                raise ValueError(f"{site} must be a single number (use jax.vmap for many), got shape {eps.shape}")
            setattr(self, site, eps)


def integer_variance(bits: ArrayLike, reach: ArrayLike = 1.0, rounding: str = "stochastic") -> Float[Array, "..."]:
    """eps of `bits`-bit integers on [−reach, reach]: D²/6 rounded stochastically, D²/12 to nearest, D = 2 reach/(2^bits − 1).

    Of numbers well inside the range and wide against D; real `bits` have derivatives.

    Raises:
      ValueError: bits below 1, reach not positive, an unknown rounding.
    """
    b, end = (_checks.known(_checks.positive(name, x)) for name, x in (("bits", bits), ("reach", reach)))
    if not _checks.is_traced(b) and (b < 1).any():
        raise ValueError(f"bits must be at least 1, got {_checks.brief(b)}")
    step = 2 * end / (2**b - 1)
    return step**2 / (6 if _checks.choice("rounding", rounding, ROUNDINGS) == "stochastic" else 12)


def float_variance(mantissa_bits: ArrayLike, rounding: str = "stochastic") -> Float[Array, "..."]:
    """Relative eps of floating point with so many mantissa bits: 0.0902 · 4^−bits stochastic, half that to nearest.

    The average of D²/(6 x²) over an octave in which log x is uniform: (1 − 1/4)/(2 log 2)/6.

    Raises:
      ValueError: negative mantissa_bits, an unknown rounding.
    """
    bits = _checks.known(_checks.nonnegative("mantissa_bits", mantissa_bits))
    each = 3 / (8 * math.log(2)) / 6 * 4**-bits
    return each if _checks.choice("rounding", rounding, ROUNDINGS) == "stochastic" else each / 2


def codebook_variance(law: Symmetric, codebook: Codebook, rounding: str = "stochastic") -> Float[Array, ""]:
    """Mean squared error of rounding numbers of this law to the codebook, clipping included: an additive eps.

    Exact for the law, where `integer_variance` takes the grid to be fine and wide.  Beyond the ends, and to nearest, errors
    are not unbiased as theory wants them.

    Raises:
      TypeError, ValueError: not a law or codebook, an unknown rounding.
    """
    _checks.instance("law", law, Symmetric, "distributions.Normal()")
    _checks.instance("codebook", codebook, Codebook, "rj.uniform(4, 3.0)")
    exact = stochastic_distortion if _checks.choice("rounding", rounding, ROUNDINGS) == "stochastic" else distortion
    return eqx.filter_jit(exact)(law, codebook.levels)


def of_bits(
    kind: str, bits: ArrayLike, *, reach: ArrayLike = 1.0, rounding: str = "stochastic", sites=SITES
) -> Precision:
    """The same number of bits at all of `sites`: integers on [−reach, reach] if additive, else mantissa bits."""
    eps = integer_variance(bits, reach, rounding) if kind == "additive" else float_variance(bits, rounding)
    for site in sites:
        _checks.choice("sites", site, SITES)
    return Precision(kind, **{site: eps for site in sites})
