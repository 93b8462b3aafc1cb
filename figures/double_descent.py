"""Double descent in alpha: its peak sits at a smaller alpha for fewer bits, because fewer bits want a smaller width. [Q]"""

from pathlib import Path

import jax
import numpy as np
import xarray as xr
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import NullFormatter

import replicajax as rj
from figures.width import example

BITS = tuple(range(1, 9))
STEP = 0.75
"""Width of the first panel, for each bit."""
BETA = 200.0
ALPHAS = np.geomspace(0.2, 4, 300)
TRACED = {1: (0.3, 1.2), 2: (0.6, 3.4), 8: (1.3, 6.5)}
"""Widths of the second panel; beyond those of 1 and 2 bits eg jumps from one solution to another."""


def draw() -> Path:
    jax.config.update("jax_enable_x64", True)
    figure = Figure(figsize=(11, 4.6), layout="constrained")
    error, place = figure.subplots(1, 2)
    for bits in BITS:
        width = STEP * bits
        curve = rj.phase_diagram(example(), bits, BETA, width=width, axes={"alpha": ALPHAS})
        assert curve.converged.all(), bits
        peak = _curve(error, bits, curve)
        place.plot(width, peak, "v", color=_color(bits), mec="k", ms=9, zorder=4)
    for bits, ends in TRACED.items():
        widths = np.geomspace(*ends, 24)
        line = rj.error_peak(example(), bits, BETA, between=(0.03, 4), axes={"width": widths})
        place.plot(widths, line.alpha, color=_color(bits), lw=2.4)
    for axes in (error, place):
        axes.grid(alpha=0.25)
    path = Path(__file__).with_suffix(".png")
    _finish(figure, error, place)
    figure.savefig(path, dpi=150)
    return path


def _curve(axes: Axes, bits: int, curve: xr.Dataset) -> float:
    """Draws eg and returns where its highest inner maximum is."""
    error = curve.generalization_error.values
    axes.plot(ALPHAS, error, "--", color=_color(bits), lw=1.4)
    axes.plot(ALPHAS, np.where(curve.stable & (curve.entropy >= 0), error, np.nan), color=_color(bits), lw=2.2)
    inner = np.flatnonzero((error[1:-1] > error[:-2]) & (error[1:-1] > error[2:])) + 1
    peak = inner[error[inner].argmax()]
    axes.plot(ALPHAS[peak], 1.13 * error[peak], "v", color=_color(bits), mec="k", ms=9, zorder=4)
    return float(ALPHAS[peak])


def _finish(figure: Figure, error: Axes, place: Axes) -> None:
    error.set(xscale="log", yscale="log", xlim=ALPHAS[[0, -1]], ylim=(0.035, 6))
    error.set(xlabel="α, rows per weight", ylabel="generalization error  eg")
    error.set_xticks([0.2, 0.5, 1, 2, 4])
    error.set_yticks([0.05, 0.1, 0.2, 0.5, 1, 2, 5])
    for axis in (error.xaxis, error.yaxis):
        axis.set_major_formatter("{x:g}")
        axis.set_minor_formatter(NullFormatter())
    error.set_title(f"Fewer bits peak at a smaller α\nwhere the width is {STEP:g} × bits", fontsize=11)
    place.set(xlim=(0, 6.5), ylim=(0, 1.1), xlabel=r"width / $\sqrt{\mathrm{signal}}$", ylabel="α of the peak")
    place.set_title("because their width is smaller:\nat equal width the bits hardly matter", fontsize=11)
    note = "Lines begin where eg gets a peak;\nthose of 1 and 2 bits end near where a jump takes its place."
    place.text(6.35, 0.04, note, ha="right", fontsize=8.5, color="0.35")
    handles = [
        *(Line2D([], [], color=_color(bits), lw=2.2, label=f"{bits} bit{'s' * (bits > 1)}") for bits in BITS),
        Line2D([], [], color="k", ls="--", lw=1.4, label="replica symmetry\nunstable, or its\nentropy negative"),
        Line2D([], [], color="w", marker="v", mec="k", ms=9, ls="", label="peak"),
    ]
    figure.legend(handles=handles, loc="outside right center", frameon=False, fontsize=9)
    figure.suptitle(rf"Double descent: $\beta$ = {BETA:g}, signal 1, noise 0.1, no ridge", fontsize=12)


def _color(bits: int) -> str:
    return to_hex(colormaps["viridis"](0.95 * (1 - (bits - 1) / (len(BITS) - 1))))


if __name__ == "__main__":
    print(draw())
