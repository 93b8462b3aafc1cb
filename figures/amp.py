"""AMP against state evolution: its errors at every iteration, where it stops converging, and double descent. [Q]"""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MultipleLocator, NullFormatter
from scipy.optimize import root_scalar

import replicajax as rj

SIZE, INSTANCES, ITERATIONS = 2000, 16, 16
STABLE = ((1, 1.0, 2.0), (2, 1.5, 5.0), (3, 2.0, 10.0))
"""Bits, width, beta of the first panel, at alpha 2."""
LONG = 60
"""Iterations of the second panel."""
SINGLE = 3
"""Instances of the second panel."""
DESCENT = {2: 1.5, 3: 2.0, 4: 3.0, 8: 6.0}
"""Width of each number of bits in the third panel."""
MEASURED = {2: (0.4, 0.55), 3: (0.7, 0.846), 4: (0.85, 0.949, 1.1)}
"""Alphas at which AMP is run there; the theory is stable at each, 0.846 and 0.949 are the peaks of 3 and 4 bits."""
DESCENT_SIZE, DESCENT_INSTANCES, DAMPING = 1000, 8, 0.2
"""Without damping 3 of the 56 runs of the third panel end in a cycle."""
_BLUE, _RED = "#2a6fa8", "#c2410c"


def draw() -> Path:
    jax.config.update("jax_enable_x64", True)
    figure = Figure(figsize=(13, 4.6), layout="constrained")
    grid = figure.add_gridspec(2, 3, width_ratios=(1, 1, 1.12))
    _iterations(figure.add_subplot(grid[:, 0]))
    error = figure.add_subplot(grid[0, 1])
    _phases(error, figure.add_subplot(grid[1, 1], sharex=error))
    _descent(figure.add_subplot(grid[:, 2]))
    path = Path(__file__).with_suffix(".png")
    figure.savefig(path, dpi=150)
    return path


def critical_beta(task: rj.LinearRegression, book: rj.Codebook) -> float:
    """Where the replicon vanishes: stable below, unstable above."""
    return root_scalar(lambda beta: float(rj.solve(task, book, jnp.asarray(beta)).replicon), bracket=(1.0, 50.0)).root


def _iterations(axes: Axes) -> None:
    task = rj.LinearRegression(alpha=2.0, noise=0.1)
    for bits, width, beta in STABLE:
        found = rj.compare(
            task,
            rj.uniform(bits, width),
            jnp.asarray(beta),
            size=SIZE,
            instances=INSTANCES,
            iterations=ITERATIONS,
            max_iterations=ITERATIONS,
            dtype=jnp.float32,
        )
        assert found.solution.stable, bits
        theory, errors = found.state_evolution.generalization_error, np.asarray(found.amp.errors)
        axes.plot(theory, color=_color(bits), lw=1.8)
        bars = errors.std(0, ddof=1) / np.sqrt(INSTANCES)
        label = f"{bits} bit{'s' * (bits > 1)}, width {width:g}, β = {beta:g}"
        axes.errorbar(
            range(ITERATIONS + 1), errors.mean(0), bars, fmt="o", color=_color(bits), ms=4, capsize=2, label=label
        )
    handles, labels = axes.get_legend_handles_labels()
    lines = [Line2D([], [], color="k", lw=1.8), Line2D([], [], color="k", marker="o", ls="", ms=4)]
    names = ["state evolution", f"AMP, mean of {INSTANCES} instances,\nN = {SIZE}, bars ±1 standard error"]
    axes.legend(handles + lines, labels + names, frameon=False, fontsize=8.5)
    axes.set(yscale="log", xlabel="iteration", ylabel="generalization error  eg", ylim=(0.07, 1.15))
    axes.set_yticks([0.1, 0.2, 0.5, 1.0])
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.xaxis.set_major_locator(MultipleLocator(4))
    axes.set_title("State evolution predicts every iteration\nα = 2, noise 0.1", fontsize=11)
    axes.grid(alpha=0.25)


def _phases(error: Axes, change: Axes) -> None:
    task, book = rj.LinearRegression(alpha=1.5, noise=0.1), rj.uniform(2, 2.0)
    critical = critical_beta(task, book)
    for factor, color, name in ((2.5, _RED, "beyond it"), (0.7, _BLUE, "stable")):
        beta = jnp.asarray(factor * critical)
        assert bool(rj.solve(task, book, beta).stable) == (factor < 1), factor
        for i in range(SINGLE):
            X, y, w0 = rj.draw(task, SIZE, jax.random.key(i), dtype=jnp.float32)
            log = rj.amp(X, y, book, beta, steps=LONG, tolerance=0.0, teacher=w0).trajectory
            label = f"β = {factor:g} βc = {beta:.3g}, {name}" if i == 0 else None
            error.plot(log.generalization_error, color=color, lw=0.9, alpha=0.85)
            change.plot(np.arange(1, LONG + 1), log.residual[1:], color=color, lw=0.9, alpha=0.85, label=label)
        theory = rj.state_evolution(task, book, beta, LONG).generalization_error
        error.plot(theory, color="k", ls="--", lw=1.4, label="state evolution" if factor < 1 else None)
    error.plot([], [], color="0.4", lw=0.9, label=f"AMP, {SINGLE} single instances each")
    error.set(ylabel="generalization error  eg", ylim=(0.15, 0.85))
    error.legend(frameon=False, fontsize=8.5)
    change.set(yscale="log", xlabel="iteration", ylabel="rms change of the weights\n(share of their rms level)")
    change.set(ylim=(2e-5, 3), xlim=(0, LONG))
    change.legend(frameon=False, fontsize=8.5, loc="lower left")
    change.text(58, 0.06, "one instance of three settles slowly", color=_BLUE, fontsize=8.5, ha="right")
    error.tick_params(labelbottom=False)
    for axes in (error, change):
        axes.grid(alpha=0.25)
    error.set_title(
        f"AMP settles up to the replicon line, βc = {critical:.4g}\n2 bits, width 2, α = 1.5, noise 0.1", fontsize=11
    )


