"""A sweep as a picture: one varying axis as a line, few values of a second as several lines, more as a heat map."""

from collections.abc import Hashable
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LogNorm, Normalize
from matplotlib.lines import Line2D

if TYPE_CHECKING:
    import xarray as xr

_FEW = 8
"""As many values of a second axis are drawn as lines."""


def plot_phase_diagram(
    axes: Axes, dataset: "xr.Dataset", variable: str = "generalization_error"
) -> ScalarMappable | None:
    """Draw a variable of `phase_diagram` over its axes of more than one value: one or two of them.

    Lines are dotted where replica symmetry is unstable.  On a heat map the white line is replicon = 0, interpolated in the
    grid (`stability_line` traces it exactly), the black one the optimum if the sweep has one; unsolved points are grey.

    Returns:
      What a colour bar needs, for a heat map.

    Raises:
      ValueError: no such variable, or not one or two axes left.
    """
    if variable not in dataset.data_vars or dataset[variable].dtype.kind not in "fib":
        raise ValueError(f"variable must be one of {', '.join(map(str, dataset.data_vars))}, got {variable!r}")
    dataset = dataset.squeeze()
    dims = sorted(dataset[variable].dims, key=lambda d: -dataset.sizes[d])
    if len(dims) not in (1, 2):
        raise ValueError(
            f"a picture has one or two axes, got {len(dims)} ({', '.join(map(str, dims))}): fix the others"
        )
    if len(dims) == 1 or dataset.sizes[dims[1]] <= _FEW:
        _lines(axes, dataset, variable, dims[0], dims[1] if len(dims) == 2 else None)
        return None
    x, y = dataset[variable].dims
    return _heat_map(axes, dataset.transpose(x, y, ...), variable, x, y)


def _lines(axes: Axes, dataset: "xr.Dataset", variable: str, x: Hashable, other: Hashable | None) -> None:
    values = [None] if other is None else dataset[other].values
    for i, value in enumerate(values):
        curve = dataset if other is None else dataset.sel({other: value})
        y = curve[variable].where(curve.converged)
        label = None if other is None else f"{other} {value:.4g}"
        axes.plot(curve[x], y, ":", color=f"C{i}", lw=1)
        axes.plot(curve[x], y.where(curve.stable), color=f"C{i}", lw=2, label=label)
    axes.set(xlabel=_label(dataset, x), ylabel=_label(dataset, variable))
    unstable = bool((~dataset.stable).any())
    handles, labels = axes.get_legend_handles_labels()
    if unstable:
        handles, labels = [*handles, Line2D([], [], color="k", ls=":", lw=1)], [*labels, "replica symmetry unstable"]
    if handles:
        axes.legend(handles, labels, frameon=False, fontsize=8)


def _heat_map(axes: Axes, dataset: "xr.Dataset", variable: str, x: Hashable, y: Hashable) -> ScalarMappable:
    values = dataset[variable].where(dataset.converged).values.T.astype(float)
    values = np.where(np.isfinite(values), values, np.nan)
    low, high = np.nanmin(values), np.nanmax(values)
    norm = LogNorm(low, high) if 0 < 10 * low < high else Normalize(low, high)
    axes.set_facecolor("0.7")
    picture = axes.pcolormesh(dataset[x], dataset[y], values, norm=norm, shading="nearest", rasterized=True)
    keys = []
    replicon = dataset.replicon.values.T if "replicon" in dataset else np.full(values.shape, np.nan)
    if (replicon > 0).any() and (replicon < 0).any():
        axes.contour(dataset[x], dataset[y], np.clip(replicon, -1e300, None), levels=[0.0], colors="w", linewidths=1.5)
        keys.append(Line2D([], [], color="w", lw=1.5, label="replicon = 0"))
    for name, across in ((y, x), (x, y)):
        if f"optimal_{name}" in dataset:
            best = dataset[f"optimal_{name}"].where(dataset.optimum_inside)
            pair = (dataset[across], best) if name == y else (best, dataset[across])
            axes.plot(*pair, "k", lw=1.5)
            keys.append(Line2D([], [], color="k", lw=1.5, label=f"optimal {name}"))
    if keys:
        axes.legend(handles=keys, fontsize=8, facecolor="0.8", framealpha=0.9)
    axes.set(xlabel=_label(dataset, x), ylabel=_label(dataset, y))
    return picture


def variable_label(dataset: "xr.Dataset", variable: str) -> str:
    """Long name and unit, for an axis or a colour bar."""
    return _label(dataset, variable)


def _label(dataset: "xr.Dataset", name: Hashable) -> str:
    attributes = dataset[name].attrs
    unit = attributes.get("units", "1")
    text = attributes.get("long_name", str(name))
    text = f"{name}, {text}" if name in dataset.coords else text
    return text if unit == "1" else f"{text} ({unit.replace('^2', '²')})"
