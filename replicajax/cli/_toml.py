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
    "features": ("eigenvalues", "teacher", "share", "exponent", "count", "axes"),
    "rows": ("student_t", "squares", "share"),
}
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
    if not isinstance(table, dict):
        example = "eigenvalues = [0.2, 0.8, 2.0]" if kind == "features" else "student_t = 5"
        raise ProblemError(f"{where} must be a table, as in {{{example}}}, got {table!r}")
    for key, value in table.items():
        choice(f"{where}: key", key, _TABLES[kind])
        if key == "axes":
            choice(f"{where}.axes", value, _AXES)
        elif isinstance(value, list):
            if not value or not all(_is_number(x) and 0 <= x < math.inf for x in value) or not any(value):
                raise ProblemError(f"{where}.{key} must be numbers, not negative and not all 0, got {value!r}")
        elif not math.isfinite(_number(f"{where}.{key}", value)):
            raise ProblemError(f"{where}.{key} must be a finite number, got {value!r}")
    first, *others = ("eigenvalues", "exponent") if kind == "features" else ("squares", "student_t")
    if len({first, *others} & table.keys()) != 1:
        raise ProblemError(f"{where} must have either {first} or {others[0]}, got {', '.join(table) or 'nothing'}")
    law = first not in table
    lists = [first, "share"] if kind == "rows" or law else [first, "share", "teacher"]
    sizes = {key: len(table[key]) if isinstance(table[key], list) else 0 for key in lists if key in table}
    if (law and "share" in table) or (not law and "count" in table):
        raise ProblemError(f"{where}: share goes with {first}, count with exponent, got {', '.join(table)}")
    if 0 in sizes.values() or len(set(sizes.values())) > 1:
        raise ProblemError(f"{where}: {', '.join(sizes)} must be lists of one length, got {table!r}")
    if law and (wrong := [key for key, value in table.items() if isinstance(value, list)]):
        raise ProblemError(f"{where}.{wrong[0]} must be a number beside {others[0]}, got {table[wrong[0]]!r}")
    count = table.get("count", 1)
    if not isinstance(count, int) or not 1 <= count <= 10**4:
        raise ProblemError(f"{where}.count must be a whole number from 1 to 10000, got {count!r}")
    if kind == "rows" and law and not 2 < table["student_t"] < math.inf:
        raise ProblemError(
            f"{where}.student_t, degrees of freedom, must exceed 2, where rows have a mean square, got {table['student_t']}"
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
