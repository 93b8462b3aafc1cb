"""Effective model size: additive errors hide directions, multiplicative ones do not; floats after a sketch do. [S]"""

from pathlib import Path

import jax
import numpy as np
from matplotlib.figure import Figure

from replicajax import scaling

EXPONENT, VARIANCES = 1.5, (1e-6, 1e-5, 1e-4, 1e-3)
COLORS = ("#2a6fa8", "#2e8b57", "#b7791f", "#c2410c")


def draw() -> Path:
    jax.config.update("jax_enable_x64", True)
    figure = Figure(figsize=(10.5, 4.4), layout="constrained")
    effective, risk = figure.subplots(1, 2)
    sizes = np.geomspace(130, 1e6, 40)
    for eps, color in zip(VARIANCES, COLORS, strict=True):
        label = rf"additive, $\epsilon$ = {eps:g}"
        found, excess = [], []
        for M in sizes:
            problem, precision = scaling.power_law(M, EXPONENT), scaling.Precision("additive", data=eps)
            found.append(float(scaling.effective_model_size(problem, precision)))
            excess.append(float(problem.approximation + scaling.quantization_floor(problem, precision)))
        effective.loglog(sizes, found, color=color, lw=1.7, label=label)
        effective.axhline(eps ** (-1 / EXPONENT), color=color, lw=0.8, ls=":")
        risk.loglog(sizes, excess, color=color, lw=1.7, label=label)
    full = [float(scaling.power_law(M, EXPONENT).approximation) for M in sizes]
    effective.loglog(sizes, sizes, color="k", lw=1, ls="--", label="multiplicative: all of M")
    risk.loglog(sizes, full, color="k", lw=1, ls="--", label=r"full precision, $M^{-(a-1)}$")
    spectrum = np.arange(1, 20_001.0) ** -EXPONENT
    few = np.array([64, 128, 256, 512, 1024])
    floors = []
    for M in few:
        sketch = scaling.sketched(spectrum, np.ones(spectrum.size), int(M), jax.random.key(0))
        precision = scaling.Precision("elementwise", data=0.01)
        floors.append(float(sketch.approximation + scaling.quantization_floor(sketch, precision)))
    risk.loglog(few, floors, "s", color="#6b46c1", ms=5, label=r"floats after a sketch, $\epsilon$ = 0.01")
    effective.set(xlabel="features M", ylabel="effective model size", title=r"dotted: $\epsilon^{-1/a}$")
    risk.set(xlabel="features M", ylabel="risk − noise with endless data", title=f"spectrum i^−{EXPONENT}")
    for panel in (effective, risk):
        panel.grid(alpha=0.25, which="both", lw=0.4)
        panel.legend(frameon=False, fontsize=9)
    path = Path(__file__).with_suffix(".png")
    figure.savefig(path, dpi=150)
    return path


if __name__ == "__main__":
    print(draw())
