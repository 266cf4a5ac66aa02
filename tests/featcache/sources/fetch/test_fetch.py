"""Data sets as a whole: in one step, resumed where they were killed, one process at a time."""

import doctest
import fcntl
import hashlib
import json
import multiprocessing
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from featcache.errors import DownloadNeededError, SourceError
from featcache.sources.fetch import fetch as fetch_module
from featcache.sources.fetch import staging
from featcache.sources.fetch.archive import Archive
from featcache.sources.fetch.fetch import fetch, is_fetched
from tests.featcache.sources.fetch.hostile import JPEG, special, tar, zipped
from tests.featcache.sources.fetch.serving import FileServer, Handler, status, whole

IMAGES = zipped(*((f"images/{i}.jpg", JPEG + bytes([i])) for i in range(20)))
LISTS = tar(("lists/train.txt", b"0.jpg"), ("README", b"lists"))
MAT = b"a matrix"
Describe = Callable[..., Archive]
WHOLE = {"images", "lists", "README", "labels", ".fetched.json"}


@pytest.fixture
def archives(server: FileServer, describe: Describe) -> list[Archive]:
    return [
        describe(IMAGES, server.put("/i.zip", IMAGES), file="i.zip"),
        describe(LISTS, server.put("/l.tar", LISTS), file="l.tar"),
        describe(MAT, server.put("/m.mat", MAT), file="m.mat", into="labels"),
    ]


def names(folder: Path) -> set[str]:
    return {p.name for p in folder.iterdir()}


def check(into: Path) -> None:
    """Check that a data set is whole and that nothing lies beside it."""
    assert names(into) == WHOLE
    assert {p.name: p.read_bytes() for p in (into / "images").iterdir()} == {
        f"{i}.jpg": JPEG + bytes([i]) for i in range(20)
    }
    assert (into / "labels" / "m.mat").read_bytes() == MAT
    assert (into / "lists" / "train.txt").read_bytes() == b"0.jpg"
    assert not [p for p in into.parent.iterdir() if p.name.startswith(".")]


def test_archives_and_files_become_one_folder(
    server: FileServer, tmp_path: Path, archives: list[Archive]
) -> None:
    said: list[str] = []
    into = tmp_path / "pets"
    got = fetch(archives, into, title="Pets", report=lambda what, *_: said.append(what))
    check(into)
    assert (got.path, got.notes) == (into, ())
    assert got.bytes == len(IMAGES) + len(LISTS) + len(MAT)
    assert {"downloading i.zip", "unpacking i.zip", "unpacking l.tar", "downloading m.mat"} <= {
        *said
    }
    record = json.loads((into / ".fetched.json").read_text())["archives"]
    assert record["i.zip"]["digest"] == "sha256:" + hashlib.sha256(IMAGES).hexdigest()
    asked = len(server.asked)
    assert fetch(archives, into).bytes == 0
    assert len(server.asked) == asked


def test_nothing_appears_before_all_is_there(
    server: FileServer, tmp_path: Path, archives: list[Archive]
) -> None:
    into = tmp_path / "pets"
    server.put("/m.mat", MAT, status(404))
    with pytest.raises(DownloadNeededError, match=r"m\.mat"):
        fetch(archives, into)
    assert not into.exists()
    assert not is_fetched(archives, into)
    server.put("/m.mat", MAT)
    before = len(server.asked)
    fetch(archives, into)
    check(into)
    assert [path for path, _ in server.asked[before:]] == ["/m.mat"]


def test_a_failure_before_the_first_byte_leaves_nothing(tmp_path: Path, describe: Describe) -> None:
    with pytest.raises(DownloadNeededError):
        fetch([describe(MAT, "http://127.0.0.1:1/a")], tmp_path / "pets")
    assert names(tmp_path) == set()


def test_an_unsafe_archive_leaves_nothing_in_place(
    server: FileServer, tmp_path: Path, describe: Describe
) -> None:
    data = tar(("a.jpg", JPEG), special(b"2", "b.jpg", "/etc/passwd"))
    with pytest.raises(SourceError, match="symbolic link"):
        fetch([describe(data, server.put("/a", data), file="a.tar")], tmp_path / "pets")
    assert not (tmp_path / "pets").exists()


def test_files_of_the_user_stay(tmp_path: Path, archives: list[Archive]) -> None:
    into = tmp_path / "pets"
    (into / "images").mkdir(parents=True)
    (into / "split_zhou.json").write_text("{}")
    (into / "images" / "mine.jpg").write_text("mine")
    (into / "images" / "3.jpg").write_bytes(JPEG + b"\3")  # equal to what comes
    fetch(archives, into)
    assert names(into) == WHOLE | {"split_zhou.json"}
    assert (into / "images" / "mine.jpg").read_text() == "mine"
    assert len(names(into / "images")) == 21
    assert is_fetched(archives, into)


def test_another_file_of_the_same_name_is_not_replaced(
    tmp_path: Path, archives: list[Archive]
) -> None:
    into = tmp_path / "pets"
    (into / "images").mkdir(parents=True)
    (into / "images" / "3.jpg").write_text("mine")
    with pytest.raises(SourceError, match=r"3\.jpg is there already and is not what was fetched"):
        fetch(archives, into)
    assert names(into / "images") == {"3.jpg"}
    (into / "images" / "3.jpg").unlink()
    fetch(archives, into)
    check(into)


def test_two_archives_that_contradict_each_other(
    server: FileServer, tmp_path: Path, describe: Describe
) -> None:
    one, two = zipped(("a", b"1"), ("b", b"2")), zipped(("a", b"1"), ("b", b"3"))
    pair = [describe(d, server.put(f"/{n}", d), file=f"{n}.zip") for n, d in enumerate((one, two))]
    with pytest.raises(SourceError, match="b is there already"):
        fetch(pair, tmp_path / "pets")
    with pytest.raises(SourceError, match="have one name"):
        fetch([pair[0], pair[0]], tmp_path / "pets")


