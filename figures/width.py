"""Generalization error against quantization width: every bit width has a best width, and more bits want a larger one."""

from collections.abc import Callable
from functools import cache
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import NullFormatter

import replicajax as rj

BITS = (1, 2, 3, 4, 6)
LIMITS = (0.1, 8.0)
POINTS = 121


@cache
def theory(bits: int) -> Callable[[rj.LinearRegression, Float[Array, " widths"], Float[Array, ""]], rj.Solution]:
    """The solution on a vector of widths; compiled once for each number of bits."""

    def at(task, width, beta):
        return rj.solve(task, rj.uniform(bits, width), beta)

    return jax.jit(jax.vmap(at, in_axes=(None, 0, None)))


def example() -> rj.LinearRegression:
    """The task of both figures."""
    return rj.LinearRegression(alpha=2.0, signal=1.0, noise=0.1)


def draw() -> Path:
    jax.config.update("jax_enable_x64", True)
    figure = Figure(figsize=(10, 4.2), layout="constrained")
    warm, cold = figure.subplots(1, 2, sharex=True, sharey=True)
    _panel(warm, 20.0)
    _panel(cold, np.inf)
    warm.set_title(r"$\beta = 20$")
    cold.set_title(r"$\beta = \infty$ (unstable at every width)")
    warm.set_ylabel("generalization error  eg")
    figure.legend(handles=_legend(), loc="outside right center", frameon=False, fontsize=9)
    figure.suptitle(r"Every number of bits has a best width: $\alpha$ = 2, signal 1, noise 0.1, no ridge", fontsize=12)
    path = Path(__file__).with_suffix(".png")
    figure.savefig(path, dpi=150)
    return path


def _color(bits: int) -> str:
    return to_hex(colormaps["viridis"](0.92 * (1 - BITS.index(bits) / (len(BITS) - 1))))


def _panel(axes: Axes, beta: float) -> None:
    task = example()
    widths = jnp.geomspace(*LIMITS, POINTS)
    for bits in BITS:
        solution = theory(bits)(task, widths, jnp.asarray(beta))
        assert solution.converged.all(), (bits, beta)
        error = solution.generalization_error
        axes.plot(widths, error, ":", color=_color(bits), lw=1.6)
        axes.plot(widths, jnp.where(solution.stable, error, jnp.nan), color=_color(bits), lw=2.2)
        best = rj.optimal_width(task, bits, beta)
        axes.plot(best.width, best.generalization_error, "D", color=_color(bits), mec="k", ms=7, zorder=4)
    ridge = rj.ridge_regression(task, rj.optimal_ridge(task)).generalization_error
    axes.axhline(float(ridge), color="0.45", ls="--", lw=1.4)
    axes.set(xscale="log", yscale="log", xlim=LIMITS, ylim=(0.07, 2.0), xlabel=r"width / $\sqrt{\mathrm{signal}}$")
    axes.set_xticks([0.1, 0.2, 0.5, 1, 2, 5])
    axes.set_yticks([0.1, 0.2, 0.5, 1, 2])
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter("{x:g}")
        axis.set_minor_formatter(NullFormatter())
    axes.grid(alpha=0.25)


def _legend() -> list[Line2D]:
    return [
        *(Line2D([], [], color=_color(b), lw=2.2, label=f"{b} bit{'s' * (b > 1)}") for b in BITS),
        Line2D([], [], color="w", marker="D", mec="k", ms=7, label="best width"),
        Line2D([], [], color="k", ls=":", lw=1.6, label="replica symmetry\nunstable"),
        Line2D([], [], color="0.45", ls="--", lw=1.4, label="unquantized,\noptimal ridge"),
    ]


if __name__ == "__main__":
    print(draw())
