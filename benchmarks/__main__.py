"""`python -m benchmarks`: prints every table, and keeps them for the site (docs/benchmarks.txt)."""

import sys
from contextlib import redirect_stdout
from io import TextIOBase
from pathlib import Path

import jax

from benchmarks import amp, cold, dynamics, formats, layers, others, phase_diagram, saddle, scaling

KEPT = Path(__file__).parents[1] / "docs" / "benchmarks.txt"


class _Both(TextIOBase):
    """The screen, and what it said."""

    def __init__(self) -> None:
        self.screen, self.said = sys.stdout, ""

    def write(self, text: str) -> int:
        self.said += text
        return self.screen.write(text)

    def flush(self) -> None:
        self.screen.flush()


if __name__ == "__main__":
    jax.config.update("jax_enable_x64", True)
    both = _Both()
    with redirect_stdout(both):
        print(others.header(None))
        for part in (cold, saddle, amp, phase_diagram, formats, layers, dynamics, scaling, others):
            part.report()
            both.flush()
    KEPT.write_text(both.said)
