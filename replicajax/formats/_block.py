"""Block formats: every block of B weights divided by its own scale, and their exact error by order statistics.

With Mx the largest magnitude of the block, known to reach the end of the codebook,

    E err² = E_Mx { (B−1)/B · E[(x − s Q(x/s))² | |x| < Mx] + (1/B) · err² of the largest },        (theory 4.2)

where s = Mx/end is the scale, as it is stored.  The average over Mx is `maximum_nodes`, the inner one `distortion`; where
scales are rounded, `rounded_scales_error`.
"""

from __future__ import annotations

from functools import partial
from typing import Any, final

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float

from replicajax import _checks
from replicajax.codebooks import Codebook
from replicajax.distributions import Normal, Symmetric, as_data, cell_edges, distortion, distortion_of_cells, thresholds
from replicajax.formats._cast import Cast, cast_error
from replicajax.formats._double import double_noise
from replicajax.formats._elements import padded_size
from replicajax.formats._maximum import maximum_edges, maximum_nodes
from replicajax.formats._outliers import WithoutOutliers
from replicajax.formats._range import RangeFormat, range_error
from replicajax.formats._rounded_scales import (
    SCALE_FORMATS,
    Octave,
    levels_in_reach,
    octave_of,
    rounded_scales_error,
    stored_noise,
)
from replicajax.formats._sphere import OnSphere

SCALINGS = ("absmax", "signmax", "rms")


@final
class BlockFormat(eqx.Module):
    """A codebook for weights divided, block by block, by a scale.

    Attributes:
      codebook: element format, in any units (a scale brings the block's largest to the codebook's end).
      block_size: weights that share a scale, >= 1 (theory takes real numbers and their derivatives); None for all weights
        of a tensor, "channel" for all those of a row (the last axis).
      scaling: "absmax": largest magnitude of the block to the nearer end of the codebook.  "signmax": the number of
        largest magnitude, sign included, to the end further out.  "rms": the codebook is in units of the block's RMS.
      scale_format: None (exact), "fp32", "fp16", "bf16", "e5m2", "e4m3" (to nearest), "e8m0" (power of two, rounded up),
        "e8m0_down" (rounded down, as the standard of MX formats has it) or "double" (8 bits and a unit for 256, as QLoRA has
        it; with "absmax" only, codes being chosen before the scale is stored).
      multiplier: of the scale before it is stored, 1 unless chosen otherwise.
      as_ggml: codes are nearest by the scale before it is stored (but for powers of two), and no number multiplies the scales
        of a tensor.
    """

    codebook: Codebook
    block_size: Any
    scaling: str = eqx.field(static=True)
    scale_format: str | None = eqx.field(static=True)
    multiplier: Float[Array, ""]
    as_ggml: bool = eqx.field(static=True)

    def __init__(
        self,
        codebook: Codebook,
        block_size: ArrayLike | str | None = None,
        scaling: str = "absmax",
        scale_format: str | None = None,
        multiplier: ArrayLike = 1.0,
        as_ggml: bool = False,
    ):
        """Raises ValueError, TypeError: what is not as above, or a codebook that does not reach to both sides of 0."""
        _checks.instance("codebook", codebook, Codebook, "formats.nf4()")
        self.codebook = codebook
        self.scaling = _checks.choice("scaling", scaling, SCALINGS)
        if scale_format not in SCALE_FORMATS:
            names = ", ".join(str(name) for name in SCALE_FORMATS)
            raise ValueError(f"scale_format must be one of {names}, got {scale_format!r}")
        self.scale_format = scale_format
        if scale_format == "double" and (scaling != "absmax" or block_size is None or isinstance(block_size, str)):
            raise ValueError(f"scale_format 'double' must be of blocks with scaling 'absmax', got {scaling!r}")
        self.multiplier = _checks.scalar("multiplier", multiplier)
        self.as_ggml = bool(as_ggml)
        if block_size is not None and block_size != "channel":
            if isinstance(block_size, str):
                raise ValueError(f"block_size must be a number, 'channel' or None, got {block_size!r}")
            size = _checks.positive("block_size", block_size)
            if size.ndim or (not _checks.is_traced(size) and float(size) < 1):
                raise ValueError(f"block_size must be a single number from 1 on, got {block_size!r}")
            block_size = size if _checks.is_traced(size) else np.asarray(block_size)
        self.block_size = block_size
        levels = _checks.known(codebook.levels)
        if scaling == "absmax" and not _checks.is_traced(levels) and not levels[0] < 0 < levels[-1]:
            raise ValueError(
                f"codebook must have levels on both sides of 0 with scaling 'absmax', got {_checks.brief(levels)}"
            )

    @property
    def element_bits(self) -> float:
        """log2 of the number of codes."""
        return self.codebook.bits

    @property
    def scale_bits(self) -> float:
        return SCALE_FORMATS[self.scale_format].bits

    @property
    def bits(self) -> float:
        """Per weight, scales included (fp32 where kept exactly); those of a tensor or channel are not counted here."""
        size = self.block_size
        return self.element_bits + (0.0 if _shared(size) else self.scale_bits / float(size))

    @property
    def end(self) -> Any:
        """What the block's largest is scaled to (1 for "rms"); for "signmax" it may be negative."""
        return _end(_checks.known(self.codebook.levels), self.scaling)

    def __str__(self) -> str:
        size = self.block_size
        where = (size or "tensor") if _shared(size) else f"blocks of {float(size):g}"
        scale = "" if self.scale_format is None else f", {self.scale_format} scales"
        return f"{self.codebook.bits:.4g} bits, {where}, {self.scaling}{scale}"


