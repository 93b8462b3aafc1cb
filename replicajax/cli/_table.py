"""CSV files of numbers, and labels that may be words, whatever their separator, byte-order mark or decimal sign."""

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


def read_csv(path: Path, label: str | None = None) -> "pd.DataFrame":
    """A table of finite numbers under distinct names; the column `label` may be words, or true and false."""
    columns, separator, encoding = header(path)
    import numpy as np
    import pandas as pd

    def read(decimal: str) -> "pd.DataFrame":
        form = {"sep": separator, "encoding": encoding, "decimal": decimal, "low_memory": False}
        fields_dropped = warnings.catch_warnings(action="error", category=pd.errors.ParserWarning)
        with fields_dropped, path.open("rb") as file:  # which may be no file of a disk
            return pd.read_csv(file, header=0, names=columns, index_col=False, **form)

    try:
        frame = read(".")
        if separator != "," and (found := _words(frame)):
            again = read(",")  # as where 1,5 is one and a half; mixed with 1.5 it stays words
            frame = again if len(_words(again)) <= len(found) else frame
    except pd.errors.ParserWarning:
        raise ProblemError(f"{path}: rows have more fields than the header, {listed(columns)}, has names") from None
    except OverflowError:  # of pandas 3.0
        raise ProblemError(f"{path}: fields must be numbers, and one of them is too large to be one") from None
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeError, OSError) as error:
        raise ProblemError(f"{path} is not readable as CSV: {' '.join(str(error).split())}") from None
    if not len(frame):
        raise ProblemError(f"{path} has a header, {listed(columns)}, and no rows")
    if words := [name for name in _words(frame) if name != label]:
        raise ProblemError(f"{path}: {_what_words(frame, words, separator)}")
    kept = label is not None and label in frame and frame[label].dtype.kind not in "fiu"
    numbers = [name for name in columns if not (kept and name == label)]
    frame[numbers] = frame[numbers].astype(float)
    if kept and label is not None and frame[label].dtype.kind != "b":
        frame[label] = frame[label].str.strip()
    missing = np.asarray(frame.isna() | frame.isin([float("inf"), float("-inf")]))
    if missing.any():
        row, at = divmod(int(missing.ravel().argmax()), len(columns))
        rows, where = int(missing.any(1).sum()), [columns[i] for i in np.flatnonzero(missing.any(0))]
        raise ProblemError(
            f"{path}: {int(missing.sum())} missing or infinite values, the first in column {columns[at]}, data row {row + 1}; "
            f"fill them in, or leave out {'that row' if rows == 1 else f'those {rows} rows'} or "
            f"column{'s' * (len(where) > 1)} {listed(where)}"
        )
    return frame


def columns_of(path: Path, target: str | None, words: bool = False) -> "pd.DataFrame":
    """The table, once its header is known to have the target, which may be words if told."""
    columns = header(path)[0]
    if target is None:
        raise ProblemError(f"--target is needed with a CSV file; its columns are {listed(columns)}")
    if target not in columns:
        raise ProblemError(f"--target {target}: no such column in {path}; its columns are {listed(columns)}")
    return read_csv(path, target if words else None)


def _words(frame: "pd.DataFrame") -> list[str]:
    """Columns that are not numbers."""
    return [str(name) for name in frame.columns if frame[name].dtype.kind not in "fiub"]


def _what_words(frame: "pd.DataFrame", words: list[str], separator: str) -> str:
    """Of the first column of words: a few among numbers stand for missing values, the rest is text."""
    column = frame[words[0]].tolist()
    wrong = [row for row, entry in enumerate(column) if not _is_number(entry)] or [0]
    example = str(column[wrong[0]])
    text = f"column {words[0]} must be numbers, got {example[:40]!r}"
    if "," in example:
        return text + ("" if separator != "," else "; with decimal commas separate columns by ;")
    if 2 * len(wrong) < len(column):
        return f"{text} in data row {wrong[0] + 1} ({len(wrong)} such rows): fill them in, or leave those rows out"
    others = f" (as are {listed(words[1:])})" if len(words) > 1 else ""
    return f"{text}: it is text{others}; leave such columns out, or make each a 0/1 column for every value it takes"


def _is_number(value: object) -> bool:
    try:
        float(str(value))
    except ValueError:
        return False
    return True


def listed(names: list[str]) -> str:
    return ", ".join(names[:12]) + (f", … ({len(names)} in all)" if len(names) > 12 else "")
