"""Formats on a trained transformer: divergence as its Fisher information predicts it, and bits where they matter. [F]"""

from collections.abc import Callable, Mapping
from pathlib import Path

import jax
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from replicajax import formats
from replicajax.formats import BlockFormat
from replicajax.trials import (
    MeasuredDivergence,
    bits_saved,
    compare_allocations,
    cube_root_formats,
    measure_divergence,
    train_digits,
)

SEED = 0
BITS = range(3, 9)
BUDGETS = np.arange(2.5, 6.1, 0.5)
FORMATS: Mapping[str, tuple[str, str, Callable]] = {
    "cube-root, one RMS a tensor": ("#2a6fa8", "o", cube_root_formats),
    "INT, blocks of 32, bf16 scales": (
        "#c2410c",
        "s",
        lambda _, b: BlockFormat(formats.integer(b), 32, "absmax", "bf16"),
    ),
    "INT symmetric, scale a row": (
        "#2e8b57",
        "D",
        lambda _, b: BlockFormat(formats.integer(b, symmetric=True), "channel"),
    ),
    "E2My, blocks of 32, e8m0 scales": (
        "#8e44ad",
        "^",
        lambda _, b: BlockFormat(formats.floating_point(2, b - 3), 32, "absmax", "e8m0"),
    ),
}
RULES = {
    "uniform": ("same bits for all", "0.35", "o"),
    "rms": ("by RMS", "#2a6fa8", "s"),
    "fisher": ("by RMS and Fisher information", "#c2410c", "D"),
}


def draw() -> Path:
    jax.config.update("jax_enable_x64", True)
    trained = train_digits(SEED)
    model = trained.logits, trained.model, trained.inputs
    fisher = formats.fisher_diagonal(*model)
    points = {
        name: [measure_divergence(*model, fmt(trained.model, b), fisher=fisher) for b in BITS]
        for name, (_, _, fmt) in FORMATS.items()
    }
    curves = compare_allocations(*model, BUDGETS, fisher=fisher)
    figure = Figure(figsize=(11, 4.8), layout="constrained")
    left, right = figure.subplots(1, 2)
    _predictions(left, points)
    _allocations(right, curves)
    figure.suptitle(
        f"A transformer of 18 000 weights on digits (held-out accuracy {100 * float(trained.accuracy):.1f} %), "
        "its matrices quantized",
        fontsize=12,
    )
    path = Path(__file__).with_suffix(".png")
    figure.savefig(path, dpi=150)
    return path


def _predictions(axes: Axes, points: Mapping[str, list[MeasuredDivergence]]) -> None:
    for name, each in points.items():
        color, marker, _ = FORMATS[name]
        x, y = ([getattr(point, which) for point in each] for which in ("predicted", "measured"))
        axes.plot(x, y, marker, color=color, mec="k", mew=0.5, ms=6.5, label=name, zorder=3)
    pairs = np.array([(point.predicted, point.measured) for each in points.values() for point in each])
    x, y = np.log(pairs[pairs[:, 1] < 0.1]).T
    slope, correlation = np.polyfit(x, y, 1)[0], np.corrcoef(x, y)[0, 1]
    ends = pairs.min() / 2, pairs.max() * 2
    axes.plot(ends, ends, color="0.4", lw=1, zorder=1)
    axes.axhspan(0.1, ends[1], color="0.5", alpha=0.12, lw=0)
    axes.set(xscale="log", yscale="log", xlim=ends, ylim=ends)
    axes.set(
        xlabel=r"predicted KL, $\frac{1}{2}\sum_i F_{ii} d_i^2$ (nats per image)", ylabel="measured KL (nats per image)"
    )
    axes.set_title(f"log–log below 0.1 nats: correlation {correlation:.3f}, slope {slope:.2f}", fontsize=11)
    axes.legend(frameon=False, fontsize=9, loc="upper left", title=f"{BITS[0]} to {BITS[-1]} bits", title_fontsize=9)
    axes.grid(alpha=0.25)


def _allocations(axes: Axes, curves: Mapping[str, list[MeasuredDivergence]]) -> None:
    for rule, each in curves.items():
        name, color, marker = RULES[rule]
        x = [point.bits for point in each]
        saved = np.nanmean(bits_saved(each, curves["uniform"]))
        label = name if rule == "uniform" else f"{name}: {saved:.1f} bits saved"
        axes.plot(x, [p.measured for p in each], marker, color=color, mec="k", mew=0.5, ms=6.5, label=label, zorder=3)
        axes.plot(x, [p.predicted for p in each], color=color, lw=1.6, zorder=2)
    axes.plot([], [], "k-", lw=1.6, label="lines: predicted")
    axes.set(yscale="log", xlabel="mean bits per weight", ylabel="KL (nats per image)")
    axes.set_title("Cube-root levels, bits split among 15 matrices", fontsize=11)
    axes.legend(frameon=False, fontsize=9)
    axes.grid(alpha=0.25)


if __name__ == "__main__":
    print(draw())
