"""What tabs have in common: nothing is computed before one is opened, and an error is said where the result would be."""

from collections.abc import Callable
from typing import Any

from replicajax.explore._widgets import RED, said


class Tab:
    """`watched`: the parts of the state that its pictures are of."""

    watched: frozenset[str]

    def __init__(self, page: Any):
        self.page, self.opened = page, False

    def open(self) -> None:
        """Computes, the first time."""
        if not self.opened:
            self.opened = True
            self.refresh(set(self.watched))

    def refresh(self, changed: set[str]) -> None:
        """After the state has changed in these."""
        raise NotImplementedError


def ends(status: Any) -> Callable[[str | None], None]:
    """What a lane does at the end: the status is empty, or what went wrong."""

    def done(error: str | None) -> None:
        status.text = said(error or "", RED)

    return done
