"""Connections that ask for nothing, or slowly, are closed; others go on."""

import json
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from urllib.parse import urlsplit

import pytest

from heads.serve.limits import Limits
from tests.heads.serve.conftest import listening

Connect = Callable[[], socket.socket]
HEAD_SECONDS, PATIENCE = 0.5, 30
HEAD = b"GET /head HTTP/1.1\r\nHost: 127.0.0.1\r\n"
LARGE = 32 << 20
"""Bytes that the system does not hold for a client that takes none."""
LARGE_HEAD = b"GET /large HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"


@contextmanager
def connecting(limits: Limits) -> Iterator[Connect]:
    """Serve a page without a head; yield what opens a connection to it."""
    from fastapi import FastAPI, Response

    app = FastAPI()

    @app.get("/large")
    async def large() -> Response:
        return Response(bytes(LARGE))

    @app.get("/head")
    async def head() -> dict[str, str]:
        return {"method": "gda"}

    with listening(app, limits) as url, ExitStack() as opened:

        def connect() -> socket.socket:
            place = (urlsplit(url).hostname or "", urlsplit(url).port or 0)
            return opened.enter_context(socket.create_connection(place, PATIENCE))

        yield connect


def answer_of(connection: socket.socket) -> bytes:
    """Read until an answer ends, or the connection."""
    data = b""
    while not data.endswith(b"}") and (more := connection.recv(4096)):
        data += more
    return data


def answer_to(connection: socket.socket) -> bytes:
    """Ask which head answers."""
    with suppress(ConnectionError):  # refused before it was asked
        connection.sendall(HEAD + b"\r\n")
    return answer_of(connection)


@pytest.fixture(scope="module")
def connect() -> Iterator[Connect]:
    with connecting(Limits(head_seconds=HEAD_SECONDS)) as opened:
        yield opened


@pytest.mark.parametrize("sent", [b"", b"G", HEAD], ids=["nothing", "a-letter", "all-but-the-end"])
def test_a_head_that_does_not_end_closes_its_connection(connect: Connect, sent: bytes) -> None:
    connection, start = connect(), time.monotonic()
    connection.sendall(sent)
    assert connection.recv(1) == b""
    assert HEAD_SECONDS / 2 < time.monotonic() - start < PATIENCE


def test_letters_one_by_one_win_no_time(connect: Connect) -> None:
    connection, start = connect(), time.monotonic()
    connection.settimeout(HEAD_SECONDS / 20)
    for letter in HEAD * 50:
        with suppress(TimeoutError):
            if not connection.recv(1):
                break
        connection.sendall(bytes([letter]))
    else:
        pytest.fail("the connection stayed open")
    assert time.monotonic() - start < PATIENCE


def test_a_later_head_has_the_same_time(connect: Connect) -> None:
    connection = connect()
    for _ in range(2):
        connection.sendall(HEAD + b"\r\n")
        assert answer_of(connection).endswith(b'{"method":"gda"}')
        time.sleep(HEAD_SECONDS / 2)  # an open connection may wait for uvicorn's longer time
    connection.sendall(HEAD)
    assert connection.recv(1) == b""


def test_a_head_in_two_parts_is_answered(connect: Connect) -> None:
    connection = connect()
    connection.sendall(HEAD)
    time.sleep(HEAD_SECONDS / 10)
    connection.sendall(b"\r\n")
    assert answer_of(connection).startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize("asks", [1, 200], ids=["once", "again-and-again"])
def test_who_takes_no_answer_is_cut_off(asks: int) -> None:
    with connecting(Limits(connections=1, seconds=HEAD_SECONDS)) as connect:
        connection = connect()
        connection.sendall(LARGE_HEAD * asks)
        start, told = time.monotonic(), b"HTTP/1.1 503"
        while told.startswith(b"HTTP/1.1 503") and time.monotonic() - start < PATIENCE:
            time.sleep(HEAD_SECONDS / 5)
            told = answer_to(connect())
        assert told.startswith(b"HTTP/1.1 200")
        assert time.monotonic() - start > HEAD_SECONDS / 2
        with suppress(ConnectionError):
            received = 0
            while more := connection.recv(1 << 20):
                received += len(more)
            assert received < LARGE


def test_who_takes_an_answer_slowly_gets_all_of_it() -> None:
    with connecting(Limits(seconds=20 * HEAD_SECONDS)) as connect:
        connection, received = connect(), 0
        connection.sendall(LARGE_HEAD)
        while received < LARGE and (more := connection.recv(LARGE // 20)):
            received += len(more)
            time.sleep(HEAD_SECONDS / 10)
        assert received >= LARGE


def test_more_connections_than_are_allowed_are_told_so() -> None:
    with connecting(Limits(connections=2)) as connect:
        held = [connect(), connect()]
        for one in held:
            one.sendall(HEAD + b"\r\n")
            assert answer_of(one).startswith(b"HTTP/1.1 200")
        head, _, body = answer_of(connect()).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 503")
        assert b"Retry-After: 1" in head
        assert json.loads(body)["detail"].startswith("Too many connections")
        held[0].close()
        time.sleep(0.2)
        again = connect()
        again.sendall(HEAD + b"\r\n")
        assert answer_of(again).startswith(b"HTTP/1.1 200")
