import io
import json
import pickle
import warnings
import zipfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from featcache.errors import (
    CacheError,
    FeatcacheError,
    ImportedFileError,
    UnknownNameError,
    UsageError,
)
from heads.results import answers, store
from heads.results.record import Predictions


def test_round_trip_with_predictions(record: Any, tmp_path: Path) -> None:
    result = record(r=3)
    folder = store.save(result, tmp_path)
    assert folder == tmp_path / "toy" / "ViT-B-32-0123456789ab" / result.run
    again = store.load(folder)
    assert again == result
    for name in ("predicted", "labels", "zero_shot"):
        ours, theirs = getattr(result.predictions, name), getattr(again.predictions, name)
        assert np.array_equal(ours, theirs)
        assert theirs.dtype == np.int32
    assert store.load(folder, predictions=False).predictions is None


@pytest.mark.parametrize(
    "fields",
    [
        {"seeds": (2**70,)},
        {"config": {"steps": 10**30}},
        {"notes": ("x" * 2**24,)},
    ],
)
def test_what_could_not_be_read_again_is_not_stored(
    record: Any, tmp_path: Path, fields: dict[str, Any]
) -> None:
    with pytest.raises(CacheError, match="could not be read again"):
        store.save(record(**fields), tmp_path)
    assert not [p for p in tmp_path.rglob("*") if p.is_file() and not p.name.startswith(".")]


def test_runs_are_listed_oldest_first_and_found_by_name(record: Any, tmp_path: Path) -> None:
    for seed in (2, 1):
        store.save(record(seed), tmp_path)
    shelf = store.load_all(tmp_path)
    assert [r.run for r in shelf.results] == [record(1).run, record(2).run]
    assert shelf.problems == ()
    assert store.load(store.find(tmp_path, record(1).run)) == record(1)
    with pytest.raises(UnknownNameError, match=record(1).run[:-1]):
        store.find(tmp_path, record(1).run[:-1])
    assert store.load_all(tmp_path / "none").results == ()


def test_a_failed_write_leaves_nothing(
    record: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, data: bytes) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(store, "_write", full)
    with pytest.raises(CacheError, match="No space left"):
        store.save(record(), tmp_path)
    assert [p for p in tmp_path.rglob("*") if p.is_file()] == []
    assert store.load_all(tmp_path).results == ()


def test_a_run_is_never_overwritten(record: Any, tmp_path: Path) -> None:
    store.save(record(), tmp_path)
    with pytest.raises(CacheError, match="a run of that name exists"):
        store.save(record(), tmp_path)
    assert len(store.load_all(tmp_path).results) == 1


def test_a_root_that_is_a_file_is_said(record: Any, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CacheError, match=r"with root\."):
        store.save(record(), tmp_path / "file")


def test_names_stay_inside_the_root(record: Any, tmp_path: Path) -> None:
    folder = store.save(record(dataset="../../etc", backbone="..", key="/"), tmp_path / "runs")
    assert folder.resolve().is_relative_to((tmp_path / "runs").resolve())


GOOD = np.zeros((1, 40), dtype="<i4")


