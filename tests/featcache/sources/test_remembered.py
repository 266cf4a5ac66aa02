"""Lines of remembered hashes: found wherever they stand, and believed only as they were written."""

import hashlib
import os
import zlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from featcache.places import FilePlace
from featcache.sources import hashing
from featcache.sources.base import Sample
from featcache.sources.hashing import hash_files
from featcache.sources.remembered import (
    LINE_BYTES,
    Remembered,
    line_of,
    name_of,
    read_remembered,
    sha256_in,
    state_in,
    write_remembered,
)

STATE = "5\t1\t2\t7"


def sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def lines_of(names: list[bytes]) -> list[bytes]:
    return [line_of(sha256(repr(name)), STATE, name) for name in names]


@given(
    stored=st.lists(st.integers(0, 12), unique=True),
    asked=st.lists(st.integers(0, 12), unique=True),
)
def test_every_line_is_found_in_any_order(stored: list[int], asked: list[int]) -> None:
    names = [name_of(f"{i}.jpg", "part" if i % 3 == 0 else "") for i in range(13)]
    remembered = Remembered(lines_of([names[i] for i in stored]))
    for place, i in enumerate(asked):
        line = remembered.line(place, names[i])
        assert bool(line) == (i in stored)
        if line:
            assert sha256_in(line) == sha256(repr(names[i]))
            assert state_in(line, names[i]) == STATE


def test_an_id_that_ends_as_another_is_another() -> None:
    names = [name_of("cat/1.jpg", ""), name_of("1.jpg", "")]
    remembered = Remembered(lines_of(names))
    assert sha256_in(remembered.line(0, names[1])) == sha256(repr(names[1]))


def test_a_line_of_which_any_byte_differs_is_forgotten() -> None:
    name = name_of("cat/1.jpg", "")
    (line,) = lines_of([name])
    for at in range(len(line)):
        for flipped in (line[at] ^ 1, line[at] ^ 0x20, ord(b"\n")):
            other = line[:at] + bytes([flipped]) + line[at + 1 :]
            assert other == line or Remembered([other]).line(0, name) == b""


@pytest.mark.parametrize(
    "rest",
    [
        "f" * 64,
        "f" * 64 + "\t",
        "f" * 64 + "\ta.jpg",
        "f" * 64 + "\t1\ta.jpg",
        "F" * 64 + f"\t{STATE}\ta.jpg",
        " " * 64 + f"\t{STATE}\ta.jpg",
        "f" * 63 + f"\t{STATE}\ta.jpg",
        "\ta.jpg",
        "a.jpg",
    ],
)
def test_lines_of_strangers_with_right_checksums(
    rest: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hashing, "RACY_SECONDS", -60.0)
    (tmp_path / "a.jpg").write_bytes(b"x")
    known = tmp_path / "hashes.tsv"
    write_remembered(known, tmp_path, [b"%08x\t%s" % (zlib.crc32(rest.encode()), rest.encode())])
    sample = Sample("a.jpg", FilePlace(tmp_path / "a.jpg"), 0, "train")
    assert hash_files([sample], tmp_path, known, None, 1) == ([sha256("x")], [])
    name = name_of("a.jpg", "")
    assert sha256_in(read_remembered(known, tmp_path, 1).line(0, name)) == sha256("x")


def test_of_another_root_nothing_is_believed(tmp_path: Path) -> None:
    known = tmp_path / "hashes.tsv"
    write_remembered(known, Path("/one"), lines_of([name_of("a.jpg", "")]))
    assert read_remembered(known, Path("/one"), 1).lines
    assert read_remembered(known, Path("/other"), 1).lines == []


def test_more_than_our_own_would_have_is_not_read(tmp_path: Path) -> None:
    known = tmp_path / "hashes.tsv"
    names = [name_of(f"{i}.jpg", "") for i in range(1000)]
    write_remembered(known, tmp_path, lines_of(names))
    with known.open("ab") as file:
        os.truncate(file.fileno(), 1 << 40)  # sparse: a terabyte that takes no room
    found = read_remembered(known, tmp_path, 1)
    assert found.line(0, names[0])
    assert sum(map(len, found.lines)) <= 2 * LINE_BYTES
