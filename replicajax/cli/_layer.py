"""`replicajax layer`."""

from collections.abc import Iterator, Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from rich.console import Console
from rich.text import Text

from replicajax import layers
from replicajax.cli._progress import Progress
from replicajax.cli._refusal import refused
from replicajax.cli._request import ProblemError
from replicajax.cli._show import save
from replicajax.codebooks import uniform
from replicajax.formats import BlockFormat
from replicajax.layers._moments import open_layers
from replicajax.layers._report import Views, report_of

_COLUMNS = ("bits", "nearest", "GPTQ", "rotated", "optimum", "limit", "to gain")
_WIDE = 9
_PANELS = 12


def best_for_rounding(bits: int) -> BlockFormat:
    """The uniform levels of least error for normal weights."""
    normal = layers.Layer(jnp.ones(1), rotated=True)
    return layers.optimal_scale(normal, uniform(bits, 0.5 + 0.5 * bits), "rounding")


def chosen(weights: Path, moments: Path, only: str | None) -> list[str]:
    """Names of the layers asked for, without reading any."""
    with open_layers(weights, moments) as (names, _, _):
        found = [name for name in names if only is None or fnmatch(name, only)]
    if not found:
        raise ProblemError(f"--only {only!r} matches none of {len(names)} layers, the first {names[0]}")
    return found


def reports(
    weights: Path,
    moments: Path,
    names: Sequence[str],
    bits: Sequence[int],
    scale: str,
    progress: Progress,
    **options: Any,
) -> Iterator[tuple[str, list[layers.LayerReport]]]:
    """Layer by layer, one in memory at a time."""
    formats = [best_for_rounding(b) for b in bits]
    with open_layers(weights, moments) as (_, of_weights, of_moments):
        for name in names:
            W, H = (np.asarray(file.read(name), np.float64) for file in (of_weights, of_moments))
            if W.ndim != 2:
                raise ValueError(f"weights {name!r} must be a matrix (outputs, inputs), got shape {W.shape}")
            found = []
            try:
                layer = layers.Layer(H, weights=W)
                views = Views.of(layer, options["seed"])
                for fmt in formats:
                    if scale == "gptq":
                        fmt = layers.optimal_scale(layer, fmt, "gptq", options["damping"], options["order"])
                    found.append(report_of(views, fmt, **options))
                    progress.advance()
            except ValueError as error:
                if not refused(error):
                    raise
                raise ValueError(f"layer {name!r}: {error}") from None
            yield name, found


class Screen:
    """The table, row by row as layers are done: what is interrupted has been said."""

    def __init__(self, console: Console, names: Sequence[str]):
        self._console = console
        self._name = min(max(len(name) for name in names), max(console.width - _WIDE * len(_COLUMNS), 24))

    def begin(self) -> None:
        self._console.print(
            "Errors of the outputs, E |(Ŵ − W) x|²/E |W x|²: nearest, GPTQ and rotated GPTQ of these weights, optimum and "
            "limit from the spectrum; to gain: bits spent above the limit."
        )
        heading = "".join(f"{name:>{_WIDE}}" for name in _COLUMNS)
        self._console.print(Text(f"{'layer':<{self._name}}{heading}", style="bold"))

    def show(self, name: str, found: Sequence[layers.LayerReport]) -> None:
        for k, r in enumerate(found):
            label = (name if len(name) <= self._name else "…" + name[1 - self._name :]) if k == 0 else ""
            errors = "".join(f"{_short(x):>{_WIDE}}" for x in (r.rounding, r.gptq, r.rotated, r.optimum, r.limit))
            self._line(f"{label:<{self._name}}{r.bits:>{_WIDE}.4g}{errors}{r.to_gain:>{_WIDE}.2f}")
            if r.run is not None:
                ran = "".join(f"{_short(x):>{_WIDE}}" for x in r.run)
                self._line(f"{'':<{self._name}}{'run':>{_WIDE}}{ran}")
        remarks: dict[str, list[str]] = {}
        for r in found:
            for number, what in r.remarks:
                remarks.setdefault(what, []).append(f"{number} ({r.bits:.4g} bits)")
        for what, numbers in remarks.items():
            self._console.print(Text(f"  {', '.join(numbers)} {what}", style="dim"))

    def _line(self, text: str) -> None:
        self._console.print(Text(text), soft_wrap=True)


def _short(x: float) -> str:
    return "-" if np.isnan(x) else f"{x:.3g}"


def as_records(found: Sequence[tuple[str, Sequence[layers.LayerReport]]]) -> list[dict[str, Any]]:
    def record(name: str, r: layers.LayerReport) -> dict[str, Any]:
        return (
            {"layer": name}
            | r._asdict()
            | {
                "run": None if r.run is None else r.run._asdict(),
                "remarks": [" ".join(remark) for remark in r.remarks],
            }
        )

    return [record(name, r) for name, each in found for r in each]


def draw_layers(found: Sequence[tuple[str, Sequence[layers.LayerReport]]], path: Path) -> None:
    """Error against bits, a panel a layer; of many, those where most is to be gained at the fewest bits."""
    from matplotlib.figure import Figure

    most = sorted(found, key=lambda each: -each[1][0].to_gain)[:_PANELS]
    shown = [each for each in found if each in most]
    across = min(3, len(shown))
    down = -(-len(shown) // across)
    figure = Figure(figsize=(1.6 + 3.1 * across, 0.9 + 2.5 * down), layout="constrained")
    panels = np.ravel(figure.subplots(down, across, sharex=True, squeeze=False))
    lines = {
        "rounding": ("round to nearest", "C3", "s"),
        "gptq": ("GPTQ", "C0", "o"),
        "rotated": ("GPTQ, rotated", "C2", "^"),
        "optimum": ("best codeword", "C4", None),
        "limit": ("rate limit", "0.4", None),
    }
    for panel, (name, each) in zip(panels, shown, strict=False):
        bits = [r.bits for r in each]
        for key, (label, color, marker) in lines.items():
            style = "--" if key == "limit" else "-"
            panel.semilogy(bits, [getattr(r, key) for r in each], style, color=color, lw=1.2, label=label)
            if marker is not None and each[0].run is not None:
                panel.semilogy(bits, [getattr(r.run, key) for r in each], marker, color=color, ms=4, mfc="none")
        panel.set_title(name if len(name) < 44 else "…" + name[-42:], fontsize=7, loc="left")
        panel.set_xticks(bits)
        panel.tick_params(labelsize=7)
    for k in range(len(shown), panels.size):
        panels[k].set_axis_off()
        panels[k - across].tick_params(labelbottom=True)
    figure.supxlabel("bits per weight", fontsize=9)
    figure.supylabel("relative error of the outputs", fontsize=9)
    handles, labels = panels[0].get_legend_handles_labels()
    if shown[0][1][0].run is not None:
        from matplotlib.lines import Line2D

        handles.append(Line2D([], [], color="0.2", marker="o", mfc="none", ls=""))
        labels.append("run")
    figure.legend(handles, labels, loc="outside upper center", ncols=6, fontsize=8, frameon=False)
    save(figure, path, 160)
