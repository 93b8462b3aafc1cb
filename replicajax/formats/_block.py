"""Block formats: every block of B weights divided by its own scale, and their exact error by order statistics.

With Mx the largest magnitude of the block, known to reach the end of the codebook,

    E err² = E_Mx { (B−1)/B · E[(x − s Q(x/s))² | |x| < Mx] + (1/B) · err² of the largest },        (theory 4.2)

where s = Mx/end is the scale, as it is stored.  The average over Mx is `maximum_nodes`, the inner one `distortion`.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, final

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float

from replicajax import _checks
from replicajax.codebooks import Codebook
from replicajax.distributions import Normal, Symmetric, cell_edges, distortion, thresholds
from replicajax.formats._maximum import maximum_nodes
from replicajax.formats._outliers import WithoutOutliers
from replicajax.formats._sphere import OnSphere

SCALINGS = ("absmax", "signmax", "rms")


class ScaleFormat(NamedTuple):
    """How a scale is stored: a float of `mantissa` bits, rounded to nearest, or up to a power of two if `up`."""

    bits: int
    mantissa: int
    up: bool = False


SCALE_FORMATS: dict[str | None, ScaleFormat] = {
    None: ScaleFormat(32, 23),
    "fp32": ScaleFormat(32, 23),
    "fp16": ScaleFormat(16, 10),
    "bf16": ScaleFormat(16, 7),
    "e5m2": ScaleFormat(8, 2),
    "e4m3": ScaleFormat(8, 3),
    "e8m0": ScaleFormat(8, 0, up=True),
}
"""None is kept exactly in theory, and in fp32 on actual tensors.  A scale out of the format's range is not theory's case:
scales are taken relative to one number for the whole tensor (as NVFP4 does), which costs nothing."""


@final
class BlockFormat(eqx.Module):
    """A codebook for weights divided, block by block, by a scale.

    Attributes:
      codebook: element format, in any units (a scale brings the block's largest to the codebook's end).
      block_size: weights that share a scale, >= 1 (theory takes real numbers and their derivatives); None for all weights
        of a tensor, "channel" for all those of a row (the last axis).
      scaling: "absmax": largest magnitude of the block to the nearer end of the codebook.  "signmax": the number of
        largest magnitude, sign included, to the end further out.  "rms": the codebook is in units of the block's RMS.
      scale_format: None (exact), "fp32", "fp16", "bf16", "e5m2", "e4m3" (to nearest) or "e8m0" (power of two, rounded up).
      multiplier: of the scale, 1 unless chosen otherwise.
    """

    codebook: Codebook
    block_size: Any
    scaling: str = eqx.field(static=True)
    scale_format: str | None = eqx.field(static=True)
    multiplier: Float[Array, ""]

    def __init__(
        self,
        codebook: Codebook,
        block_size: ArrayLike | str | None = None,
        scaling: str = "absmax",
        scale_format: str | None = None,
        multiplier: ArrayLike = 1.0,
    ):
        """Raises ValueError, TypeError: what is not as above, or a codebook that does not reach to both sides of 0."""
        _checks.instance("codebook", codebook, Codebook, "formats.nf4()")
        self.codebook = codebook
        self.scaling = _checks.choice("scaling", scaling, SCALINGS)
        if scale_format not in SCALE_FORMATS:
            names = ", ".join(str(name) for name in SCALE_FORMATS)
            raise ValueError(f"scale_format must be one of {names}, got {scale_format!r}")
        self.scale_format = scale_format
        self.multiplier = _checks.scalar("multiplier", multiplier)
        if block_size is not None and block_size != "channel":
            if isinstance(block_size, str):
                raise ValueError(f"block_size must be a number, 'channel' or None, got {block_size!r}")
            size = _checks.positive("block_size", block_size)
            if size.ndim or (not _checks.is_traced(size) and bool(size < 1)):
                raise ValueError(f"block_size must be a single number from 1 on, got {block_size!r}")
            block_size = size if _checks.is_traced(size) else np.asarray(block_size)
        self.block_size = block_size
        levels = codebook.levels
        if scaling == "absmax" and not _checks.is_traced(levels) and not bool((levels[0] < 0) & (levels[-1] > 0)):
            raise ValueError(
                f"codebook must have levels on both sides of 0 with scaling 'absmax', got {_checks.brief(levels)}"
            )

    @property
    def element_bits(self) -> float:
        """log2 of the number of codes."""
        return self.codebook.bits

    @property
    def scale_bits(self) -> int:
        return SCALE_FORMATS[self.scale_format].bits

    @property
    def bits(self) -> float:
        """Per weight, scales included (fp32 where kept exactly); those of a tensor or channel are not counted here."""
        size = self.block_size
        return self.element_bits + (0.0 if _shared(size) else self.scale_bits / float(size))

    @property
    def end(self) -> Float[Array, ""]:
        """What the block's largest is scaled to (1 for "rms"); for "signmax" it may be negative."""
        low, high = self.codebook.levels[0], self.codebook.levels[-1]
        if self.scaling == "absmax":
            return jnp.minimum(-low, high)
        if self.scaling == "signmax":
            return jnp.where(-low > high, low, high)
        return jnp.ones_like(high)

    def __str__(self) -> str:
        size = self.block_size
        where = (size or "tensor") if _shared(size) else f"blocks of {float(size):g}"
        scale = "" if self.scale_format is None else f", {self.scale_format} scales"
        return f"{self.codebook.bits:.4g} bits, {where}, {self.scaling}{scale}"


