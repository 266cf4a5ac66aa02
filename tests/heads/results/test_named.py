"""RUN, RUN@SEED and `last`: which head is meant, and the header of its file."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from featcache.errors import CacheError, CacheNotFoundError, HeadError, UnknownNameError, UsageError
from featcache.store.format.tensor_header import peek
from heads.results import leftovers, named, store
from heads.results.overview import METADATA, summaries
from heads.results.removal import remove
from tests.fuzz.kept_heads import toy_head

Record = Callable[..., Any]


@pytest.fixture
def runs(record: Record, tmp_path: Path) -> Path:
    """Two runs: the later one, of two seeds, keeps heads."""
    for n, seeds in enumerate([(1,), (1, 4)]):
        made = record(
            20,
            len(seeds),
            run=f"2026010{n + 1}T000000-gda-00000{n}",
            seeds=seeds,
            created=f"2026-01-0{n + 1}T00:00:00+00:00",
            beside={named.file_of(seed): toy_head() for seed in seeds} if n else {},
        )
        store.save(made, tmp_path)
    return tmp_path


FIRST, LAST = "20260101T000000-gda-000000", "20260102T000000-gda-000001"


def test_last_is_the_first_head_of_the_run_stored_last(runs: Path) -> None:
    found = named.find(runs, "last")
    assert (found.run, found.seed, found.seeds) == (LAST, 1, (1, 4))
    assert str(named.find(runs, "last@4")) == f"{LAST}@4"
    assert found.path.read_bytes() == toy_head()
    assert str(named.find(runs, f"{LAST}@4")) == f"{LAST}@4"


def test_what_is_not_there_is_said(runs: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=f"2 heads; name one of {LAST}@1, {LAST}@4"):
        named.find(runs, LAST)
    with pytest.raises(UsageError, match="no head of seed '2'"):
        named.find(runs, "last@2")
    with pytest.raises(HeadError, match="keeps no head"):
        named.find(runs, FIRST)
    with pytest.raises(UnknownNameError, match="Unknown run"):
        named.find(runs, "lst")
    with pytest.raises(CacheNotFoundError, match="no runs"):
        named.find(tmp_path / "none", "last")


def test_the_newest_of_many_runs_are_named(record: Record, tmp_path: Path) -> None:
    for day in range(1, 14):
        store.save(record(20, run=f"202601{day:02d}T000000-gda-000000"), tmp_path)
    with pytest.raises(UnknownNameError) as caught:
        store.find(tmp_path, "zzz")
    newest = ", ".join(f"202601{day}T000000-gda-000000" for day in (13, 12, 11, 10))
    assert f"13 are known, for example {newest}. Runs" in str(caught.value)


def test_a_last_run_without_heads_is_not_passed_over(runs: Path, record: Record) -> None:
    run = "20260103T000000-stata-000002"
    store.save(record(20, run=run, created="2026-01-03T00:00:00+00:00"), runs)
    with pytest.raises(HeadError, match=f"{run}, stored last, keeps no head"):
        named.find(runs, "last")


@pytest.mark.parametrize(
    ("name", "is_file"),
    [("last", False), (LAST, False), (f"{LAST}@1", False), ("a.head", True), ("x/y", True)],
)
def test_names_of_files(
    name: str, is_file: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert (named.as_file(name) is not None) == is_file
    if "/" not in name:
        (tmp_path / name).touch()
        assert named.as_file(name) == Path(name)


def test_a_summary_says_what_the_heads_hold(runs: Path) -> None:
    (last, first), problems = summaries(runs)
    assert (last.heads, first.heads) == ((1, 4), ())
    assert last.head_bytes == 2 * len(toy_head())
    assert last.holds == ()  # means of images are no features of one
    assert problems == ()
    json.dumps(last.to_json(), allow_nan=False)
    (last.folder / named.file_of(1)).write_bytes(b"torn")
    assert summaries(runs)[0][0].holds == ()


def test_the_header_of_a_head_without_its_tensors(tmp_path: Path) -> None:
    file = tmp_path / "toy.head"
    data = toy_head()
    length = int.from_bytes(data[:8], "little")
    file.write_bytes(data[: 8 + length])
    assert peek(file, METADATA)["sections"]["classifier"]["method"] == "nearest-mean"
    for torn in (b"", data[:7], data[: 7 + length], b"\xff" * 100, (1 << 62).to_bytes(8, "little")):
        file.write_bytes(torn)
        with pytest.raises(ValueError, match="no header"):
            peek(file, METADATA)
    deep = b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}"
    file.write_bytes(len(deep).to_bytes(8, "little") + deep)
    with pytest.raises(ValueError, match="deep"):
        peek(file, METADATA)
    changed = bytearray(data)
    changed[data.index(b"nearest-mean")] ^= 1
    file.write_bytes(bytes(changed))
    with pytest.raises(ValueError, match="not what was written"):
        peek(file, METADATA)
    (tmp_path / "link.head").symlink_to(file)
    with pytest.raises(OSError, match="no regular file"):
        peek(tmp_path / "link.head", METADATA)


def test_a_run_is_removed_as_a_whole(runs: Path) -> None:
    folder = store.find(runs, LAST)
    freed = remove(runs, folder)
    assert freed > 2 * len(toy_head())
    assert [f.name for f in store.run_folders(runs)] == [FIRST]
    remove(runs, store.find(runs, FIRST))
    assert list(runs.iterdir()) == []


def test_a_removal_that_is_cut_off_is_ended_by_the_next_run(
    runs: Path, record: Record, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    folder = store.find(runs, LAST)
    with monkeypatch.context() as patch:
        patch.setattr("heads.results.removal.delete_folder", stop)
        with pytest.raises(KeyboardInterrupt):
            remove(runs, folder)
    assert [f.name for f in store.run_folders(runs)] == [FIRST]
    (left,) = leftovers.unused(runs)
    assert left.is_dir()
    store.save(record(20, run="20260105T000000-gda-000005"), runs)
    assert leftovers.find(runs) == []


def test_what_is_no_run_of_the_root_stays(runs: Path, tmp_path: Path) -> None:
    folder = store.find(runs, LAST)
    (runs / "link").symlink_to(folder.parent.parent)
    for strange in (folder.parent, runs / "link" / folder.parent.name / folder.name):
        with pytest.raises(CacheError, match="left alone"):
            remove(runs, strange)
    with pytest.raises(CacheError, match="left alone"):
        remove(runs / "other", folder)
    assert folder.is_dir()
