"""What the command line works on: a problem from flags, a TOML file, a CSV file or a bundled data set."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from replicajax.cli._refusal import refused
from replicajax.cli._request import ProblemError, check, read_toml
from replicajax.cli._table import columns_of, listed

if TYPE_CHECKING:
    import numpy as np

    from replicajax.models import Task

_FEWEST_ROWS = 8
BUNDLED = ("digits", "diabetes", "breast_cancer", "wine", "iris")


@dataclass(frozen=True)
class Asked:
    """A request known to be sound, before anything is computed."""

    numbers: Mapping[str, Any]
    """alpha, signal, ... as far as flags, else a TOML file, give them."""
    data: str | None = None
    rows: "tuple[np.ndarray, np.ndarray] | None" = None
    """Features and label of a CSV file."""
    columns: "list[str] | None" = None
    """Names of the features."""
    target: str | None = None

    def get(self, name: str, default: Any = None) -> Any:
        return self.numbers.get(name, default)


@dataclass(frozen=True)
class Problem:
    name: str
    task: "Task"
    X: Any = None
    y: Any = None
    columns: "list[str] | None" = None
    target: str | None = None


def ask(data: str | None, target: str | None, toml: Path | None, **flags: float | None) -> Asked:
    """Flags, over the file if there is one, in range; of a CSV file also the rows."""
    for name, value in flags.items():
        check(name, value)
    given = {name: value for name, value in flags.items() if value is not None}
    if data is None:
        if target is not None:
            raise ProblemError("--target needs --data FILE.csv")
        found = {**(read_toml(toml) if toml is not None else {}), **given}
        if "alpha" not in found:
            raise ProblemError(
                "say what to solve: --alpha (with --signal, --noise), --problem FILE.toml or --data FILE.csv"
            )
        return Asked(found)
    if toml is not None or not given.keys().isdisjoint({"signal", "noise"}):
        raise ProblemError("--data estimates signal and noise itself: leave out --problem, --signal and --noise")
    if data in BUNDLED:
        if target is not None:
            raise ProblemError(f"--target is for CSV files; the bundled set {data} has its own")
        return Asked(given, data)
    try:
        frame = columns_of(Path(data), target)
    except ProblemError as error:
        flag = "" if str(error).startswith("--") else "--data "
        bundled = "" if Path(data).exists() else f", or one of {', '.join(BUNDLED)}"
        raise ProblemError(f"{flag}{error}{bundled}") from None
    features = frame.drop(columns=target)
    return Asked(given, data, (features.to_numpy(), frame[target].to_numpy()), list(features.columns), target)


def pose(asked: Asked, seed: int = 0) -> Problem:
    """The task.  Of data the theory of the rows themselves: all of them, each left out once, or alpha per column, chosen at
    random, with errors on the rest."""
    if asked.data is None:
        from replicajax import LinearRegression

        task = LinearRegression(
            asked.get("alpha"), asked.get("signal", 1.0), asked.get("noise", 0.1), asked.get("ridge", 0.0)
        )
        return Problem("linear regression", task)
    import numpy as np

    from replicajax import GivenData
    from replicajax.models import Standard

    data, alpha, ridge = asked.data, asked.get("alpha"), asked.get("ridge", 0.0)
    X, y = _bundled(data) if asked.rows is None else asked.rows
    if len(y) < _FEWEST_ROWS:
        raise ProblemError(f"--data {data} must have at least {_FEWEST_ROWS} rows, got {len(y)}")
    size = np.abs(y).max() or 1.0
    if (y / size).std() <= 1e-12:
        raise ProblemError(f"--data {data}: the target is the constant {y[0]:.6g}; there is nothing to learn")
    try:
        kept = Standard.of(X, y / size).kept
        features = kept.size
        available = len(y) / features
        if alpha is not None and alpha > available:
            raise ProblemError(
                f"--data {data}: --alpha must be positive and at most rows/features = {available:.4g}, got {alpha:g}"
            )
        if alpha is None:
            task = GivenData.standardized(X, y, ridge)
        else:
            from replicajax.trials import split, training_rows

            rows = split(X, y, training_rows(X, y, alpha), np.random.default_rng(seed), rotate=False)
            task = GivenData(rows.X, rows.y, ridge, rows.X_test, rows.y_test)
    except ValueError as error:
        if not refused(error):
            raise
        raise ProblemError(f"--data {data}: {error}") from None
    left_out = np.setdiff1d(np.arange(X.shape[1]), kept)
    name = f"{data}: {len(y)} rows of {features} columns"
    if left_out.size:
        which = f": {listed([asked.columns[i] for i in left_out])}" if asked.columns else ""
        name += f" ({left_out.size} more left out, which no two rows vary in{which})"
    if np.unique(y).size == 2:
        name += f", label {y.min():g} or {y.max():g} fitted as a number"
    return Problem(f"{name}, standardised by the rows trained on", task, X, y, asked.columns, asked.target)


def _bundled(name: str) -> "tuple[np.ndarray, np.ndarray]":
    from sklearn import datasets

    X, y = getattr(datasets, f"load_{name}")(return_X_y=True)
    return X.astype(float), y.astype(float)


def default_beta(noise: float) -> float:
    """1/noise, the temperature at which the likelihood is the teacher's own; zero temperature without noise."""
    return 1 / noise if noise > 0 else math.inf
