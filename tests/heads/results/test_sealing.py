"""A changed byte in a run is never a changed figure; what a killed save leaves goes away."""

import errno
import fcntl
import json
import os
import pickle
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from featcache.errors import ImportedFileError
from heads.results import leftovers, sealing, store
from heads.results.compare import compare as comparison
from heads.results.reading import from_dict
from heads.results.record import Result
from heads.results.render.csv import to_csv
from heads.results.render.markdown import to_markdown
from heads.results.verify import verify_runs


def shown(root: Path) -> tuple[str, tuple[str, ...]]:
    found = comparison.compare(root)
    return to_csv(found.groups) + to_markdown(found.groups), found.problems


def small(record: Any, answers: Any, **more: Any) -> Result:
    result: Result = record(
        1, predictions=answers(1, n=8), beside={"episodes.json": b"[1]"}, **more
    )
    return result


def as_before(folder: Path, **changes: Any) -> dict[str, Any]:
    """Turn a run into one of the time before seals; return its record."""
    raw: dict[str, Any] = json.loads((folder / store.RECORD).read_text())
    for name in ("crc", "files", "support", "unreadable"):
        del raw[name]
    raw |= {"format": 1, **changes}
    (folder / store.RECORD).write_text(json.dumps(raw) + "\n")
    return raw


def flipped(data: bytes, at: int, by: int) -> bytes:
    return data[:at] + bytes([data[at] ^ by]) + data[at + 1 :]


def test_every_flipped_byte_of_every_file_is_noticed(
    record: Any, answers: Any, tmp_path: Path
) -> None:
    folder = store.save(small(record, answers), tmp_path)
    rng = np.random.default_rng(0)
    places = [(p, i) for p in sorted(folder.iterdir()) for i in range(p.stat().st_size)]
    assert {p.name for p, _ in places} == {"result.json", "predictions.npz", "episodes.json"}
    for number in rng.permutation(len(places))[:300]:
        path, at = places[number]
        data = path.read_bytes()
        path.write_bytes(flipped(data, at, int(rng.integers(1, 256))))
        with pytest.raises(ImportedFileError, match=re.escape(str(folder))):
            store.load(folder)
        path.write_bytes(data)
    assert store.load(folder).sealed


def test_a_flipped_byte_never_changes_a_table(record: Any, answers: Any, tmp_path: Path) -> None:
    folder = store.save(small(record, answers), tmp_path)
    store.save(record(2, method="knn"), tmp_path)
    whole = shown(tmp_path)
    assert ",cmm," in whole[0]
    for path in sorted(folder.iterdir()):
        data = path.read_bytes()
        path.write_bytes(flipped(data, len(data) // 2, 1))
        text, problems = shown(tmp_path)
        assert len(problems) == 1
        assert str(folder) in problems[0]
        assert ",cmm," not in text
        assert ",knn," in text
        path.write_bytes(data)
    assert shown(tmp_path) == whole


@pytest.mark.parametrize("name", ["result.json", "predictions.npz", "episodes.json"])
def test_a_lost_file_is_named(record: Any, answers: Any, tmp_path: Path, name: str) -> None:
    folder = store.save(small(record, answers), tmp_path)
    (folder / name).unlink()
    _, problems = shown(tmp_path)
    assert len(problems) == 1
    assert str(folder / name) in problems[0]


def test_runs_of_before_are_read_and_marked(record: Any, tmp_path: Path) -> None:
    folder = store.save(record(), tmp_path)
    as_before(folder)
    again = store.load(folder)
    assert (again, again.sealed, again.marks) == (record(), False, ("unsealed",))
    assert again.support is None
    report = verify_runs(tmp_path)
    assert (report.is_sound, report.unsealed) == (True, (folder.name,))


def test_equal_runs_of_before_are_one_row(record: Any, answers: Any, tmp_path: Path) -> None:
    kept = answers(1)
    for seed in (1, 2, 3):
        folder = store.save(record(seed, predictions=kept), tmp_path)
        as_before(folder)
    (group,) = comparison.compare(tmp_path).groups
    (row,) = group.rows
    assert (row.run, row.equals) == (folder.name, 2)


@pytest.mark.parametrize("place", ["mean", "values", "zero_shot_top1"])
def test_a_figure_that_differs_from_the_answers_is_named(
    record: Any, tmp_path: Path, place: str
) -> None:
    folder = store.save(record(), tmp_path)
    raw = as_before(folder)
    for name in ("top1", "macro_f1", "balanced_accuracy") if place != "zero_shot_top1" else ("",):
        changed = json.loads(json.dumps(raw))
        if name:
            changed["metrics"][name][place] = [0.25] if place == "values" else 0.25
        else:
            changed[place] = 0.25
        (folder / store.RECORD).write_text(json.dumps(changed))
        with pytest.raises(ImportedFileError, match=r"as 0\.25, and its answers give 0\.\d+;"):
            store.load(folder)
        assert comparison.compare(tmp_path).groups == ()


def test_what_was_sealed_cannot_pass_as_older(record: Any, tmp_path: Path) -> None:
    folder = store.save(record(), tmp_path)
    path = folder / store.RECORD
    text = path.read_text()
    for changed in (
        text.replace(',"crc":"', ',"crb":"'),
        text.replace('"format":2', '"format":1'),
        text.rstrip("\n"),
        json.dumps({k: v for k, v in json.loads(text).items() if k != "crc"}),
    ):
        assert changed != text
        path.write_text(changed)
        with pytest.raises(ImportedFileError, match="not what was written"):
            store.load(folder)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("seconds", {"fit": 1e308, "evaluate": 1e308}),
        ("seconds", {"fit": -1.0}),
        ("shots", 10**12),
        ("shots", -1),
        ("seeds", [1] * 200_000),
        ("seeds", [1, 2]),
        ("seeds", [10**30]),
        ("queries", 2**40),
        ("classes", 2**40),
        ("zero_shot_top1", 1.5),
        ("config", {"lr": 10**400}),
        ("support", {"smallest": 5, "largest": 4, "whole": True, "stored": False}),
        ("support", {"smallest": 1, "largest": 4, "whole": 1, "stored": False}),
        ("unreadable", -1),
    ],
)
def test_numbers_have_ranges(record: Any, field: str, value: object) -> None:
    with pytest.raises(ImportedFileError, match=f"{field}|smallest|whole"):
        from_dict(record().as_dict() | {field: value})


