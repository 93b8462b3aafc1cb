"""Where replica symmetry is stable, in samples and width: a small width or few samples, and the more bits the more of both. [Q]"""

from pathlib import Path

import jax
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import NullFormatter

import replicajax as rj
from figures.stability import BOUNDARY, STABLE, UNSTABLE
from figures.width import example

BITS = (1, 2, 3, 4)
BETA = 20.0
ALPHAS = np.geomspace(0.3, 10, 161)
WIDTHS = np.geomspace(0.2, 16, 161)


def draw() -> Path:
    jax.config.update("jax_enable_x64", True)
    figure = Figure(figsize=(11, 3.9), layout="constrained")
    panels = figure.subplots(1, len(BITS), sharey=True)
    for axes, bits in zip(panels, BITS, strict=True):
        _panel(axes, bits)
    panels[0].set_ylabel(r"width / $\sqrt{\mathrm{signal}}$")
    figure.suptitle(
        rf"More bits stay stable up to a larger width: $\beta$ = {BETA:g}, signal 1, noise 0.1, no ridge", fontsize=12
    )
    figure.legend(handles=_legend(), loc="outside lower center", ncols=4, frameon=False, fontsize=9)
    path = Path(__file__).with_suffix(".png")
    figure.savefig(path, dpi=150)
    return path


def _panel(axes: Axes, bits: int) -> None:
    grid = rj.phase_diagram(example(), bits, BETA, axes={"width": WIDTHS, "alpha": ALPHAS})
    assert grid.converged.all(), bits
    axes.pcolormesh(ALPHAS, WIDTHS, grid.stable, cmap=ListedColormap([UNSTABLE, STABLE]), rasterized=True)
    best = grid.width[grid.generalization_error.argmin("width")]
    axes.plot(ALPHAS, best, "k--", lw=1.4)
    line = rj.stability_line(
        example(), bits, BETA, unknown="alpha", between=(ALPHAS[0], ALPHAS[-1]), axes={"width": WIDTHS}
    )
    axes.plot(line.alpha, WIDTHS, color=BOUNDARY, lw=2.5)
    axes.set(xscale="log", yscale="log", xlabel="α, rows per weight", title=f"{bits} bit{'s' * (bits > 1)}")
    axes.set_xticks([0.3, 1, 3, 10])
    axes.set_yticks([0.2, 0.5, 1, 2, 5, 10])
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter("{x:g}")
        axis.set_minor_formatter(NullFormatter())


def _legend() -> list[Patch | Line2D]:
    return [
        Patch(color=STABLE, label="stable"),
        Patch(color=UNSTABLE, label="unstable"),
        Line2D([], [], color=BOUNDARY, lw=2.5, label="replicon = 0"),
        Line2D([], [], color="k", ls="--", lw=1.4, label="best width"),
    ]


if __name__ == "__main__":
    print(draw())
