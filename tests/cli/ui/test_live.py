"""The line that says how far a command is."""

import time

import pytest

from cli.ui.live import Live
from featcache.sources.fetch.progress import Bytes


def test_bytes_are_shown_with_their_unit_rate_and_time_left(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    line, said, now = Live(quiet=True), list[str](), [0.0]
    monkeypatch.setattr(line, "update", said.append)
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    report = line.counter()
    report("downloading a.zip", Bytes(50_000_000), Bytes(150_000_000))
    now[0] = 2.0
    report("downloading a.zip", Bytes(60_000_000), Bytes(150_000_000))
    report("unpacking a.tar", Bytes(5), Bytes(0))
    report("waiting for process 7", 0, 0)
    report("drawing", 3, 10)
    assert said == [
        "downloading a.zip 50.0 MB/150.0 MB",
        "downloading a.zip 60.0 MB/150.0 MB  5.0 MB/s  ETA 18.0 s",
        "unpacking a.tar 5 B",
        "waiting for process 7",
        "drawing 3/10",
    ]
