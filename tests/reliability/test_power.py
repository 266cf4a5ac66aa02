"""The power goes at any instant of a command, or after it: what was promised is there.

`make soak` looks at every disk that may be left; here it is a sample, the same each time.
"""

import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from featcache.store.format.files import write_atomically
from tests.reliability.disk import ROOT, Change, Disk, Entry, Said, Step, Sync, moments
from tests.reliability.faults import World
from tests.reliability.powerloss import Replay, cases, record, record_killed
from tests.reliability.recorder import KilledError, Recorder
from tests.reliability.stories import STORIES, BuildCorpus, Draw, Import, Remove, RemoveCorpus
from tests.reliability.stories_of_files import SavePngSheet, SaveSheet, UseTexts, WriteTexts
from tests.reliability.story import DONE, Story

Write = Callable[[Path, bytes], object]

SAMPLE, SAMPLE_OF_PICTURES = 24, 240
"""Disks of a story that are looked at; a picture is looked at in no time."""


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("power").resolve()
    with World(folder, rows=8).stand_in() as world:
        yield world


@pytest.mark.long
@pytest.mark.parametrize("kind", STORIES, ids=lambda kind: kind.name)
def test_a_command_whose_power_goes(kind: type[Story], world: World, tmp_path: Path) -> None:
    rng = random.Random(0)
    story = kind(world, tmp_path.resolve())
    recorder = record(story, story.folder / "disk")
    replay = Replay(story, story.folder)
    total = SAMPLE_OF_PICTURES if kind is Draw else SAMPLE
    left = cases(recorder, most=4, samples=4, rng=rng, total=total)
    for case in left:
        replay.check(case)
    replay.recover(rng.choice(left))
    assert replay.figures.faults == []


@pytest.mark.long
def test_a_kill_and_then_a_power_cut(world: World, tmp_path: Path) -> None:
    """What a killed process did last is on no disk yet; its successor must not build on it."""
    story = Import(world, tmp_path.resolve())
    calls = record(story, story.folder / "disk").calls
    replay = Replay(story, story.folder)
    # Before a barrier: that of the first folders, of the listing's pointer, of the last line.
    before_barrier = [
        i for i in range(1, len(calls)) if calls[i][0] == "fsync" and calls[i - 1][0] != "fsync"
    ]
    pointer = next(i for i, (_, path) in enumerate(calls) if path.endswith("/current.json"))
    for at in (before_barrier[0], pointer + 1, before_barrier[-1]):
        recorder, died = record_killed(story, story.folder / f"killed-{at}", at)
        left = cases(recorder, most=2, samples=2, rng=random.Random(at), since=died)
        for case in [case for case in left if DONE in case.said][-6:]:
            replay.check(case)
    assert replay.figures.checked >= 9
    assert replay.figures.faults == []


@pytest.mark.long
@pytest.mark.parametrize(
    "kind",
    [BuildCorpus, RemoveCorpus, UseTexts, WriteTexts, SaveSheet, SavePngSheet],
    ids=lambda kind: kind.name,
)
def test_a_command_killed_at_every_step(kind: type[Story], world: World, tmp_path: Path) -> None:
    """What was there before, what is new, or nothing; the same command then ends as ever."""
    story = kind(world, tmp_path.resolve())
    calls = record(story, story.folder / "disk").calls
    assert calls
    for at in range(len(calls)):
        record_killed(story, disk := story.folder / f"killed-{at}", at)
        story.check(disk, frozenset({DONE}))
        story.compare(disk)


def test_a_removal_killed_after_its_rename_and_then_a_power_cut(
    world: World, tmp_path: Path
) -> None:
    """The cache does not come back without its shards once the next `rm` has deleted them."""
    story = Remove(world, tmp_path.resolve())
    calls = record(story, story.folder / "disk").calls
    at = next(i for i, (call, _) in enumerate(calls) if call == "rename") + 1
    recorder, died = record_killed(story, story.folder / "killed", at)
    replay = Replay(story, story.folder)
    for case in cases(recorder, most=4, samples=4, rng=random.Random(0), since=died):
        replay.check(case)
    assert replay.figures.checked >= 5
    assert replay.figures.faults == []


# The model itself: it must find what is wrong


def carelessly(path: Path, data: bytes) -> None:
    aside = path.with_name("aside")
    aside.write_bytes(data)
    aside.replace(path)


def without_the_folder(path: Path, data: bytes) -> None:
    with path.with_name("aside").open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    path.with_name("aside").replace(path)


def left_by(write: Write, root: Path) -> list[tuple[bytes | None, bool]]:
    """Return the contents of a file that is replaced, and whether that had been reported."""
    (root / "file").write_bytes(b"old" * 100)
    recorder = Recorder(root)
    with recorder:
        write(root / "file", b"new" * 200)
        recorder.say([DONE])
    found = cases(recorder, most=8, samples=8, rng=random.Random(0))
    return [(case.tree.get("file"), DONE in case.said) for case in found]


@pytest.mark.parametrize(
    ("write", "torn", "lost"),
    [
        (carelessly, True, True),
        (without_the_folder, False, True),
        (write_atomically, False, False),
    ],
)
def test_what_is_not_synced_is_lost_or_torn(
    write: Write, torn: bool, lost: bool, tmp_path: Path
) -> None:
    old, new = b"old" * 100, b"new" * 200
    left = left_by(write, tmp_path.resolve())
    assert {old, new} <= {content for content, _ in left}
    assert any(content not in (old, new) for content, _ in left) == torn
    assert ((old, True) in left) == lost


def test_every_subset_prefix_and_omission_of_what_is_pending(tmp_path: Path) -> None:
    start = Disk({1: b"", 2: b""}, {ROOT: {}})
    steps: list[Step] = [
        Entry(((ROOT, "a", 1),)),
        Change(1, 0, b"one"),
        Sync(1),
        Said(frozenset({"a is whole"})),
        Entry(((ROOT, "a", None), (ROOT, "b", 1))),
        Entry(((ROOT, "c", 2),)),
    ]
    (first, told, last) = moments(start, steps)
    assert [len(m.pending) for m in (first, told, last)] == [2, 1, 3]
    assert [sorted(m.said) for m in (first, told, last)] == [[], ["a is whole"], ["a is whole"]]
    rng = random.Random(0)
    trees = [set(last.left(choice).tree()) for choice in last.choices(most=8, samples=0, rng=rng)]
    # A move without the name before it; a name that came later, alone. Never both a and b.
    assert {frozenset(tree) for tree in trees} == {
        frozenset(names) for names in ("", "a", "b", "c", "ac", "bc")
    }
    torn = {first.left(c).files[1] for c in first.choices(most=0, samples=0, rng=rng)}
    assert torn == {b"", b"one", b"\0\0\0", b"o", b"o\0\0", b"\0ne"}


def test_a_killed_process_writes_nothing_more(tmp_path: Path) -> None:
    root = tmp_path.resolve()
    recorder = Recorder(root)
    recorder.dies_at = 2  # the barrier behind the bytes of the file
    with pytest.raises(KilledError), recorder:
        write_atomically(root / "file", b"whole")
    (left,) = root.iterdir()
    assert left.name.startswith(".file.tmp-")
    assert left.read_bytes() == b"whole"
    with recorder:
        write_atomically(root / "file", b"again")
    assert (root / "file").read_bytes() == b"again"
    assert [call for call, _ in recorder.calls][:3] == ["create", "write", "create"]
