"""Files that are written whole or not at all."""

import glob
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

KEY = 16
"""Digits of a key."""
try:
    import fcntl
except ImportError:  # of Windows, where work that was cut off begins anew
    fcntl = None


@contextmanager
def whole(path: str | Path, key: str | None = None) -> Iterator[BinaryIO]:
    """A file beside `path` to write to, moved there when complete: what was there stays until then, whatever happens.

    With a `key` of all that the file will hold, what an earlier process had written when it was killed or interrupted is there
    still, to be read and gone on with; while another process writes it, or without a key, one begins anew.

    Raises:
      OSError: the folder does not exist or cannot be written, `path` is a directory, the disk is full.
    """
    target = Path(path).resolve()  # of a link, what it points to
    partial, done, kept = target.with_name(f".{target.name}.{os.getpid()}.part"), False, False
    try:
        if target.is_dir():
            raise IsADirectoryError(None, "it is a directory")
        if not target.parent.is_dir():
            raise FileNotFoundError(None, f"folder {str(target.parent)!r} does not exist")
        shared = target.with_name(f".{target.name}.{key}.part")
        if key is not None:
            _forget(target, shared)
        file = None if key is None else _locked(shared)
        partial = partial if file is None else shared
        try:
            with partial.open("wb") if file is None else file as file:
                try:
                    yield file
                except KeyboardInterrupt:
                    kept = partial == shared
                    raise
                file.flush()
                os.fsync(file.fileno())
                if target.exists():
                    shutil.copymode(target, partial)
                partial.replace(target)
                done = True
        finally:
            if not (done or kept):
                partial.unlink(missing_ok=True)
    except OSError as error:
        raise type(error)(f"{str(path)!r} cannot be written: {error.strerror or error}") from None


def _forget(target: Path, but: Path) -> None:
    """What others have left that will not be gone on with."""
    for path in target.parent.glob(f".{glob.escape(target.name)}.{'[0-9a-f]' * KEY}.part"):
        file = None if path == but else _locked(path)
        if file is not None:
            path.unlink(missing_ok=True)
            file.close()


def _locked(path: Path) -> BinaryIO | None:
    """To be read and added to by this process alone; None if another one has it."""
    if fcntl is None:
        return None
    file = path.open("a+b")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.path.exists(path) and os.path.samestat(os.fstat(file.fileno()), os.stat(path)):
            return file  # and not one that its writer has moved away meanwhile
    except OSError:
        pass
    file.close()
    return None


def refuse_overwriting(path: str | Path, *inputs: str | Path | None) -> None:
    """Links, relative paths and other spellings are the same file.

    Raises:
      ValueError: `path` is one of the files that are read.
    """
    target = Path(path).resolve()
    for source in inputs:
        if source is not None and target.exists() and os.path.exists(source) and target.samefile(source):
            raise ValueError(f"{str(path)!r} would overwrite {str(source)!r}, which is read: write to another file")
