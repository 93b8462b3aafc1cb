"""What the command line works on: a problem from flags, a TOML file, a CSV file or a bundled data set."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from replicajax.cli._classes import Classes, coded
from replicajax.cli._loss import SQUARE, LossName
from replicajax.cli._refusal import refused
from replicajax.cli._request import ProblemError, check
from replicajax.cli._table import columns_of, listed
from replicajax.cli._toml import features, read_toml, rows

if TYPE_CHECKING:
    import numpy as np

    from replicajax.models import Task
    from replicajax.replica import Accuracy, Solution

_FEWEST_ROWS = 8
NOISE = 0.1
"""Variance of the label noise unless told."""
BUNDLED = ("digits", "diabetes", "breast_cancer", "wine", "iris")


@dataclass(frozen=True)
class Asked:
    """A request known to be sound, before anything is computed."""

    numbers: Mapping[str, Any]
    """alpha, signal, ..., loss as far as flags, else a TOML file, give them; features and rows as the file has them."""
    data: str | None = None
    rows: "tuple[np.ndarray, np.ndarray] | None" = None
    """Features and label of a CSV file."""
    columns: "list[str] | None" = None
    """Names of the features."""
    target: str | None = None
    classes: Classes | None = None
    """Of a label of two values, which is ±1 in `rows`."""

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
    classes: Classes | None = None
    threshold: float = 0.0
    """Between the labels of two classes, in the units of the task."""

    @property
    def usual(self) -> str:
        """What knowing nothing but the labels comes to."""
        import numpy as np

        assert self.classes is not None
        share = float((np.asarray(self.y) > 0).mean())
        return f"class {self.classes.plus if share >= 0.5 else self.classes.minus} is {max(share, 1 - share):.4f} of all rows"

    def accuracy(self, solution: "Solution") -> "Accuracy":
        """Expected of the theory, on the rows its errors are of."""
        from replicajax.replica import accuracy

        return accuracy(solution.task, solution.codebook, solution.beta, self.threshold)  # type: ignore[arg-type]

    def ridge_accuracy(self, ridge) -> float:
        from replicajax.replica import ridge_accuracy

        return ridge_accuracy(self.task, ridge, self.threshold)  # type: ignore[arg-type]


def ask(
    data: str | None, target: str | None, toml: Path | None, loss: LossName | None = None, **flags: float | None
) -> Asked:
    """Flags, over the file if there is one, in range; of a CSV file also the rows."""
    for name, value in flags.items():
        check(name, value)
    given: dict[str, Any] = {name: value for name, value in flags.items() if value is not None}
    if data is None:
        if target is not None:
            raise ProblemError("--target needs --data FILE.csv")
        given |= {} if loss is None else {"loss": loss}
        found = {**(read_toml(toml) if toml is not None else {}), **given}
        if "alpha" not in found:
            raise ProblemError(
                "say what to solve: --alpha (with --signal, --noise), --problem FILE.toml or --data FILE.csv"
            )
        check_temperature(found)
        return Asked(found)
    if loss is not None and not loss.square:
        raise ProblemError(
            f"--data takes the square loss only, the one whose theory of given rows is known; got --loss {loss}"
        )
    if toml is not None or not given.keys().isdisjoint({"signal", "noise"}):
        raise ProblemError("--data estimates signal and noise itself: leave out --problem, --signal and --noise")
    if data in BUNDLED:
        if target is not None:
            raise ProblemError(f"--target is for CSV files; the bundled set {data} has its own")
        return Asked(given, data)
    try:
        frame = columns_of(Path(data), target, words=True)
        y, classes = coded(f"{data}: label column {target}", frame[target].to_numpy())
    except ProblemError as error:
        flag = "" if str(error).startswith("--") else "--data "
        bundled = "" if Path(data).exists() else f", or one of {', '.join(BUNDLED)}"
        raise ProblemError(f"{flag}{error}{bundled}") from None
    table = frame.drop(columns=target)
    return Asked(given, data, (table.to_numpy(float), y), list(table.columns), target, classes)


def pose(asked: Asked, seed: int = 0) -> Problem:
    """The task.  Of data the theory of the rows themselves: all of them, each left out once, or alpha per column, chosen at
    random, with errors on the rest."""
    if asked.data is None:
        from replicajax import LinearRegression

        task = task_of(asked.numbers)
        return Problem("linear regression" if isinstance(task, LinearRegression) else "classification", task)
    import numpy as np

    from replicajax import GivenData
    from replicajax.models import Standard

    data, alpha, ridge = asked.data, asked.get("alpha"), asked.get("ridge", 0.0)
    X, y = _bundled(data) if asked.rows is None else asked.rows
    classes = asked.classes
    if asked.rows is None:
        y, classes = coded(data, y)
    if len(y) < _FEWEST_ROWS:
        raise ProblemError(f"--data {data} must have at least {_FEWEST_ROWS} rows, got {len(y)}")
    size = np.abs(y).max() or 1.0
    if (y / size).std() <= 1e-12:
        raise ProblemError(f"--data {data}: the target is the constant {y[0]:.6g}; there is nothing to learn")
    try:
        kept = Standard.of(X, y / size).kept
        count = kept.size
        available = len(y) / count
        if alpha is not None and alpha > available:
            raise ProblemError(
                f"--data {data}: --alpha must be positive and at most rows/features = {available:.4g}, got {alpha:g}"
            )
        if alpha is None:
            task, standard = GivenData.standardized(X, y, ridge), Standard.of(X, y)
        else:
            from replicajax.trials import split, training_rows

            parts = split(X, y, training_rows(X, y, alpha), np.random.default_rng(seed), rotate=False)
            task, standard = GivenData(parts.X, parts.y, ridge, parts.X_test, parts.y_test), parts.standard
    except ValueError as error:
        if not refused(error):
            raise
        raise ProblemError(f"--data {data}: {error}") from None
    left_out = np.setdiff1d(np.arange(X.shape[1]), kept)
    name = f"{data}: {len(y)} rows of {count} columns"
    if left_out.size:
        which = f": {listed([asked.columns[i] for i in left_out])}" if asked.columns else ""
        name += f" ({left_out.size} more left out, which no two rows vary in{which})"
    if classes is not None:
        name += f", {classes}"
    name += ", standardised by the rows trained on"
    return Problem(name, task, X, y, asked.columns, asked.target, classes, float(standard.labels(0.0)))


def task_of(numbers: Mapping[str, Any]) -> "Task":
    """A classification if the loss is of margins, else a regression."""
    from replicajax import Classification, LinearRegression

    loss: LossName = numbers.get("loss", SQUARE)
    values = numbers["alpha"], numbers.get("signal", 1.0), numbers.get("noise", NOISE), numbers.get("ridge", 0.0)
    kind = Classification if loss.classifies else LinearRegression
    return kind(*values, loss=loss.made(), features=features(numbers.get("features")), rows=rows(numbers.get("rows")))


def check_temperature(numbers: Mapping[str, Any]) -> None:
    """Not every loss has the limit beta = inf."""
    loss: LossName = numbers.get("loss", SQUARE)
    beta = numbers.get("beta", default_beta(numbers.get("noise", NOISE)))
    if not loss.cools and math.isinf(beta):
        why = "" if "beta" in numbers else ", which is 1/noise: give --beta"
        raise ProblemError(f"--beta must be finite with --loss {loss}, got inf{why}")


def _bundled(name: str) -> "tuple[np.ndarray, np.ndarray]":
    from sklearn import datasets

    X, y = getattr(datasets, f"load_{name}")(return_X_y=True)
    return X.astype(float), y.astype(float)


def default_beta(noise: float) -> float:
    """1/noise, the temperature at which the likelihood is the teacher's own; zero temperature without noise."""
    return 1 / noise if noise > 0 else math.inf