def _end(levels: Any, scaling: str) -> Any:
    low, high, xp = levels[0], levels[-1], np if isinstance(levels, np.ndarray) else jnp
    if scaling == "absmax":
        return xp.minimum(-low, high)
    if scaling == "signmax":
        return xp.where(-low > high, low, high)
    return xp.ones_like(high)


def _shared(block_size: Any) -> bool:
    return block_size is None or isinstance(block_size, str)


def relative_rms_error(law: Symmetric, fmt: Any, outliers: ArrayLike | None = None) -> Float[Array, ""]:
    """Rel = sqrt(E err² / E x²) of iid weights, rounded to the nearest level.  Compare formats by Rel · 2^bits.

    A Codebook is in the units of the law; a BlockFormat scales itself, as do RangeFormat, Cast and what `standard` names.
    Exact up to quadrature: 1e-10 of Rel for codebooks of up to 2^16 levels and blocks of any size >= 1, with exact scales or
    those of up to 3 mantissa bits; 1e-7 with bf16 or fp16 scales; 1e-4 where codes are chosen before scales are stored.
    Differentiable in the law's parameters, levels, block size, multiplier and fraction of outliers.

    Args:
      outliers: fraction of the weights, largest in magnitude, that is kept exactly as `quantize` does it; every one costs
        its position and value beyond the format's bits.  None: as many as the format keeps.

    Raises:
      TypeError, ValueError: not a law or format; a format whose scale is not determined by the law (absmax of a tensor or
        channel: give its size as block_size; RMS of finite blocks of other than normal weights).

    Source: theory 4.1, 4.2; [F].
    """
    _checks.instance("law", law, Symmetric, "formats.Normal()")
    outliers = getattr(fmt, "outliers", None) or None if outliers is None else outliers
    fmt = getattr(fmt, "rounding", fmt)
    if isinstance(fmt, RangeFormat | Cast):
        if outliers is not None:
            raise ValueError(f"outliers must be None for {fmt}, got {outliers!r}")
        return range_error(law, fmt) if isinstance(fmt, RangeFormat) else cast_error(law, fmt)
    if not isinstance(fmt, Codebook):
        _checks.instance("fmt", fmt, BlockFormat, "formats.BlockFormat(formats.nf4(), 64)")
        _check_scale(law, fmt, outliers)
    family = as_data(law, fmt, outliers)
    if outliers is not None:
        fraction = _checks.scalar("outliers", outliers)
        if not _checks.is_traced(fraction) and float(fraction) >= 1:
            raise ValueError(f"outliers must be a fraction in (0, 1), or None, got {outliers!r}")
        family = _without_outliers(family, fraction.astype(family.dtype))
    if isinstance(fmt, Codebook):
        return _codebook_error(family, _padded(fmt.levels))
    levels, size = _padded(fmt.codebook.levels), fmt.block_size
    size = None if _shared(size) else size.astype(family.dtype)
    if fmt.scaling == "rms":
        return _rms_error(family, levels, fmt.multiplier, size, fmt.scale_format)
    how, reach = SCALE_FORMATS[fmt.scale_format], None
    octave = octave_of(how) if how.mantissa <= _MANTISSA else None
    if octave is not None and not _checks.is_traced((levels, fmt.multiplier)):
        reach = levels_in_reach(_scaled(np.asarray(levels), np.asarray(fmt.multiplier), fmt.scaling), octave)
    edges = maximum_edges(family, size)
    error = _block_error(family, levels, _checks.known(fmt.multiplier), size, edges, octave, fmt.scaling, reach)
    if how.rounded == "double":
        assert size is not None
        scaled = _scaled(jnp.asarray(levels), _checks.known(fmt.multiplier), fmt.scaling)
        return jnp.sqrt(error**2 + double_noise(family, size, scaled, edges) / family.second_moment())
    if not fmt.as_ggml or how.rounded != "nearest":
        return error
    # The scale is off by what storing it takes, and every weight with it.
    return jnp.sqrt(error**2 + stored_noise(how))


