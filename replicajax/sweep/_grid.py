"""The points of a sweep: which parameter has which value where.

A point is a task, a codebook and a temperature; every number of the three may be an axis.  The number of bits is an axis
too, but an array has one number of levels, so points of different bits go into different batches.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from replicajax import _checks
from replicajax.codebooks import Codebook, power
from replicajax.models import Task, Taught, with_limit
from replicajax.replica import (
    Device,
    Direction,
    Solution,
    allowed_steps,
    at_once,
    broken_where_needed,
    slopes_many,
    solve_with_slopes,
)

_SCALES = ("rms", "residual")
"""Numbers that change no error: of a law, since `signal` sets its scale; of given labels."""
BOOK = ("bits", "width", "exponent")
Problem = tuple[Task, Codebook, np.ndarray]

LONG_NAMES = {
    "alpha": ("rows per weight", "1"),
    "signal": ("variance of a teacher weight", "weight^2"),
    "noise": ("variance of the label noise", "label^2"),
    "ridge": ("ridge coefficient", "1"),
    "df": ("degrees of freedom of the teacher", "1"),
    "density": ("density of the teacher", "1"),
    "delta": ("residual at which the loss turns straight", "label"),
    "level": ("quantile of the labels", "1"),
    "margin": ("margin asked for", "label"),
    "bits": ("bits per weight", "bit"),
    "width": ("largest level", "weight"),
    "exponent": ("exponent of the levels, 1 for even spacing", "1"),
    "beta": ("inverse temperature", "1/energy"),
}
"""What each axis is and its unit; a label is in the units of weight here, since rows have unit length."""


def described(name: str) -> tuple[str, str]:
    """What a number is and its unit; its own name for that of a loss or a law of the user's."""
    return LONG_NAMES.get(name, (name, "1"))


