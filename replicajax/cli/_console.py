"""Where the command writes: answers on standard output, everything else on standard error."""

import sys

from rich.console import Console
from rich.text import Text

out = Console(soft_wrap=True, width=None if sys.stdout.isatty() else 1000)
"""A table in a pipe is as wide as its contents."""
err = Console(stderr=True, soft_wrap=True)


def complain(message: str) -> int:
    """One line, whatever the message looks like; returns the exit code of a mistake."""
    err.print(Text.assemble(("replicajax:", "bold red"), " ", " ".join(message.split())))
    return 2


def written(what: str, path) -> None:
    out.print(f"{what}: {path}", markup=False, highlight=False)
