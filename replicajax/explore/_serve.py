"""The server: on this machine alone, with everything the page needs."""

import os
import signal
import socket
import sys
from collections.abc import Callable
from threading import Thread

from replicajax.cli._request import ProblemError

HOST = "127.0.0.1"
USUAL_PORT = 5006
_LARGEST = 2**28
"""Bytes of a file that is dropped, and a third more."""


def free_port(wanted: int | None) -> int:
    """The port wanted; if none is, the usual one where it is free, else any.

    Raises:
      ProblemError: another program has the port wanted.
    """
    for port in [wanted] if wanted is not None else [USUAL_PORT, 0]:
        with socket.socket() as trial:
            trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                trial.bind((HOST, port))
            except OSError as error:
                if port == wanted:
                    raise ProblemError(f"--port {port} cannot be used: {error.strerror}") from None
                continue
            return trial.getsockname()[1]
    raise ProblemError("--port: no port is free")


def make_server(port: int):
    """A Bokeh server of the page, not started; and whether any page is at work."""
    from bokeh.application import Application
    from bokeh.application.handlers.function import FunctionHandler
    from bokeh.server.server import Server
    from bokeh.settings import settings

    from replicajax.explore._page import Page

    settings.resources = "server"  # its own JavaScript, whatever the environment says
    pages: list[Page] = []

    def open_page(document) -> None:
        arguments = document.session_context.request.arguments if document.session_context else {}
        given = {name: values[-1].decode("utf-8", "replace") for name, values in arguments.items() if values}
        pages.append(Page(document, given))
        document.on_session_destroyed(lambda context, page=pages[-1]: pages.remove(page))

    server = Server(
        {"/": Application(FunctionHandler(open_page))},
        port=port,
        address=HOST,
        allow_websocket_origin=[f"{HOST}:{port}", f"localhost:{port}"],
        websocket_max_message_size=_LARGEST,
    )
    for each in server._http._sockets.values():
        # A message is several packets, which would wait 40 ms for each other; connections inherit it.
        each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return server, lambda: any(page.busy for page in pages)


def serve(port: int | None = None, browser: bool = True, say: Callable[[str], None] = print) -> None:
    """The page, until Ctrl-C.  It is reached from this machine only; files dropped on it stay in its memory.

    Args:
      port: to listen on; if None, 5006 or a free one.
      browser: open it in the user's browser.
      say: told the address.

    Raises:
      ProblemError: the port is taken.
    """
    from replicajax.explore._warm import warm

    chosen = free_port(port)
    Thread(target=warm, daemon=True).start()
    server, busy = make_server(chosen)
    address = f"http://{HOST}:{chosen}/"
    say(f"{address}  (Ctrl-C to stop)")
    if browser:
        server.io_loop.add_callback(_show, address)
    # An exception in the place of a handler may be raised where it is swallowed, in a callback of the garbage collector.
    signal.signal(signal.SIGINT, lambda *_: server.io_loop.add_callback(server.io_loop.stop))
    server.run_until_shutdown()
    if busy():  # a program half compiled cannot be waited for
        sys.stdout.flush()
        os._exit(0)


def _show(address: str) -> None:
    import webbrowser

    Thread(target=webbrowser.open, args=(address,), daemon=True).start()
