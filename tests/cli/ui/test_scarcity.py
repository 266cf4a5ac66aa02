"""Too few files or too little memory: a sentence that says so, and nothing is taken for damaged."""

import errno
import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cli.ui import commands
from featcache.errors import BackboneError, UnreadableCacheError
from featcache.imaging.decode import decode
from featcache.scarcity import allow_files, lacking, share_of_files
from featcache.store.cache import Cache
from featcache.store.library import caches
from featcache.store.repair.verify import repair
from tests.cli.conftest import Run, call

NO_MEMORY = (
    MemoryError(),
    OSError(errno.ENOMEM, "Cannot allocate memory"),
    ImportError("libtorch_cpu.so: failed to map segment from shared object"),
    RuntimeError("[enforce fail at alloc_cpu.cpp:120] DefaultCPUAllocator: can't allocate memory"),
    RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB"),
)


@pytest.mark.parametrize("error", NO_MEMORY, ids=repr)
def test_what_says_that_there_is_too_little_memory(error: Exception) -> None:
    assert "There is not enough memory for" in lacking(error)
    app = commands.make_app("Hungry.")

    @app.command()
    def hungry() -> None:
        raise error

    @app.command()
    def other() -> None:
        """Make it a group."""

    answer = call(app, ["hungry"])
    assert answer.code == 1
    assert answer.err.startswith("error: There is not enough memory for")


def test_other_errors_are_not_about_memory() -> None:
    others = (ValueError("out of memory"), RuntimeError("shapes differ"), OSError(5, "I/O error"))
    assert [lacking(error) for error in others] == ["", "", ""]
    assert "further thread" in lacking(RuntimeError("can't start new thread"))
    assert "ulimit -n" in lacking(OSError(errno.EMFILE, "Too many open files"))


@pytest.fixture
def few_files() -> Iterator[None]:
    """Let this process open not a single file more."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    free = os.open(os.devnull, os.O_RDONLY)
    os.close(free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (free, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_cache_is_not_damaged_because_no_file_can_be_opened(
    home: Path, request: pytest.FixtureRequest
) -> None:
    (found,) = caches(home)
    cache = Cache.open(found.path)
    rows = cache.rows("global")
    before = {p: p.stat().st_ino for p in found.path.rglob("*")}
    request.getfixturevalue("few_files")
    for step in (
        lambda: rows.take(np.arange(3)),
        cache.listing,
        lambda: Cache.open(found.path).listing(),
        lambda: repair(found.path),
    ):
        with pytest.raises((UnreadableCacheError, OSError)) as caught:
            step()
        assert "Too many files are open" in (lacking(caught.value) or str(caught.value))
    assert {p: p.stat().st_ino for p in before} == before


def test_commands_work_with_few_files_or_say_so(home: Path, heads: Run) -> None:
    code = "import sys; from cli.featcache.app import main; sys.argv[0] = 'featcache'; main()"
    for most, fine in ((8, False), (16, True)):
        done = subprocess.run(
            [
                "bash",
                "-c",
                f'ulimit -n {most}; exec "$@"',
                "-",
                sys.executable,
                "-c",
                code,
                "verify",
            ],
            capture_output=True,
            text=True,
            check=False,
        )
        assert "Traceback" not in done.stderr
        assert (done.returncode == 0) == fine, done.stderr
        assert fine or "ulimit -n" in done.stderr


def test_a_process_is_allowed_more_files(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[int, int]] = []
    monkeypatch.setattr(resource, "getrlimit", lambda _: (64, 4096))
    monkeypatch.setattr(resource, "setrlimit", lambda _, pair: asked.append(pair))
    allow_files()
    assert asked == [(4096, 4096)]
    assert [share_of_files(n) for n in (64, 2)] == [4, 2]


def test_a_picture_is_not_unreadable_because_memory_is_short(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def full(*_: object, **__: object) -> None:
        raise MemoryError

    monkeypatch.setattr(Image, "open", full)
    with pytest.raises(BackboneError, match="not enough memory"):
        decode(b"\xff\xd8\xff")
