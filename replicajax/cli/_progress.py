"""What is being done and how far it is, on standard error: a bar on a terminal, elsewhere a plain line now and then."""

from threading import Event, Thread
from time import monotonic

from replicajax.cli._console import err

_EVERY = 5.0
"""Seconds between plain lines; what takes less says nothing."""


class Progress:
    def __init__(self, what: str):
        self._what, self._done, self._total = what, 0, None
        self._bar = self._thread = None

    def stage(self, what: str, total: int | None = None) -> None:
        """What comes next, and in how many steps if that is known."""
        self._what, self._done, self._total = what, 0, total
        if self._bar is not None:
            self._bar.reset(self._task, description=what, total=total)

    def advance(self, steps: int = 1) -> None:
        self._done += steps
        if self._bar is not None:
            self._bar.advance(self._task, steps)

    def __enter__(self):
        if err.is_terminal:
            from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
            from rich.progress import Progress as Bar

            columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
            self._bar = Bar(*columns, TimeRemainingColumn(), console=err, transient=True)
            self._task = self._bar.add_task(self._what, total=None)
            self._bar.start()
        else:
            self._over = Event()
            self._thread = Thread(target=self._tell, daemon=True)
            self._thread.start()
        return self

    def __exit__(self, *_):
        if self._bar is not None:
            self._bar.stop()
        elif self._thread is not None:
            self._over.set()
            self._thread.join()

    def _tell(self) -> None:
        start = monotonic()
        while not self._over.wait(_EVERY):
            done = "" if self._total is None else f", {self._done} of {self._total}"
            err.print(f"replicajax: {self._what}{done}, {monotonic() - start:.0f} s", markup=False, highlight=False)
