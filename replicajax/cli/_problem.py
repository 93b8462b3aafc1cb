"""What the command line works on: a problem from flags, a TOML file, a CSV file or a bundled data set."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from replicajax.cli._refusal import refused
from replicajax.cli._request import ProblemError, check, read_toml
from replicajax.cli._table import columns_of

if TYPE_CHECKING:
    import numpy as np

    from replicajax import LinearRegression

BUNDLED = ("digits", "diabetes", "breast_cancer", "wine", "iris")
TRAINING_FRACTION = 0.8


@dataclass(frozen=True)
class Asked:
    """A request known to be sound, before anything is computed."""

    numbers: Mapping[str, Any]
    """alpha, signal, ... as far as flags, else a TOML file, give them."""
    data: str | None = None
    rows: "tuple[np.ndarray, np.ndarray] | None" = None
    """Features and label of a CSV file."""

    def get(self, name: str, default: Any = None) -> Any:
        return self.numbers.get(name, default)


@dataclass(frozen=True)
class Problem:
    name: str
    task: "LinearRegression"
    X: Any = None
    y: Any = None
    y_mean: float = 0.0
    y_scale: float = 1.0
    """Of the labels before they were standardised."""


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
    return Asked(given, data, (frame.drop(columns=target).to_numpy(), frame[target].to_numpy()))


def pose(asked: Asked) -> Problem:
    """The task; of data, features and standardised labels too."""
    from replicajax import LinearRegression

    if asked.data is None:
        task = LinearRegression(
            asked.get("alpha"), asked.get("signal", 1.0), asked.get("noise", 0.1), asked.get("ridge", 0.0)
        )
        return Problem("linear regression", task)
    import numpy as np

    data, alpha = asked.data, asked.get("alpha")
    X, y = _bundled(data) if asked.rows is None else asked.rows
    size = np.abs(y).max() or 1.0
    mean, spread = (y / size).mean(), (y / size).std()
    if spread <= 1e-12:
        raise ProblemError(f"--data {data}: the target is the constant {y[0]:.6g}; there is nothing to learn")
    y = (y / size - mean) / spread
    try:
        task = LinearRegression.from_data(X, y, ridge=asked.get("ridge", 0.0))
    except ValueError as error:
        if not refused(error):
            raise
        raise ProblemError(f"--data {data}: {error}") from None
    available = float(task.alpha)
    if alpha is not None and alpha > available:
        raise ProblemError(
            f"--data {data}: --alpha must be positive and at most rows/features = {available:.4g}, got {alpha:g}"
        )
    wanted = TRAINING_FRACTION * available if alpha is None else alpha
    task = LinearRegression(wanted, task.signal, task.noise, task.ridge)
    features = round(len(y) / available)
    name = f"{data}: {len(y)} rows, {features} features after whitening, label standardised"
    return Problem(name, task, X, y, float(mean * size), float(spread * size))


def _bundled(name: str) -> "tuple[np.ndarray, np.ndarray]":
    from sklearn import datasets

    X, y = getattr(datasets, f"load_{name}")(return_X_y=True)
    return X.astype(float), y.astype(float)


def default_beta(noise: float) -> float:
    """1/noise, the temperature at which the likelihood is the teacher's own; zero temperature without noise."""
    return 1 / noise if noise > 0 else math.inf
