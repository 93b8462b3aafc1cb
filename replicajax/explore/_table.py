"""A dropped CSV file as a task: read as the command reads one, from memory, with its messages."""

from io import BytesIO, TextIOWrapper
from pathlib import Path
from typing import IO, NamedTuple, cast

from replicajax.cli._classes import coded
from replicajax.cli._problem import Asked, Problem, pose
from replicajax.cli._refusal import refused
from replicajax.cli._request import ProblemError
from replicajax.cli._table import columns_of, header


class Dropped:
    """As much of a `Path` as the reader of CSV files asks for."""

    def __init__(self, name: str, content: bytes):
        self.name, self._content = name, content

    def __str__(self) -> str:
        return self.name

    def is_dir(self) -> bool:
        return False

    def exists(self) -> bool:
        return True

    def open(self, mode: str = "r", encoding: str | None = None, newline: str | None = None) -> IO:
        raw = BytesIO(self._content)
        return raw if "b" in mode else TextIOWrapper(raw, encoding, newline=newline)


class Table(NamedTuple):
    """A file whose header has been read; `problem_of` reads the rest."""

    file: Dropped
    columns: list[str]

    @property
    def last(self) -> str:
        return self.columns[-1]


def table_of(name: str, content: bytes) -> Table:
    """Raises ProblemError for what has no header of a CSV file."""
    file = Dropped(name, content)
    return Table(file, header(cast(Path, file))[0])


def problem_of(table: Table, target: str) -> Problem:
    """The theory of its rows, standardised, each left out once.

    Raises:
      ProblemError: text features, missing values, too few rows, a constant label.
    """
    name = str(table.file)
    try:
        frame = columns_of(cast(Path, table.file), target, words=True)
        y, classes = coded(f"{name}: label column {target}", frame[target].to_numpy())
        rest = frame.drop(columns=target)
        return pose(Asked({}, name, (rest.to_numpy(float), y), list(rest.columns), target, classes))
    except (ProblemError, ValueError) as error:
        if not isinstance(error, ProblemError) and not refused(error):
            raise
        message = str(error).removeprefix("--data ")
        raise ProblemError(message) from None
