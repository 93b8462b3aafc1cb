"""Files that are written whole or not at all."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO


@contextmanager
def whole(path: str | Path) -> Iterator[BinaryIO]:
    """A file beside `path` to write to, moved there when complete: what was there stays until then, whatever happens.

    Raises:
      OSError: the folder does not exist or cannot be written, `path` is a directory, the disk is full.
    """
    target = Path(path).resolve()  # of a link, what it points to
    partial = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        if target.is_dir():
            raise IsADirectoryError(None, "it is a directory")
        if not target.parent.is_dir():
            raise FileNotFoundError(None, f"folder {str(target.parent)!r} does not exist")
        try:
            with partial.open("wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            if target.exists():
                shutil.copymode(target, partial)
            partial.replace(target)
        finally:
            partial.unlink(missing_ok=True)
    except OSError as error:
        raise type(error)(f"{str(path)!r} cannot be written: {error.strerror or error}") from None


def refuse_overwriting(path: str | Path, *inputs: str | Path | None) -> None:
    """Links, relative paths and other spellings are the same file.

    Raises:
      ValueError: `path` is one of the files that are read.
    """
    target = Path(path).resolve()
    for source in inputs:
        if source is not None and target.exists() and os.path.exists(source) and target.samefile(source):
            raise ValueError(f"{str(path)!r} would overwrite {str(source)!r}, which is read: write to another file")
