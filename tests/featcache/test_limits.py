"""Files that somebody else hands over: regular ones of bounded size, whatever reads them."""

import json
import os
import re
import signal
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import featcache
from featcache import limits
from featcache.errors import FeatcacheError, UnknownNameError, UsageError
from featcache.limits import IMAGE_FILE
from featcache.paths import open_descriptor, open_regular, read_regular
from featcache.pipeline.timeline import check_place
from featcache.places import FilePlace
from featcache.sources.base import Sample
from featcache.sources.hashing import hash_files
from featcache.sources.layouts.named.coop import parse_split
from featcache.sources.trees.folder import FolderTree
from featcache.store.format.files import read_limited
from featcache.store.lock import is_locked, writer_lock
from featcache.text.descriptions import match_descriptions, read_descriptions
from featcache.text.encode import texts_of
from featcache.text.templates import read_templates
from featcache.types import FeatureSet, Listing

PACKAGE = Path(featcache.__file__).parent


@pytest.fixture(autouse=True)
def _alarm() -> Iterator[None]:
    """End a test that waits for a pipe."""

    def stop(*_: object) -> None:
        raise TimeoutError("a reader waits for ever")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(60)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def _weights(path: Path) -> None:
    from featcache.backbones.weights import read_weights

    read_weights(path)


def _npz(path: Path) -> None:
    from featcache.importers.table import read_table

    read_table(path)


def _episodes(path: Path) -> None:
    from heads.protocols import episodes

    episodes.read(path, object.__new__(FeatureSet))  # which the file is refused before


def _run(path: Path) -> None:
    from heads.results.store import load

    (path.parent / "run").mkdir()
    path.rename(path.parent / "run" / "result.json")
    load(path.parent / "run")


READERS: dict[str, Callable[[Path], Any]] = {
    "templates": read_templates,
    "descriptions": read_descriptions,
    "split file": lambda path: FolderTree(path.parent).read(path.name, limits.WORDS),
    "weights": _weights,
    "npz": _npz,
    "episodes": _episodes,
    "run": _run,
}


def _fifo(path: Path) -> None:
    os.mkfifo(path)


def _endless(path: Path) -> None:
    path.symlink_to("/dev/zero")


def _device(path: Path) -> None:
    path.symlink_to("/dev/tty")


