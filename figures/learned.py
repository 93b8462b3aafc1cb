"""Levels learned by gradients against even ones, powers and Lloyd's over the number of rows; error against bits after coding.

theory 12
"""

from pathlib import Path

import jax
import numpy as np
from matplotlib.figure import Figure
from scipy.optimize import minimize

import replicajax as rj
from figures.width import example
from replicajax.formats import Normal, lloyd_max
from replicajax.search import rate_frontier

BETA = 5.0
ALPHAS = np.geomspace(0.5, 100.0, 15)


OTHERS = {"uniform": "-", "power": "--", "Lloyd–Max, scaled": ":"}


def _others(task: rj.LinearRegression, bits: int) -> dict[str, float]:
    """Least errors of families of levels."""

    def least(family, start) -> float:
        def error(x: np.ndarray) -> float:
            return float(rj.solve(task, family(*np.exp(x)), BETA).generalization_error)

        return float(minimize(error, np.log(start), method="Nelder-Mead", options={"xatol": 1e-4, "fatol": 1e-9}).fun)

    even, known = rj.optimal_width(task, bits, BETA), np.asarray(lloyd_max(Normal(), bits).levels)
    return {
        "uniform": float(even.generalization_error),
        "power": least(lambda width, exponent: rj.power(bits, width, exponent), [float(even.width), 1.1]),
        "Lloyd–Max, scaled": least(lambda scale: rj.codebook(scale * known), [1.1]),
    }


def draw() -> Path:
    jax.config.update("jax_enable_x64", True)
    figure = Figure(figsize=(12, 4), layout="constrained")
    where, gain, coded = figure.subplots(1, 3)
    for bits, color in ((2, "#2a6fa8"), (3, "#c2410c")):
        levels, saved = [], {name: [] for name in OTHERS}
        for alpha in ALPHAS:
            task = rj.LinearRegression(float(alpha), 1.0, 0.1)
            best = rj.optimal_codebook(task, 2**bits, BETA)
            assert best.converged, alpha
            levels.append(np.asarray(best.levels)[2 ** (bits - 1) :])
            for name, error in _others(task, bits).items():
                saved[name].append(100 * float(1 - best.generalization_error / error))
        if bits == 2:
            where.semilogx(ALPHAS, levels, color=color)
            for x in np.asarray(lloyd_max(Normal(), bits).levels)[2:]:
                where.axhline(x, color="0.5", ls="--", lw=1)
        for name, style in OTHERS.items():
            if (bits, name) != (2, "power"):  # four levels are a power
                gain.semilogx(ALPHAS, saved[name], style, color=color, label=f"{bits} bits, {name}")
    where.set(xlabel="rows per weight, α", ylabel="positive levels", title="2 bits: learned levels (dashed: Lloyd–Max)")
    gain.set(xlabel="rows per weight, α", ylabel="error less than theirs, %", title="what learning the levels saves")
    gain.set_ylim(0, None)
    gain.legend(frameon=False, fontsize=8)
    found = rate_frontier(example(), BETA, levels=(2, 3, 4, 5, 6, 8), weights=(0.0, 0.003, 0.01, 0.03, 0.1))
    order = np.flatnonzero(found.hull)[np.argsort(found.bits[found.hull])]
    coded.plot(found.bits[order], found.generalization_error[order], "o-", ms=4, label="learned, coded (hull)")
    coded.plot(*found.fixed.T, "s", mfc="none", label="learned, bits of fixed length")
    coded.plot(*found.uniform.T, "x", label="uniform, bits of fixed length")
    coded.axhline(found.unquantized, color="0.5", ls=":", label="not quantized")
    coded.set(xlabel="bits a weight", ylabel="generalization error", title="α = 2", ylim=(0, None))
    coded.legend(frameon=False, fontsize=8)
    figure.suptitle(f"Learned codebooks: signal 1, noise 0.1, β = {BETA:g}", fontsize=12)
    path = Path(__file__).with_suffix(".png")
    figure.savefig(path, dpi=130)
    return path


if __name__ == "__main__":
    print(draw())
