"""Connections that are open but send no request: how many, and for how long.

The guard sees requests, which begin when their head is complete. A connection without one would
hold a file of the process for as long as its client likes, so here its time and its number end.
"""

import asyncio

from uvicorn.protocols.http.h11_impl import H11Protocol

from heads.serve.limits import Limits

BODY = b'{"detail": "Too many connections are open. Try again in a second."}'
FULL = (
    b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nConnection: close\r\n"
    b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (len(BODY), BODY)
)


def protocol_for(limits: Limits) -> type[asyncio.Protocol]:
    """Return the HTTP of uvicorn with an end to connections that ask for nothing.

    Args:
        limits: How many connections there may be, and the seconds for the head of a request.
    """

    class Bounded(H11Protocol):
        _late: asyncio.TimerHandle | None = None

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            if len(self.connections) > limits.connections:
                transport.write(FULL)
                transport.close()
            else:
                self._watch()

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            self._watch()

        def connection_lost(self, exc: Exception | None) -> None:
            self._stop()
            super().connection_lost(exc)

        def _watch(self) -> None:
            """Start the time for the head of a request; stop it once that head is complete."""
            if self.cycle is not None and not self.cycle.response_complete:
                self._stop()
            elif self._late is None:
                self._late = self.loop.call_later(limits.head_seconds, self.transport.close)

        def _stop(self) -> None:
            if self._late is not None:
                self._late.cancel()
                self._late = None

    return Bounded
