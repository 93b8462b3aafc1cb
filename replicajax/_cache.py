"""Compiled programs, kept between processes."""

import os
import warnings
from pathlib import Path
from tempfile import TemporaryFile

import jax
from jax.experimental.compilation_cache.compilation_cache import reset_cache
from platformdirs import user_cache_path

_LIMIT = 2**29
"""Bytes kept; the programs of the whole test suite take less."""


def enable_cache(path: str | Path | None = None) -> Path | None:
    """Keep what JAX compiles on disk: the next process that needs the same program reads it in milliseconds.

    Sets JAX's persistent compilation cache for the rest of this process, with its thresholds at zero (it would skip
    what compiles in under a second, which is everything here).  The `replicajax` command calls this by itself; importing
    replicajax does not.

        import replicajax as rj
        rj.enable_cache()

    Programs are filed under what they compute and the versions and processor they were compiled for, so the folder can be
    shared by projects and processes, and deleted at any time.  At each call the least recently used ones beyond 512 MiB
    go.  Whoever can write to the folder can run code as you: keep it to yourself.

    Args:
      path: the folder; if None, the environment variable REPLICAJAX_CACHE (a folder, or off), else the one JAX was
        already told to use, else the user's cache folder.

    Returns:
      The folder; None if there is no cache: it is off, or the folder cannot be written.
    """
    wanted = path or os.environ.get("REPLICAJAX_CACHE") or jax.config.values["jax_compilation_cache_dir"]
    if str(wanted) == "off":
        return None
    try:
        folder = Path(wanted or user_cache_path("replicajax")).expanduser().absolute()
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with TemporaryFile(dir=folder):
            _prune(folder)
    except (OSError, RuntimeError):  # the latter where there is no home at all
        return None
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
    reset_cache()  # JAX may have looked for a cache before, and found none
    # A program cut short (by a kill, a full disk, another process that is still writing it) is compiled again.
    warnings.filterwarnings("ignore", message="Error (reading|writing) persistent compilation cache entry")
    return folder


def _prune(folder: Path) -> None:
    """JAX's own bound would need a lock, and fails for good once a process dies between its two files of an entry."""
    entries = []
    for entry in folder.glob("*-cache"):
        try:
            stat = entry.stat()
        except FileNotFoundError:  # by another process, just now
            continue
        entries.append((stat.st_size > 0, max(stat.st_atime, stat.st_mtime), stat.st_size, entry))
    left = sum(size for *_, size, _ in entries)
    for whole, _, size, entry in sorted(entries):
        if whole and left <= _LIMIT:
            break
        entry.unlink(missing_ok=True)
        left -= size
