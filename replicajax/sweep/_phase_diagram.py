"""`phase_diagram`: the theory on a grid of any axes, as labelled arrays, in bounded memory, on every device, resumable."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import xarray as xr
from jax.experimental import multihost_utils
from jaxtyping import ArrayLike

from replicajax import _checks
from replicajax.codebooks import Codebook
from replicajax.models import Classification, Task
from replicajax.replica import Device
from replicajax.sweep._grid import Grid, described, grid
from replicajax.sweep._optimum import optimum_along
from replicajax.sweep._progress import Progress
from replicajax.sweep._store import Store

OBSERVABLES: dict[str, tuple[str, str, str]] = {
    "generalization_error": ("generalization error", "label^2", "of the mean predictor, label noise excluded"),
    "gibbs_error": ("Gibbs error", "label^2", "of one Gibbs sample, label noise excluded"),
    "rounded_error": ("rounded error", "label^2", "with every weight at its most probable level, label noise excluded"),
    "test_error": ("test error", "label^2", "mean square on fresh labels: generalization error plus noise"),
    "training_error": ("training energy", "energy", "per weight"),
    "free_energy": ("free energy", "energy", "per weight"),
    "entropy": ("entropy", "nat", "thermodynamic, per weight; where negative, replica symmetry is wrong"),
    "rate": ("rate", "bit", "entropy of the usage of levels"),
    "overlap": ("overlap m", "weight^2", "with the teacher"),
    "self_overlap": ("self-overlap Q", "weight^2", "of one Gibbs sample"),
    "replica_overlap": ("replica overlap q", "weight^2", "of two Gibbs samples"),
    "susceptibility": ("susceptibility chi", "1", "beta (Q - q)"),
    "replicon": ("replicon", "1", "positive where replica symmetry is stable"),
    "stable": ("stable", "", "replicon > 0"),
    "interpolates": ("interpolates", "", "training labels fitted exactly (beta = inf only)"),
    "converged": ("converged", "", "the saddle point was found"),
    "steps": ("steps", "1", "map evaluations"),
}
"""Every variable of a sweep: its name, unit and what it is."""

_OF_CLASSES: dict[str, tuple[str, str, str]] = {
    "generalization_error": ("classification error", "1", "share of fresh labels that the mean predictor misses"),
    "gibbs_error": ("Gibbs error", "1", "share of fresh labels that one Gibbs sample misses"),
    "rounded_error": ("rounded error", "1", "share missed with every weight at its most probable level"),
    "test_error": ("test error", "1", "share of fresh labels that the mean predictor misses"),
}
"""What differs of labels ±1."""

_OF_STATES: dict[str, tuple[str, str, str]] = {
    "breaking": ("steps of breaking", "1", "of replica symmetry"),
    "parisi": ("Parisi parameter", "1/energy", "y_P; beta in replica symmetry"),
    "inner_overlap": ("inner overlap q1", "weight^2", "within a state"),
    "outer_overlap": ("outer overlap q0", "weight^2", "between two states"),
    "complexity": ("complexity", "nat", "log of the number of states per weight"),
    "state_error": ("error of a state", "label^2", "generalization error of the mean weights of one state"),
    "outer_replicon": ("outer replicon", "1", "positive where states are stable against each other"),
}
"""What one step of replica symmetry breaking adds."""

_CHUNK = 2**15
"""Points computed, and written, at a time."""
_GRADIENT = "d_generalization_error_d_{}"


class Chunk(NamedTuple):
    number: int
    where: tuple[slice, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(s.stop - s.start for s in self.where)


def phase_diagram(
    task: Task,
    bits: int | None = None,
    beta: ArrayLike | None = None,
    *,
    axes: Mapping[str, ArrayLike],
    width: ArrayLike | None = None,
    exponent: ArrayLike | None = None,
    codebook: Codebook | None = None,
    observables: Sequence[str] | None = None,
    gradients: Sequence[str] = (),
    optimum: str | None = None,
    breaking: int | str = 0,
    store: str | Path | None = None,
    chunk: int = _CHUNK,
    progress: bool | None = None,
    devices: Sequence[Device] = (),
) -> xr.Dataset:
    """The theory of `task` on a grid, replica-symmetric unless told.

    `phase_diagram(task, bits=3, beta=20.0, axes={"alpha": A, "width": W})` solves every combination; an axis replaces the
    task's own value.  Levels are width sign(u) |u|^exponent as in `power`, or those of `codebook` scaled to `width`.

    A thousand points or so (by levels) are answered at once, by NumPy; more are compiled, for all local devices.  Where
    `jax.distributed` is initialised each process takes its share of the chunks and all return the whole.  In float64 the
    values are good to 1e-9; points that did not converge have `converged` False.  Where several saddle points exist (cold,
    few rows, few bits) one is given, the same on neighbouring points up to where it ends; `state_evolution` tells, and may
    end in another, as may `solve`.

    Args:
      task: what the axes leave as it is.
      bits, width, exponent, beta: fixed values (exponent 1 unless given); numbers.
      axes: name -> increasing or decreasing values; names are alpha, signal, noise, ridge, bits, width, exponent, beta
        (inf allowed), and df or density of a teacher that has one.  The dataset has these dimensions in this order.
      codebook: levels other than `power`'s; then bits and exponent do not apply.
      observables: which of `replicajax.sweep.OBSERVABLES` to keep; all if None.
      gradients: parameters to differentiate eg in, exactly: variables d_generalization_error_d_<name>.  Not bits.
      optimum: an axis; for every slice along it the value of least eg is refined to 1e-8 by root-finding on d eg:
        variables optimal_<name>, optimal_generalization_error, optimum_inside (False: at an end of the axis).
      breaking: as in `solve`: 0, fast; "auto", one step of replica symmetry breaking where it is needed, some hundreds of
        points a second, with variables of its own (breaking, parisi, ...); 1, everywhere.
      store: directory to write finished chunks to (zarr).  The same call goes on where a killed one stopped; a different
        one is refused.  The dataset returned reads from it as needed.
      chunk: points computed at a time; what a kill can lose, and what memory is needed beyond the result.
      progress: show a bar with points/s and time left; if None, on a terminal.
      devices: to use instead of all local ones; compiled for, however few the points.

    Raises:
      TypeError, ValueError: bad arguments, or a store that holds something else.

    Source: theory 1, [Q]; the numerics are those of `replicajax.replica` (modules `_equations`, `_batch`).
    """
    sweep = grid(task, bits, beta, axes=axes, width=width, exponent=exponent, codebook=codebook, breaking=breaking)
    known = OBSERVABLES | (_OF_STATES if breaking else {})
    names = _names(observables, known)
    _parameters(sweep, "gradients", gradients)
    if optimum is not None and (optimum == "bits" or optimum not in sweep.axes or sweep.axes[optimum].size < 3):
        raise ValueError(f"optimum must be an axis of at least three values, other than bits, got {optimum!r}")
    if optimum is not None and breaking:
        raise ValueError(f"optimum is that of replica symmetry: breaking must be 0 with it, got {breaking!r}")
    size = _checks.integer("chunk", chunk, 1, 2**31)

    template = _template(sweep, names, gradients, optimum)
    extent = _extent(sweep.shape, size)
    chunks = _chunks(sweep.shape, extent)
    rank, processes = jax.process_index(), jax.process_count()
    saved = None
    if store is not None:
        sizes = dict(zip(sweep.axes, extent, strict=True))
        settings = {"observables": list(names), "gradients": list(gradients), "optimum": optimum, "chunk": list(extent)}
        if rank == 0:
            saved = Store(store, template, sizes, sweep.configuration() | settings)
        if processes > 1:
            multihost_utils.sync_global_devices("replicajax: store laid out")
        saved = saved or Store(store, template, sizes, sweep.configuration() | settings)
        data: dict[str, np.ndarray] = {}
    else:
        data = {str(name): np.zeros(variable.shape, variable.dtype) for name, variable in template.data_vars.items()}

    points = {"total": math.prod(sweep.shape), "done": 0}
    todo = []
    for each in chunks:
        if saved is not None and saved.done(each.number):
            points["done"] += math.prod(each.shape)
        elif each.number % processes == rank:
            todo.append(each)
    with Progress(progress, points["total"] // processes, points["done"] // processes) as bar:
        for each in todo:
            values = _compute(sweep, each, names, gradients, devices)
            if saved is not None:
                saved.write(each.number, each.where, values)
            else:
                for name, array in values.items():
                    data[name][each.where] = array
            bar.advance(math.prod(each.shape))
    if processes > 1:
        if saved is None:
            data = _gather(data, chunks, processes)
        multihost_utils.sync_global_devices("replicajax: chunks done")

    if optimum is not None and (saved is None or rank == 0):
        eg = data["generalization_error"] if saved is None else saved.read("generalization_error")
        converged = data["converged"] if saved is None else saved.read("converged")
        best = optimum_along(sweep, optimum, np.where(converged, eg, np.inf), devices)
        for name, array in best.items():
            if saved is None:
                data[name] = array
            else:
                saved.write_whole(name, array)
    if saved is not None:
        if processes > 1:
            multihost_utils.sync_global_devices("replicajax: optimum written")
        return saved.open()
    return template.assign({name: (template[name].dims, array, template[name].attrs) for name, array in data.items()})


def _names(observables: Sequence[str] | None, known: Mapping[str, Any]) -> tuple[str, ...]:
    if observables is None:
        return tuple(known)
    if isinstance(observables, str):
        raise ValueError(f"observables must be a list of names, got {observables!r}")
    for name in observables:
        _checks.choice("observables", name, tuple(known))
    # What tells whether a number means anything is always kept.
    return tuple(name for name in known if name in observables or name in ("stable", "converged"))


def _parameters(sweep: Grid, argument: str, names: Sequence[str]) -> None:
    known = {**sweep.values([np.zeros(1, int)] * len(sweep.axes))}
    allowed = [name for name in known if name != "bits" and (name != "exponent" or sweep.levels is None)]
    if isinstance(names, str):
        raise ValueError(f"{argument} must be a list of names, got {names!r}")
    for name in names:
        _checks.choice(argument, name, allowed)
    if "beta" in names and np.isinf(known["beta"]).any():
        raise ValueError(f"{argument} in beta need finite beta, got inf")


def _template(sweep: Grid, names: Sequence[str], gradients: Sequence[str], optimum: str | None) -> xr.Dataset:
    """The dataset without its numbers: no memory is touched."""

    def blank(dims, dtype) -> np.ndarray:
        return np.broadcast_to(np.zeros((), dtype), tuple(sweep.axes[d].size for d in dims))

    def attributes(long_name: str, units: str, description: str = "") -> dict[str, str]:
        named = {"long_name": long_name, "units": units, "description": description}
        return {key: text for key, text in named.items() if text}

    dims, real = tuple(sweep.axes), sweep.dtype
    kinds = {
        "stable": np.dtype(bool),
        "interpolates": np.dtype(bool),
        "converged": np.dtype(bool),
        "steps": np.dtype("i4"),
        "breaking": np.dtype("i4"),
    }
    observables = OBSERVABLES | _OF_STATES | (_OF_CLASSES if isinstance(sweep.task, Classification) else {})
    variables: dict[str, Any] = {n: (dims, blank(dims, kinds.get(n, real)), attributes(*observables[n])) for n in names}
    error, error_unit, _ = observables["generalization_error"]
    for name in gradients:
        unit = f"{error_unit}/({described(name)[1]})"
        label = f"derivative of the {error} in {name}"
        variables[_GRADIENT.format(name)] = (dims, blank(dims, real), attributes(label, unit))
    if optimum is not None:
        rest = tuple(d for d in dims if d != optimum)
        what, unit = described(optimum)
        variables[f"optimal_{optimum}"] = (
            rest,
            blank(rest, real),
            attributes(f"{what} of least {error}", unit),
        )
        least = attributes(f"least {error} along {optimum}", error_unit)
        variables["optimal_generalization_error"] = (rest, blank(rest, real), least)
        inside = attributes("the optimum is not an end of the axis", "")
        variables["optimum_inside"] = (rest, blank(rest, np.dtype(bool)), inside)
    coords = {name: (name, values, attributes(*described(name))) for name, values in sweep.axes.items()}
    book = {} if sweep.levels is None else {"levels_relative_to_width": list(sweep.levels)}
    scheme = "theory" if sweep.breaking else "replica-symmetric theory"
    attrs = {"title": f"{scheme} of quantized learning", **sweep.constants(), **book}
    return xr.Dataset(variables, coords, attrs)


def _extent(shape: Sequence[int], size: int) -> tuple[int, ...]:
    """The largest chunk of at most `size` points that is whole along the last axes."""
    extent = []
    for n in reversed(shape):
        extent.append(max(1, min(n, size)))
        size //= extent[-1]
    return tuple(reversed(extent))


def _chunks(shape: Sequence[int], extent: Sequence[int]) -> list[Chunk]:
    starts = product(*(range(0, n, step) for n, step in zip(shape, extent, strict=True)))
    bounds = [
        tuple(slice(i, min(i + step, n)) for i, n, step in zip(start, shape, extent, strict=True)) for start in starts
    ]
    return [Chunk(number, where) for number, where in enumerate(bounds)]


def _compute(
    sweep: Grid, chunk: Chunk, names: Sequence[str], gradients: Sequence[str], devices: Sequence[Device]
) -> dict[str, np.ndarray]:
    index = [i.ravel() for i in np.meshgrid(*(np.arange(s.start, s.stop) for s in chunk.where), indexing="ij")]
    values = sweep.values(index)
    out: dict[str, np.ndarray] = {}

    def put(name: str, where: np.ndarray, array: np.ndarray) -> None:
        if name not in out:
            dtype = np.dtype("i4") if name in ("steps", "breaking") else array.dtype
            out[name] = np.zeros(values["beta"].size, dtype)
        out[name][where] = array

    for where, part in sweep.batches(values):
        found, slopes = sweep.gradients(part, gradients, devices)
        for name in names:
            put(name, where, getattr(found, name))
        for name, slope in slopes.items():
            put(_GRADIENT.format(name), where, slope.astype(sweep.dtype))
    return {name: array.reshape(chunk.shape) for name, array in out.items()}


def _gather(data: dict[str, np.ndarray], chunks: Sequence[Chunk], processes: int) -> dict[str, np.ndarray]:
    """Every process's chunks, brought together on every process."""
    for array in data.values():
        # As bytes: float64 must cross whole whatever the precision of the transport.
        everyone = multihost_utils.process_allgather(np.ascontiguousarray(array).view(np.uint8))
        everyone = np.asarray(everyone).view(array.dtype).reshape(processes, *array.shape)
        for each in chunks:
            array[each.where] = everyone[each.number % processes][each.where]
    return data