def _shared(block_size: Any) -> bool:
    return block_size is None or isinstance(block_size, str)


def relative_rms_error(
    law: Symmetric, fmt: Codebook | BlockFormat, outliers: ArrayLike | None = None
) -> Float[Array, ""]:
    """Rel = sqrt(E err² / E x²) of iid weights, rounded to the nearest level.  Compare formats by Rel · 2^bits.

    A Codebook is in the units of the law; a BlockFormat scales itself.  Exact up to quadrature: 1e-10 of Rel for codebooks
    of up to 2^16 levels and blocks of any size >= 1, with exact scales or those of up to 3 mantissa bits; 1e-7 with
    bf16 or fp16 scales.  Differentiable in the law's parameters, levels, block size, multiplier and fraction of outliers.

    Args:
      outliers: fraction of the weights, largest in magnitude, that is kept exactly as `quantize` does it; every one costs
        its position and value beyond the format's bits.

    Raises:
      TypeError, ValueError: not a law or format; a format whose scale is not determined by the law (absmax of a tensor or
        channel: give its size as block_size; RMS of finite blocks of other than normal weights).

    Source: theory 4.1, 4.2; [F].
    """
    _checks.instance("law", law, Symmetric, "formats.Normal()")
    if not isinstance(fmt, Codebook):
        _checks.instance("fmt", fmt, BlockFormat, "formats.BlockFormat(formats.nf4(), 64)")
    if outliers is not None:
        fraction = _checks.scalar("outliers", outliers)
        if not _checks.is_traced(fraction) and not bool(fraction < 1):
            raise ValueError(f"outliers must be a fraction in (0, 1), or None, got {outliers!r}")
        law = WithoutOutliers(law, fraction.astype(law.dtype))
    return _relative_rms_error(law, fmt)


@eqx.filter_jit
def _relative_rms_error(law: Symmetric, fmt: Codebook | BlockFormat) -> Array:
    if isinstance(fmt, Codebook):
        return jnp.sqrt(distortion(law, fmt.levels) / law.second_moment())
    if fmt.scaling == "rms":
        return jnp.sqrt(_rms_error(law, fmt))
    if _shared(fmt.block_size):
        raise ValueError(
            f"block_size must be a number for the error of scaling {fmt.scaling!r} (as many as the tensor or channel has)"
        )
    B = jnp.asarray(fmt.block_size, law.dtype)
    end = jnp.abs(fmt.end)
    # The scale's sign makes the largest positive where its end is: others are symmetric and do not mind.
    levels = fmt.codebook.levels / end
    if fmt.scaling == "signmax":
        levels = jnp.where(fmt.end < 0, -levels[::-1], levels)

    scaled = fmt.multiplier * levels
    signs = (scaled,) if fmt.scaling == "signmax" else (scaled, -scaled[::-1])

    def others(M: Array, scale: Array) -> Array:
        """E err² of a weight other than the largest, M; the stored scale brings `scale` to the end."""
        return distortion(law, scaled * scale[..., None], -M, M) / jnp.exp(law.magnitude_log_cdf(M))

    total = _over_scales(law, B, fmt.scale_format, end, others, signs)
    return jnp.sqrt(total / law.second_moment())


def _nearest(x: Array, grid: Array) -> Array:
    index = (x[..., None] > thresholds(grid)).sum(-1)
    return jnp.take_along_axis(grid, index[..., None], -1)[..., 0]


_OFFSETS, _OFFSET_WEIGHTS = np.polynomial.legendre.leggauss(3)
_PER_OCTAVE, _PER_OCTAVE_WEIGHTS = np.polynomial.legendre.leggauss(24)
_FINE = 5
"""Mantissa bits from which the rounding of very rare scales is taken as an independent error."""
_LIGHT_OCTAVES, _HEAVY_OCTAVES, _FINE_OCTAVES, _BELOW = 24, 96, 12, 6
"""Of Mx: for laws of light and of power-law tails (all of Mx² but 1e-9 where df > 2.4), and for many mantissa bits; the
octaves below its usual size among them."""


