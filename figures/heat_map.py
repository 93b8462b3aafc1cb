"""Generalization error over rows per weight and width: a valley of best widths at every alpha, all of it stable. [Q]"""

from pathlib import Path

import jax
import numpy as np
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from matplotlib.ticker import NullFormatter

import replicajax as rj
from figures.width import example

BITS, BETA = 3, 20.0
ALPHAS = np.geomspace(0.3, 10, 256)
WIDTHS = np.geomspace(0.2, 8, 256)


def draw() -> Path:
    jax.config.update("jax_enable_x64", True)
    grid = rj.phase_diagram(example(), BITS, BETA, axes={"alpha": ALPHAS, "width": WIDTHS}, optimum="width")
    line = rj.stability_line(example(), BITS, BETA, unknown="width", between=(0.2, 40), axes={"alpha": ALPHAS})
    assert grid.converged.all()
    assert grid.optimum_inside.all()
    assert (grid.optimal_width < line.width.fillna(np.inf)).all()
    assert (grid.stable == (grid.width < line.width.fillna(np.inf))).all()

    figure = Figure(figsize=(7.6, 5.2), layout="constrained")
    axes = figure.subplots()
    error = grid.generalization_error.T
    image = axes.pcolormesh(ALPHAS, WIDTHS, error, norm=LogNorm(0.04, 5), cmap="viridis_r", rasterized=True)
    contours = axes.contour(ALPHAS, WIDTHS, error, [0.05, 0.1, 0.2, 0.5, 1, 2], colors="k", linewidths=0.5, alpha=0.6)
    axes.clabel(contours, levels=[0.05, 0.1, 0.2, 0.5], fmt="%g", fontsize=8)
    outline = [withStroke(linewidth=4.4, foreground="k")]
    best = broken(grid.optimal_width.values)
    axes.plot(
        ALPHAS, best, color="w", lw=2.4, path_effects=outline, label="best width (gap: another minimum takes over)"
    )
    axes.plot(ALPHAS, line.width, color="#e8381c", lw=2.6, label="replicon = 0, unstable above")
    figure.legend(loc="outside lower center", ncols=2, frameon=False, fontsize=9)
    bar = figure.colorbar(image, ax=axes, label="generalization error  eg", ticks=[0.05, 0.1, 0.2, 0.5, 1, 2, 5])
    bar.ax.yaxis.set_major_formatter("{x:g}")
    bar.ax.yaxis.set_minor_formatter(NullFormatter())
    axes.set(xscale="log", yscale="log", ylim=WIDTHS[[0, -1]], xlabel="α, rows per weight")
    axes.set_ylabel(r"width / $\sqrt{\mathrm{signal}}$")
    axes.set_title(
        "Every α has a best width, and replica symmetry is stable there\n"
        rf"{BITS} bits, $\beta$ = {BETA:g}, signal 1, noise 0.1, no ridge",
        fontsize=11,
    )
    axes.set_xticks([0.3, 0.5, 1, 2, 5, 10])
    axes.set_yticks([0.2, 0.5, 1, 2, 5])
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter("{x:g}")
        axis.set_minor_formatter(NullFormatter())
    path = Path(__file__).with_suffix(".png")
    figure.savefig(path, dpi=150)
    return path


def broken(best: np.ndarray) -> np.ndarray:
    """A best width along an axis, with a gap where one valley becomes deeper than another."""
    return np.where(np.abs(np.gradient(np.log(best))) < 0.1, best, np.nan)


if __name__ == "__main__":
    print(draw())
