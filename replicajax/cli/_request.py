"""What was asked, checked by plain Python: nothing heavy is imported before the whole request is known to be sound."""

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

from replicajax._writing import refuse_overwriting

PICTURES = (".png", ".pdf", ".svg")
WEIGHTS = (".safetensors", ".npz")


class ProblemError(Exception):
    """A request the user can mend; the message is one line."""


_POSITIVE = (lambda x: 0 < x < math.inf), "positive and finite"
_NOT_NEGATIVE = (lambda x: 0 <= x < math.inf), "finite and not negative"
_ABOVE_ONE = (lambda x: 1 < x < math.inf), "above 1 and finite"
_FRACTION = (lambda x: 0 <= x < 1), "in [0, 1)"
_RANGES: dict[str, tuple[Callable[[float], bool], str]] = {
    "alpha": _POSITIVE,
    "signal": _POSITIVE,
    "noise": _NOT_NEGATIVE,
    "ridge": _NOT_NEGATIVE,
    "beta": ((lambda x: x > 0), "positive, or inf"),
    "bits": ((lambda x: x in range(1, 17)), "a whole number from 1 to 16"),
    "width": _POSITIVE,
    "exponent": _POSITIVE,
    "factor": ((lambda x: 1 <= x < math.inf), "at least 1 and finite"),
    "damping": _FRACTION,
    "df": _POSITIVE,
    "spectrum": _ABOVE_ONE,
    "source": _ABOVE_ONE,
    "size": ((lambda x: 1 <= x < math.inf), "at least 1 and finite"),
    "batch": ((lambda x: 1 <= x < math.inf), "at least 1 and finite"),
    "reach": _POSITIVE,
    "step": _POSITIVE,
    "average": _FRACTION,
    "mantissa": ((lambda x: x >= 1), "at least 1, or inf"),
}


def check(name: str, value: float | None, flag: str | None = None) -> None:
    """`value`, if there is one, is in the range of what is called `name` here."""
    fits, wanted = _RANGES[name]
    if value is not None and not fits(value):
        raise ProblemError(f"{flag or f'--{name}'} must be {wanted}, got {value}")


def check_all(**values: float | None) -> None:
    for name, value in values.items():
        check(name, value)


def choice(flag: str, value: str, options: Sequence[str]) -> None:
    if value not in options:
        raise ProblemError(f"{flag} must be one of {', '.join(options)}, got {value!r}")


def whole_numbers(flag: str, text: str, most: int, least: int = 1) -> list[int]:
    """1-4 or 2,3,8."""
    try:
        spans = [[int(x) for x in part.split("-")] for part in text.split(",")]
        values = sorted({b for span in spans for b in range(span[0], span[-1] + 1) if len(span) <= 2})
    except ValueError:
        values = []
    if not values or values[0] < least or values[-1] > most:
        raise ProblemError(f"{flag} must be whole numbers from {least} to {most}, as in 1-4 or 2,3,8, got {text!r}")
    return values


def numbers(flag: str, text: str, what: str = "numbers", fits: Callable[[float], bool] = math.isfinite) -> list[float]:
    """1,2.5,4."""
    try:
        values = [float(x) for x in text.split(",")]
    except ValueError:
        values = []
    if not values or not all(map(fits, values)):
        raise ProblemError(f"{flag} must be {what} separated by commas, got {text!r}")
    return values


def level_list(text: str | None) -> list[float] | None:
    if text is None:
        return None
    values = numbers("--levels", text)
    if len(values) < 2 or any(b <= a for a, b in zip(values, values[1:], strict=False)):
        raise ProblemError(f"--levels must be strictly increasing, at least two of them, got {text!r}")
    return values


