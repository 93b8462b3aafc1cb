"""Classification with quantized weights: error and test loss against width, and the error at the best width against alpha."""

from pathlib import Path

import jax
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import NullFormatter

import replicajax as rj
from replicajax.trials import predict_widths

LOSSES = {"logistic": rj.losses.Logistic(), "hinge": rj.losses.Hinge(), "square": rj.losses.Square()}
COLORS = {"logistic": "#2a6fa8", "hinge": "#c2410c", "square": "#2e8b57"}
BITS, BETA, NOISE, ALPHA = 2, 2.0, 0.1, 3.0
WIDTHS = np.geomspace(0.4, 8.0, 49)
ALPHAS = np.geomspace(2.0, 16.0, 25)


def draw() -> Path:
    jax.config.update("jax_enable_x64", True)
    figure = Figure(figsize=(12.5, 4.4), layout="constrained")
    error, loss, best = figure.subplots(1, 3)
    for name, function in LOSSES.items():
        task = rj.Classification(ALPHA, noise=NOISE, loss=function)
        solution = predict_widths(task, BITS, WIDTHS, BETA)
        assert solution.converged.all(), name
        _curve(error, name, WIDTHS, solution.classification_error, solution.stable)
        _curve(loss, name, WIDTHS, solution.test_loss, solution.stable)
        grid = rj.phase_diagram(task, BITS, BETA, axes={"alpha": ALPHAS, "width": WIDTHS[::2]}, optimum="width")
        assert grid.converged.all(), name
        assert grid.optimum_inside.all(), name
        at_best = grid.stable.sel(width=grid.optimal_width, method="nearest").values
        _curve(best, name, ALPHAS, grid.optimal_generalization_error.values, at_best)
    for axes in (error, best):
        axes.set_ylabel("classification error of the mean predictor")
    loss.set_ylabel("mean loss on fresh labels, each its own")
    error.set_title(f"Error against width, α = {ALPHA:g}", fontsize=11)
    loss.set_title(f"Test loss against width, α = {ALPHA:g}", fontsize=11)
    best.set_title("Error at the best width", fontsize=11)
    for axes in (error, loss):
        axes.set(xscale="log", xlabel=r"width / $\sqrt{\mathrm{signal}}$")
        axes.set_xticks([0.5, 1, 2, 5])
    best.set(xscale="log", xlabel="α, rows per weight")
    best.set_xticks([2, 4, 8, 16])
    loss.set_ylim(0.25, 0.85)
    for axes in (error, loss, best):
        axes.xaxis.set_major_formatter("{x:g}")
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.grid(alpha=0.25)
    handles = [Line2D([], [], color=COLORS[name], lw=2.2, label=f"{name} loss") for name in LOSSES]
    handles += [
        Line2D([], [], color="k", ls=":", lw=1.6, label="replica symmetry unstable"),
        Line2D([], [], color="w", marker="D", mec="k", ms=7, label="minimum"),
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=5, frameon=False, fontsize=9)
    figure.suptitle(
        r"Labels sign(u + $\sqrt{\mathrm{noise}}\,\xi$): "
        rf"{BITS} bits, $\beta$ = {BETA:g}, signal 1, noise {NOISE:g}, no ridge",
        fontsize=12,
    )
    path = Path(__file__).with_suffix(".png")
    figure.savefig(path, dpi=150)
    return path


def _curve(axes: Axes, name: str, x: np.ndarray, y, stable) -> None:
    y, least = np.asarray(y), int(np.argmin(y))
    axes.plot(x, y, ":", color=COLORS[name], lw=1.6)
    axes.plot(x, np.where(stable, y, np.nan), color=COLORS[name], lw=2.2)
    if 0 < least < len(x) - 1:
        axes.plot(x[least], y[least], "D", color=COLORS[name], mec="k", ms=7, zorder=4)


if __name__ == "__main__":
    print(draw())
