"""Labels of new rows from what `replicajax amp --out` wrote: plain NumPy, nothing is compiled."""

import csv
import json
import zipfile
from io import StringIO
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from rich.console import Console

from replicajax._binomial import standard_error
from replicajax._writing import whole
from replicajax.cli._classes import Classes, matched
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
    classes: Classes | None
    """Whose labels are −1 and +1."""

    def says(self, predicted: np.ndarray) -> list[str] | list[float]:
        """Classes by the sign, or the numbers."""
        return predicted.tolist() if self.classes is None else self.classes.of(predicted)


class Error(NamedTuple):
    """Of labels that are known."""

    mean_square: float
    standard_error: float
    of_the_mean: float
    """Mean square about the mean of the labels themselves."""
    rows: int
    accuracy: float | None = None
    """Of two classes: the share of rows whose class is right."""
    accuracy_standard_error: float | None = None
    more_frequent: float | None = None
    """Share of the class that most of these rows are of."""


def read_model(path: Path) -> Model:
    try:
        with np.load(path, allow_pickle=False) as archive:
            missing = [name for name in _NAMES if name not in archive]
            if missing:
                raise ProblemError(f"{path} lacks {', '.join(missing)}: no archive of replicajax amp --out")
            names = archive["classes"].tolist() if "classes" in archive else []
            classes = Classes(*names) if len(names) == 2 else None
            return Model(**{name: archive[name] for name in _NAMES}, classes=classes)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile):
        raise ProblemError(f"{path} is no model written by replicajax amp --out") from None


def predict(model: Model, table: Path) -> tuple[np.ndarray, Error | None]:
    frame = read_csv(table, None if model.classes is None else str(model.target))
    names, target = [str(name) for name in model.columns], str(model.target)
    missing = [name for name in names if name not in frame.columns]
    if missing:
        raise ProblemError(f"{table} lacks columns the model was trained on: {listed(missing)}")
    X = frame[names].to_numpy(float)
    predicted = model.y_mean + model.y_scale * ((X - model.x_mean) @ (model.map @ model.levels[model.codes]))
    if target not in frame.columns:
        return predicted, None
    found = frame[target].to_numpy()
    y = found if model.classes is None else matched(f"{table}: label column {target}", found, model.classes)
    squares = (y - predicted) ** 2
    spread = float(squares.std(ddof=1) / np.sqrt(len(y))) if len(y) > 1 else float("nan")
    error = Error(float(squares.mean()), spread, float(y.var()), len(y))
    if model.classes is None:
        return predicted, error
    right, plus = float(((predicted > 0) == (y > 0)).mean()), float((y > 0).mean())
    return predicted, Error(*error[:4], right, standard_error(right, len(y)), max(plus, 1 - plus))


def write_csv(path: Path, model: Model, predicted: np.ndarray) -> None:
    text = StringIO()
    lines = csv.writer(text, lineterminator="\n")
    lines.writerow([f"predicted {model.target}"])
    lines.writerows([x if isinstance(x, str) else repr(x)] for x in model.says(predicted))
    with whole(path) as file:
        file.write(text.getvalue().encode())


def as_json(model: Model, predicted: np.ndarray, error: Error | None) -> str:
    of = None if error is None else {k: v if v == v else None for k, v in error._asdict().items()}
    return json.dumps({"predicted": model.says(predicted), "error": of}, indent=2)


def show(out: Console, model: Model, predicted: np.ndarray, error: Error | None, path: Path | None) -> None:
    if path is None:
        for value in model.says(predicted):
            print(value if isinstance(value, str) else f"{value:.9g}")
    else:
        written(f"{len(predicted)} predictions", path)
    if error is None:
        return
    report: Any = out if path is not None else Console(stderr=True)
    unit = ""
    if model.classes is not None and error.accuracy is not None:
        unit = f" ({model.classes.minus} −1, {model.classes.plus} +1)"
        line = (
            f"accuracy {error.accuracy:.4f} ± {error.accuracy_standard_error:.4f} over {error.rows} rows; "
            f"of the more frequent class {error.more_frequent:.4f}"
        )
        report.print(line, highlight=False, markup=False, soft_wrap=True)
    report.print(
        f"mean squared error in {model.target}{unit} {error.mean_square:.6g} ± {error.standard_error:.2g} "
        f"over {error.rows} rows; "
        f"of their mean {error.of_the_mean:.6g}",
        highlight=False,
        markup=False,
        soft_wrap=True,
    )
