"""Why block scaling acts as a variable-length code: where on the axis each format spends its resolution. [F]

A fixed-length codebook of 2^b levels is coarse in the tails, as p^(−1/3).  An entropy-coded uniform grid errs the same
everywhere, and gives a weight −log2 p bits.  A block's scale follows its largest weight, so a large weight meets a grid
that reaches it: its error hardly grows, as if it had been given more bits.  Simulated, 2^23 weights.
"""

from pathlib import Path

import jax
import numpy as np
from matplotlib.figure import Figure

from replicajax import formats

DRAWS, BLOCK = 2**23, 64
COLORS = {"fixed": "#c2410c", "blocks": "#2a6fa8", "entropy": "#2e8b57"}


def draw() -> Path:
    jax.config.update("jax_enable_x64", True)
    law = formats.StudentT(5.0)
    # At one error for all: the fixed-length codebook gets 4 bits; the others what they need for its error.
    fixed = formats.cube_root(law, 4)
    goal = float(formats.relative_rms_error(law, fixed))
    levels = min(range(8, 32), key=lambda k: abs(_error(law, k) - goal))
    blocks = formats.BlockFormat(formats.integer(np.log2(levels), symmetric=True), BLOCK, "absmax", "bf16")
    bits = min(np.linspace(3, 4, 41), key=lambda b: abs(float(formats.entropy_coded(law, b, side=200).error) - goal))
    grid = formats.entropy_coded(law, float(bits), side=200)
    x = np.random.default_rng(0).standard_t(5.0, DRAWS).astype(np.float32) * np.sqrt(0.6).astype(np.float32)
    edges = np.concatenate([np.linspace(0, 3, 40), np.geomspace(3.1, 9, 16)])
    centre = (edges[1:] + edges[:-1]) / 2
    figure = Figure(figsize=(10.5, 4.2), layout="constrained")
    local, length = figure.subplots(1, 2)
    for name, fmt, label in (
        ("fixed", fixed, "cube-root codebook, 4 bits"),
        ("blocks", blocks, f"even grid in blocks of {BLOCK}, {blocks.bits:.2f} bits"),
        ("entropy", grid.codebook, f"even grid and entropy code, {float(grid.bits):.2f} bits"),
    ):
        rounded = formats.quantize(x, fmt).dequantize()
        error = (rounded - x).astype(np.float64) ** 2
        if fmt is blocks:  # as a function of the weight
            at, group = centre, np.digitize(np.abs(x), edges) - 1
        else:  # the average over each cell of a fixed grid
            at, group = np.unique(np.abs(rounded), return_inverse=True)
            at = at[: np.searchsorted(at, 9.0)]
        group = np.where(group < at.size, group, at.size)
        mean = np.bincount(group, error, at.size + 1)[:-1] / np.bincount(group, minlength=at.size + 1)[:-1]
        local.plot(at, np.sqrt(mean), color=COLORS[name], lw=1.8, marker="o", ms=2.5, label=label)
        # A weight told apart from others to a step sqrt(12) err, among neighbours of density p.
        bits_here = -np.log2(np.asarray(law.pdf(at)) * np.sqrt(12 * mean))
        length.plot(at, bits_here, color=COLORS[name], lw=1.8, marker="o", ms=2.5, label=label)
    local.set(xlabel="|weight| / RMS", ylabel="RMS error of such weights / RMS", yscale="log", xlim=(0, 9))
    length.set(xlabel="|weight| / RMS", ylabel=r"bits it takes: $-\log_2(p \times$ local step$)$", xlim=(0, 9))
    for axes in (local, length):
        axes.grid(alpha=0.25)
    local.legend(frameon=False, fontsize=9)
    figure.suptitle(
        f"{law} weights at one error ({goal:.3f}): a block's scale gives a large weight the longer code", fontsize=12
    )
    path = Path(__file__).with_suffix(".png")
    figure.savefig(path, dpi=150)
    return path


def _error(law, levels: int) -> float:
    fmt = formats.BlockFormat(formats.integer(np.log2(levels), symmetric=True), BLOCK, "absmax")
    return float(formats.relative_rms_error(law, fmt))


if __name__ == "__main__":
    print(draw())