def _descent(axes: Axes) -> None:
    beta, settled, run = jnp.asarray(200.0), 0, 0
    for bits, width in DESCENT.items():
        alphas, book = _alphas(bits), rj.uniform(bits, width)
        solutions = [rj.solve(rj.LinearRegression(alpha=alpha, noise=0.1), book, beta) for alpha in alphas]
        assert all(s.converged for s in solutions), bits
        error = np.array([s.generalization_error for s in solutions])
        stable = np.array([s.stable for s in solutions])
        color = _color(bits)
        axes.plot(alphas, error, "--", color=color, lw=1.4)
        axes.plot(alphas, np.where(stable, error, np.nan), color=color, lw=2.0)
        peak = _peak(error)
        axes.plot(alphas[peak], 1.17 * error[peak], "v", color=color, mec="k", ms=7, zorder=5)
        for alpha in MEASURED.get(bits, ()):
            task = rj.LinearRegression(alpha=alpha, noise=0.1)
            mean, bar, count = _measured(task, book, beta)
            settled, run = settled + count, run + DESCENT_INSTANCES
            axes.errorbar(alpha, mean, bar, fmt="o", color=color, mec="k", mew=0.6, ms=4.5, capsize=2.5, zorder=4)
        axes.plot([], [], color=color, lw=2.0, label=f"{bits} bits, width {width:g}: peak at α = {alphas[peak]:.2f}")
    axes.plot([], [], "--", color="k", lw=1.4, label="replica symmetry unstable")
    axes.plot([], [], "v", color="w", mec="k", ms=8, label="peak")
    label = f"AMP, N = {DESCENT_SIZE}, damping {DAMPING:g}:\n{settled} of {run} runs settle"
    axes.errorbar([], [], [], fmt="o", color="0.6", mec="k", mew=0.6, ms=4.5, capsize=2.5, label=label)
    axes.axvline(1.0, color="0.6", lw=0.8, ls=":")
    axes.set(xscale="log", yscale="log", xlim=(0.3, 3), ylim=(0.04, 5), xlabel="α, rows per weight")
    axes.set_ylabel("generalization error  eg")
    axes.set_xticks([0.3, 0.5, 0.7, 1, 1.5, 2, 3])
    axes.set_yticks([0.05, 0.1, 0.2, 0.5, 1, 2])
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter("{x:g}")
        axis.set_minor_formatter(NullFormatter())
    axes.legend(frameon=False, fontsize=8.5, loc="lower left")
    axes.set_title("Double descent: fewer bits peak at a smaller α\nnoise 0.1, no ridge, β = 200", fontsize=11)
    axes.grid(alpha=0.25)


def _alphas(bits: int) -> np.ndarray:
    """Fine for few levels; 256 take seconds a point, so only its peak is drawn finely."""
    if bits < 8:
        return np.geomspace(0.3, 3.0, 201)
    return np.array([0.3, 0.5, 0.65, 0.76, 0.86, 0.95, 1.0, 1.03, 1.06, 1.1, 1.16, 1.24, 1.35, 1.6, 2.0, 2.5, 3.0])


def _peak(error: np.ndarray) -> int:
    """The interior local maximum."""
    (peak,) = np.flatnonzero((error[1:-1] > error[:-2]) & (error[1:-1] > error[2:])) + 1
    return int(peak)


def _measured(task: rj.LinearRegression, book: rj.Codebook, beta: jax.Array) -> tuple[float, float, int]:
    """AMP's mean error where it ends, converged or not, its standard error, and how many instances converged."""
    errors, converged = [], 0
    for i in range(DESCENT_INSTANCES):
        X, y, w0 = rj.draw(task, DESCENT_SIZE, jax.random.key(i), dtype=jnp.float32)
        found = rj.amp(X, y, book, beta, steps=600, damping=DAMPING, teacher=w0)
        errors.append(float(found.trajectory.generalization_error[-1]))
        converged += bool(found.converged)
    return float(np.mean(errors)), float(np.std(errors, ddof=1) / np.sqrt(len(errors))), converged


def _color(bits: int) -> str:
    return to_hex(colormaps["viridis"]({1: 0.9, 2: 0.72, 3: 0.5, 4: 0.27, 8: 0.0}[bits]))


if __name__ == "__main__":
    print(draw())
