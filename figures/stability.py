"""Where replica symmetry is stable: few bits and a large width are unstable, the more so the larger beta. [Q]"""

from pathlib import Path

import jax
import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import NullFormatter

import replicajax as rj
from figures.width import LIMITS, example

BITS = tuple(range(1, 7))
BETAS = (5.0, 20.0, 100.0)
STABLE, UNSTABLE, BOUNDARY = "#cfe3f3", "#f6c9b3", "#b03a10"


def draw() -> Path:
    jax.config.update("jax_enable_x64", True)
    given = {"bits": BITS, "beta": BETAS}
    line = rj.stability_line(example(), unknown="width", between=LIMITS, axes=given).width.fillna(np.inf)
    grid = rj.phase_diagram(example(), axes=given | {"width": np.geomspace(*LIMITS, 401)})
    assert grid.converged.all()
    assert (grid.stable == (grid.width < line)).all()
    best = grid.isel(width=grid.generalization_error.argmin("width"))
    figure = Figure(figsize=(10, 4.2), layout="constrained")
    panels = figure.subplots(1, len(BETAS), sharey=True)
    for axes, beta in zip(panels, BETAS, strict=True):
        _panel(axes, line.sel(beta=beta), best.sel(beta=beta))
        axes.set_title(rf"$\beta = {beta:g}$")
    panels[0].set_ylabel(r"width / $\sqrt{\mathrm{signal}}$")
    figure.suptitle(
        r"Few bits and a large width are unstable: $\alpha$ = 2, signal 1, noise 0.1, no ridge", fontsize=12
    )
    figure.legend(handles=_legend(), loc="outside lower center", ncols=5, frameon=False, fontsize=9)
    path = Path(__file__).with_suffix(".png")
    figure.savefig(path, dpi=150)
    return path


def _panel(axes: Axes, line: xr.DataArray, best: xr.Dataset) -> None:
    boundary = np.minimum(line, 2 * LIMITS[1])
    axes.bar(BITS, boundary, width=0.9, color=STABLE)
    axes.bar(BITS, 2 * LIMITS[1], width=0.9, bottom=boundary, color=UNSTABLE)
    axes.hlines(boundary, np.array(BITS) - 0.45, np.array(BITS) + 0.45, color=BOUNDARY, lw=2.5)
    colors = np.where(best.stable, "k", "w")
    axes.scatter(BITS, best.width, s=49, marker="D", c=colors, edgecolors="k", linewidths=1.3, zorder=4)
    axes.set(yscale="log", xlim=(0.4, BITS[-1] + 0.6), ylim=LIMITS, xticks=BITS, xlabel="bits")
    axes.set_yticks([0.1, 0.2, 0.5, 1, 2, 5])
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.tick_params(axis="x", length=0)


def _legend() -> list[Patch | Line2D]:
    return [
        Patch(color=STABLE, label="stable"),
        Patch(color=UNSTABLE, label="unstable"),
        Line2D([], [], color=BOUNDARY, lw=2.5, label="replicon = 0"),
        Line2D([], [], ls="", marker="D", color="k", mec="k", ms=7, label="best width, stable"),
        Line2D([], [], ls="", marker="D", color="w", mec="k", mew=1.3, ms=7, label="best width, unstable"),
    ]


if __name__ == "__main__":
    print(draw())
