"""Refusing foreign, large and slow requests before they are read.

    400   a Host header that is none of the server's, or several: DNS rebinding
    403   a request that a page of another site made the browser send
    408   a body that does not arrive in time
    413   a body that is too large
    415   a body that is no form with files
    429   more requests, or more bytes, than are held at once

Every answer gets headers that forbid other sites to show or read it.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from heads.serve.hosts import Hosts, same_origin
from heads.serve.limits import Limits

POLICY = "Content-Security-Policy"
SAFE = ("GET", "HEAD")
"""Methods that change nothing and read no body."""
HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
NOTHING = "default-src 'none'; frame-ancestors 'none'"
"""The policy of answers that are no page."""
RETRY = {"Retry-After": "1"}


class Guard:
    """Stands before an application.

    Args:
        app: The application.
        hosts: The names of the server.
        limits: How much is taken at once.
    """

    def __init__(self, app: ASGIApp, hosts: Hosts, limits: Limits) -> None:
        self._app, self._hosts, self._limits = app, hosts, limits
        self._requests = self._held = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or answer it with a refusal."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        send = _guarded(send)
        headers = Headers(scope=scope)
        size = 0 if scope["method"] in SAFE else self._size(headers)
        refusal = self._refusal(scope["method"], headers, size)
        if refusal is not None:
            answer = JSONResponse({"detail": refusal.detail}, refusal.status_code, refusal.headers)
            await answer(scope, receive, send)
            return
        self._requests += 1
        self._held += size
        try:
            await self._app(scope, self._bounded(receive, size), send)
        finally:
            self._requests -= 1
            self._held -= size

    def _size(self, headers: Headers) -> int:
        """Return how many bytes a body may have: what is announced, else as many as are allowed."""
        announced = headers.get("content-length", "")
        plain = announced.isascii() and announced.isdecimal() and len(announced) < 19
        return int(announced) if plain else self._limits.request_bytes

    def _refusal(self, method: str, headers: Headers, size: int) -> HTTPException | None:
        limits, hosts = self._limits, headers.getlist("host")
        if len(hosts) != 1 or not self._hosts.allows(hosts[0]):
            return HTTPException(
                400,
                "This server does not answer under that name. Use the address that it printed, or "
                "start it with --allow-host NAME.",
            )
        origin = headers.get("origin")
        site = headers.get("sec-fetch-site", "same-origin") if method not in SAFE else "none"
        foreign = origin is not None and not same_origin(origin, hosts[0])
        if foreign or site not in ("same-origin", "none"):
            return HTTPException(403, "A page of another site sent this; only pages of this may.")
        if size > limits.request_bytes:
            return HTTPException(
                413,
                f"The request has {size:,} bytes, above the limit of {limits.request_bytes:,}. "
                f"Send fewer or smaller images.",
            )
        kind = headers.get("content-type", "").partition(";")[0].strip().lower()
        if method == "POST" and kind != "multipart/form-data":
            return HTTPException(
                415,
                "Send images as files of a form (multipart/form-data), as curl -F "
                "images=@photo.jpg does.",
            )
        if self._requests >= limits.requests or self._held + size > limits.held_bytes:
            return HTTPException(429, "The server is busy. Try again in a second.", RETRY)
        return None

    def _bounded(self, receive: Receive, size: int) -> Receive:
        """Return what receives a body of at most so many bytes, before its time is over."""
        end = time.monotonic() + self._limits.seconds
        got, is_whole = 0, False

        async def bounded() -> Message:
            nonlocal got, is_whole
            if is_whole:  # what comes now is the end of the connection, however late
                return await receive()
            try:
                async with asyncio.timeout(end - time.monotonic()):
                    message = await receive()
            except TimeoutError:
                raise HTTPException(
                    408, f"The request did not arrive within {self._limits.seconds:g} seconds."
                ) from None
            got += len(message.get("body", b""))
            is_whole = not message.get("more_body", False)
            if got > size:
                raise HTTPException(
                    413, f"The request has more than {size:,} bytes. Send fewer or smaller images."
                )
            return message

        return bounded


def _guarded(send: Send) -> Callable[[Message], Awaitable[None]]:
    """Return what sends answers with the headers that all of them have."""

    async def guarded(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, value in HEADERS.items():
                headers[name] = value
            headers.setdefault(POLICY, NOTHING)
        await send(message)

    return guarded
