"""Straight-through training: the law of a weight on what 3000 weights do, and the error for several ranges. theory 11, [T]"""

from pathlib import Path

import jax
import numpy as np
from matplotlib.figure import Figure

import replicajax as rj
from replicajax.trials import simulate_straight_through

TIMES = np.array([1.0, 5.0, 10.0, 25.0])
RANGES = (0.8, 1.0, 1.2, 1.6, 2.0)
STEP, DIMENSION = 0.2, 3000


def draw() -> Path:
    jax.config.update("jax_enable_x64", True)
    figure = Figure(figsize=(12, 6), layout="constrained")
    grid = figure.add_gridspec(2, 4)
    book = rj.uniform(2, 2.0)
    course = rj.dynamics.straight_through(book, book, STEP, times=TIMES)
    key = jax.random.key(0, impl="rbg")
    run = simulate_straight_through(key, book, book, STEP, times=TIMES, dimension=DIMENSION, runs=2)
    w = np.linspace(-3.2, 3.2, 801)
    for k, p in enumerate(np.asarray(course.density(w))):
        panel = figure.add_subplot(grid[0, k])
        panel.hist(
            np.asarray(run.weights[k]).ravel(), 80, density=True, color="0.8", label=f"{DIMENSION} weights, twice"
        )
        panel.plot(w, p, color="#2a6fa8", lw=1.8, label="theory")
        for cut in (-4 / 3, 0, 4 / 3):
            panel.axvline(cut, color="0.6", lw=0.7, ls=":")
        panel.set(title=f"time {TIMES[k]:g}", xlabel="weight before rounding", xlim=w[[0, -1]])
        if k == 0:
            panel.set_ylabel("density")
        if k == TIMES.size - 1:
            panel.legend(frameon=False, fontsize=8, loc="upper left")
    long, wide = figure.add_subplot(grid[1, :2]), figure.add_subplot(grid[1, 2:])
    times = np.geomspace(0.3, 200.0, 120)
    for panel, step, start, title in (
        (long, STEP, 1.0, f"step {STEP:g}, weights start at N(0, 1)"),
        (wide, 0.05, 0.05, "step 0.05, weights start near 0: plateaus"),
    ):
        for i, width in enumerate(RANGES):
            found = rj.dynamics.straight_through(rj.uniform(2, width), book, step, times=times, start=start)
            assert found.converged.all(), (width, step)
            panel.semilogx(times, found.generalization_error, color=f"C{i}", label=f"range {width:g}")
            ends = found.stationary.generalization_error
            if np.isfinite(ends):
                panel.plot(times[-1] * 1.15, ends, "<", color=f"C{i}", ms=6, clip_on=False)
        panel.set(title=title, xlabel="time, iterations / dimension", ylabel="generalization error", ylim=(0, None))
        panel.grid(alpha=0.25)
    long.legend(frameon=False, fontsize=8)
    figure.suptitle(
        "Straight-through training: 2 bits for weights and inputs, w* = 1, no noise (◂: where it ends)", fontsize=12
    )
    path = Path(__file__).with_suffix(".png")
    figure.savefig(path, dpi=130)
    return path


if __name__ == "__main__":
    print(draw())
