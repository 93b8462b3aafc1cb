"""Where replica symmetry is stable: few bits and a large width are unstable, the more so the larger beta. [Q]"""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import NullFormatter

import replicajax as rj
from figures.width import LIMITS, POINTS, example, theory

BITS = tuple(range(1, 7))
BETAS = (5.0, 20.0, 100.0)
_STABLE, _UNSTABLE, _BOUNDARY = "#cfe3f3", "#f6c9b3", "#b03a10"
_SEARCHED = (0.03, 300.0)
"""Wider than the axes, so that the boundary leaves them in the right place."""


def draw() -> Path:
    jax.config.update("jax_enable_x64", True)
    figure = Figure(figsize=(10, 4.2), layout="constrained")
    panels = figure.subplots(1, len(BETAS), sharey=True)
    for axes, beta in zip(panels, BETAS, strict=True):
        _panel(axes, beta)
    panels[0].set_ylabel(r"width / $\sqrt{\mathrm{signal}}$")
    figure.suptitle(
        r"Few bits and a large width are unstable: $\alpha$ = 2, signal 1, noise 0.1, no ridge", fontsize=12
    )
    figure.legend(handles=_legend(), loc="outside lower center", ncols=5, frameon=False, fontsize=9)
    path = Path(__file__).with_suffix(".png")
    figure.savefig(path, dpi=150)
    return path


def critical_width(bits: int, beta: float) -> float:
    """The width at which the replicon vanishes: stable below, unstable above.

    The bracket shrinks to one interval of a grid at a time, until it is narrower than 1e-9 in log width.
    """
    low, high = np.log(_SEARCHED)
    while high - low > 1e-9:
        grid = np.linspace(low, high, POINTS)
        solution = theory(bits)(example(), jnp.exp(jnp.asarray(grid)), jnp.asarray(beta))
        assert solution.converged.all(), (bits, beta)
        stable = np.asarray(solution.stable)
        change = np.flatnonzero(stable[:-1] & ~stable[1:])
        if change.size != 1 or (~stable[:-1] & stable[1:]).any():
            raise ValueError(f"{bits} bits, beta {beta:g}: the replicon must change sign once, from + to −")
        low, high = grid[change[0]], grid[change[0] + 1]
    return float(np.exp((low + high) / 2))


def _panel(axes: Axes, beta: float) -> None:
    boundary = np.array([critical_width(bits, beta) for bits in BITS])
    axes.bar(BITS, boundary, width=0.9, color=_STABLE)
    axes.bar(BITS, _SEARCHED[1], width=0.9, bottom=boundary, color=_UNSTABLE)
    axes.hlines(boundary, np.array(BITS) - 0.45, np.array(BITS) + 0.45, color=_BOUNDARY, lw=2.5)
    for bits in BITS:
        best = rj.optimal_width(example(), bits, beta)
        color = "k" if best.solution.stable else "w"
        axes.plot(bits, best.width, "D", color=color, mec="k", mew=1.3, ms=7, zorder=4)
    axes.set(yscale="log", xlim=(0.4, BITS[-1] + 0.6), ylim=LIMITS, xticks=BITS, xlabel="bits")
    axes.set_title(rf"$\beta = {beta:g}$")
    axes.set_yticks([0.1, 0.2, 0.5, 1, 2, 5])
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.tick_params(axis="x", length=0)


def _legend() -> list[Patch | Line2D]:
    return [
        Patch(color=_STABLE, label="stable"),
        Patch(color=_UNSTABLE, label="unstable"),
        Line2D([], [], color=_BOUNDARY, lw=2.5, label="replicon = 0"),
        Line2D([], [], ls="", marker="D", color="k", mec="k", ms=7, label="best width, stable"),
        Line2D([], [], ls="", marker="D", color="w", mec="k", mew=1.3, ms=7, label="best width, unstable"),
    ]


if __name__ == "__main__":
    print(draw())