@pytest.mark.parametrize(("field", "value"), [("mean", 7.0), ("values", [-0.1]), ("ci95", -1.0)])
def test_figures_are_fractions(record: Any, field: str, value: object) -> None:
    raw = record().as_dict()
    raw["metrics"]["macro_f1"][field] = value
    with pytest.raises(ImportedFileError, match=f"macro_f1.*{field}"):
        from_dict(raw)


def test_a_damaged_run_leaves_its_place_to_an_older_one(record: Any, tmp_path: Path) -> None:
    older = store.save(record(1), tmp_path)
    newer = store.save(record(2), tmp_path)
    (newer / store.ANSWERS).write_bytes(b"")
    found = comparison.compare(tmp_path)
    assert [row.run for row in found.groups[0].rows] == [older.name]
    assert len(found.problems) == 1


def test_verify_names_what_is_damaged(record: Any, tmp_path: Path) -> None:
    store.save(record(1), tmp_path)
    broken = store.save(record(2), tmp_path)
    assert verify_runs(tmp_path).is_sound
    (broken / store.ANSWERS).write_bytes(b"")
    report = verify_runs(tmp_path)
    assert (report.runs, report.is_sound) == (2, False)
    assert [p.run for p in report.problems] == [broken.name]
    assert json.loads(json.dumps(report.to_json()))["sound"] is False


STUCK = """
import pickle, sys, time
from pathlib import Path
from heads.results import store

def write(path, data):
    path.write_bytes(data[:10])
    print("writing", flush=True)
    time.sleep(600)

store._write = write
store.save(pickle.loads(Path(sys.argv[1]).read_bytes()), Path(sys.argv[2]))
"""


@contextmanager
def in_the_middle(result: Result, root: Path, scratch: Path) -> Iterator[None]:
    """Let another process be in the middle of a save while the block runs; it is killed then."""
    (scratch / result.run).write_bytes(pickle.dumps(result))
    command = [sys.executable, "-c", STUCK, str(scratch / result.run), str(root)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"writing\n"
        try:
            yield
        finally:
            child.kill()


@pytest.mark.slow
def test_what_killed_runs_left_is_removed_and_what_living_ones_write_is_not(
    record: Any, tmp_path: Path
) -> None:
    root = tmp_path / "runs"
    mine = root / "toy" / "mine" / ".notes.tmp-of-mine"
    mine.mkdir(parents=True)
    with in_the_middle(record(1), root, tmp_path):
        with in_the_middle(record(2), root, tmp_path):
            pass
        assert verify_runs(root).unfinished == 2
        store.save(record(3), root)
        assert len(leftovers.find(root)) == 2  # one of them is being written
    store.save(record(4), root)
    assert leftovers.find(root) == []
    assert mine.is_dir()
    assert len(store.load_all(root).results) == 2


def test_a_writer_waits_for_as_long_as_somebody_removes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, held = iter(range(0, 10**9, 3600)), iter([True] * 50)

    def busy(handle: int, kind: int) -> None:
        if next(held, False):
            raise BlockingIOError

    with monkeypatch.context() as slow:
        slow.setattr(fcntl, "flock", busy)
        slow.setattr(time, "monotonic", lambda: float(next(clock)))
        slow.setattr(time, "sleep", lambda seconds: None)
        with leftovers.writing(tmp_path):
            assert not next(held, False)  # the other has let go, after two days
    monkeypatch.setattr(fcntl, "flock", _no_locks)
    with leftovers.writing(tmp_path):
        pass


def _no_locks(handle: int, kind: int) -> None:
    raise OSError(errno.ENOLCK, "No locks available")


def test_a_slow_removal_does_not_take_what_is_being_written(record: Any, tmp_path: Path) -> None:
    folder = os.open(tmp_path, os.O_RDONLY)
    fcntl.flock(folder, fcntl.LOCK_EX)  # somebody removes
    saving = threading.Thread(target=store.save, args=(record(1), tmp_path))
    saving.start()
    saving.join(0.3)
    begun = leftovers.find(tmp_path)
    os.close(folder)
    saving.join()
    assert begun == []
    assert store.load(store.find(tmp_path, record(1).run)) == record(1)


def test_facts_are_those_of_the_bytes() -> None:
    assert sealing.facts(b"abc") == {
        "bytes": 3,
        "crc32": 0x352441C2,
        "sha256": "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
    }
