"""The best four levels for rounding, for GPTQ, for the best codeword and for learning.  theory 12"""

from pathlib import Path

import jax
import numpy as np
from matplotlib.figure import Figure

import replicajax as rj
from replicajax.formats import Normal, lloyd_max

DECAYS = np.array([0.25, 0.5, 0.75, 1.0, 1.25, 1.5])
ALPHAS = np.geomspace(0.8, 300.0, 12)
ALGORITHMS = {"rounding": "rounding (Lloyd–Max)", "gptq": "GPTQ", "optimum": "best codeword"}
INPUTS = 384


def draw() -> Path:
    jax.config.update("jax_enable_x64", True)
    figure = Figure(figsize=(12, 4), layout="constrained")
    layer, learning, gain = figure.subplots(1, 3)
    plain = lloyd_max(Normal(), 2)
    for color, (name, label) in zip(("0.5", "#2a6fa8", "#c2410c"), ALGORITHMS.items(), strict=True):
        levels, saved = [], []
        for decay in DECAYS:
            eigenvalues = np.arange(1, INPUTS + 1.0) ** -decay
            # An H that was turned: gains of columns count at 2 bits.
            turned = np.linalg.qr(np.random.default_rng(0).normal(size=(INPUTS, INPUTS)))[0]
            given = (turned * eigenvalues) @ turned.T
            problem = rj.layers.Layer(eigenvalues, rotated=True) if name == "optimum" else rj.layers.Layer(given)
            best = rj.optimal_codebook(problem, 4, algorithm=name)
            assert best.converged, (name, decay)
            levels.append(best.levels[2:])
            if name != "rounding":
                of = rj.layers.optimum_error if name == "optimum" else rj.layers.gptq_error
                saved.append(100 * (1 - best.error / float(of(problem, plain))))
        for k in range(2):
            layer.plot(DECAYS, np.array(levels)[:, k], "o-", ms=3, color=color, label=label if k else None)
        if saved:
            gain.plot(DECAYS, saved, "o-", ms=3, color=color, label=label)
    for beta, style in ((5.0, "-"), (20.0, "--")):
        levels = []
        for alpha in ALPHAS:
            best = rj.optimal_codebook(rj.LinearRegression(float(alpha), 1.0, 0.1), 4, beta)
            assert best.converged, alpha
            levels.append(np.asarray(best.levels)[2:])
        for k in range(2):
            label = f"learning, β = {beta:g}" if k else None
            learning.semilogx(ALPHAS, np.array(levels)[:, k], style, color="#4d7c0f", label=label)
    for panel in (layer, learning):
        for x in np.asarray(plain.levels)[2:]:
            panel.axhline(x, color="0.7", lw=1, zorder=0)
        panel.set(ylabel="positive levels", ylim=(0.3, 2.0))
        panel.legend(frameon=False, fontsize=8)
    layer.set(xlabel="decay a of the inputs' spectrum, λ ∝ i$^{-a}$", title="a layer's weights are known")
    learning.set(xlabel="rows per weight, α", title="weights are learned from rows")
    gain.set(xlabel="decay a of the inputs' spectrum", ylabel="error less than at Lloyd–Max's levels, %")
    gain.set(title="what its own levels save", ylim=(0, None))
    gain.legend(frameon=False, fontsize=8)
    figure.suptitle("The best four levels depend on what finds the weights (normal weights)", fontsize=12)
    path = Path(__file__).with_suffix(".png")
    figure.savefig(path, dpi=130)
    return path


if __name__ == "__main__":
    print(draw())
