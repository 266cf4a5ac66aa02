"""Requests: where they may lead, and how long they may take."""

import hashlib
import random
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from featcache.errors import DownloadNeededError
from featcache.sources.fetch import connect
from featcache.sources.fetch.archive import Archive
from featcache.sources.fetch.download import Downloaded, download
from tests.featcache.sources.fetch.serving import (
    FileServer,
    Handler,
    cut_after,
    in_turn,
    redirect,
    whole,
)

DATA = random.Random(1).randbytes(3 << 20)
OTHER = random.Random(2).randbytes(3 << 20)
Describe = Callable[..., Archive]


def same(got: Downloaded, data: bytes = DATA) -> bool:
    return got.path.read_bytes() == data and got.digest.endswith(hashlib.sha256(data).hexdigest())


def test_redirects_are_followed_and_keep_the_range(
    server: FileServer, tmp_path: Path, describe: Describe
) -> None:
    server.put("/b", DATA, in_turn(cut_after(100), whole))
    assert same(download(describe(DATA, server.put("/a", b"", redirect("/b"))), tmp_path))
    assert server.ranges() == [0, 0, 100, 100]


def test_redirects_in_a_circle_end(server: FileServer, tmp_path: Path, describe: Describe) -> None:
    server.put("/b", b"", redirect("/a"))
    with pytest.raises(DownloadNeededError, match="from address to address more than 8 times"):
        download(describe(DATA, server.put("/a", b"", redirect("/b"))), tmp_path)
    assert len(server.asked) == 9


@pytest.mark.parametrize(
    ("target", "reason"),
    [
        ("file:///etc/passwd", "no http or https address"),
        ("ftp://127.0.0.1/a", "no http or https address"),
        ("data:text/plain,x", "no http or https address"),
        ("http://[", "no address"),
        ("http://:80/a", "no http or https address"),
        ("", "without saying where to"),
    ],
)
def test_redirects_to_anything_but_the_web_are_refused(
    server: FileServer, tmp_path: Path, describe: Describe, target: str, reason: str
) -> None:
    with pytest.raises(DownloadNeededError, match=reason):
        download(describe(DATA, server.put("/a", b"", redirect(target))), tmp_path)


@pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://h/a", "/etc/passwd", "http://h/a b"])
def test_addresses_other_than_of_the_web_are_refused(
    tmp_path: Path, describe: Describe, url: str
) -> None:
    with pytest.raises(DownloadNeededError, match=r"no http or https|characters that no address"):
        download(describe(DATA, url), tmp_path)


def test_https_never_leads_to_http() -> None:
    connect.check_address("https://a/b", "http://a/b")
    with pytest.raises(connect.TransferError, match="from https to http"):
        connect.check_address("http://a/b", "https://a/b")


def test_an_endless_body_of_a_redirect_is_not_read(
    server: FileServer, tmp_path: Path, describe: Describe
) -> None:
    stopped = threading.Event()

    def endless(h: Handler, _: bytes) -> None:
        h.start(302, Location="/b")
        try:
            while True:
                h.say(bytes(1 << 16))
        except OSError:
            stopped.set()

    server.put("/b", DATA)
    assert same(download(describe(DATA, server.put("/a", b"", endless)), tmp_path))
    assert stopped.wait(5)


HELD = 20
"""Seconds that a server keeps a client; a busy machine takes some to give up."""


def stall(h: Handler, data: bytes) -> None:
    h.start(200, Content_Length=len(data))
    h.say(data[:100])
    time.sleep(HELD)


def silent(h: Handler, data: bytes) -> None:
    time.sleep(HELD)


def slow_header(h: Handler, data: bytes) -> None:
    h.wfile.write(b"HTTP/1.1 200 OK\r\nX: ")
    for _ in range(10 * HELD):
        h.say(b"x")
        time.sleep(0.1)


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (stall, "nothing came for"),
        (silent, "nothing came for"),
        (slow_header, "no answer within"),
    ],
)
def test_every_wait_is_bounded(
    server: FileServer,
    tmp_path: Path,
    describe: Describe,
    answer: Callable[[Handler, bytes], None],
    reason: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("featcache.sources.fetch.download.WAITS", ())
    monkeypatch.setattr(connect, "SILENCE", 0.5)
    monkeypatch.setattr(connect, "ANSWER", 1.5)
    begin = time.monotonic()
    with pytest.raises(DownloadNeededError, match=reason):
        download(describe(DATA, server.put("/a", DATA, answer)), tmp_path)
    assert time.monotonic() - begin < HELD - 1


def test_a_trickle_counts_as_standing_still(
    server: FileServer, tmp_path: Path, describe: Describe, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connect, "SLOW_FOR", 0.5)
    monkeypatch.setattr("featcache.sources.fetch.download.WAITS", ())

    def trickle(h: Handler, data: bytes) -> None:
        h.start(200, Content_Length=len(data))
        for _ in range(20):
            h.say(b"x")
            time.sleep(0.1)

    with pytest.raises(DownloadNeededError, match="bytes came in"):
        download(describe(DATA, server.put("/a", DATA, trickle)), tmp_path)
