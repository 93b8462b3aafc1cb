"""What straight-through training leaves: its error at its best width and step, beside the least that as many rows allow.  [T]

After t·d steps of online training it has seen α = t rows per weight, each of them once.  The same rows, all at hand, have a
least training error, of one step of breaking; and rounding the teacher costs what no row can mend.
"""

from pathlib import Path

import jax
import numpy as np
from matplotlib.figure import Figure

import replicajax as rj
from replicajax.formats import Normal, lloyd_max, relative_rms_error

TIMES = np.array([1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0])
NOISE = 0.1
WIDTHS, STEPS = np.geomspace(0.5, 2.5, 8), np.geomspace(0.003, 1.4, 10)


def draw() -> Path:
    jax.config.update("jax_enable_x64", True)
    figure = Figure(figsize=(7.5, 4.6), layout="constrained")
    panel = figure.subplots()
    for bits, color in ((1, "#c2410c"), (2, "#2a6fa8")):
        trained, learned = np.full(TIMES.size, np.inf), []
        for width in WIDTHS:
            for step in STEPS:
                book = rj.uniform(bits, width)
                course = rj.dynamics.straight_through(book, None, step, noise=NOISE, teacher=Normal(), times=TIMES)
                errors = np.where(course.converged, course.generalization_error, np.inf)
                trained = np.minimum(trained, errors)
        for t in TIMES:
            task = rj.LinearRegression(float(t), 1.0, NOISE)
            found = rj.optimal_width(task, bits, np.inf, breaking=1)
            learned.append(float(found.generalization_error) if found.converged else np.nan)
        rounded = float(relative_rms_error(Normal(), lloyd_max(Normal(), bits))) ** 2
        name = f"{bits} bit{'s' * (bits > 1)}"
        panel.loglog(TIMES, trained, "o-", ms=4, color=color, label=f"{name}, straight-through")
        panel.loglog(TIMES, learned, "s--", ms=4, color=color, label=f"{name}, least training error (1RSB)")
        panel.axhline(rounded, color=color, ls=":", lw=1, label=f"{name}, the teacher rounded")
    panel.set(xlabel="rows per weight, α = time", ylabel="generalization error", ylim=(0.1, 1))
    panel.set_yticks([0.1, 0.2, 0.3, 0.5, 1], ["0.1", "0.2", "0.3", "0.5", "1"])
    panel.set_yticks([], minor=True)
    panel.set_xticks(TIMES, [f"{t:g}" for t in TIMES])
    panel.set_xticks([], minor=True)
    panel.legend(frameon=False, fontsize=8)
    panel.set_title(
        f"Straight-through training at its best width and step (normal teacher, noise {NOISE:g})", fontsize=10
    )
    path = Path(__file__).with_suffix(".png")
    figure.savefig(path, dpi=130)
    return path


if __name__ == "__main__":
    print(draw())
