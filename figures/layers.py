"""What rounding, GPTQ, an entropy code and the best codeword spend above the least rate of a layer; the first two also run."""

from pathlib import Path

import jax
import numpy as np
from matplotlib.figure import Figure

import replicajax as rj

L = rj.layers
INPUTS, ROWS, BITS = 384, 512, (1, 2, 3, 4, 5, 6)


def draw() -> Path:
    jax.config.update("jax_enable_x64", True)
    figure = Figure(figsize=(8.6, 3.9), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    for panel, exponent in zip(panels, (0.5, 1.5), strict=True):
        _panel(panel, np.arange(1, INPUTS + 1.0) ** -exponent)
        panel.set_title(f"eigenvalues of $E\\,xx^T$: $i^{{-{exponent}}}$", loc="left", fontsize=9)
        panel.set_xlabel("bits per weight")
    panels[0].set_ylabel("bits above the limit of that error")
    panels[0].set_ylim(0, None)
    panels[1].legend(fontsize=8, frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))
    path = Path(__file__).with_suffix(".png")
    figure.savefig(path, dpi=160)
    return path


def _panel(panel, eigenvalues: np.ndarray) -> None:
    rng, layer = np.random.default_rng(0), L.Layer(eigenvalues, rotated=True)
    Q = np.linalg.qr(rng.normal(size=(INPUTS, INPUTS)))[0]
    H, W = Q * eigenvalues @ Q.T, rng.normal(size=(ROWS, INPUTS))

    def above(bits: float, error) -> float:
        return bits - float(L.rate_needed(layer, error))

    lines: dict[str, list[float]] = {}
    runs: dict[str, list[float]] = {}
    for bits in BITS:
        start = rj.uniform(bits, 0.5 + 0.5 * bits)
        book = {name: L.optimal_scale(layer, start, name, damping=0.0) for name in ("rounding", "gptq")}
        errors = {
            "round to nearest": L.rounding_error(layer, book["rounding"]),
            "GPTQ, best scale": L.gptq_error(layer, book["gptq"], damping=0.0),
            "best codeword": L.optimum_error(layer, book["gptq"]),
            "GPTQ, entropy code, one step": L.entropy_coded_error(layer, bits, steps="even"),
            "GPTQ, entropy code, steps water-filled": L.entropy_coded_error(layer, bits),
        }
        for name, error in errors.items():
            lines.setdefault(name, []).append(above(bits, error))
        found = {
            "round to nearest": L.round_to_nearest(W, book["rounding"]),
            "GPTQ, best scale": L.gptq(W, H, book["gptq"], damping=0.0),
        }
        for name, quantized in found.items():
            runs.setdefault(name, []).append(above(bits, L.output_error(quantized, W, H)))
    for k, (name, values) in enumerate(lines.items()):
        panel.plot(BITS, values, "-" if k < 3 else "--", color=f"C{k}", lw=1.3, label=name)
        if name in runs:
            panel.plot(BITS, runs[name], "o", color=f"C{k}", ms=4.5, mfc="none")
    panel.plot([], [], "o", color="0.3", ms=4.5, mfc="none", label="run on 512 rows, 384 inputs")
    panel.axhline(np.log2(2 * np.pi * np.e / 12) / 2, color="0.6", lw=0.8, ls=":")
    panel.annotate("0.255", (BITS[-1], 0.18), fontsize=7, color="0.4", ha="right")


if __name__ == "__main__":
    print(draw())
