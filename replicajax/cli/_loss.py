"""--loss: a name, and after a colon the number that some losses have."""

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from replicajax.cli._request import ProblemError

if TYPE_CHECKING:
    from replicajax.models import Loss


class _Number(NamedTuple):
    name: str
    usual: float | None
    """None where it must be told."""
    fits: Callable[[float], bool]
    wanted: str


_LOSSES: dict[str, _Number | None] = {
    "square": None,
    "absolute": None,
    "huber": _Number("delta", 1.0, lambda x: 0 < x < math.inf, "positive and finite"),
    "quantile": _Number("level", None, lambda x: 0 < x < 1, "between 0 and 1"),
    "logistic": None,
    "hinge": None,
    "perceptron": _Number("margin", 0.0, math.isfinite, "finite"),
}
_OF_MARGINS = ("logistic", "hinge", "perceptron")
LOSSES = "square, absolute, huber[:delta], quantile:level, logistic, hinge or perceptron[:margin]"


class LossName(NamedTuple):
    """A loss, before JAX is imported."""

    name: str
    numbers: tuple[float, ...] = ()

    @property
    def classifies(self) -> bool:
        """Whether it is one of labels ±1."""
        return self.name in _OF_MARGINS

    @property
    def square(self) -> bool:
        return self.name == "square"

    @property
    def cools(self) -> bool:
        """Whether it has a limit beta = inf; the perceptron's knows no temperature."""
        return self.name != "perceptron"

    def __str__(self) -> str:
        return ":".join([self.name, *(f"{x:g}" for x in self.numbers)])

    def made(self) -> "Loss":
        from replicajax import losses

        return getattr(losses, self.name.capitalize())(*self.numbers)


SQUARE = LossName("square")


def read_loss(text: str, flag: str = "--loss") -> LossName:
    """huber, huber:0.5, quantile:0.9, ..."""
    name, colon, given = text.partition(":")
    if name not in _LOSSES:
        raise ProblemError(f"{flag} must be {LOSSES}, got {text!r}")
    number = _LOSSES[name]
    if number is None:
        if colon:
            raise ProblemError(f"{flag} {name} takes no number, got {text!r}")
        return LossName(name)
    if not colon and number.usual is not None:
        return LossName(name, (number.usual,))
    try:
        value = float(given)
    except ValueError:
        value = math.nan
    if not number.fits(value):
        example = f"{name}:{0.5 if number.usual is None else number.usual or 0.1:g}"
        raise ProblemError(f"{flag} {name}: its {number.name} must be {number.wanted}, as in {example}, got {text!r}")
    return LossName(name, (value,))