@dataclass(frozen=True)
class Grid:
    """Everything fixed, and the axes in order (the last varies fastest)."""

    task: Task
    levels: tuple[float, ...] | None
    """Of a codebook given as such, scaled to largest level 1."""
    fixed: Mapping[str, Any]
    """bits, width, exponent and beta, as far as they are not axes."""
    axes: Mapping[str, np.ndarray]
    breaking: int | str = 0
    """As in `solve`."""

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(values.size for values in self.axes.values())

    @property
    def most_levels(self) -> int:
        if self.levels is not None:
            return len(self.levels)
        return 2 ** int(np.max(self.axes["bits"] if "bits" in self.axes else self.fixed["bits"]))

    @property
    def dtype(self) -> np.dtype:
        return np.dtype(jnp.result_type(float))

    def values(self, index: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
        """Every parameter at points given by one array of positions per axis."""
        size = index[0].size if len(index) else 1
        task = numbers_of(self.task)
        known = {name: np.full(size, value) for name, value in (task | dict(self.fixed)).items()}
        return known | {name: values[i] for (name, values), i in zip(self.axes.items(), index, strict=True)}

    def problem(self, values: Mapping[str, np.ndarray]) -> Problem:
        """Tasks, codebooks and betas with a leading axis of points, all of the same number of bits."""
        size = values["beta"].size
        task = jax.tree.map(lambda x: np.broadcast_to(np.asarray(x), (size, *np.shape(x))), self.task)
        for name in numbers_of(self.task):
            task = _with(task, name, self._float(values[name]))
        return task, self._book(values), self._float(values["beta"])

    def gradients(
        self, values: Mapping[str, np.ndarray], names: Sequence[str], devices: Sequence[Device] = ()
    ) -> tuple[Solution, dict[str, np.ndarray]]:
        """The solutions, and derivatives of eg in each of `names`."""
        problem = self.problem(values)
        # Decided by the whole, so that numbers do not depend on how it is divided into chunks.
        few = at_once(problem[0], math.prod(self.shape), self.most_levels)
        found, slopes = solve_with_slopes(*problem, devices, compiled=bool(devices) or not few)
        known = slopes._asdict() | {"width": slopes.log_width / self._float(values["width"])}
        each = {
            name: known[name]
            if known.get(name) is not None
            else slopes_many(found, self.direction(values, name), devices=devices)
            for name in names
        }
        if not self.breaking:
            return found, each
        return broken_where_needed(found, each, self.breaking, partial(self.direction, values), devices)

    def direction(self, values: Mapping[str, np.ndarray], name: str) -> Direction:
        """Tangent of `problem` as the parameter `name` changes at unit rate."""
        task, book, beta = jax.tree.map(np.zeros_like, self.problem(values))
        one = np.ones_like(beta)
        if name == "beta":
            return task, book, one
        if name in numbers_of(self.task):
            return _with(task, name, one), book, beta
        levels = np.asarray(self._book(values).levels)
        if name == "width":
            return task, eqx.tree_at(lambda b: b.levels, book, levels / self._float(values["width"])[:, None]), beta
        return task, eqx.tree_at(lambda b: b.levels, book, levels * _log_size(levels)), beta

    def bend(self, values: Mapping[str, np.ndarray], name: str, other: str) -> Direction | None:
        """How `direction(name)` itself changes with `other`; None where it does not."""
        pair = {name, other}
        if pair not in ({"exponent"}, {"exponent", "width"}):
            return None
        task, book, beta = self.direction(values, "exponent")
        factor = (
            _log_size(np.asarray(book.levels)) if pair == {"exponent"} else 1 / self._float(values["width"])[:, None]
        )
        return task, eqx.tree_at(lambda b: b.levels, book, book.levels * factor), beta

    def constants(self) -> dict[str, Any]:
        """Everything that is no axis, as attributes of a dataset."""
        values = self.values([np.zeros(1, int)] * len(self.axes))
        numbers = {name: np.asarray(v[0]).item() for name, v in values.items() if name not in self.axes}
        known = {"teacher": _named(self.task.teacher, self.axes)} if isinstance(self.task, Taught) else {}
        if not self.task.closed:
            known |= {"task": type(self.task).__name__, "loss": _named(self.task.loss, self.axes)}
        return known | ({"breaking": str(self.breaking)} if self.breaking else {}) | numbers

    def _book(self, values: Mapping[str, np.ndarray]) -> Codebook:
        width = values["width"][:, None]
        if self.levels is not None:
            levels = width * np.array(self.levels)
        else:
            u = np.linspace(-1.0, 1.0, 2 ** int(values["bits"][0]))
            levels = width * np.sign(u) * np.abs(u) ** values["exponent"][:, None]
        like = power(1, 1.0, 1.0)
        return eqx.tree_at(lambda b: b.levels, like, self._float(levels))

    def _float(self, values) -> np.ndarray:
        return np.asarray(values, self.dtype)

    def batches(self, values: Mapping[str, np.ndarray]) -> Iterator[tuple[np.ndarray, dict[str, np.ndarray]]]:
        """Positions and values of points that share a number of bits."""
        bits = np.zeros(values["beta"].size) if self.levels is not None else values["bits"]
        for each in np.unique(bits):
            where = np.flatnonzero(bits == each)
            yield where, {name: array[where] for name, array in values.items()}

    def configuration(self) -> dict[str, Any]:
        """All that the numbers depend on, in plain types."""
        numbers = {name: float(v) for name, v in numbers_of(self.task).items() if name not in self.axes}
        kind = {} if self.task.closed else {"kind": self.task.kind}
        kind |= {"breaking": str(self.breaking)} if self.breaking else {}
        teacher = self.task.teacher if isinstance(self.task, Taught) else None
        leaves = [np.asarray(x).tolist() for x in jax.tree.leaves(teacher)]
        varied = any(hasattr(teacher, name) for name in self.axes)
        return {
            "task": numbers | kind,
            "teacher": [type(teacher).__name__, *([] if varied else leaves)],
            "levels": None if self.levels is None else list(self.levels),
            "fixed": {name: float(value) for name, value in self.fixed.items()},
            "axes": {name: values.tolist() for name, values in self.axes.items()},
            "dtype": self.dtype.name,
        }


def _log_size(levels: np.ndarray) -> np.ndarray:
    """log|u| of levels width sign(u) |u|^exponent: what a derivative in the exponent brings down."""
    size = np.abs(np.linspace(-1.0, 1.0, levels.shape[1]))
    return np.log(np.where(size > 0, size, 1.0))


def _parts(task: Task) -> tuple[Any, ...]:
    return (task, task.teacher, task.loss) if isinstance(task, Taught) else (task, task.loss)


def numbers_of(task: Task) -> dict[str, np.ndarray]:
    """Numbers of a task, its teacher's law and its loss, by name: what a sweep may vary."""
    found: dict[str, np.ndarray] = {}
    for part in _parts(task):
        for name in part.__dataclass_fields__:
            value = getattr(part, name)
            if name not in _SCALES and eqx.is_array_like(value) and not np.ndim(value):
                found.setdefault(name, np.asarray(value))
    return found


def _with(task: Task, name: str, value: Any) -> Task:
    """`task` with another value of the number `name`."""
    which = next(k for k, part in enumerate(_parts(task)) if hasattr(part, name))
    return eqx.tree_at(lambda t: getattr(_parts(t)[which], name), task, value)


def _named(part: Any, axes: Mapping[str, Any]) -> str:
    return type(part).__name__ if any(name in axes for name in part.__dataclass_fields__) else str(part)


def grid(
    task: Task,
    bits: Any = None,
    beta: Any = None,
    *,
    axes: Mapping[str, Any],
    width: Any = None,
    exponent: Any = None,
    codebook: Codebook | None = None,
    breaking: int | str = 0,
) -> Grid:
    """Checks what `phase_diagram` and its like were given; the messages name the argument."""
    _checks.instance("task", task, Task, "LinearRegression(alpha=2.0)")
    if _checks.is_traced((task, bits, beta, width, exponent, codebook)):
        raise TypeError("a sweep cannot be traced by jax.jit, jax.grad or jax.vmap: give it numbers (or use rj.solve)")
    if not isinstance(axes, Mapping):
        raise TypeError(
            f"axes must be a dict of name: values such as {{'alpha': [1.0, 2.0]}}, got {type(axes).__name__}"
        )
    given = {"bits": bits, "beta": beta, "width": width, "exponent": exponent}
    for name in axes:
        if given.get(name) is not None:
            raise ValueError(f"{name} is given twice: as an argument ({given[name]!r}) and as an axis")
    allowed = (*numbers_of(task), *(("width",) if codebook is not None else BOOK), "beta")
    checked = {name: _axis(task, name, values, allowed) for name, values in axes.items()}
    fixed: dict[str, Any] = {}
    levels = None
    if codebook is not None:
        _checks.instance("codebook", codebook, Codebook, "rj.codebook([-1.0, 0.0, 1.0])")
        for name in ("bits", "exponent"):
            if given[name] is not None:
                raise ValueError(f"{name} must be left out where a codebook is given, got {given[name]!r}")
        array = np.asarray(codebook.levels)
        levels = tuple((array / np.abs(array).max()).tolist())
        fixed["width"] = np.abs(array).max() if width is None else _checks.positive("width", width)
        if "width" in axes:
            del fixed["width"]
    else:
        if "bits" not in axes:
            fixed["bits"] = _checks.integer("bits", bits, 1, 16)
        if "exponent" not in axes:
            fixed["exponent"] = _checks.positive("exponent", 1.0 if exponent is None else exponent)
        if "width" not in axes:
            if width is None:
                raise ValueError("width must be given, as an argument or as an axis")
            fixed["width"] = _checks.positive("width", width)
    if "beta" not in axes:
        if beta is None:
            raise ValueError(
                "beta must be given, as an argument or as an axis (jnp.inf is empirical risk minimisation)"
            )
        fixed["beta"] = _checks.positive("beta", beta, infinite=True)
    with_limit(task, checked["beta"] if "beta" in checked else fixed["beta"])
    for name, value in fixed.items():
        if np.ndim(value):
            raise ValueError(f"{name} must be a single number (many belong in axes), got shape {np.shape(value)}")
    if np.ndim(task.alpha):
        raise ValueError(
            f"task must be a single one (values belong in axes), got alpha of shape {np.shape(task.alpha)}"
        )
    allowed_steps(breaking)
    return Grid(task, levels, {name: np.asarray(value).item() for name, value in fixed.items()}, checked, breaking)


def _axis(task: Task, name: str, values: Any, allowed: Sequence[str]) -> np.ndarray:
    if name not in allowed:
        raise ValueError(f"axes may be {', '.join(allowed)}, got {name!r}")
    label = f"axes[{name!r}]"
    if name == "bits":
        array = np.asarray(values)
        if array.ndim == 1 and array.size and array.dtype.kind in "iu":
            array = np.array([_checks.integer(label, int(b), 1, 16) for b in array])
        else:
            raise ValueError(f"{label} must be a list of whole numbers from 1 to 16, got {values!r}")
    else:
        if name == "margin":
            array = np.asarray(_checks.finite(label, values))
        elif name in ("noise", "ridge"):
            array = np.asarray(_checks.nonnegative(label, values))
        else:
            array = np.asarray(_checks.positive(label, values, infinite=name == "beta"))
    if array.ndim != 1 or not array.size:
        raise ValueError(f"{label} must be a list of at least one number, got shape {array.shape}")
    if (np.diff(array) <= 0).any() and not (np.diff(array) < 0).all():
        raise ValueError(f"{label} must increase (or decrease) throughout, got {_checks.brief(array)}")
    if name == "df" and (array <= 2).any() or name == "density" and (array >= 1).any():
        want = "exceed 2" if name == "df" else "be below 1"
        raise ValueError(f"{label} must {want}, got {_checks.brief(array)}")
    return array
