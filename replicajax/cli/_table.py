"""CSV files of numbers, whatever their separator, byte-order mark or decimal sign."""

import csv
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

from replicajax.cli._request import ProblemError

if TYPE_CHECKING:
    import pandas as pd

_MARKS = {b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16"}
_SEPARATORS = ",;\t|"


def header(path: Path) -> tuple[list[str], str, str]:
    """Names of the columns, separator and encoding: from the first line alone."""
    if path.is_dir() or not path.exists():
        raise ProblemError(f"{path} {'is a directory' if path.is_dir() else 'does not exist'}; a CSV file is wanted")
    try:
        with path.open("rb") as file:
            encoding = _MARKS.get(file.read(2), "utf-8-sig")
        with path.open(encoding=encoding, newline="") as file:
            line = next((line for line in file if line.strip()), "")
        if not line:
            raise ProblemError(f"{path} is not readable as CSV: it is empty")
        separator = max(_SEPARATORS, key=line.count)
        columns = next(csv.reader([line], delimiter=separator))
    except (OSError, UnicodeError, csv.Error) as error:
        raise ProblemError(f"{path} is not readable as CSV: {error}") from None
    columns = [name.strip() for name in columns]
    if len(columns) < 2 or len(set(columns)) != len(columns):
        raise ProblemError(
            f"{path} must have at least two distinct columns, separated by a comma, semicolon, tab or |, got {listed(columns)}"
        )
    return columns, separator, encoding


def read_csv(path: Path) -> "pd.DataFrame":
    """A table of finite numbers under distinct names."""
    columns, separator, encoding = header(path)
    import pandas as pd

    def read(decimal: str) -> "pd.DataFrame":
        form = {"sep": separator, "encoding": encoding, "decimal": decimal, "low_memory": False}
        with warnings.catch_warnings(action="error", category=pd.errors.ParserWarning):  # fields dropped
            return pd.read_csv(path, header=0, names=columns, index_col=False, **form)

    try:
        frame = read(".")
        if separator != "," and _words(frame):
            frame = read(",")  # as where 1,5 is one and a half; mixed with 1.5 it stays words
    except pd.errors.ParserWarning:
        raise ProblemError(f"{path}: rows have more fields than the header, {listed(columns)}, has names") from None
    except OverflowError:  # of pandas 3.0
        raise ProblemError(f"{path}: fields must be numbers, and one of them is too large to be one") from None
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeError, OSError) as error:
        raise ProblemError(f"{path} is not readable as CSV: {' '.join(str(error).split())}") from None
    if not len(frame):
        raise ProblemError(f"{path} has a header, {listed(columns)}, and no rows")
    if wrong := _words(frame):
        column, example = wrong
        hint = "" if separator != "," or "," not in example else "; with decimal commas separate columns by ;"
        raise ProblemError(f"{path}: column {column} must be numbers, got {example[:40]!r}{hint}")
    frame = frame.astype(float)
    missing = ~(frame.abs() < float("inf")).to_numpy()
    if missing.any():
        row, at = divmod(int(missing.ravel().argmax()), len(columns))
        raise ProblemError(
            f"{path}: {int(missing.sum())} missing or infinite values, the first in column {columns[at]}, data row {row + 1}"
        )
    return frame


def columns_of(path: Path, target: str | None, flag: str = "--data") -> "pd.DataFrame":
    """The table, once its header is known to have the target."""
    columns = header(path)[0]
    if target is None:
        raise ProblemError(f"--target is needed with a CSV file; its columns are {listed(columns)}")
    if target not in columns:
        raise ProblemError(f"--target {target}: no such column in {path}; its columns are {listed(columns)}")
    return read_csv(path)


def _words(frame: "pd.DataFrame") -> tuple[str, str] | None:
    """The first column that is not numbers, and an entry that shows it."""
    for name in frame.columns:
        column = frame[name]
        if column.dtype.kind not in "fiub":
            return str(name), str(next((x for x in column if not _is_number(x)), column.iloc[0]))
    return None


def _is_number(value: object) -> bool:
    try:
        float(str(value))
    except ValueError:
        return False
    return True


def listed(names: list[str]) -> str:
    return ", ".join(names[:12]) + (f", … ({len(names)} in all)" if len(names) > 12 else "")
