"""`replicajax phase-diagram` and `replicajax plot`."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from rich.console import Console

from replicajax.cli._console import written
from replicajax.cli._request import ProblemError
from replicajax.cli._show import save
from replicajax.sweep import OBSERVABLES


def check_picture(variable: str, axes: Mapping[str, np.ndarray], gradients: Sequence[str], optimum: str | None) -> None:
    """That a sweep yet to be computed can be drawn."""
    known = [*OBSERVABLES, *(f"d_generalization_error_d_{name}" for name in gradients)]
    known += [] if optimum is None else [f"optimal_{optimum}", "optimal_generalization_error", "optimum_inside"]
    if variable not in known:
        raise ProblemError(f"--variable must be one of {', '.join(known)}, got {variable!r}")
    if len(axes) > 2:
        raise ProblemError(f"--figure has one or two axes, got {', '.join(axes)}: leave it out, then plot with --at")


def fixed(dataset: xr.Dataset, at: list[str]) -> xr.Dataset:
    """The sweep at NAME=VALUE, the nearest grid value."""
    for item in at:
        name, _, value = item.partition("=")
        if name not in dataset.dims:
            raise ProblemError(
                f"--at must be AXIS=VALUE with an axis of {', '.join(map(str, dataset.dims))}, got {item!r}"
            )
        try:
            dataset = dataset.sel({name: float(value)}, method="nearest")
        except ValueError:
            raise ProblemError(f"--at {item!r}: {value!r} is not a number") from None
    return dataset


def draw_sweep(dataset: xr.Dataset, variable: str, path: Path) -> None:
    from matplotlib.figure import Figure

    from replicajax.plot import plot_phase_diagram, variable_label

    figure = Figure(figsize=(6.4, 4.4), layout="constrained")
    panel = figure.subplots()
    picture = plot_phase_diagram(panel, dataset, variable)
    if picture is not None:
        figure.colorbar(picture, label=variable_label(dataset, variable))
    panel.set_title(_caption(dataset), fontsize=9)
    save(figure, path, 150)


def _caption(dataset: xr.Dataset) -> str:
    """What is fixed."""
    names = [
        n for n in ("alpha", "signal", "noise", "ridge", "bits", "width", "exponent", "beta") if n in dataset.attrs
    ]
    parts = [str(dataset.attrs["loss"])] if "loss" in dataset.attrs else []
    parts += [f"{name} {dataset.attrs[name]:.4g}" for name in names if (name, dataset.attrs[name]) != ("exponent", 1.0)]
    parts += [f"{c} {float(dataset[c]):.4g}" for c in dataset.coords if c not in dataset.dims]
    return ", ".join(parts)


def summary(dataset: xr.Dataset) -> dict[str, Any]:
    """What a sweep amounts to, in a few numbers."""
    eg = dataset.generalization_error.where(dataset.converged)
    done = int(dataset.converged.sum())
    best = eg.where(eg == eg.min(), drop=True).isel({d: 0 for d in eg.dims}) if done else None
    return {
        "axes": {str(name): [float(x) for x in dataset[name][[0, -1]]] + [n] for name, n in dataset.sizes.items()},
        "points": eg.size,
        "converged": done,
        "stable": int(dataset.stable.sum()),
        "least_generalization_error": None if best is None else float(best),
        "at": None if best is None else {str(d): float(best[d]) for d in eg.dims},
    }


def print_summary(out: Console, dataset: xr.Dataset, points_per_second: float | None, where: Path | None) -> None:
    s = summary(dataset)
    out.print(f"[bold]{_caption(dataset)}[/]", highlight=False)
    for name, (low, high, count) in s["axes"].items():
        out.print(f"  {name:<9} {low:.6g} to {high:.6g}, {count} values", highlight=False)
    rate = "" if points_per_second is None else f", {points_per_second:,.0f} points/s with compilation"
    n = s["points"]
    out.print(f"{n:,} points, {s['converged']:,} converged, {s['stable']:,} stable{rate}", highlight=False)
    if s["at"] is not None:
        at = ", ".join(f"{name} {value:.6g}" for name, value in s["at"].items())
        error = dataset.generalization_error.attrs["long_name"]
        out.print(f"least {error} {s['least_generalization_error']:.8g} at {at}", highlight=False)
    if where is not None:
        written("written", where)


def as_json(dataset: xr.Dataset, where: list[Path]) -> str:
    return json.dumps(summary(dataset) | {"written": [str(path) for path in where]}, indent=2)
