"""What a problem file says: numbers, a loss, the spectrum of the features, the lengths of the rows."""

import math
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from replicajax.cli._loss import read_loss
from replicajax.cli._request import ProblemError, check, choice, readable

if TYPE_CHECKING:
    from replicajax.models import Features, RowLengths

_NUMBERS = ("alpha", "signal", "noise", "ridge", "beta", "bits", "width", "exponent")
_TABLES = {
    "features": {"eigenvalues": ("teacher", "share", "axes"), "exponent": ("count", "teacher", "axes")},
    "rows": {"squares": ("share",), "student_t": ()},
}
"""The two ways to say each, and what may go with them; the first are lists, the others numbers."""
_AXES = ("rotated", "aligned")


def read_toml(path: Path) -> Mapping[str, Any]:
    """alpha, signal, noise, ridge, beta, bits, width, loss, features, rows: at the top or under [task]."""
    readable("--problem", path)
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ProblemError(f"--problem {path} is not TOML: {error}") from None
    within = table.pop("task", {})
    if not isinstance(within, dict):
        raise ProblemError(f"--problem {path}: task must be a table, as in [task], got {within!r}")
    values = {**table, **within}
    known = {*_NUMBERS, *_TABLES, "loss"}
    for key, value in values.items():
        where = f"--problem {path}: {key}"
        if key not in known:
            raise ProblemError(f"--problem {path}: unknown key {key!r}; known are {', '.join(sorted(known))}")
        if key == "loss":
            if not isinstance(value, str):
                raise ProblemError(f'{where} must be text, as in "huber:0.5", got {value!r}')
            values[key] = read_loss(value, where)
        elif key in _TABLES:
            _check_table(where, value, key)
        else:
            check(key, _number(where, value), where)
    return values


def _check_table(where: str, table: Any, kind: str) -> None:
    ways = _TABLES[kind]
    if not isinstance(table, dict):
        example = "eigenvalues = [0.2, 0.8, 2.0]" if kind == "features" else "student_t = 5"
        raise ProblemError(f"{where} must be a table, as in {{{example}}}, got {table!r}")
    if len(way := [name for name in ways if name in table]) != 1:
        raise ProblemError(f"{where} must have either {' or '.join(ways)}, got {', '.join(table) or 'nothing'}")
    for key in table:
        choice(f"{where}: a key beside {way[0]}", key, [*way, *ways[way[0]]])
    if "axes" in table:
        choice(f"{where}.axes", table["axes"], _AXES)
    values = {key: value for key, value in table.items() if key != "axes"}
    (_check_lists if way[0] == next(iter(ways)) else _check_law)(where, values)


def _check_lists(where: str, lists: Mapping[str, Any]) -> None:
    for key, values in lists.items():
        if (
            not isinstance(values, list)
            or not all(_is_number(x) and 0 <= x < math.inf for x in values)
            or not any(values)
        ):
            raise ProblemError(f"{where}.{key} must be a list of numbers, not negative and not all 0, got {values!r}")
    if len({len(values) for values in lists.values()}) > 1:
        sizes = ", ".join(f"{len(values)} of {key}" for key, values in lists.items())
        raise ProblemError(f"{where}: lists must be of one length, got {sizes}")


def _check_law(where: str, numbers: Mapping[str, Any]) -> None:
    for key, value in numbers.items():
        if not math.isfinite(_number(f"{where}.{key}", value)):
            raise ProblemError(f"{where}.{key} must be a finite number, got {value!r}")
    count, df = numbers.get("count", 1), numbers.get("student_t", math.inf)
    if not isinstance(count, int) or not 1 <= count <= 10**4:
        raise ProblemError(f"{where}.count must be a whole number from 1 to 10000, got {count!r}")
    if not df > 2:
        raise ProblemError(
            f"{where}.student_t, degrees of freedom, must exceed 2, where rows have a mean square, got {df}"
        )


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _number(where: str, value: Any) -> float:
    if not _is_number(value):
        raise ProblemError(f"{where} must be a number, got {value!r}")
    return value


def features(table: Mapping[str, Any] | None) -> "Features | None":
    """eigenvalues, with or without the teacher's power along each and their shares; or a power law's exponents."""
    from replicajax.models import Features

    if table is None:
        return None
    axes = table.get("axes", "rotated")
    if "exponent" in table:
        return Features.power_law(
            table["exponent"], table.get("count", 64), teacher=table.get("teacher", 0.0), axes=axes
        )
    return Features(table["eigenvalues"], table.get("teacher"), axes, table.get("share"))


def rows(table: Mapping[str, Any] | None) -> "RowLengths | None":
    """student_t: degrees of freedom; or squares of the lengths, with or without shares."""
    from replicajax.models import RowLengths

    if table is None:
        return None
    return (
        RowLengths.student_t(table["student_t"])
        if "student_t" in table
        else RowLengths(table["squares"], table.get("share"))
    )