def _check_scale(law: Symmetric, fmt: BlockFormat, outliers: Any) -> None:
    """Whether the law says what the blocks are divided by."""
    if _shared(fmt.block_size):
        if fmt.scaling != "rms":
            raise ValueError(
                f"block_size must be a number for the error of scaling {fmt.scaling!r} (as many as the tensor or channel has)"
            )
    elif fmt.scaling == "rms" and (not isinstance(law, Normal) or outliers is not None):
        what = type(law).__name__ if outliers is None else "outliers"
        raise ValueError(
            f"scaling 'rms' in blocks is exact for Normal weights only, got {what} (block_size None: one for all)"
        )
    if fmt.scaling == "rms" and SCALE_FORMATS[fmt.scale_format].mantissa < _FINE:
        raise ValueError(
            f"scale_format must be None, 'fp32', 'fp16' or 'bf16' with scaling 'rms', got {fmt.scale_format!r}"
        )


def _padded(levels: Array) -> Any:
    """To a `padded_size`: a level named twice is one."""
    if _checks.is_traced(levels):
        return levels
    known = np.asarray(levels, jnp.result_type(float))
    middle = known.size // 2
    return np.insert(known, middle, np.full(padded_size(known.size) - known.size, known[middle]))


_without_outliers = eqx.filter_jit(WithoutOutliers)


@jax.jit
def _codebook_error(law: Symmetric, levels: Array) -> Array:
    return jnp.sqrt(distortion(law.whole, levels, -law.largest, law.largest) / law.second_moment())


def _scaled(levels: Any, multiplier: Any, scaling: str) -> Any:
    """In units of where the largest goes, made positive: weights are symmetric, and do not mind the sign of their scale."""
    end, xp = _end(levels, scaling), np if isinstance(levels, np.ndarray) else jnp
    scaled = multiplier * levels / abs(end)
    return xp.where(end < 0, -scaled[::-1], scaled) if scaling == "signmax" else scaled


@partial(jax.jit, static_argnames=("scaling", "reach"))
def _block_error(law, levels, multiplier, B, edges, octave: Octave | None, scaling: str, reach: int | None) -> Array:
    scaled, signed = _scaled(levels, multiplier, scaling), scaling == "signmax"
    if octave is None:
        total = _exact_scales_error(law, B, scaled, signed, edges)
    else:
        end = jnp.abs(_end(levels, scaling)) / multiplier
        total = rounded_scales_error(
            law, B, octave, scaled, end, signed, levels.size if reach is None else reach, edges
        )
    return jnp.sqrt(total / law.second_moment())


def _exact_scales_error(law: Symmetric, B: Array, levels: Array, signed: bool, edges: Array) -> Array:
    """E over Mx: (B − 1)/B of the others' error and 1/B of the largest's, whose sign is as likely one as the other."""
    M, log_measure = maximum_nodes(B, edges, law.largest)
    cells = cell_edges(levels * M[:, None], -M, M)
    tails = law.whole.tails(cells)
    log_F = law.magnitude_log_cdf(M, tails[0][:, -1])
    weight = jnp.exp(log_measure + law.log_pdf(M) + (B - 1) * log_F)
    others = distortion_of_cells(law.whole, levels * M[:, None], cells, tails) / jnp.exp(log_F)
    missed = [1 - grid[(thresholds(grid) < 1).sum()] for grid in ((levels,) if signed else (levels, -levels[::-1]))]
    largest = M**2 * sum(gap**2 for gap in missed) / len(missed)
    return weight @ ((B - 1) * others + largest) / B


_FINE, _MANTISSA = 5, 10
"""Mantissa bits from which the rounding of a scale may be taken for an independent error, and above which for none."""
_OFFSETS, _OFFSET_WEIGHTS = np.polynomial.legendre.leggauss(3)
_OCTAVE, _OCTAVE_WEIGHTS = np.polynomial.legendre.leggauss(24)


@eqx.filter_jit
def _rms_error(law: Symmetric, levels: Array, multiplier: Array, size: Array | None, scale_format: str | None) -> Array:
    """Of blocks divided by their RMS r: of normal weights x/r does not depend on r, and is `OnSphere`."""
    how = SCALE_FORMATS[scale_format]
    shape, unit = (law.whole, jnp.sqrt(law.second_moment())) if size is None else (OnSphere(size), jnp.ones(()))
    grid, reach = levels * multiplier * unit, law.largest if size is None else jnp.inf
    if how.mantissa > _MANTISSA:
        return jnp.sqrt(distortion(shape, grid, -reach, reach)) / unit
    # Where in its octave the scale lies is not known to theory: the unit is averaged over the octave.
    units = 2.0**-how.mantissa / np.exp2((_OCTAVE + 1) / 2)
    factor = 1 + units[:, None] * _OFFSETS / 2
    each = distortion(shape, grid * factor[..., None], -reach, reach) / unit**2
    return jnp.sqrt(jnp.asarray(_OCTAVE_WEIGHTS / 2) @ each @ (_OFFSET_WEIGHTS / 2))
