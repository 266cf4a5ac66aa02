"""`heads predict --out` on a disk that is full, fails or cannot be written."""

import errno
import os
import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.reliability.faults import Fault, failing

Run = Callable[..., Any]
FORMATS = ("csv", "jsonl", "parquet")


@contextmanager
def room_for(size: int) -> Iterator[None]:
    """Let no file of this process grow beyond some bytes: native code is stopped by this, too."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def check(run: Run, photos: Path, out: Path, says: str) -> None:
    """See that the command says what is wrong and that the file before it stays, alone."""
    answer = run("predict", "last", str(photos), "--out", str(out))
    assert answer.code == 1, answer
    assert answer.out == ""
    (line,) = [line for line in answer.err.splitlines() if line.startswith("error: ")]
    assert f"{out} cannot be written" in line
    assert says in line
    assert "Choose another with --out." in line
    assert out.read_bytes() == b"before"
    assert list(out.parent.iterdir()) == [out]


@pytest.mark.parametrize("suffix", FORMATS)
def test_a_full_disk_leaves_what_was_there(
    answered: Run, photos: Path, tmp_path: Path, suffix: str
) -> None:
    out = tmp_path / f"answers.{suffix}"
    out.write_bytes(b"before")
    for room in (0, 300):
        with room_for(room):
            check(answered, photos, out, "File too large")
    assert answered("predict", "last", str(photos), "--out", str(out)).code == 0
    assert len(out.read_bytes()) > 300


@pytest.mark.parametrize(("call", "error"), [("fsync", errno.ENOSPC), ("replace", errno.EROFS)])
def test_a_disk_that_fails_at_the_end_leaves_what_was_there(
    answered: Run, photos: Path, tmp_path: Path, call: str, error: int
) -> None:
    out = tmp_path / "answers.csv"
    out.write_bytes(b"before")
    with failing(tmp_path, Fault(call=call, error=error)) as tally:
        check(answered, photos, out, os.strerror(error))
    assert tally.failed == 1


@pytest.mark.parametrize("suffix", FORMATS)
def test_a_folder_that_takes_no_files(answered: Run, photos: Path, suffix: str) -> None:
    answer = answered("predict", "last", str(photos), "--out", f"/proc/answers.{suffix}")
    assert answer.code == 1
    assert answer.out == ""
    assert f"/proc/answers.{suffix} cannot be written" in answer.err
    assert "Choose another with --out." in answer.err
