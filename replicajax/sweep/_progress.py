"""A bar on standard error: share done, points per second, time left."""

import sys

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar
from rich.text import Text


class Progress:
    """Shown if `wanted`, or if None on a terminal; never for work that is already done."""

    def __init__(self, wanted: bool | None, total: int, done: int):
        console = Console(stderr=True, force_terminal=True if wanted else None)
        shown = (sys.stderr.isatty() if wanted is None else wanted) and done < total
        columns = TextColumn("points"), BarColumn(), MofNCompleteColumn(), _Rate(), TimeRemainingColumn(compact=True)
        self._bar = Bar(*columns, console=console, disable=not shown)
        self._task = self._bar.add_task("points", total=total, completed=done)

    def __enter__(self):
        self._bar.start()
        return self

    def __exit__(self, *_):
        self._bar.stop()

    def advance(self, points: int) -> None:
        self._bar.advance(self._task, points)


class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text("" if task.speed is None else f"{task.speed:,.0f} points/s", style="progress.data.speed")
