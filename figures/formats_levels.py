"""Where sixteen levels belong: the cube-root rule beside the levels of least error (Lloyd–Max). [F]"""

from pathlib import Path

import jax
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from figures.formats import laws
from replicajax import formats
from replicajax.distributions import Symmetric

BITS = 4
COLORS = ("#2a6fa8", "#c2410c", "#2e8b57")
ROW = 0.3
"""Half the height between the two rows of a law."""


def draw() -> Path:
    jax.config.update("jax_enable_x64", True)
    figure = Figure(figsize=(10.5, 4.2), layout="constrained")
    places, ratios = figure.subplots(1, 2, width_ratios=(1.5, 1))
    for row, ((name, law), color) in enumerate(zip(laws().items(), COLORS, strict=True)):
        _law(places, ratios, -row, name, law, color)
    places.axvline(0, color="0.6", lw=0.8, zorder=0)
    places.set(xlabel="level / RMS of the weights", ylim=(-2.6, 0.6))
    places.set_yticks(-np.arange(len(COLORS)), [name.replace(", ", ",\n") for name in laws()])
    places.tick_params(axis="y", length=0)
    keys = [
        Line2D([], [], color="k", marker="o", ls="", ms=6, label="Lloyd–Max"),
        Line2D([], [], color="k", marker="o", mfc="w", ls="", ms=6, label="cube-root"),
    ]
    places.legend(handles=keys, frameon=False, fontsize=9, loc="upper right")
    ratios.axhline(1, color="0.4", lw=0.8, zorder=0)
    count = 2 ** (BITS - 1)
    ratios.set(xlabel="positive level, from 0 outwards", ylabel="cube-root level / Lloyd–Max level")
    ratios.set_xticks(range(1, count + 1))
    ratios.legend(frameon=False, fontsize=9, title="loss of the cube-root rule in Rel", title_fontsize=9)
    for axes in (places, ratios):
        axes.grid(alpha=0.25)
    figure.suptitle(
        f"Levels of {BITS} bits: the cube-root rule reaches too far where tails are heavy, and loses little by it",
        fontsize=12,
    )
    path = Path(__file__).with_suffix(".png")
    figure.savefig(path, dpi=150)
    return path


def _law(places: Axes, ratios: Axes, row: float, name: str, law: Symmetric, color: str) -> None:
    rule, best = formats.cube_root(law, BITS), formats.lloyd_max(law, BITS)
    joins = np.stack([rule.levels, best.levels])
    places.plot(
        joins, [[row - ROW / 2], [row + ROW / 2]] * np.ones_like(joins), color=color, lw=0.9, alpha=0.6, zorder=2
    )
    places.plot(best.levels, np.full(len(best), row + ROW / 2), "o", color=color, ms=6, zorder=3)
    places.plot(rule.levels, np.full(len(rule), row - ROW / 2), "o", color=color, mfc="w", ms=6, zorder=3)
    loss = float(formats.relative_rms_error(law, rule) / formats.relative_rms_error(law, best)) - 1
    half = len(best) // 2
    label = f"{name}: +{100 * loss:.2f} %"
    ratios.plot(range(1, half + 1), (rule.levels / best.levels)[half:], "o-", color=color, ms=5, lw=1.7, label=label)


if __name__ == "__main__":
    print(draw())