def _huge(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(1 << 40)


@pytest.mark.parametrize("make", [_fifo, _endless, _device, Path.mkdir, _huge])
@pytest.mark.parametrize("reader", READERS.values(), ids=READERS)
def test_what_is_no_regular_file_of_bounded_size_is_refused(
    tmp_path: Path, reader: Callable[[Path], Any], make: Callable[[Path], None]
) -> None:
    path = tmp_path / "odd"
    make(path)
    with pytest.raises(FeatcacheError, match=r"odd|result\.json"):
        reader(path)


def test_a_link_to_a_regular_file_is_the_users_to_give(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("a photo of a {}.")
    (tmp_path / "b.txt").symlink_to(tmp_path / "a.txt")
    assert read_templates(tmp_path / "b.txt") == ("a photo of a {}.",)
    with pytest.raises(OSError, match="is no regular file"):
        open_descriptor(tmp_path / "b.txt", links=False)


def test_a_limit_is_named_and_can_be_raised(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "words.txt"
    path.write_text("a photo of a {}.")
    monkeypatch.setenv("FEATCACHE_MAX_WORDS", "10")
    with pytest.raises(UsageError, match="has 16 bytes, more than the limit of 10; FEATCACHE_MAX_"):
        read_templates(path)
    monkeypatch.setenv("FEATCACHE_MAX_WORDS", "16")
    read_templates(path)
    for wrong in ("0", "-1", "1e3", "٣", "9" * 19):
        monkeypatch.setenv("FEATCACHE_MAX_WORDS", wrong)
        with pytest.raises(UsageError, match="FEATCACHE_MAX_WORDS must be a positive number"):
            read_templates(path)


def test_a_file_that_says_it_is_empty_is_not_read_past_the_limit() -> None:
    small = limits.Limit(what="", most=100, unit="bytes", variable="FEATCACHE_MAX_NOTHING")
    with open_regular(Path("/proc/self/status"), small) as file:
        assert file.read(5) == b"Name:"
    with pytest.raises(OSError, match="more than the limit of 100"):
        read_regular(Path("/proc/self/status"), small)


@pytest.mark.parametrize("make", [_fifo, _endless, Path.mkdir, _huge])
def test_remembered_hashes_may_be_anything(tmp_path: Path, make: Callable[[Path], None]) -> None:
    (tmp_path / "a.jpg").write_bytes(b"x")
    make(tmp_path / "hashes.tsv")
    sample = Sample("a.jpg", FilePlace(tmp_path / "a.jpg"), 0, "train")
    hashes, unreadable = hash_files([sample], tmp_path, tmp_path / "hashes.tsv", None, 1)
    assert (len(hashes[0]), unreadable) == (64, [])


def test_an_image_file_of_a_terabyte_is_not_hashed(tmp_path: Path) -> None:
    _huge(tmp_path / "a.jpg")
    sample = Sample("a.jpg", FilePlace(tmp_path / "a.jpg"), 0, "train")
    assert hash_files([sample], tmp_path, None, None, 1) == ([""], [0])


@pytest.mark.parametrize("make", [_fifo, _endless, Path.mkdir])
@pytest.mark.parametrize("name", [".lock", ".lock-owner"])
def test_a_lock_that_is_no_file(tmp_path: Path, make: Callable[[Path], None], name: str) -> None:
    make(tmp_path / name)
    assert is_locked(tmp_path) == (name == ".lock-owner")
    if name == ".lock":
        with (
            pytest.raises(FeatcacheError, match=r"\.lock is no plain file.*Delete it and run"),
            writer_lock(tmp_path, print),
        ):
            pass


@pytest.mark.parametrize("make", [_fifo, _endless])
def test_a_timeline_does_not_take_the_place_of_a_device(
    tmp_path: Path, make: Callable[[Path], None]
) -> None:
    make(tmp_path / "out")
    with pytest.raises(UsageError, match="device or a pipe"):
        check_place(tmp_path / "out")


def test_files_of_a_cache_may_not_be_links(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"x")
    (tmp_path / "b").symlink_to(tmp_path / "a")
    with pytest.raises(FeatcacheError, match="symbolic link"):
        read_limited(tmp_path / "b")


@pytest.mark.long
def test_many_words_cost_time_that_grows_with_their_number(tmp_path: Path) -> None:
    """The alarm of this file is the judge: at these sizes quadratic code takes many minutes."""
    path = tmp_path / "a.json"
    names = [f'"name {i}": ["red"]' for i in range(40_000)]
    path.write_text("{" + ", ".join([*names, names[-1]]) + "}")
    with pytest.raises(UsageError, match="'name 39999' stands there twice"):
        read_descriptions(path)
    rows = [[f"{i}.jpg", i, f"c{min(i, 39_998)}"] for i in range(40_000)]
    path.write_text(json.dumps({"train": rows}))
    assert len(parse_split(path.read_bytes(), str(path)).classes) == 40_000
    alike = ["name 12" * 300 + str(i) for i in range(40_000)]
    assert "Unknown class" in str(UnknownNameError("class", "name 12" * 300, alike))


def test_known_numbers_are_named_by_size() -> None:
    error = UnknownNameError("number of shots", "3", ("16", "all", "4", "1"))
    assert "known: 1, 4, 16, all." in str(error)
    assert error.known == ("1", "4", "16", "all")


def test_long_words_are_refused_before_they_are_tokenised(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    for words in ({"ant": ["x" * 2_001]}, {"x" * 2_001: ["red"]}):
        path.write_text(json.dumps(words))
        with pytest.raises(UsageError, match=r"a\.json.*: A text .* got 2001, beginning 'xxx"):
            read_descriptions(path)
    path.write_text(json.dumps({"ant": ["x" * 1_900]}))
    matched, _ = match_descriptions(read_descriptions(path), ["ant"])
    assert len(matched["ant"][0]) > 1_900
    path.write_text("a {} " + "x" * 2_000)
    with pytest.raises(UsageError, match="A text that is encoded has at most 2000 characters"):
        read_templates(path)


def test_too_many_sentences(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FEATCACHE_MAX_TEXTS", "3")
    path = tmp_path / "a.json"
    path.write_text(json.dumps({"a": ["b", "c"], "d": ["e"]}))
    read_descriptions(path)
    path.write_text(json.dumps({"a": ["b", "c"], "d": ["e", "f"]}))
    with pytest.raises(UsageError, match=r"more than 3 sentences.*FEATCACHE_MAX_TEXTS"):
        read_descriptions(path)


def test_texts_of_a_strangers_listing_are_bounded_too(monkeypatch: pytest.MonkeyPatch) -> None:
    import numpy as np

    listing = Listing(
        dataset="toys",
        root="",
        classes=("ant",),
        ids=(),
        hashes=(),
        labels=np.zeros(0, dtype=np.int64),
        splits={},
        templates=("a {}",),
        descriptions={"ant": ("x" * 5_000,)},
    )
    with pytest.raises(UsageError, match="got 5000"):
        texts_of(listing)
    monkeypatch.setenv("FEATCACHE_MAX_TEXT", "5000")
    assert texts_of(listing).owned["description"].texts == ("x" * 5_000,)


ALLOWED = {
    "paths.py": "the opener",
    "named.py": "files of this package",
    "names.py": "files of this package",
    "caution.py": "files of this package",
    "words.py": "files of this package",
    "page.py": "files of this package",
    "train.py": "files of this package, and what the training of tiny writes",
    "evaluate.py": "files of this package",
    "store.py": "writes a run",
    "weights.py": "asks the network",
    "hub.py": "asks the network",
    "__init__.py": "files of this package",
    "lines.py": "reads through its tree",
    "table.py": "reads through its tree",
    "answers.py": "writes a table of answers",
    "formats.py": "the text of a program that it writes",
    "terminal.py": "nothing, in the place of a closed stream",
}


def test_nothing_opens_a_file_by_itself() -> None:
    direct = re.compile(
        r"\.open\(\"[rax]|\.read_text\(|\.read_bytes\(|np\.(load|fromfile)\(|json\.load\("
        r"|urlopen|(?<![\w.])open\("
    )
    found = {
        path.name
        for folder in (PACKAGE, PACKAGE.parent / "heads", PACKAGE.parent / "cli")
        for path in folder.rglob("*.py")
        if any(direct.search(line) for line in path.read_text().splitlines() if "def " not in line)
    }
    assert found <= set(ALLOWED), f"use featcache.paths in {sorted(found - set(ALLOWED))}"


def test_the_docs_show_every_limit() -> None:
    text = (PACKAGE.parent / "docs" / "reliability.md").read_text()
    for limit in limits.ALL:
        row = f"| {limit.what} | {limit.most:,} {limit.unit} | `{limit.variable}` |"
        assert row in text, row


def test_reading_takes_the_memory_of_the_file_and_not_of_the_limit(tmp_path: Path) -> None:
    file = tmp_path / "small"
    file.write_bytes(b"x" * 1000)
    tracemalloc.start()
    try:
        assert read_regular(file, IMAGE_FILE) == b"x" * 1000
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most < 2**20
