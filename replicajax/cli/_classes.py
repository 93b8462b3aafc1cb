"""A label of two values: which is −1 and which +1."""

from typing import TYPE_CHECKING, NamedTuple

from replicajax.cli._request import ProblemError

if TYPE_CHECKING:
    import numpy as np


class Classes(NamedTuple):
    """In numeric or alphabetical order."""

    minus: str
    plus: str

    def __str__(self) -> str:
        return f"label {self.minus} as −1, {self.plus} as +1"

    def of(self, labels: "np.ndarray") -> list[str]:
        """Names by the sign of a label or of its prediction."""
        return [self.plus if label > 0 else self.minus for label in labels.tolist()]


def coded(where: str, column: "np.ndarray") -> "tuple[np.ndarray, Classes | None]":
    """±1 for a column of two values; other numbers as they are, other words refused."""
    import numpy as np

    values = np.unique(column)
    if len(values) == 2:
        return np.where(column == values[1], 1.0, -1.0), Classes(*map(_name, values.tolist()))
    if column.dtype.kind in "fiu":
        return column.astype(float), None
    if len(values) == 1:
        raise ProblemError(f"{where} is {_name(values.tolist()[0])!r} in every row; there is nothing to learn")
    some = ", ".join(map(_name, values[:4].tolist())) + (", …" if len(values) > 4 else "")
    raise ProblemError(f"{where} must be numbers, or two classes such as no and yes, got {len(values)} words: {some}")


def matched(where: str, column: "np.ndarray", classes: Classes) -> "np.ndarray":
    """±1 for labels of these classes."""
    import numpy as np

    names = np.array([_name(value) for value in column.tolist()])
    if strangers := sorted({*names.tolist()} - {*classes}):
        raise ProblemError(f"{where} must be {classes.minus} or {classes.plus}, as trained on, got {strangers[0]!r}")
    return np.where(names == classes.plus, 1.0, -1.0)


def _name(value: object) -> str:
    return f"{value:.12g}" if isinstance(value, (int, float)) and not isinstance(value, bool) else str(value)
