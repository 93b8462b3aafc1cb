"""Labels of new rows from what `replicajax amp --out` wrote: plain NumPy, nothing is compiled."""

import json
import zipfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from rich.console import Console

from replicajax._writing import whole
from replicajax.cli._console import written
from replicajax.cli._request import ProblemError
from replicajax.cli._table import listed, read_csv

_NAMES = ("codes", "levels", "x_mean", "map", "y_mean", "y_scale", "columns", "target")


class Model(NamedTuple):
    """A label is y_mean + y_scale (x − x_mean) map levels[codes]."""

    codes: np.ndarray
    levels: np.ndarray
    x_mean: np.ndarray
    map: np.ndarray
    y_mean: np.ndarray
    y_scale: np.ndarray
    columns: np.ndarray
    target: np.ndarray


class Error(NamedTuple):
    """Of labels that are known."""

    mean_square: float
    standard_error: float
    of_the_mean: float
    """Mean square about the mean of the labels themselves."""
    rows: int


def read_model(path: Path) -> Model:
    try:
        with np.load(path, allow_pickle=False) as archive:
            missing = [name for name in _NAMES if name not in archive]
            if missing:
                raise ProblemError(f"{path} lacks {', '.join(missing)}: no archive of replicajax amp --out")
            return Model(*(archive[name] for name in _NAMES))
    except (OSError, ValueError, EOFError, zipfile.BadZipFile):
        raise ProblemError(f"{path} is no model written by replicajax amp --out") from None


def predict(model: Model, table: Path) -> tuple[np.ndarray, Error | None]:
    frame = read_csv(table)
    names, target = [str(name) for name in model.columns], str(model.target)
    missing = [name for name in names if name not in frame.columns]
    if missing:
        raise ProblemError(f"{table} lacks columns the model was trained on: {listed(missing)}")
    X = frame[names].to_numpy(float)
    predicted = model.y_mean + model.y_scale * ((X - model.x_mean) @ (model.map @ model.levels[model.codes]))
    if target not in frame.columns:
        return predicted, None
    y = frame[target].to_numpy(float)
    squares = (y - predicted) ** 2
    spread = float(squares.std(ddof=1) / np.sqrt(len(y))) if len(y) > 1 else float("nan")
    return predicted, Error(float(squares.mean()), spread, float(y.var()), len(y))


def write_csv(path: Path, model: Model, predicted: np.ndarray) -> None:
    with whole(path) as file:
        file.write("\n".join([f"predicted {model.target}", *map(repr, predicted.tolist()), ""]).encode())


def as_json(predicted: np.ndarray, error: Error | None) -> str:
    of = None if error is None else {k: v if v == v else None for k, v in error._asdict().items()}
    return json.dumps({"predicted": predicted.tolist(), "error": of}, indent=2)


def show(out: Console, model: Model, predicted: np.ndarray, error: Error | None, path: Path | None) -> None:
    if path is None:
        for value in predicted.tolist():
            print(f"{value:.9g}")
    else:
        written(f"{len(predicted)} predictions", path)
    if error is not None:
        report: Any = out if path is not None else Console(stderr=True)
        report.print(
            f"mean squared error in {model.target} {error.mean_square:.6g} ± {error.standard_error:.2g} "
            f"over {error.rows} rows; "
            f"of their mean {error.of_the_mean:.6g}",
            highlight=False,
            markup=False,
            soft_wrap=True,
        )
