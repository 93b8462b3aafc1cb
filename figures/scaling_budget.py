"""The compute-optimal frontier: least risk for a budget, and the bits, features and steps that buy it. [S]

Of floats only the mantissa is charged: sign and exponent come on top, and the two kinds' costs do not compare.
"""

from pathlib import Path

import jax
import numpy as np
from matplotlib.figure import Figure

from replicajax import scaling
from replicajax.search import TrainingCost, allocate_budget

EXPONENT, NOISE, REACH = 1.5, 0.1, 4.0
BUDGETS = np.geomspace(1e7, 1e15, 9)
COST = TrainingCost()
COLORS = {"additive": "#2a6fa8", "multiplicative": "#c2410c"}
NAMES = {"additive": "integers, bits", "multiplicative": "floats, mantissa bits"}


def problem(M):
    return scaling.power_law(M, EXPONENT, noise=NOISE)


def draw() -> Path:
    jax.config.update("jax_enable_x64", True)
    figure = Figure(figsize=(12.5, 4.0), layout="constrained")
    risk, bits, split = figure.subplots(1, 3)
    for kind, color in COLORS.items():

        def precision(b, kind=kind):
            return scaling.of_bits(kind, b[0], reach=REACH)

        found = [allocate_budget(problem, precision, COST, b, bits=[(1.0, 24.0)]) for b in BUDGETS]
        risk.loglog(BUDGETS, [float(f.risk.excess) for f in found], "o-", color=color, ms=4, label=NAMES[kind])
        bits.semilogx(BUDGETS, [f.bits[0] for f in found], "o", color=color, ms=5)
        bits.semilogx(BUDGETS, [f.relaxed_bits[0] for f in found], "-", color=color, lw=1.5, label=NAMES[kind])
        split.loglog(BUDGETS, [f.size for f in found], "o-", color=color, ms=4, label=f"M, {NAMES[kind].split(',')[0]}")
        split.loglog(
            BUDGETS, [f.steps for f in found], "s--", color=color, ms=4, label=f"N, {NAMES[kind].split(',')[0]}"
        )
    risk.set(ylabel="least risk − noise", title="frontier")
    bits.set(ylabel="best bits", title="dots: whole; lines: before rounding")
    split.set(ylabel="features M, steps N", title="what is bought")
    for panel in (risk, bits, split):
        panel.set_xlabel(r"budget, 2 M N (bits/16)$^2$")
        panel.grid(alpha=0.25)
        panel.legend(frameon=False, fontsize=9)
    path = Path(__file__).with_suffix(".png")
    figure.savefig(path, dpi=150)
    return path


if __name__ == "__main__":
    print(draw())