def test_two_sets_in_one_folder(
    server: FileServer, tmp_path: Path, archives: list[Archive]
) -> None:
    for archive in archives:
        fetch([archive], tmp_path / "pets")
    assert is_fetched(archives, tmp_path / "pets")
    check(tmp_path / "pets")


def test_a_record_that_does_not_fit_is_no_record(tmp_path: Path, archives: list[Archive]) -> None:
    into = tmp_path / "pets"
    fetch(archives, into)
    good = (into / ".fetched.json").read_text()
    for bad in ("", "[]", '{"archives": []}', good.replace("sha256:", "sha256:0")):
        (into / ".fetched.json").write_text(bad)
        assert not is_fetched(archives, into)
    (into / ".fetched.json").write_text(good)
    assert is_fetched(archives, into)
    (into / "labels" / "m.mat").unlink()
    assert not is_fetched(archives, into)
    fetch(archives, into)
    check(into)


def test_archives_are_kept_on_request_and_used_again(
    server: FileServer, tmp_path: Path, archives: list[Archive]
) -> None:
    fetch(archives, tmp_path / "pets", keep=True)
    kept = tmp_path / ".pets.archives"
    assert names(kept) == {"i.zip", "l.tar"}
    for path in (tmp_path / "pets").rglob("*"):
        if path.is_file():
            path.unlink()
    server.files.clear()
    server.put("/m.mat", MAT)
    fetch(archives, tmp_path / "pets", keep=True)
    assert names(tmp_path / "pets") == WHOLE
    assert names(kept) == {"i.zip", "l.tar"}


def test_an_archive_that_lies_there_is_not_downloaded(
    server: FileServer, tmp_path: Path, archives: list[Archive]
) -> None:
    (tmp_path / "i.zip").write_bytes(IMAGES)
    (tmp_path / "l.tar").write_bytes(b"of another set")
    fetch(archives, tmp_path / "pets")
    assert [path for path, _ in server.asked] == ["/l.tar", "/m.mat"]
    assert (tmp_path / "i.zip").read_bytes() == IMAGES


def test_what_nobody_vouches_for_is_said(server: FileServer, tmp_path: Path) -> None:
    url = server.put("/i.zip", IMAGES)
    loose = [Archive("i.zip", (url,)), Archive("j.zip", (url,), len(IMAGES))]
    notes = fetch(loose, tmp_path / "pets").notes
    assert "nothing vouches for it" in notes[0]
    assert "size alone" in notes[1]


def test_a_target_that_is_a_file_or_a_link(tmp_path: Path, archives: list[Archive]) -> None:
    (tmp_path / "pets").write_text("mine")
    with pytest.raises(SourceError, match="is a file, not a folder"):
        fetch(archives, tmp_path / "pets")
    assert (tmp_path / "pets").read_text() == "mine"
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "linked").symlink_to(tmp_path / "elsewhere")
    fetch(archives, tmp_path / "linked")
    assert names(tmp_path / "elsewhere") == WHOLE


def test_a_second_process_waits_and_takes_what_is_there(
    server: FileServer, tmp_path: Path, archives: list[Archive]
) -> None:
    go, said = threading.Event(), list[str]()

    def patient(h: Handler, data: bytes) -> None:
        go.wait(20)
        whole(h, data)

    server.put("/i.zip", IMAGES, patient)
    into = tmp_path / "pets"
    first = multiprocessing.get_context("fork").Process(target=fetch, args=(archives, into))
    first.start()
    while not server.asked:
        time.sleep(0.01)

    def report(what: str, *_: int) -> None:
        said.append(what)
        go.set()

    got = fetch(archives, into, title="Pets", report=report)
    first.join()
    assert said[0] == f"waiting for process {first.pid}, which fetches Pets"
    assert got.bytes == 0
    assert len(server.asked) == 3
    check(into)


def test_waiting_for_a_process_that_stands_still_ends(
    tmp_path: Path, archives: list[Archive], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(staging, "STANDSTILL", 0.3)
    (tmp_path / ".pets.fetch").mkdir()
    handle = os.open(tmp_path / ".pets.fetch" / "lock", os.O_RDWR | os.O_CREAT)
    fcntl.flock(handle, fcntl.LOCK_EX)
    with pytest.raises(SourceError, match="has stood still"):
        fetch(archives, tmp_path / "pets")
    os.close(handle)
    fetch(archives, tmp_path / "pets")
    check(tmp_path / "pets")


def test_where_there_are_no_locks_each_process_has_a_folder_of_its_own(
    tmp_path: Path, archives: list[Archive], monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_locks(*_: object) -> None:
        raise OSError(37, "No locks available")

    monkeypatch.setattr(fcntl, "flock", no_locks)
    fetch(archives, tmp_path / "pets")
    assert names(tmp_path / "pets") == WHOLE


def test_room_is_looked_at_before_anything_is_fetched(
    server: FileServer, tmp_path: Path, archives: list[Archive], monkeypatch: pytest.MonkeyPatch
) -> None:
    fields = list(os.statvfs(tmp_path))
    fields[4] = 1
    monkeypatch.setattr(os, "statvfs", lambda _: os.statvfs_result(fields))
    with pytest.raises(SourceError, match=r"Fetching Pets needs about .* and .* free there"):
        fetch(archives, tmp_path / "pets", title="Pets")
    assert server.asked == []


def test_the_example(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    flags = doctest.ELLIPSIS | doctest.IGNORE_EXCEPTION_DETAIL
    assert doctest.testmod(fetch_module, optionflags=flags).failed == 0