def npz(**members: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(f"{name}.npy", data)
    return buffer.getvalue()


def doubled(name: str, times: int) -> bytes:
    """Return answers that hold one entry several times."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for member in ("predicted", "labels"):
            archive.writestr(f"{member}.npy", npy(GOOD))
        for _ in range(times):
            with warnings.catch_warnings(action="ignore"):
                archive.writestr(name, b'["a"]' + b" " * 1_000_000)
    return buffer.getvalue()


def npy(array: Any) -> bytes:
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, np.asarray(array), allow_pickle=True)
    return buffer.getvalue()


class Bomb:
    """Unpickling this writes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


FOREIGN: dict[str, Callable[[], bytes]] = {
    "nothing": lambda: b"",
    "no archive": lambda: b"PK\x03\x04 not really",
    "no labels": lambda: npz(predicted=npy(GOOD)),
    "fewer labels": lambda: npz(predicted=npy(GOOD), labels=npy(GOOD[:, :3])),
    "real labels": lambda: npz(predicted=npy(GOOD), labels=npy(GOOD.astype(float))),
    "labels too large": lambda: npz(predicted=npy(GOOD), labels=npy(GOOD + 4)),
    "labels below zero": lambda: npz(predicted=npy(GOOD), labels=npy(GOOD - 1)),
    "labels cut short": lambda: npz(predicted=npy(GOOD), labels=npy(GOOD)[:-1]),
    "no header": lambda: npz(predicted=npy(GOOD), labels=b"\x93NUMPY\x01\x00\xff\xff"),
    "more": lambda: npz(predicted=npy(GOOD), labels=npy(GOOD), more=b"\x00" * 50_000_000),
    "ids twice": lambda: doubled("ids.json", 2),
    "ids 300 times": lambda: doubled("ids.json", 300),
    "labels twice": lambda: doubled("labels.npy", 1),
}


@pytest.mark.parametrize("make", FOREIGN.values(), ids=FOREIGN)  # made when run: they take seconds
def test_foreign_answers_are_refused(
    record: Any, tmp_path: Path, make: Callable[[], bytes]
) -> None:
    data = make()
    folder = store.save(record(), tmp_path)
    (folder / store.ANSWERS).write_bytes(data)
    with pytest.raises(ImportedFileError, match="not what was written"):
        store.load(folder)
    with pytest.raises(ImportedFileError, match=r"answers of its run|lacks 'labels'"):
        answers.unpack(data, record(), folder)  # had it a seal that fits


def test_answers_do_not_unpack_from_next_to_nothing(
    record: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    n = 100_000
    same = np.zeros((1, n), dtype=np.int32)
    result = record(predictions=Predictions(predicted=same, labels=same), zero_shot_top1=None)
    monkeypatch.setattr(answers, "RATIO_FROM", 4 * n)
    folder = store.save(result, tmp_path)
    kept = store.load(folder).predictions  # ours are stored plainly where they are that even
    assert kept is not None
    assert np.array_equal(kept.predicted, same)
    with pytest.raises(ImportedFileError, match="unpacks from"):
        answers.unpack(npz(predicted=npy(same), labels=npy(same)), result, folder)


def test_nothing_is_unpickled(record: Any, tmp_path: Path) -> None:
    folder = store.save(record(), tmp_path)
    trap = np.empty((1, 40), dtype=object)
    trap[0, 0] = Bomb(tmp_path / "fired")
    (folder / store.ANSWERS).write_bytes(npz(predicted=npy(GOOD), labels=npy(trap)))
    with pytest.raises(ImportedFileError):
        store.load(folder)
    (folder / store.RECORD).write_bytes(pickle.dumps(Bomb(tmp_path / "fired")))
    with pytest.raises(ImportedFileError):
        store.load(folder)
    assert not (tmp_path / "fired").exists()


def test_every_truncation_is_refused(record: Any, tmp_path: Path) -> None:
    folder = store.save(record(), tmp_path)
    for name in (store.RECORD, store.ANSWERS):
        whole = (folder / name).read_bytes()
        for length in range(0, len(whole) - 1, 37):
            (folder / name).write_bytes(whole[:length])
            with pytest.raises(FeatcacheError):
                store.load(folder)
        (folder / name).write_bytes(whole)
    store.load(folder)


def test_flipped_bytes_never_crash(record: Any, tmp_path: Path) -> None:
    folder = store.save(record(), tmp_path)
    rng = np.random.default_rng(0)
    for name in (store.RECORD, store.ANSWERS):
        whole = (folder / name).read_bytes()
        for _ in range(80):
            data = bytearray(whole)
            data[rng.integers(len(data))] ^= int(rng.integers(1, 256))
            (folder / name).write_bytes(bytes(data))
            with suppress(FeatcacheError):
                store.load(folder)
        (folder / name).write_bytes(whole)


def test_a_broken_run_does_not_hide_the_others(record: Any, tmp_path: Path) -> None:
    store.save(record(1), tmp_path)
    broken = store.save(record(2), tmp_path)
    (broken / store.RECORD).write_text(json.dumps({"format": 99}))
    shelf = store.load_all(tmp_path)
    assert [r.run for r in shelf.results] == [record(1).run]
    assert len(shelf.problems) == 1
    assert str(broken) in shelf.problems[0]


def test_runs_root_is_a_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(CacheError, match=r"file is a file, not a folder.*with root"):
        store.runs_root(tmp_path / "file")
    with pytest.raises(UsageError, match="home folder of somebody who is unknown"):
        store.runs_root(Path("~nobody-of-that-name/runs"))
    monkeypatch.setenv("FEATCACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(CacheError, match=r"file is a file, not a folder.*FEATCACHE_HOME"):
        store.runs_root()
    monkeypatch.setenv("FEATCACHE_HOME", "~nobody-of-that-name")
    with pytest.raises(UsageError, match="home folder of somebody who is unknown"):
        store.runs_root()


def test_runs_root(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("FEATCACHE_HOME", str(tmp_path))
    assert store.runs_root(tmp_path / "mine") == tmp_path / "mine"
    assert store.runs_root() == tmp_path / "runs"
    monkeypatch.delenv("FEATCACHE_HOME")
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    assert store.runs_root() == tmp_path / "data" / "featcache" / "runs"


def test_a_root_is_tried_before_training(tmp_path: Path) -> None:
    store.check_writable(tmp_path / "new" / "runs")
    assert list((tmp_path / "new" / "runs").iterdir()) == []
    (tmp_path / "file").write_text("")
    with pytest.raises(CacheError, match=r"with root\."):
        store.check_writable(tmp_path / "file")
