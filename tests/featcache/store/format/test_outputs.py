"""Places that the user names: whole or as before, tidied after kills, never taken from another."""

import errno
import multiprocessing
import os
import threading
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest

from featcache.store.format import folder_lock
from featcache.store.format.files import temporary_beside
from featcache.store.format.folder_lock import alone, shared
from featcache.store.format.outputs import making, not_written, replacing
from featcache.wording import Argument, in_python
from tests.reliability.faults import Fault, failing


def write_file(place: Path) -> None:
    with replacing(place) as temporary:
        temporary.write_bytes(b"new")


def write_folder(place: Path) -> None:
    with making(place) as temporary:
        (temporary / "a.txt").write_bytes(b"new")


WRITERS = pytest.mark.parametrize("write", [write_file, write_folder])
Write = Callable[[Path], None]


def kill_in_midst(place: Path, write: Write) -> None:
    """Write in another process, which ends before it puts anything in place."""

    def killed() -> None:
        with replacing(place) if write is write_file else making(place) as temporary:
            file = temporary if write is write_file else temporary / "a.txt"
            file.write_bytes(b"half")
            os._exit(9)

    process = multiprocessing.get_context("fork").Process(target=killed)
    process.start()
    process.join(60)
    assert process.exitcode == 9


@WRITERS
def test_what_a_killed_command_left_goes_with_the_next(write: Write, tmp_path: Path) -> None:
    place = tmp_path / "moths[1].out"
    kill_in_midst(place, write)
    (left,) = tmp_path.iterdir()
    assert left.name.startswith(".moths[1].out.tmp-")
    others = {f".{name}" for name in ("moths[1].out.tmp-notes", "other.out.tmp-1-0a0a0a0a", "x")}
    for name in others:
        (tmp_path / name).write_bytes(b"mine")
    write(place)
    assert {path.name for path in tmp_path.iterdir()} == {place.name, *others}


@WRITERS
def test_what_another_may_be_writing_stays(write: Write, tmp_path: Path) -> None:
    place = tmp_path / "out"
    kill_in_midst(place, write)
    with shared(tmp_path):
        write(place)
        assert len(list(tmp_path.iterdir())) == 2
    with alone(tmp_path) as is_alone:
        assert is_alone  # a writer that has ended shares it no longer


def test_of_two_that_make_one_folder_one_does(tmp_path: Path) -> None:
    place = tmp_path / "out"
    with pytest.raises(FileExistsError), making(place) as slow:  # noqa: PT012
        (slow / "a.txt").write_bytes(b"slow")
        write_folder(place)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert (place / "a.txt").read_bytes() == b"new"


def test_of_two_that_write_one_file_the_last_stays(tmp_path: Path) -> None:
    place = tmp_path / "out"
    with replacing(place) as slow:
        slow.write_bytes(b"slow")
        write_file(place)
        assert place.read_bytes() == b"new"
    assert place.read_bytes() == b"slow"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_nothing_that_is_there_is_replaced_by_a_folder(tmp_path: Path) -> None:
    for place in (tmp_path / "folder", tmp_path / "link"):
        (tmp_path / "folder").mkdir(exist_ok=True)
        if place.name == "link":
            place.symlink_to(tmp_path / "nothing")
        with pytest.raises(FileExistsError):
            write_folder(place)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder", "link"]


@pytest.mark.parametrize(
    ("write", "call"),
    [
        (write_file, "fsync"),
        (write_file, "replace"),
        (write_folder, "mkdir"),
        (write_folder, "fsync"),
        (write_folder, "rename"),
    ],
)
def test_a_disk_that_does_not_take_it(write: Write, call: str, tmp_path: Path) -> None:
    place = tmp_path / "out"
    if write is write_file:
        place.write_bytes(b"old")
    fault = Fault(call=call, error=errno.EIO, where=".out.tmp-" if call == "mkdir" else "")
    with failing(tmp_path, fault), pytest.raises(OSError, match=os.strerror(errno.EIO)):
        write(place)
    if write is write_file:
        assert place.read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["out"] * (write is write_file)
    write(place)


def test_a_temporary_name_is_one_that_is_tidied_up(tmp_path: Path) -> None:
    left = temporary_beside(tmp_path / "out")
    left.mkdir()
    write_folder(tmp_path / "out")
    assert not left.exists()


@pytest.mark.parametrize(
    ("code", "said"),
    [
        (errno.ENOSPC, "Free some space, or choose another place with out"),
        (errno.EROFS, "Make it writable, or choose another place with out"),
        (errno.EISDIR, "(Is a directory). Choose another place with out"),
        (errno.EMFILE, "Too many files are open"),
    ],
)
def test_what_to_do_is_said(code: int, said: str) -> None:
    parts = not_written(Path("t.parquet"), OSError(code, os.strerror(code)), Argument("out"))
    text = in_python(parts)
    assert text.startswith(f"t.parquet was not written ({os.strerror(code)}). ")
    assert said in text


@WRITERS
def test_a_folder_that_somebody_else_has_locked_is_written_to(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folder_lock, "PATIENCE", 0.1)
    with alone(tmp_path) as is_alone:  # as `flock FOLDER COMMAND` has it while the command runs
        assert is_alone
        write(tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_writer_waits_for_one_who_tidies_up(tmp_path: Path) -> None:
    ended, tidy = threading.Event(), ExitStack()

    def end() -> None:
        ended.set()
        tidy.close()

    with tidy:
        assert tidy.enter_context(alone(tmp_path))
        threading.Timer(0.2, end).start()
        with shared(tmp_path):
            assert ended.is_set()
            with alone(tmp_path) as is_alone:
                assert not is_alone


def test_what_is_no_file_is_never_replaced(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("pipe")
    for name in ("pipe", "link"):
        with pytest.raises(OSError, match="no plain file"):
            write_file(tmp_path / name)
    assert (tmp_path / "pipe").is_fifo()
    assert (tmp_path / "link").is_symlink()
    assert len(list(tmp_path.iterdir())) == 2


def test_a_link_to_a_file_or_to_nothing_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "kept").write_bytes(b"old")
    for name, target in (("link", "kept"), ("dangling", "nothing")):
        (tmp_path / name).symlink_to(target)
        write_file(tmp_path / name)
        assert not (tmp_path / name).is_symlink()
        assert (tmp_path / name).read_bytes() == b"new"
    assert (tmp_path / "kept").read_bytes() == b"old"


def test_a_file_in_the_place_of_a_folder_is_not_what_exists(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"mine")
    (tmp_path / "dangling").symlink_to("nothing")
    for name in ("file", "dangling"):
        with pytest.raises(NotADirectoryError):
            write_folder(tmp_path / name / "out")
