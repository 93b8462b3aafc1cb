"""What the command line works on: a problem from flags, a TOML file, a CSV file or a bundled data set."""

import tomllib
from dataclasses import dataclass
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pandas as pd
from sklearn import datasets

from replicajax import LinearRegression

BUNDLED = {
    "digits": datasets.load_digits,
    "diabetes": datasets.load_diabetes,
    "breast_cancer": datasets.load_breast_cancer,
    "wine": datasets.load_wine,
    "iris": datasets.load_iris,
}
TRAINING_FRACTION = 0.8


class ProblemError(Exception):
    """A problem the user can mend; the message is one line."""


@dataclass(frozen=True)
class Problem:
    name: str
    task: LinearRegression
    X: np.ndarray | None = None
    y: np.ndarray | None = None
    y_mean: float = 0.0
    y_scale: float = 1.0
    """Of the labels before they were standardised."""


def from_numbers(alpha: float | None, signal: float | None, noise: float | None, ridge: float | None) -> Problem:
    if alpha is None:
        raise ProblemError(
            "say what to solve: --alpha (with --signal, --noise), --problem FILE.toml or --data FILE.csv"
        )
    task = LinearRegression(alpha, 1.0 if signal is None else signal, 0.1 if noise is None else noise, ridge or 0.0)
    return Problem("linear regression", task)


def from_toml(path: Path) -> dict[str, float]:
    """alpha, signal, noise, ridge, beta, bits, width from a TOML file with those keys at the top or under [task]."""
    try:
        table = tomllib.loads(path.read_text())
    except OSError as error:
        raise ProblemError(f"--problem {path}: {error.strerror or error}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ProblemError(f"--problem {path} is not TOML: {error}") from None
    values = {**table, **table.get("task", {})}
    values.pop("task", None)
    known = {"alpha", "signal", "noise", "ridge", "beta", "bits", "width", "exponent"}
    for key, value in values.items():
        if key not in known:
            raise ProblemError(f"--problem {path}: unknown key {key!r}; known are {', '.join(sorted(known))}")
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise ProblemError(f"--problem {path}: {key} must be a number, got {value!r}")
    return values


def from_data(data: str, target: str | None, alpha: float | None, ridge: float | None) -> Problem:
    """Features and standardised labels of a bundled set or CSV file, and the task they amount to."""
    X, y = _bundled(data, target) if data in BUNDLED else _csv(Path(data), target)
    scale = y.std()
    if not np.isfinite(scale) or scale <= 1e-12 * np.abs(y).max():
        raise ProblemError(f"--data {data}: the target is the constant {y[0]:.6g}; there is nothing to learn")
    mean, y = y.mean(), (y - y.mean()) / scale
    try:
        task = LinearRegression.from_data(X, y, ridge=ridge or 0.0)
        available = float(task.alpha)
        wanted = TRAINING_FRACTION * available if alpha is None else alpha
        if alpha is not None and not 0 < alpha <= available:
            raise ProblemError(f"--alpha must be positive and at most rows/features = {available:.4g}, got {alpha:g}")
        task = LinearRegression(wanted, task.signal, task.noise, task.ridge)
    except ValueError as error:
        raise ProblemError(f"--data {data}: {error}") from None
    features = round(len(y) / available)
    name = f"{data}: {len(y)} rows, {features} features after whitening, label standardised"
    return Problem(name, task, X, y, float(mean), float(scale))


def _bundled(name: str, target: str | None) -> tuple[np.ndarray, np.ndarray]:
    if target is not None:
        raise ProblemError(f"--target is for CSV files; the bundled set {name} has its own")
    X, y = BUNDLED[name](return_X_y=True)
    return np.asarray(X, float), np.asarray(y, float)


def read_csv(path: Path) -> pd.DataFrame:
    """A table of finite numbers under distinct names."""
    if path.is_dir() or not path.exists():
        raise ProblemError(f"{path} {'is a directory' if path.is_dir() else 'does not exist'}; a CSV file is wanted")
    try:
        frame = pd.read_csv(path)
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError, OSError, ValueError) as error:
        raise ProblemError(f"{path} is not readable as CSV: {' '.join(str(error).split())}") from None
    columns = [str(c) for c in frame.columns]
    frame.columns = columns
    if len(set(columns)) != len(columns) or len(columns) < 2:
        raise ProblemError(f"{path} must have at least two distinct columns, got {_listed(columns)}")
    for column in columns:
        if not pd.api.types.is_numeric_dtype(frame[column]):
            example = next(v for v in frame[column] if not _is_number(v))
            raise ProblemError(f"{path}: column {column} must be numbers, got {str(example)[:40]!r}")
    missing = ~np.isfinite(frame.to_numpy(float))
    if missing.any():
        row, column = np.argwhere(missing)[0]
        raise ProblemError(
            f"{path}: {int(missing.sum())} missing or infinite values, the first in column "
            f"{columns[column]}, data row {row + 1}"
        )
    return frame


def _csv(path: Path, target: str | None) -> tuple[np.ndarray, np.ndarray]:
    try:
        frame = read_csv(path)
    except ProblemError as error:
        bundled = "" if path.exists() else f", or one of {', '.join(BUNDLED)}"
        raise ProblemError(f"--data {error}{bundled}") from None
    columns = list(frame.columns)
    if target is None:
        raise ProblemError(f"--target is needed with a CSV file; its columns are {_listed(columns)}")
    if target not in columns:
        raise ProblemError(f"--target {target}: no such column in {path}; its columns are {_listed(columns)}")
    values, at = frame.to_numpy(float), columns.index(target)
    return np.delete(values, at, axis=1), values[:, at]


def _is_number(value: object) -> bool:
    try:
        float(str(value))
    except ValueError:
        return False
    return True


def _listed(names: list[str]) -> str:
    return ", ".join(names[:12]) + (f", … ({len(names)} in all)" if len(names) > 12 else "")


def default_beta(task: LinearRegression) -> float:
    """1/noise, the temperature at which the likelihood is the teacher's own; zero temperature without noise."""
    noise = float(task.noise)
    return 1 / noise if noise > 0 else float(jnp.inf)
