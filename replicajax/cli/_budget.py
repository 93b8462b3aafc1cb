"""What a checkpoint may take, and which of its tensors are not free: read before anything heavy is imported."""

import re
from collections.abc import Sequence
from typing import NamedTuple

from replicajax.cli._request import ProblemError

_UNITS = {"b": 1, "kb": 1e3, "mb": 1e6, "gb": 1e9, "kib": 2**10, "mib": 2**20, "gib": 2**30}


class Budget(NamedTuple):
    """One of them."""

    mean_bits: float | None
    size: float | None


def read_budget(text: str) -> Budget:
    """4.5bits a weight, or 3.2GB of everything."""
    found = re.fullmatch(r"\s*([0-9.]+(?:e[0-9]+)?)\s*([a-z]*)\s*", text, re.IGNORECASE)
    try:
        number, unit = (float(found[1]), found[2].lower()) if found else (0.0, "")
    except ValueError:
        number, unit = 0.0, ""
    if number <= 0 or unit not in ("", "bit", "bits", *_UNITS):
        raise ProblemError(f"--budget must be bits per weight or a size, as in 4.5bits, 850MB or 3.2GB, got {text!r}")
    return Budget(None, number * _UNITS[unit]) if unit in _UNITS else Budget(number, None)


def read_pins(texts: Sequence[str]) -> list[tuple[str, str]]:
    pins = [(name, fmt) for name, _, fmt in (text.rpartition("=") for text in texts)]
    for text, (name, fmt) in zip(texts, pins, strict=True):
        if not name or not fmt:
            raise ProblemError(f"--pin must be a tensor and its format, as in '*.embed*=Q8_0', got {text!r}")
    return pins
