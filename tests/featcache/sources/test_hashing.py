"""Which files are read again: whatever may have changed, and nothing else."""

import hashlib
import os
import threading
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from featcache.errors import SourceError
from featcache.places import FilePlace
from featcache.sources import hashing, remembered
from featcache.sources.base import Sample
from featcache.sources.hashing import hash_files
from featcache.sources.remembered import line_of, name_of
from featcache.sources.trees.archive import open_archive
from featcache.sources.trees.zip_index import ZipMember

Hash = Callable[..., tuple[list[str], int]]
LONG_AGO = 1_000_000_000


class Clock:
    """Ours, which goes on by a minute when told: what was changed before is then long ago."""

    ahead = 0.0
    now = staticmethod(time.time)

    def settle(self) -> None:
        self.ahead += 60


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(time, "time", lambda: Clock.now() + clock.ahead)
    return clock


@pytest.fixture
def folder(tmp_path: Path, clock: Clock) -> Path:
    root = tmp_path / "photos"
    for name in ("cat", "dog"):
        (root / name).mkdir(parents=True)
        (root / name / "0.jpg").write_bytes(f"{name} 0".encode())
        os.utime(root / name / "0.jpg", (LONG_AGO, LONG_AGO))
    clock.settle()
    return root


@pytest.fixture
def hashed(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hash:
    """Hash the two files; return their hashes and how many were read for that."""
    read: list[object] = []
    real = hashlib.file_digest

    def digest(file: Any, name: str) -> object:
        read.append(file)
        return real(file, name)

    monkeypatch.setattr(hashlib, "file_digest", digest)

    def run(**options: Any) -> tuple[list[str], int]:
        read.clear()
        samples = [
            Sample(f"{n}/0.jpg", FilePlace(folder / n / "0.jpg"), 0, "train")
            for n in ("cat", "dog")
        ]
        hashes, unreadable = hash_files(
            samples, folder, tmp_path / "hashes.tsv", None, 1, **options
        )
        assert not unreadable
        return hashes, len(read)

    return run


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def replace_unseen(path: Path, content: bytes) -> None:
    """Write other bytes and put size and time of change back."""
    before = path.stat()
    assert before.st_size == len(content)
    path.write_bytes(content)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def test_unchanged_files_are_read_once(hashed: Hash) -> None:
    first, read = hashed()
    assert (first, read) == ([sha256(b"cat 0"), sha256(b"dog 0")], 2)
    assert hashed() == (first, 0)


def test_content_replaced_with_its_time_restored_is_seen(
    hashed: Hash, folder: Path, clock: Clock
) -> None:
    hashed()
    replace_unseen(folder / "cat" / "0.jpg", b"CAT 0")
    clock.settle()
    assert hashed() == ([sha256(b"CAT 0"), sha256(b"dog 0")], 1)
    assert hashed()[1] == 0


@pytest.mark.parametrize("whole_folders", [False, True])
def test_names_that_were_swapped_are_seen(hashed: Hash, folder: Path, whole_folders: bool) -> None:
    (cat, dog), _ = hashed()
    names = ("cat", "dog") if whole_folders else ("cat/0.jpg", "dog/0.jpg")
    one, two = (folder / name for name in names)
    one.rename(folder / "aside")
    two.rename(one)
    (folder / "aside").rename(two)
    assert hashed() == ([dog, cat], 2)


def test_a_touch_reads_again_and_changes_nothing(hashed: Hash, folder: Path, clock: Clock) -> None:
    first, _ = hashed()
    (folder / "cat" / "0.jpg").touch()
    clock.settle()
    assert hashed() == (first, 1)
    assert hashed() == (first, 0)


def test_files_changed_just_before_they_were_read_are_read_again(
    hashed: Hash, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second change in the same tick of the clock shows in nothing: git's racy entries."""
    clock.ahead = 0
    write = remembered.write_remembered

    def late(*arguments: Any) -> None:
        clock.settle()  # hashing further files took a minute
        write(*arguments)

    monkeypatch.setattr(hashing, "write_remembered", late)
    first, _ = hashed()
    assert hashed() == (first, 2)
    clock.settle()
    assert hashed() == (first, 2)
    assert hashed() == (first, 0)


def test_a_file_changed_while_it_was_read_is_read_again(
    hashed: Hash, folder: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    cat, digest = folder / "cat" / "0.jpg", hashlib.file_digest

    def writing(file: Any, name: str) -> object:
        done = digest(file, name)
        if os.fstat(file.fileno()).st_ino == cat.stat().st_ino:
            replace_unseen(cat, b"CAT 0")
        return done

    monkeypatch.setattr(hashlib, "file_digest", writing)
    assert hashed()[0][0] == sha256(b"cat 0")
    monkeypatch.setattr(hashlib, "file_digest", digest)
    clock.settle()
    assert hashed()[0][0] == sha256(b"CAT 0")


def test_inodes_that_change_by_themselves_can_be_left_out(
    hashed: Hash, folder: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, _ = hashed()
    state_of = remembered.state_of

    def remounted(found: os.stat_result) -> str:
        return f"{state_of(found)}1"

    monkeypatch.setattr(hashing, "state_of", remounted)
    assert hashed(ignore_inode=True) == (first, 0)
    assert hashed() == (first, 2)
    replace_unseen(folder / "cat" / "0.jpg", b"CAT 0")
    assert hashed(ignore_inode=True)[0] == [sha256(b"CAT 0"), first[1]]


def test_rehash_reads_everything(hashed: Hash) -> None:
    first, _ = hashed()
    assert hashed(rehash=True) == (first, 2)
    assert hashed() == (first, 0)


def test_lines_without_ctime_and_inode_are_read_again_once(
    hashed: Hash, folder: Path, tmp_path: Path
) -> None:
    first, _ = hashed()
    known = tmp_path / "hashes.tsv"
    head, *_ = known.read_bytes().splitlines(keepends=True)
    lines = [
        line_of(sha, f"5\t{LONG_AGO * 10**9}", name_of(f"{name}/0.jpg", "")) + b"\n"
        for name, sha in zip(("cat", "dog"), ("f" * 64, "f" * 64), strict=True)
    ]
    known.write_bytes(head + b"".join(lines))
    assert hashed() == (first, 2)
    assert hashed() == (first, 0)


@pytest.mark.parametrize("damage", [b"", b"\xff\x00garbage", b"a\tb\tc\td\n", b"00000000\t\n"])
def test_a_damaged_file_costs_time_only(hashed: Hash, tmp_path: Path, damage: bytes) -> None:
    known = tmp_path / "hashes.tsv"
    first, _ = hashed()
    whole = known.read_bytes()
    for content in (damage, whole[:-40] + damage):
        known.write_bytes(content)
        again, read = hashed()
        assert again == first
        assert read >= 1


def test_a_place_that_cannot_be_written_is_no_error(folder: Path) -> None:
    samples = [Sample("cat/0.jpg", FilePlace(folder / "cat/0.jpg"), 0, "train")]
    hashes, _ = hash_files(samples, folder, Path("/proc/nowhere/stat"), None, 1)
    assert hashes == [sha256(b"cat 0")]


def _archive(tmp_path: Path, clock: Clock, **files: str) -> tuple[Path, list[Sample]]:
    path = tmp_path / "photos.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in files.items():
            archive.writestr(f"a/{name}.jpg", text)
    clock.settle()
    found = open_archive(path).images().images
    return path, [Sample(i.id, i.place, 0, "train") for i in found]


def test_an_archive_is_looked_at_once_and_its_images_are_remembered(
    tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, samples = _archive(tmp_path, clock, one="1", two="2")
    known = tmp_path / "hashes.tsv"
    first, unreadable = hash_files(samples, path, known, None, 1)
    assert (first, unreadable) == ([sha256(b"1"), sha256(b"2")], [])
    looked: list[Path] = []
    stat = Path.stat

    def noted(path: Path, **more: bool) -> Any:
        looked.append(path)
        return stat(path, **more)

    monkeypatch.setattr(Path, "stat", noted)
    monkeypatch.setattr(ZipMember, "read", lambda *_: pytest.fail("read again"))
    assert hash_files(samples, path, known, None, 1) == (first, [])
    assert looked.count(path) == 1


def test_a_replaced_archive_is_read_again(tmp_path: Path, clock: Clock) -> None:
    known = tmp_path / "hashes.tsv"
    path, samples = _archive(tmp_path, clock, one="1", two="2")
    hash_files(samples, path, known, None, 1)
    path, samples = _archive(tmp_path, clock, one="3", two="2")
    assert hash_files(samples, path, known, None, 1) == ([sha256(b"3"), sha256(b"2")], [])


def test_images_of_an_archive_replaced_meanwhile_are_refused_and_not_remembered(
    tmp_path: Path, clock: Clock
) -> None:
    known = tmp_path / "hashes.tsv"
    _, old = _archive(tmp_path, clock, one="1", two="2")
    path, _ = _archive(tmp_path, clock, one="1", two="2")  # another inode or time, the same bytes
    with pytest.raises(SourceError, match="has changed since"):
        hash_files(old, path, known, None, 1)
    assert not known.exists()


def test_another_part_of_the_same_file_is_read(tmp_path: Path, clock: Clock) -> None:
    """A list that gives an id to another image of an unchanged archive."""
    known = tmp_path / "hashes.tsv"
    path, (one, two) = _archive(tmp_path, clock, one="1", two="2")
    hash_files([one], path, known, None, 1)
    other = Sample(one.id, two.place, 0, "train")
    assert hash_files([other], path, known, None, 1) == ([sha256(b"2")], [])


@pytest.mark.parametrize(("quick", "in_threads"), [(1e6, False), (0.0, True)])
def test_every_batch_comes_once_and_in_order(
    monkeypatch: pytest.MonkeyPatch, quick: float, in_threads: bool
) -> None:
    """Threads take part only where an image takes longer than `_QUICK`."""
    monkeypatch.setattr(hashing, "_QUICK", quick)
    threads = set()

    def run(batch: range) -> list[int]:
        threads.add(threading.get_ident())
        return list(batch)

    count = hashing._PROBE + (hashing._BATCHES + 1) * hashing._BATCH + 7
    found = list(hashing._in_threads_if_slow(run, count, workers=4))
    assert [i for batch, _ in found for i in batch] == list(range(count))
    assert all(list(batch) == results for batch, results in found)
    assert (threads == {threading.get_ident()}) != in_threads