def axis(name: str, text: str) -> float | int | list[float]:
    """A number; a list 1,2,4; or a range low:high:count, evenly spaced (low:high:count:log for equal ratios)."""
    flag = f"--{name}"
    if name == "bits":
        values: list[Any] = whole_numbers(flag, text, 16)
    else:
        try:
            values = _range(text) if ":" in text else [float(part) for part in text.split(",")]
        except ValueError:
            wanted = "a number, a list 1,2,4 or a range 0.5:4:64[:log] of at most 10^6 values"
            raise ProblemError(f"{flag} must be {wanted}, got {text!r}") from None
        for value in values:
            check(name, value)
        steps = [b - a for a, b in zip(values, values[1:], strict=False)]
        if not (all(s > 0 for s in steps) or all(s < 0 for s in steps)):
            raise ProblemError(f"{flag} must increase or decrease, got {text!r}")
    return values[0] if len(values) == 1 else values


def _range(text: str) -> list[float]:
    low, high, count, *log = text.split(":")
    a, b, n = float(low), float(high), int(count)
    if log not in ([], ["log"]) or n < 1 or n > 10**6 or not math.isfinite(a) or not math.isfinite(b):
        raise ValueError
    if log and not (a > 0 and b > 0):
        raise ValueError
    shares = [i / (n - 1) for i in range(n)] if n > 1 else [0.0]
    return [a * (b / a) ** x if log else a + (b - a) * x for x in shares]


def readable(flag: str, path: Path | None, suffixes: Sequence[str] = ()) -> None:
    """An input: a file that is there and opens."""
    if path is None:
        return
    try:
        with path.open("rb"):
            pass
    except OSError as error:
        raise ProblemError(f"{flag} {path}: {error.strerror or error}") from None
    if suffixes and path.suffix not in suffixes:
        raise ProblemError(f"{flag} must end in {_either(suffixes)}, got {path}")


def checkpoint(flag: str, path: Path) -> list[Path]:
    """Weights: a file, or the index or folder of a sharded checkpoint; all files that reading them touches."""
    if path.is_dir() or path.suffix == ".json":
        from replicajax.formats._files import parts

        try:
            return parts(path)
        except (OSError, ValueError) as error:
            raise ProblemError(f"{flag} {error}") from None
    readable(flag, path, WEIGHTS)
    return [path]


def informed(
    flag: str,
    weights: Path,
    fisher: Path | None,
    moments: Path | None,
    scores: Path | None = None,
    gptq: bool = False,
) -> list[Path]:
    """A checkpoint and what is known beside it; all files that are read."""
    known = {"--fisher": fisher, "--moments": None if gptq else moments}
    given = [f"{name} {path}" for name, path in known.items() if path is not None]
    if scores is not None and given:
        raise ProblemError(f"--scores says what errors cost by itself, got {' and '.join(given)} too")
    if gptq and moments is None:
        raise ProblemError("--gptq needs --moments, the second moments of layers' inputs")
    found = checkpoint(flag, weights)
    if scores is not None and not scores.is_file():
        raise ProblemError(f"--scores {scores} is not a file")
    found += [] if scores is None else [scores]
    for name, path in (("--fisher", fisher), ("--moments", moments)):
        found += [] if path is None else checkpoint(name, path)
    return found


def writable(flag: str, path: Path | None, suffixes: Sequence[str], *inputs: str | Path | None) -> None:
    """An output: a file, none of the inputs, in a folder that exists and takes new files."""
    if path is None:
        return
    if path.suffix not in suffixes or not path.absolute().parent.is_dir():
        raise ProblemError(f"{flag} must end in {_either(suffixes)} in a folder that exists, got {path}")
    if path.is_dir():
        raise ProblemError(f"{flag} {path} is a directory; a file is wanted")
    try:
        refuse_overwriting(path, *inputs)
    except ValueError as error:
        raise ProblemError(f"{flag} {error}") from None
    try_writing(flag, path)


def try_writing(flag: str, path: Path) -> None:
    """Whether the folder of `path` takes a new file: trying is the only answer that links and mounts cannot fool."""
    try:
        with TemporaryFile(dir=path.resolve().parent):
            pass
    except OSError as error:
        raise ProblemError(f"{flag} {path} cannot be written: {error.strerror or error}") from None


def _either(options: Sequence[str]) -> str:
    return " or ".join(filter(None, (", ".join(options[:-1]), options[-1])))
