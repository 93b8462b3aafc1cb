"""Exact risk of SGD against steps, both kinds of error at several precisions, with simulated runs as points. [S]"""

from pathlib import Path

import jax
import numpy as np
from matplotlib.figure import Figure

from replicajax import scaling
from replicajax.trials import simulate_sgd

SIZE, EXPONENT, NOISE, RUNS = 100, 1.5, 0.1, 100
PRECISIONS = {"additive": (0.0, 1e-3, 1e-2, 1e-1), "multiplicative": (0.0, 1e-2, 1e-1, 5e-1)}
COLORS = ("#222222", "#2a6fa8", "#2e8b57", "#c2410c")


def draw() -> Path:
    jax.config.update("jax_enable_x64", True)
    problem = scaling.power_law(SIZE, EXPONENT, noise=NOISE)
    figure = Figure(figsize=(10.5, 4.4), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    steps, simulated = np.geomspace(30, 1e9, 61).astype(int), (30, 300, 3000)
    for panel, (kind, variances) in zip(panels, PRECISIONS.items(), strict=True):
        for eps, color in zip(variances, COLORS, strict=True):
            precision = scaling.Precision(kind, data=eps)
            step = 0.5 * scaling.step_limit(problem, precision)
            excess = [float(scaling.sgd_risk(problem, precision, int(n), step).excess) for n in steps]
            label = "full precision" if eps == 0 else rf"$\epsilon$ = {eps:g}"
            panel.loglog(steps, excess, color=color, lw=1.7, label=label)
            for n in simulated:
                found = simulate_sgd(problem, precision, n, float(step), runs=RUNS)
                panel.errorbar(n, found.mean - NOISE, found.error, fmt="o", color=color, ms=4, capsize=2)
            floor = float(problem.approximation + scaling.quantization_floor(problem, precision))
            panel.axhline(floor, color=color, lw=0.8, ls=":")
        panel.set(xlabel="steps N", title=f"{kind} errors of the data")
        panel.legend(frameon=False, fontsize=9)
        panel.grid(alpha=0.25, which="both", lw=0.4)
    panels[0].set_ylabel("risk − noise")
    figure.suptitle(
        f"{SIZE} features of variance i^−{EXPONENT}: exact risk (lines), {RUNS} runs each (points), floors (dotted)",
        fontsize=12,
    )
    path = Path(__file__).with_suffix(".png")
    figure.savefig(path, dpi=150)
    return path


if __name__ == "__main__":
    print(draw())
