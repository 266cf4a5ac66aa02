"""The socket, the server and its end."""

import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn
from fastapi import FastAPI

from featcache.errors import UsageError
from featcache.wording import Argument
from heads.serve.connections import protocol_for
from heads.serve.limits import Limits

BACKLOG = 1024
"""Connections that wait to be accepted."""
PATIENCE = 30
"""Seconds that requests in flight get when the server ends."""
SIGNALS = (signal.SIGINT, signal.SIGTERM)


def listen(host: str, port: int) -> socket.socket:
    """Open the socket.

    Args:
        host: Address or name of this machine.
        port: 0 takes a free one.

    Raises:
        UsageError: If the address is none of this machine, or the port is taken.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        opened = socket.socket(family, kind, protocol)
        try:
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            opened.bind(address)
            opened.listen(BACKLOG)
        except OSError:
            opened.close()
            raise
    except (OSError, UnicodeError) as error:
        why = getattr(error, "strerror", None) or error
        raise UsageError(
            f"The server cannot listen at {host[:80]}, port {port} ({why}). Choose another with ",
            Argument("port"),
            " (0 takes a free one) or ",
            Argument("host"),
            ".",
        ) from error
    return opened


def url_of(opened: socket.socket, host: str) -> str:
    """Return the address for a browser on this machine."""
    port = opened.getsockname()[1]
    shown = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, host)
    return f"http://{f'[{shown}]' if ':' in shown and shown[0] != '[' else shown}:{port}/"


def run(app: FastAPI, limits: Limits, opened: socket.socket, ready: Callable[[], None]) -> None:
    """Serve until SIGINT or SIGTERM; requests in flight are answered, then it returns.

    Args:
        app: The application.
        limits: How much is taken at once.
        opened: From `listen`.
        ready: Called before the first request is taken; connections are accepted already.
    """
    ready()
    with _quiet_signals():
        server_of(app, limits).run(sockets=[opened])


def server_of(app: FastAPI, limits: Limits) -> uvicorn.Server:
    """Return the server of an application."""
    config = uvicorn.Config(
        app,
        http=protocol_for(limits),
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=PATIENCE,
        lifespan="on",
        ws="none",
    )
    return uvicorn.Server(config)


@contextmanager
def _quiet_signals() -> Iterator[None]:
    """Ignore the signals that uvicorn raises again after it has ended because of them."""

    def nothing(*_: Any) -> None:
        return None

    before = {number: signal.signal(number, nothing) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
