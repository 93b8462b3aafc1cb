"""What replica symmetry misses at zero temperature: errors against width, and which measure is broken or frozen where."""

from pathlib import Path

import jax
import numpy as np
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import NullFormatter

import replicajax as rj

COLORS = {1: "#c2410c", 2: "#2a6fa8", 3: "#2e8b57"}
PHASES = {"replica symmetric": "#dbe9d8", "one step, fluid states": "#f6d9a8", "one step, frozen (χ small)": "#c7b6dd"}
ALPHA, NOISE, BETA = 2.0, 0.1, 20.0
WIDTHS = np.geomspace(0.3, 4.0, 25)
ALPHAS = np.geomspace(0.4, 8.0, 21)
FROZEN = 0.02
"""Entropy within states, in nats per weight, below which they are called frozen."""


def draw() -> Path:
    jax.config.update("jax_enable_x64", True)
    figure = Figure(figsize=(12.5, 4.6), layout="constrained")
    error, phases, turned = figure.subplots(1, 3)
    task = rj.LinearRegression(ALPHA, noise=NOISE)
    for bits, color in COLORS.items():
        both = [rj.phase_diagram(task, bits, np.inf, axes={"width": WIDTHS}, breaking=b) for b in (0, "auto")]
        for grid, style in zip(both, (":", "-"), strict=True):
            error.plot(WIDTHS, grid.generalization_error.where(grid.converged), style, color=color, lw=1.8)
        for breaking, marker in ((0, "o"), (1, "D")):
            best = rj.optimal_width(task, bits, np.inf, breaking=breaking)
            error.plot(best.width, best.generalization_error, marker, color=color, mec="k", ms=6)
    error.set(xscale="log", yscale="log", xlabel="width", ylabel="generalization error", ylim=(0.12, 1.2))
    error.set_title(f"β = ∞, α = {ALPHA:g}, noise {NOISE:g}", fontsize=11)
    handles = [Line2D([], [], color=c, lw=2, label=f"{b} bit{'s' * (b > 1)}") for b, c in COLORS.items()]
    handles += [
        Line2D([], [], color="k", ls=":", marker="o", mfc="w", label="replica symmetric"),
        Line2D([], [], color="k", marker="D", mfc="w", label="one step of breaking"),
    ]
    error.legend(handles=handles, fontsize=8, frameon=False)
    heavy = rj.Features.power_law(1.5, 30)
    for axes, features, title in (
        (phases, None, "iid features"),
        (turned, heavy, "turned spectrum i$^{-1.5}$"),
    ):
        of = rj.LinearRegression(ALPHA, noise=NOISE, features=features)
        _phases(axes, rj.phase_diagram(of, 2, BETA, axes={"alpha": ALPHAS, "width": WIDTHS}, breaking="auto"))
        axes.set_title(f"2 bits, β = {BETA:g}, {title}", fontsize=11)
    for axes in (error, phases, turned):
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.xaxis.set_major_formatter("{x:g}")
    error.set_xticks([0.5, 1, 2, 4])
    error.set_yticks([0.15, 0.2, 0.3, 0.5, 1], ["0.15", "0.2", "0.3", "0.5", "1"])
    error.yaxis.set_minor_formatter(NullFormatter())
    for axes in (phases, turned):
        axes.set_xticks([0.5, 1, 2, 4, 8])
        axes.set_yticks([0.5, 1, 2, 4], ["0.5", "1", "2", "4"])
        axes.yaxis.set_minor_formatter(NullFormatter())
    legend = [Patch(color=color, label=name) for name, color in PHASES.items()]
    legend.append(Patch(color="w", ec="k", label="not converged"))
    figure.legend(handles=legend, loc="outside lower right", ncols=4, frameon=False, fontsize=9)
    path = Path(__file__).with_suffix(".png")
    figure.savefig(path, dpi=110)
    return path


def _phases(axes, grid) -> None:
    """Phases as colours, error as lines."""
    phase = np.where(grid.breaking == 0, 0, np.where(grid.entropy > FROZEN, 1, 2)).astype(float)
    right = (grid.converged & (grid.stable | (grid.breaking == 1))).values
    where = (grid.alpha, grid.width)
    shown = np.where(right, phase, np.nan).T
    axes.pcolormesh(*where, shown, cmap=ListedColormap(list(PHASES.values())), vmin=-0.5, vmax=2.5, shading="nearest")
    error = grid.generalization_error.where(right).T
    lines = axes.contour(*where, error, levels=[0.1, 0.2, 0.3, 0.5, 0.8], colors="k", linewidths=0.8)
    axes.clabel(lines, fontsize=8, fmt="%g")
    axes.set(xscale="log", yscale="log", xlabel="α, rows per weight", ylabel="width")
