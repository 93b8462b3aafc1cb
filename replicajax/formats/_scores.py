"""What someone has measured: the loss of a model with one tensor in one format.

Of formats not measured, the loss goes as the square of their error, as second order has it (theory 4.3):

    score_t,j = error_t,j² · geometric mean over the measured formats i of score_t,i / error_t,i²
"""

import csv
from pathlib import Path

import numpy as np

from replicajax.formats._menu import Measured

_COLUMNS = ("tensor", "format", "score")


def read_scores(path: str | Path, measured: Measured) -> Measured:
    """Scores of a CSV with the columns tensor, format, score: one row at least for every tensor.

    Raises:
      FileNotFoundError, ValueError: no such file or columns; tensors or formats that were not tried; a tensor without a
        score; scores that are not positive numbers.
    """
    names, formats = [t.name for t in measured.tensors], [each.name for each in measured.formats]
    found = np.full(measured.score.shape, np.nan)
    for line, (name, fmt, text) in enumerate(_rows(path), 2):
        at = f"scores {str(path)!r}, line {line}:"
        if name not in names:
            raise ValueError(f"{at} tensor must be one of the file that is quantized, got {name!r}")
        if fmt.upper() not in formats:
            raise ValueError(f"{at} format must be one of the menu ({', '.join(formats)}), got {fmt!r}")
        try:
            score = float(text)
        except ValueError:
            score = np.nan
        if not 0 < score < np.inf:
            raise ValueError(f"{at} score must be a positive number, got {text!r}")
        i, j = names.index(name), formats.index(fmt.upper())
        if not np.isfinite(measured.score[i, j]):
            raise ValueError(f"{at} {fmt!r} does not fit the rows of {name!r}")
        found[i, j] = score
    known = np.isfinite(found)
    missing = [names[i] for i in np.flatnonzero(~known.any(1))]
    if missing:
        raise ValueError(f"scores {str(path)!r} must have every tensor, got none of {', '.join(missing[:4])}")
    with np.errstate(divide="ignore", invalid="ignore"):
        log_cost = np.log(found) - 2 * np.log(measured.error)
    usable = known & np.isfinite(log_cost)  # an error of 0 tells nothing of others
    cost = np.exp(np.where(usable, log_cost, 0).sum(1) / np.maximum(usable.sum(1), 1))
    untold = [names[i] for i in np.flatnonzero(~usable.any(1))]
    if untold:
        raise ValueError(f"scores {str(path)!r} must be of formats that lose something, got none for {untold[0]!r}")
    score = np.where(known, found, cost[:, None] * np.square(measured.error))
    return measured._replace(score=np.where(np.isfinite(measured.score), score, np.inf), unit="measured")


def _rows(path: str | Path) -> list[tuple[str, str, str]]:
    def text(cell: str | None) -> str:
        return (cell or "").strip()

    with open(path, newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file)
        columns = [str(column).strip() for column in reader.fieldnames or ()]
        if not set(_COLUMNS) <= set(columns):
            raise ValueError(
                f"scores {str(path)!r} must have the columns tensor, format, score, got {', '.join(columns)}"
            )
        reader.fieldnames = columns
        return [(text(row["tensor"]), text(row["format"]), text(row["score"])) for row in reader]
