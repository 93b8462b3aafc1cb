"""A thread that works on the newest request and drops the others.

A request is a generator, so that what is found can be shown early and a stale request ends at its next step.
"""

import time
import traceback
from collections.abc import Callable, Iterator
from threading import Condition, Thread
from typing import Any, NamedTuple

from replicajax.explore._warm import warm


class Request(NamedTuple):
    steps: Callable[[], Iterator[Any]]
    show: Callable[[Any], None]
    """Of each thing found."""
    done: Callable[[str | None], None]
    """At the end, with what went wrong if anything did."""
    delay: float


class Lane:
    """One such thread; what it shows runs in the page's own."""

    def __init__(self, later: Callable[[Callable[[], None]], Any]):
        """later: queues a function for the page's thread."""
        self._later = later
        self._change = Condition()
        self._next: Request | None = None
        self._number = 0
        self._closed = False
        self.busy = False
        # A program that is being compiled must not keep the command from ending.
        Thread(target=self._work, daemon=True).start()

    def ask(
        self,
        steps: Callable[[], Iterator[Any]],
        show: Callable[[Any], None],
        done: Callable[[str | None], None],
        delay: float = 0.0,
    ) -> None:
        """Work on this, after `delay` seconds, unless something else is asked for meanwhile."""
        with self._change:
            self._number += 1
            self._next = Request(steps, show, done, delay)
            self._change.notify_all()

    def close(self) -> None:
        with self._change:
            self._number += 1
            self._next, self._closed = None, True
            self._change.notify_all()

    def _work(self) -> None:
        while True:
            with self._change:
                while self._next is None and not self._closed:
                    self._change.wait()
                if self._closed or self._next is None:
                    return
                request, number, self._next = self._next, self._number, None
                end = time.monotonic() + request.delay
                while number == self._number and (left := end - time.monotonic()) > 0:
                    self._change.wait(left)
            if number == self._number:
                self.busy = True
                self._run(request, number)
                self.busy = False

    def _run(self, request: Request, number: int) -> None:
        def page(function: Callable[[Any], None], value: Any) -> None:
            def current() -> None:
                if number == self._number:
                    function(value)

            self._later(current)

        try:
            warm()  # whatever is asked for, and whoever asks first
            for found in request.steps():
                if number != self._number:
                    return
                page(request.show, found)
            page(request.done, None)
        except Exception as error:  # of any kind: the page must say so, and go on
            from replicajax.cli._refusal import refused

            if not refused(error):
                traceback.print_exc()
            page(request.done, str(error) or type(error).__name__)
