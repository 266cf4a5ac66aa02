"""A chat endpoint that answers well, or does what servers and models do."""

import json
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Answering = Callable[["Handler"], None]


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: "ChatServer"

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.asked.append((self.path, dict(self.headers), json.loads(body)))
        number = len(self.server.asked) - 1
        answers = self.server.answers
        answers[min(number, len(answers) - 1)](self)

    def send(self, status: int, body: bytes, **headers: object) -> None:
        """Send a whole answer; of a name `_` is `-`."""
        self.send_response(status)
        for name, value in {"Content_Length": len(body), **headers}.items():
            self.send_header(name.replace("_", "-"), str(value))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


class ChatServer(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.answers: list[Answering] = [sentences("a photo of something with soft fur.")]
        """What is answered, one after the other; the last one from then on."""
        self.asked: list[tuple[str, dict[str, str], dict[str, Any]]] = []
        self.released = threading.Event()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of clients that are gone."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1"

    def questions(self) -> list[str]:
        """Return what was asked about, oldest first."""
        return [body["messages"][1]["content"] for _, _, body in self.asked]


@contextmanager
def chatting() -> Iterator[ChatServer]:
    server = ChatServer()
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.released.set()
        server.shutdown()
        server.server_close()


def completion(content: object) -> bytes:
    return json.dumps({"choices": [{"message": {"content": content}}]}).encode()


def sentences(*texts: str) -> Answering:
    return says(json.dumps(list(texts)))


def says(content: object) -> Answering:
    return lambda h: h.send(200, completion(content))


def status(code: int, body: bytes = b"", **headers: object) -> Answering:
    return lambda h: h.send(code, body, **headers)


def fresh(*, starts: str = "a photo of thing", count: int = 3) -> Answering:
    """Answer with sentences that no earlier answer had."""

    def answer(h: Handler) -> None:
        number = len(h.server.asked)
        texts = [f"{starts} number{number} with mark{i}." for i in range(count)]
        h.send(200, completion(json.dumps(texts)))

    return answer


def stalls(h: Handler) -> None:
    """Say nothing until the test ends."""
    h.server.released.wait(20)
    h.close_connection = True


def cut(h: Handler) -> None:
    """Promise more bytes than come."""
    h.send_response(200)
    h.send_header("Content-Length", "5000")
    h.end_headers()
    h.wfile.write(b'{"choices": [')
    h.wfile.flush()
    h.close_connection = True


def huge(h: Handler) -> None:
    """Send without end."""
    h.send_response(200)
    h.send_header("Connection", "close")
    h.end_headers()
    h.close_connection = True
    block = b" " * (1 << 16)
    for _ in range(200):
        h.wfile.write(block)


def names_of(questions: Sequence[str]) -> list[str]:
    """Return the classes that questions are about."""
    return [json.loads(q.split("Class: ")[1].split(". Write")[0]) for q in questions]
