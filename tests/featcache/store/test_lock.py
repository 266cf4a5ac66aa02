import errno
import fcntl
import os
import socket
import threading
from pathlib import Path
from typing import Any

import pytest

from featcache.errors import CacheError
from featcache.store.cache import Cache
from featcache.store.lock import OWNER, is_locked, writer_lock
from featcache.store.settle import LOCK


def quiet(_: str) -> None:
    pass


def test_a_second_writer_is_told_who_writes(tmp_path: Path) -> None:
    with (
        writer_lock(tmp_path, quiet),
        pytest.raises(CacheError, match=rf"pid {os.getpid()}\) is writing to"),
        writer_lock(tmp_path, quiet),
    ):
        pass
    with writer_lock(tmp_path, quiet):
        pass


def test_nobody_leaves_a_trace_in_the_lock_file(tmp_path: Path) -> None:
    assert not is_locked(tmp_path)
    with writer_lock(tmp_path, quiet):
        assert (tmp_path / LOCK).read_text() == f"{os.getpid()}\n"
        assert is_locked(tmp_path)
    assert (tmp_path / LOCK).read_bytes() == b""
    assert not is_locked(tmp_path)


def test_the_lock_of_a_cache_nests_and_is_shared_by_threads(cache: Cache) -> None:
    seen: list[str] = []

    def work() -> None:
        with cache.lock():
            cache.finish(components=[], images=0, seconds=0.0, complete=False)
        seen.append("done")

    with cache.lock(), cache.lock():
        thread = threading.Thread(target=work)
        thread.start()
        thread.join(10)
        with pytest.raises(CacheError, match="is writing"), Cache.open(cache.path).lock():
            pass
    assert seen == ["done"]
    with Cache.open(cache.path).lock():
        pass


def test_an_error_in_the_block_lets_go_of_the_lock(cache: Cache) -> None:
    with pytest.raises(KeyboardInterrupt), cache.lock():
        raise KeyboardInterrupt
    with Cache.open(cache.path).lock():
        pass


@pytest.fixture
def lockless(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)


@pytest.mark.usefixtures("lockless")
def test_without_locks_a_file_takes_their_place_and_this_is_said(tmp_path: Path) -> None:
    said: list[str] = []
    with writer_lock(tmp_path, said.append):
        assert (tmp_path / OWNER).exists()
        with (
            pytest.raises(CacheError, match=r"If no such process runs.*delete"),
            writer_lock(tmp_path, quiet),
        ):
            pass
    assert not (tmp_path / OWNER).exists()
    assert len(said) == 1
    assert "has no locks" in said[0]


@pytest.mark.usefixtures("lockless")
def test_an_owner_that_died_here_is_replaced_and_one_elsewhere_is_not(tmp_path: Path) -> None:
    (tmp_path / OWNER).write_text(f"999999999 {socket.gethostname()}\n")
    with writer_lock(tmp_path, quiet):
        pass
    (tmp_path / OWNER).write_text("999999999 another-machine\n")
    with pytest.raises(CacheError, match="pid 999999999"), writer_lock(tmp_path, quiet):
        pass


def test_a_look_at_the_lock_does_not_stop_a_writer(tmp_path: Path) -> None:
    (tmp_path / LOCK).touch()
    handle = os.open(tmp_path / LOCK, os.O_RDONLY)
    fcntl.flock(handle, fcntl.LOCK_SH)  # as `is_locked` of another process holds it for a moment
    timer = threading.Timer(0.01, os.close, [handle])
    timer.start()
    with writer_lock(tmp_path, quiet):
        assert is_locked(tmp_path)
    timer.join()
