"""The error of a block format: exact, against sampling 2^24 weights; and quantizing 10^8 weights, against a numpy pass."""

import resource

import jax
import numpy as np

import replicajax as rj
from benchmarks.phase_diagram import best_of

f = rj.formats
DRAWS, WEIGHTS, BLOCK = 2**24, 10**8, 64


def sampled(rng: np.random.Generator, levels: np.ndarray) -> float:
    """What a user would write: Rel of NF4 in blocks by simulation."""
    blocks = rng.standard_normal((DRAWS // BLOCK, BLOCK), dtype=np.float32)
    scale = np.abs(blocks).max(1, keepdims=True)
    nearest = levels[np.searchsorted((levels[1:] + levels[:-1]) / 2, blocks / scale)] * scale
    return float(np.sqrt(np.square(blocks - nearest).mean() / np.square(blocks).mean()))


def rounding_pass(weights: np.ndarray) -> np.ndarray:
    """INT4 in blocks: scale, round, scale back."""
    blocks = weights.reshape(-1, BLOCK)
    scale = np.abs(blocks).max(1, keepdims=True) / 7
    return np.round(blocks / scale) * scale


def report() -> None:
    law, fmt = f.Normal(), f.BlockFormat(f.nf4(), BLOCK)
    exact = float(f.relative_rms_error(law, fmt))  # compiled
    rng, levels = np.random.default_rng(0), np.asarray(fmt.codebook.levels, np.float32)
    draws = [sampled(rng, levels) for _ in range(3)]
    slow = best_of(lambda: sampled(rng, levels), 2)
    fast = best_of(lambda: f.relative_rms_error(law, fmt), 50)
    print("relative RMS error of NF4, blocks of 64, normal weights")
    print(
        f"  sampling 2^24 weights in numpy   {slow * 1e3:9.1f} ms   error {np.abs(np.array(draws) - exact).mean():.0e}"
    )
    print(f"  relative_rms_error               {fast * 1e3:9.3f} ms   {slow / fast:,.0f} times faster")
    weights = rng.standard_normal(WEIGHTS, dtype=np.float32)
    numpy_pass = best_of(lambda: rounding_pass(weights), 1)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print("quantizing 10^8 weights, blocks of 64, packed codes and scales")
    print(f"  numpy rounding pass, no packing  {numpy_pass:6.2f} s")
    for name, of in {
        "INT4": f.BlockFormat(f.integer(4), BLOCK),
        "NF4, bf16 scales": f.BlockFormat(f.nf4(), BLOCK, "absmax", "bf16"),
        "INT8": f.BlockFormat(f.integer(8), BLOCK),
    }.items():
        ours = best_of(lambda of=of: f.quantize(weights, of), 1)
        print(f"  {name:32s} {ours:6.2f} s   {numpy_pass / ours:.2f} of its speed")
    more = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 2**20
    print(f"  memory beyond the pass's own peak: {more:.2f} GiB")


if __name__ == "__main__":
    jax.config.update("jax_enable_x64", True)
    report()
