"""Where replica symmetry breaks and what one step of it mends: zero temperature, and which measure is broken or frozen."""

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
from figures._ground_states import PATH as GROUND_STATES

COLORS = {1: "#c2410c", 2: "#2a6fa8", 3: "#2e8b57"}
PHASES = {"replica symmetric": "#dbe9d8", "one step, fluid states": "#f6d9a8", "one step, frozen states": "#c7b6dd"}
TASK, BETA = rj.LinearRegression(2.0, noise=0.1), 20.0
HEAVY = rj.LinearRegression(2.0, noise=0.1, features=rj.Features.power_law(1.5, 30))
WIDTHS, ENDS = np.geomspace(0.3, 4.0, 25), (0.3, 4.0)
ALPHAS = np.geomspace(0.4, 8.0, 21)
FROZEN = 0.02
"""Entropy within states, in nats per weight, below which they are called frozen."""


def draw() -> Path:
    jax.config.update("jax_enable_x64", True)
    figure = Figure(figsize=(12.5, 8.6), layout="constrained")
    panels = figure.subplots(2, 3)
    _errors(panels[0, 0])
    _best_widths(panels[0, 1])
    of_bits = rj.phase_diagram(TASK, beta=BETA, axes={"bits": np.arange(1, 6), "width": WIDTHS}, breaking="auto")
    _phases(panels[0, 2], of_bits, "bits")
    panels[0, 2].set(title=f"β = {BETA:g}, α = 2, iid features", xlabel="bits", xticks=of_bits.bits)
    for axes, task, name in ((panels[1, 0], TASK, "iid features"), (panels[1, 1], HEAVY, "turned spectrum i$^{-1.5}$")):
        _phases(
            axes, rj.phase_diagram(task, 2, BETA, axes={"alpha": ALPHAS, "width": WIDTHS}, breaking="auto"), "alpha"
        )
        _lines(axes, task)
        axes.set(title=f"2 bits, β = {BETA:g}, {name}", xscale="log", xlabel="α, rows per weight")
        _ticks(axes.xaxis, [0.5, 1, 2, 4, 8])
    panels[1, 2].axis("off")
    panels[1, 2].legend(handles=_legend(), loc="center left", frameon=False, fontsize=10)
    for axes in panels.flat:
        axes.title.set_fontsize(11)
    path = Path(__file__).with_suffix(".png")
    figure.savefig(path, dpi=110)
    return path


def _errors(axes: Axes) -> None:
    for bits, color in COLORS.items():
        for breaking, style, marker in ((0, ":", "o"), ("auto", "-", "D")):
            grid = rj.phase_diagram(TASK, bits, np.inf, axes={"width": WIDTHS}, breaking=breaking)
            axes.plot(WIDTHS, grid.generalization_error.where(grid.converged), style, color=color, lw=1.8)
            best = rj.optimal_width(TASK, bits, np.inf, breaking=breaking)
            axes.plot(best.width, best.generalization_error, marker, color=color, mec="k", ms=6)
    axes.set(xscale="log", yscale="log", xlabel="width", ylabel="generalization error", ylim=(0.12, 1.2))
    axes.set_title("β = ∞, α = 2, noise 0.1")
    _ticks(axes.xaxis, [0.5, 1, 2, 4])
    _ticks(axes.yaxis, [0.15, 0.2, 0.3, 0.5, 1])


def _best_widths(axes: Axes) -> None:
    alphas = np.geomspace(1.0, 8.0, 13)
    measured = np.genfromtxt(GROUND_STATES, delimiter=",", names=True)
    for bits, color in COLORS.items():
        for breaking, style in ((0, ":"), ("auto", "-")):
            tasks = [rj.LinearRegression(alpha, noise=0.1) for alpha in alphas]
            best = [rj.optimal_width(task, bits, np.inf, breaking=breaking) for task in tasks]
            axes.plot(alphas, [b.width if b.converged else np.nan for b in best], style, color=color, lw=1.8)
        of = measured[measured["bits"] == bits]
        axes.errorbar(
            of["alpha"], of["width"], of["standard_error"], fmt="s", color=color, mec="k", ms=6, capsize=3, zorder=4
        )
    axes.set(xscale="log", yscale="log", xlabel="α, rows per weight", ylabel="best width", ylim=(0.5, 2.4))
    axes.set_title("β = ∞, noise 0.1")
    _ticks(axes.xaxis, [1, 2, 4, 8])
    _ticks(axes.yaxis, [0.5, 0.7, 1, 1.5, 2])


def _phases(axes: Axes, grid, along: str) -> None:
    """Phases as colours, error as lines."""
    phase = np.where(grid.breaking == 0, 0, np.where(grid.entropy > FROZEN, 1, 2)).astype(float)
    right = (grid.converged & (grid.stable & (grid.entropy > 0) | (grid.breaking == 1))).values
    where = (grid[along], grid.width)
    shown = np.where(right, phase, np.nan).T
    axes.pcolormesh(*where, shown, cmap=ListedColormap(list(PHASES.values())), vmin=-0.5, vmax=2.5, shading="nearest")
    error = grid.generalization_error.where(right).T
    lines = axes.contour(*where, error, levels=[0.1, 0.15, 0.2, 0.3, 0.5, 0.8], colors="k", linewidths=0.8)
    axes.clabel(lines, fontsize=8, fmt="%g")
    axes.set(yscale="log", ylabel="width")
    _ticks(axes.yaxis, [0.5, 1, 2, 4])


def _lines(axes: Axes, task) -> None:
    for line, style in ((rj.stability_line, "--"), (rj.freezing_line, "-")):
        found = line(task, 2, BETA, unknown="width", between=(0.2, 8.0), axes={"alpha": np.geomspace(0.4, 8.0, 61)})
        axes.plot(found.alpha, found.width, style, color="#8b1a1a", lw=1.6)
    axes.set_ylim(*ENDS)


def _ticks(axis, places) -> None:
    axis.set_ticks(places, [f"{place:g}" for place in places])
    axis.set_minor_formatter(NullFormatter())


def _legend() -> list:
    bits = [Line2D([], [], color=c, lw=2, label=f"{b} bit{'s' * (b > 1)}") for b, c in COLORS.items()]
    return [
        *bits,
        Line2D([], [], color="k", ls=":", marker="o", mfc="w", label="replica symmetric"),
        Line2D([], [], color="k", marker="D", mfc="w", label="one step of breaking where needed"),
        Line2D([], [], color="k", ls="", marker="s", mfc="w", label="ground states, 100 weights"),
        *(Patch(color=color, label=name) for name, color in PHASES.items()),
        Patch(fc="w", ec="k", label="not converged"),
        Line2D([], [], color="#8b1a1a", ls="--", label="symmetry unstable: replicon = 0"),
        Line2D([], [], color="#8b1a1a", label="out of words: entropy = 0"),
        Line2D([], [], color="k", lw=0.8, label="generalization error"),
    ]
