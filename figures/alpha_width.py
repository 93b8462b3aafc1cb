"""Where replica symmetry is stable, in rows per weight and width: the more bits, the larger the width may be. [Q]"""

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
from figures.heat_map import broken
from figures.stability import BOUNDARY, STABLE, UNSTABLE
from figures.width import example

BITS = (1, 2, 3, 4)
BETA = 10.0
ALPHAS = np.geomspace(0.3, 10, 101)
WIDTHS = np.geomspace(0.3, 9, 201)


def draw() -> Path:
    jax.config.update("jax_enable_x64", True)
    figure = Figure(figsize=(11, 3.9), layout="constrained")
    panels = figure.subplots(1, len(BITS), sharey=True)
    for axes, bits in zip(panels, BITS, strict=True):
        _panel(axes, bits)
    panels[0].set_ylabel(r"width / $\sqrt{\mathrm{signal}}$")
    title = "Replica symmetry breaks at a larger width the more bits there are"
    figure.suptitle(rf"{title}: $\beta$ = {BETA:g}, signal 1, noise 0.1, no ridge", fontsize=12)
    figure.legend(handles=_legend(), loc="outside lower center", ncols=6, frameon=False, fontsize=9)
    path = Path(__file__).with_suffix(".png")
    figure.savefig(path, dpi=150)
    return path


def _panel(axes: Axes, bits: int) -> None:
    grid = rj.phase_diagram(example(), bits, BETA, axes={"width": WIDTHS, "alpha": ALPHAS})
    assert grid.converged.all(), bits
    axes.pcolormesh(ALPHAS, WIDTHS, grid.stable, cmap=ListedColormap([UNSTABLE, STABLE]), rasterized=True)
    axes.contour(ALPHAS, WIDTHS, grid.entropy, [0], colors="0.4", linewidths=1.2)
    axes.plot(ALPHAS, broken(grid.width[grid.generalization_error.argmin("width")].values), "k--", lw=1.4)
    line = rj.stability_line(example(), bits, BETA, unknown="alpha", between=(0.3, 100), axes={"width": WIDTHS})
    axes.plot(line.alpha, WIDTHS, color=BOUNDARY, lw=2.5)
    axes.set(xlim=ALPHAS[[0, -1]], ylim=WIDTHS[[0, -1]])
    axes.set(xscale="log", yscale="log", xlabel="α, rows per weight", title=f"{bits} bit{'s' * (bits > 1)}")
    axes.set_xticks([0.3, 1, 3, 10])
    axes.set_yticks([0.5, 1, 2, 5])
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter("{x:g}")
        axis.set_minor_formatter(NullFormatter())


def _legend() -> list[Patch | Line2D]:
    return [
        Patch(color=STABLE, label="stable"),
        Patch(color=UNSTABLE, label="unstable"),
        Line2D([], [], color=BOUNDARY, lw=2.5, label="replicon = 0"),
        Line2D([], [], color="0.4", lw=1.2, label="entropy negative above"),
        Line2D([], [], color="k", ls="--", lw=1.4, label="best width"),
    ]


if __name__ == "__main__":
    print(draw())
