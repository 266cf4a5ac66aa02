"""Unpacking and reading in place find the same files in an archive, or both refuse it."""

import io
import random
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from featcache.errors import SourceError
from featcache.limits import IMAGE_FILE
from featcache.sources.fetch.unpack import unpack
from featcache.sources.headers.errors import DamagedError
from featcache.sources.headers.tar import BLOCK, MOST_HEADER, next_entry
from featcache.sources.trees.archive import open_archive
from tests.featcache.sources.fetch.hostile import header

FILES = {"ant/1.jpg": b"one" * 300, "ant/\xe9t\xe9.jpg": b"", f"{'long' * 30}/{'b' * 90}.jpg": b"2"}


def tarred(form: int) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=form) as archive:
        for name, data in FILES.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    return out.getvalue()


def zipped(method: int) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as archive:
        for name, data in FILES.items():
            archive.writestr(name, data)
    return out.getvalue()


MADE: dict[str, Callable[[], bytes]] = {
    "pax.tar": lambda: tarred(tarfile.PAX_FORMAT),
    "gnu.tar": lambda: tarred(tarfile.GNU_FORMAT),
    "stored.zip": lambda: zipped(zipfile.ZIP_STORED),
    "deflated.zip": lambda: zipped(zipfile.ZIP_DEFLATED),
}


def unpacked(path: Path, target: Path) -> dict[str, bytes] | None:
    target.mkdir()
    try:
        unpack(path, target)
    except SourceError:
        return None
    return {
        p.relative_to(target).as_posix(): p.read_bytes() for p in target.rglob("*") if p.is_file()
    }


def in_place(path: Path) -> dict[str, bytes] | None:
    try:
        tree = open_archive(path)
        images = tree.images().images
        return {i.place.within: i.place.read(IMAGE_FILE) for i in images}
    except (SourceError, OSError):
        return None


@pytest.mark.parametrize("name", MADE)
def test_both_ways_find_the_same_files(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(MADE[name]())
    assert unpacked(path, tmp_path / "into") == in_place(path) == FILES


@pytest.mark.parametrize("name", MADE)
def test_both_ways_take_the_same_changed_bytes(tmp_path: Path, name: str) -> None:
    """Images that both accept are the same; what is no image is listed by one of them only."""
    whole, draw, path = MADE[name](), random.Random(name), tmp_path / name
    for i in range(60):
        data = bytearray(whole)
        data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
        path.write_bytes(data)
        one, other = unpacked(path, tmp_path / f"into{i}"), in_place(path)
        if one is not None and other is not None:
            assert other == {n: one[n] for n in one if n.endswith(".jpg")}


def test_a_name_without_the_flag_of_utf8_that_was_written_on_unix(tmp_path: Path) -> None:
    data = bytearray(zipped(zipfile.ZIP_STORED))
    for signature, at in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
        place = data.find(signature)
        while place >= 0:
            data[place + at + 1] &= ~0x08
            place = data.find(signature, place + 1)
    (tmp_path / "a.zip").write_bytes(data)
    assert unpacked(tmp_path / "a.zip", tmp_path / "into") == in_place(tmp_path / "a.zip") == FILES


def test_a_sum_of_signed_bytes_as_early_writers_have_it() -> None:
    block = bytearray(header(name="\xe9\xe9.jpg")[:BLOCK])
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(b - 256 if b > 127 else b for b in block)
    entry = next_entry(io.BytesIO(block).read)
    assert entry is not None
    assert entry.name == "\xe9\xe9.jpg"


def test_headers_without_a_file_are_bounded() -> None:
    one = header(type=b"L", size=MOST_HEADER)[:BLOCK] + bytes(MOST_HEADER)
    read = 0

    def endless(size: int) -> bytes:
        nonlocal read
        at = read % len(one)
        read += size
        return one[at : at + size]

    with pytest.raises(DamagedError, match="bytes of headers for one file"):
        next_entry(endless)
    assert read < 6 * MOST_HEADER
