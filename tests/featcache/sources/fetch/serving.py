"""A server of files that keeps to the protocol, or does what servers on the internet do."""

import hashlib
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Answering = Callable[["Handler", bytes], None]
"""Called with the request and the file that is at its address."""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: "FileServer"

    def do_GET(self) -> None:
        self.server.asked.append((self.path, {k.lower(): v for k, v in self.headers.items()}))
        data = self.server.files.get(self.path, b"")
        self.server.answers.get(self.path, missing)(self, data)

    def start(self, status: int, **headers: object) -> None:
        """Send the header of an answer; of a name `_` is `-`."""
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), str(value))
        self.end_headers()

    def say(self, data: bytes) -> None:
        self.wfile.write(data)
        self.wfile.flush()

    def cut(self) -> None:
        """End the connection."""
        self.wfile.flush()
        self.close_connection = True

    def first(self) -> int:
        """Return the first byte that is asked for."""
        found = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        return int(found[1]) if found else 0

    def log_message(self, *_: Any) -> None:
        pass


class FileServer(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, bytes] = {}
        self.answers: dict[str, Answering] = {}
        self.asked: list[tuple[str, dict[str, str]]] = []

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of clients that are gone."""

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}{path}"

    def put(self, path: str, data: bytes, answering: Answering | None = None) -> str:
        self.files[path] = data
        self.answers[path] = answering or whole
        return self.url(path)

    def ranges(self) -> list[int]:
        """Return the first byte of every request so far."""
        found = (re.fullmatch(r"bytes=(\d+)-", h.get("range", "")) for _, h in self.asked)
        return [int(f[1]) if f else 0 for f in found]


@contextmanager
def serving() -> Iterator[FileServer]:
    server = FileServer()
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()


def etag_of(data: bytes) -> str:
    return f'"{hashlib.md5(data).hexdigest()}"'


def whole(h: Handler, data: bytes) -> None:
    """Answer as the standard has it: ranges, and If-Range."""
    first, etag = h.first(), etag_of(data)
    if h.headers.get("If-Range", etag) != etag:
        first = 0
    if first and first >= len(data):
        h.start(416, Content_Range=f"bytes */{len(data)}", Content_Length=0)
        return
    span = {"Content_Range": f"bytes {first}-{len(data) - 1}/{len(data)}"} if first else {}
    h.start(206 if first else 200, Content_Length=len(data) - first, ETag=etag, **span)
    h.say(data[first:])


def missing(h: Handler, _: bytes) -> None:
    h.start(404, Content_Length=0)


def status(code: int, **headers: object) -> Answering:
    def answer(h: Handler, _: bytes) -> None:
        h.start(code, Content_Length=0, **headers)

    return answer


def redirect(target: str) -> Answering:
    return status(302, Location=target)


def cut_after(count: int) -> Answering:
    """Give so many bytes of every answer and end the connection."""

    def answer(h: Handler, data: bytes) -> None:
        first = h.first()
        span = {"Content_Range": f"bytes {first}-{len(data) - 1}/{len(data)}"} if first else {}
        h.start(206 if first else 200, Content_Length=len(data) - first, ETag=etag_of(data), **span)
        h.say(data[first : first + count])
        h.cut()

    return answer


def in_turn(*answers: Answering) -> Answering:
    """Answer each request in another way, the last for ever."""
    left = list(answers)

    def answer(h: Handler, data: bytes) -> None:
        (left.pop(0) if len(left) > 1 else left[0])(h, data)

    return answer