def _over_scales(law, B, scale_format: str | None, end, others: Callable, signs: Sequence[Array]) -> Array:
    """E over Mx: (B − 1)/B of the others' error and 1/B of the largest's, whose sign is as likely one as the other."""
    how = SCALE_FORMATS[scale_format]

    def smooth(M, weight, offset=0.0):
        """Where the scale is kept to a part `offset`."""
        scale = M * (1 + offset)
        largest = sum((M - _nearest(M, grid * scale[:, None])) ** 2 for grid in signs) / len(signs)
        return weight @ ((B - 1) * others(M, scale) + largest) / B

    if scale_format in (None, "fp32"):
        return smooth(*maximum_nodes(law, B))

    # Exactly, over the octaves that hold nearly all of Mx²: from Mx's usual size up for a law of heavy tails.
    light = law.tail_index is jnp.inf
    M, _ = jax.lax.stop_gradient(maximum_nodes(law, B))
    usual, most = (jnp.floor(jnp.log2(x / jax.lax.stop_gradient(end))) for x in (M[M.size // 3], M[-1]))
    fine = how.mantissa >= _FINE
    octaves = _FINE_OCTAVES if fine else _LIGHT_OCTAVES if light else _HEAVY_OCTAVES
    top = most + 1 if light else jnp.minimum(most + 1, usual + octaves - _BELOW)
    octave = jnp.exp2(top - octaves + jnp.arange(octaves))  # scales from here to twice this
    if how.up:
        low, stored, high = octave, 2 * octave, 2 * octave
    else:
        # Within an octave: 1 to the first midpoint, midpoint to midpoint, last midpoint to 2.
        mantissa = np.arange(2**how.mantissa + 1) / 2**how.mantissa
        edges = np.concatenate([[0.0], (mantissa[1:] + mantissa[:-1]) / 2, [1.0]])
        low, high, stored = ((octave[:, None] * (1 + x)).ravel() for x in (edges[:-1], edges[1:], mantissa))
    total = _between_scales(law, B, low * end, high * end, stored * end, signs)
    if light or not fine:
        return total
    # The rare rest of Mx, with the rounding of its scale as an independent error: uniform in a mean octave.
    rest = maximum_nodes(law, B, jnp.exp2(top) * jax.lax.stop_gradient(end))
    offsets = 2.0**-how.mantissa / 1.5 * _OFFSETS / 2
    return total + sum(
        chance * smooth(*rest, offset) for offset, chance in zip(offsets, _OFFSET_WEIGHTS / 2, strict=True)
    )


def _between_scales(law, B, low: Array, high: Array, stored: Array, signs: Sequence[Array]) -> Array:
    """E err² where blocks with largest magnitudes from low_i to high_i have the scale stored_i.

    A weight x finds the largest of its block below m if |x| < m and the B − 1 others are, so no integral is left over:

        E err² = sum_i [ F(high_i)^(B−1) D_i(high_i) − F(low_i)^(B−1) D_i(low_i) ],   D_i(m) = E[(x − Q_i(x))²; |x| < m].
    """
    levels = signs[0] * stored[:, None]

    def below(m):
        return jnp.exp((B - 1) * law.magnitude_log_cdf(m)) * distortion(law, levels, -m, m)

    total = (below(high) - below(low)).sum()
    if len(signs) == 2:
        return total
    # That is for a largest weight of either sign; the scale's sign makes it positive.
    for sign in (1, -1):
        levels = sign * signs[0][::sign] * stored[:, None]
        edges = cell_edges(levels, low, high)
        half = jnp.diff(edges)[..., None] / 2
        x = edges[..., :-1, None] + half * (1 + _PER_OCTAVE)
        density = jnp.exp(law.log_pdf(x) + (B - 1) * law.magnitude_log_cdf(x))
        each = half * _PER_OCTAVE_WEIGHTS * jnp.where(half > 0, density * (x - levels[..., None]) ** 2, 0.0)
        total += sign * each.sum()
    return total


def _rms_error(law: Symmetric, fmt: BlockFormat) -> Array:
    """E err²/E x² of blocks divided by their RMS r: of normal weights x/r does not depend on r, and is `OnSphere`."""
    levels, how = fmt.codebook.levels * fmt.multiplier, SCALE_FORMATS[fmt.scale_format]
    if _shared(fmt.block_size):
        shape, unit = law, jnp.sqrt(law.second_moment())
    elif isinstance(law, Normal):
        shape, unit = OnSphere(jnp.asarray(fmt.block_size, law.dtype)), jnp.ones(())
    else:
        raise ValueError(
            f"scaling 'rms' in blocks is exact for Normal weights only, got {type(law).__name__} (block_size None: one for all)"
        )
    grid = levels * unit
    if fmt.scale_format is None:
        return distortion(shape, grid) / unit**2
    if how.mantissa < _FINE:
        raise ValueError(
            f"scale_format must be None, 'fp32', 'fp16' or 'bf16' with scaling 'rms', got {fmt.scale_format!r}"
        )
    # Where in its octave the scale lies is not known to theory: the unit is averaged over the octave.
    units = 2.0**-how.mantissa / np.exp2((_PER_OCTAVE + 1) / 2)
    factor = 1 + units[:, None] * _OFFSETS / 2
    each = distortion(shape, grid * factor[..., None]) / unit**2
    return jnp.asarray(_PER_OCTAVE_WEIGHTS / 2) @ each @ (_OFFSET_WEIGHTS / 2)
