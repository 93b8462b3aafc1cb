"""JAX, imported once and in the background: the page stands before it is there."""

import gc
from threading import Lock

_lock = Lock()
_started: list[bool] = []


def warm() -> None:
    """Waits until JAX is set up as the command sets it up."""
    with _lock:
        if not _started:
            from replicajax.cli._engine import start

            start()
            from replicajax.explore import _curves  # noqa: F401  (what the first picture needs)

            gc.freeze()  # looking through all of JAX for garbage would be a pause one sees
            _started.append(True)
