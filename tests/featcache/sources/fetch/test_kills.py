"""A fetch that is killed at any change of the disk: never taken for whole, and it goes on."""

import itertools
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from featcache.sources.fetch import partial
from featcache.sources.fetch.archive import Archive
from featcache.sources.fetch.fetch import fetch, is_fetched
from tests.featcache.sources.fetch.hostile import JPEG, tar, zipped
from tests.featcache.sources.fetch.serving import FileServer

CHANGES = ("open", "write", "fsync", "replace", "rename", "unlink", "mkdir", "rmdir", "ftruncate")
"""Functions of `os` through which everything on the disk changes."""

IMAGES = zipped(*((f"images/{i}.jpg", JPEG * 9 + bytes([i])) for i in range(3)))
LISTS = tar(("lists/train.txt", b"0.jpg"))
MAT = b"a matrix" * 1000
FILES = {
    **{f"images/{i}.jpg": JPEG * 9 + bytes([i]) for i in range(3)},
    "lists/train.txt": b"0.jpg",
    "m.mat": MAT,
}
MINE = "mine/split.json"


def count_changes(last: int | None, *, torn: bool) -> Callable[[], int]:
    """Die at change number `last`: before it, or in the midst of it where `torn`."""
    numbers = itertools.count(1)

    def counted(original: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **options: Any) -> Any:
            if original.__name__ == "open" and not args[1] & (os.O_WRONLY | os.O_RDWR):
                return original(*args, **options)
            if next(numbers) == last:
                if torn and original.__name__ == "write":
                    original(args[0], args[1][: len(args[1]) // 2])
                elif torn:
                    original(*args, **options)
                os.kill(os.getpid(), signal.SIGKILL)
            return original(*args, **options)

        return call

    for name in CHANGES:
        setattr(os, name, counted(getattr(os, name)))
    return lambda: next(numbers) - 1


def live(archives: list[Archive], into: Path, last: int | None, *, torn: bool = False) -> int:
    """Fetch in a process of its own that dies at a change; return how many there were, or -1."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        tell, code = os.write, 1
        try:
            count = count_changes(last, torn=torn)
            fetch(archives, into)
            tell(writer, str(count()).encode())
            code = 0
        finally:
            os._exit(code)
    os.close(writer)
    _, status = os.waitpid(child, 0)
    said = os.read(reader, 100)
    os.close(reader)
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0
    return int(said) if said else -1


def content(into: Path) -> dict[str, bytes]:
    return {
        p.relative_to(into).as_posix(): p.read_bytes()
        for p in into.rglob("*")
        if p.is_file() and p.name != ".fetched.json"
    }


def story(
    archives: list[Archive], into: Path, last: int, *, torn: bool, beside: bool, twice: bool
) -> None:
    """Kill a fetch, look at what is there, and let the next one finish."""
    mine = {MINE: b"{}"} if beside else {}
    for name, data in mine.items():
        (into / name).parent.mkdir(parents=True)
        (into / name).write_bytes(data)
    for _ in range(1 + twice):
        live(archives, into, last, torn=torn)
        if is_fetched(archives, into):
            assert content(into) == FILES | mine
        elif not beside:
            assert not into.exists(), "a part of a data set in the place of a whole one"
    fetch(archives, into)
    assert content(into) == FILES | mine
    assert {p.name for p in into.parent.iterdir()} == {into.name}


@pytest.fixture
def archives(server: FileServer, describe: Callable[..., Archive]) -> list[Archive]:
    return [
        describe(IMAGES, server.put("/i.zip", IMAGES), file="i.zip"),
        describe(LISTS, server.put("/l.tar", LISTS), file="l.tar"),
        Archive("m.mat", (server.put("/m.mat", MAT),)),
    ]


@pytest.fixture(autouse=True)
def small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(partial, "SYNC_EVERY", 1000)


@pytest.mark.long
@pytest.mark.parametrize("beside", [False, True], ids=["alone", "beside"])
def test_killed_now_and_then(tmp_path: Path, archives: list[Archive], beside: bool) -> None:
    count = live(archives, tmp_path / "first" / "pets", None)
    assert count > 60
    for last in range(3, count, 13):
        place = tmp_path / str(last) / "pets"
        story(archives, place, last, torn=last % 2 == 0, beside=beside, twice=False)


@pytest.mark.long
@pytest.mark.parametrize("twice", [False, True], ids=["once", "twice"])
@pytest.mark.parametrize("torn", [False, True], ids=["before", "amid"])
@pytest.mark.parametrize("beside", [False, True], ids=["alone", "beside"])
def test_killed_at_every_change(
    tmp_path: Path, archives: list[Archive], beside: bool, torn: bool, twice: bool
) -> None:
    count = live(archives, tmp_path / "first" / "pets", None)
    for last in range(1, count + 12):
        place = tmp_path / str(last) / "pets"
        story(archives, place, last, torn=torn, beside=beside, twice=twice)
