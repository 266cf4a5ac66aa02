"""Files of a cache that are cut, changed, lost, or replaced: what is said, and what mends them.

`repair` ends with the very bytes that were lost and encodes nothing that was not.
"""

import errno
import random
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from featcache.errors import CorruptCacheError
from featcache.store.cache import Cache
from featcache.store.format.identity import KEY_FILE, MANIFEST
from featcache.store.repair.verify import repair, verify
from tests.reliability.checks import shard_lines
from tests.reliability.damages import BROKEN, listed, replace_by, shard
from tests.reliability.faults import LITTLE, Fault, World, failing, flip, said_by
from tests.reliability.flips import flips, read_flips
from tests.tiers import quick

TRIALS = 200
"""Changed bytes; `benchmarks/flips.py` changes thousands."""


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with World(tmp_path_factory.mktemp("damage")).stand_in() as world:
        yield world


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "caches"


def lost_in(path: Path) -> list[str]:
    """Return how each thing begins that is wrong; rows that wait to be encoded again are all."""
    said = [str(problem) for problem in verify(path, full=True).problems]
    assert all("lost to damage and not encoded again. Run `featcache repair`" in s for s in said)
    return [what.partition(" /")[0] for what in said]


@pytest.mark.parametrize("name", quick(BROKEN, 9))
def test_damage_is_found_named_and_mended(world: World, root: Path, name: str) -> None:
    path = world.sound(root, **LITTLE)
    damage, named, batches = BROKEN[name]
    damage(path)
    found = world.command("verify", "--cache", root)
    assert found.code == 1
    lines = [line for line in found.out.splitlines() if named in line]
    assert lines
    assert all(str(path) in line for line in lines)
    assert "featcache repair" in lines[-1]
    before = len(world.backbone.batches)
    answer = world.command("repair", "--cache", root)
    assert answer.code == 0, answer
    assert len(world.backbone.batches) - before == batches
    world.check_files(root, **LITTLE)
    assert world.extract(root, **LITTLE).encoded == {}


@pytest.mark.parametrize(
    "name",
    quick(["shard deleted", "shard cut", "shard a folder", "component gone",
     "text strings gone", "key flipped", "manifest flipped", "manifest gone", "listing's set gone",
     "current.json gone", "current.json flipped", "hashes.bin of the set flipped"], 4),
)  # fmt: skip
def test_an_extraction_says_so_and_touches_nothing(world: World, root: Path, name: str) -> None:
    path = world.sound(root, **LITTLE)
    BROKEN[name][0](path)
    with pytest.raises(CorruptCacheError) as caught:
        world.extract(root, **LITTLE)
    said = said_by(caught.value)
    assert BROKEN[name][1] in said
    assert "featcache repair" in said
    assert world.command("repair", "--cache", root).code == 0
    world.check_files(root, **LITTLE)


def test_a_link_in_the_place_of_a_shard_is_left_to_the_user(world: World, root: Path) -> None:
    path = world.sound(root, **LITTLE)
    link = shard(path)
    replace_by(lambda file: file.symlink_to("../../../../aside"))(path)
    with pytest.raises(CorruptCacheError, match="is a symbolic link"):
        world.extract(root, **LITTLE)
    for command in ("verify", "repair"):
        answer = world.command(command, "--cache", root)
        assert answer.code == 1
        assert f"{link} is a symbolic link" in answer.out
    link.unlink()
    (path.parents[2] / "aside").rename(link)
    world.check_whole(root, **LITTLE)


def test_one_broken_shard_of_every_component_at_once(world: World, root: Path) -> None:
    path = world.sound(root)
    lines = {line["component"]: line for line in shard_lines(root)}
    assert len(lines) == 7
    for name, line in lines.items():
        flip(path / name / line["file"], line["facts"]["bytes"] - 9)
    lost = sum(line["facts"]["shape"][0] for line in lines.values())
    found = world.command("verify", "--cache", root)
    assert found.out.count("featcache repair") == len(lines)
    answer = world.command("repair", "--cache", root)
    assert answer.code == 0, answer
    assert sum(map(int, re.findall(r" (\d+) rows", answer.out))) == lost
    world.check_files(root)


@pytest.mark.long
def test_a_manifest_cut_anywhere(world: World, root: Path) -> None:
    """Every fifth position of the last line, some of the four before it, and every end of line."""
    path = world.sound(root, **LITTLE)
    data = (path / MANIFEST).read_bytes()
    starts = [0, *(i + 1 for i, byte in enumerate(data) if byte == 10)]
    shards = len(shard_lines(root))
    places = [*range(starts[-6], starts[-2], 97), *starts[-6:-1], *range(starts[-2], len(data), 5)]
    for place in places:
        (path / MANIFEST).write_bytes(data[:place])
        opened = Cache.open(path)  # the lines in front of the cut stay
        assert sum(map(len, opened.shards.values())) >= data[:place].count(b'"kind":"shard"') - 1
        said = [str(p) for p in verify(path, workers=1).problems]
        assert [MANIFEST in what for what in said] == [True] * (place not in starts)
        if place % 4 == 0 or place in starts:
            with opened.lock():
                assert sum(map(len, opened.shards.values())) == shards
    (path / MANIFEST).write_bytes(data[: starts[-3] + 50])
    assert world.extract(root, **LITTLE).encoded == {}
    world.check_whole(root, **LITTLE)


@pytest.mark.long
def test_lines_dropped_swapped_doubled_and_joined(world: World, root: Path) -> None:
    path = world.sound(root, **LITTLE)
    data = (path / MANIFEST).read_bytes()
    head, *lines = data.splitlines(keepends=True)
    rng = random.Random(3)
    batches = len(world.backbone.batches)
    for trial in range(12):
        changed = list(lines)
        i, j = rng.sample(range(len(lines) - 1), 2)
        match trial % 4:
            case 0:
                del changed[i]
            case 1:
                changed[i], changed[j] = changed[j], changed[i]
            case 2:
                changed.insert(j, changed[i])
            case _:
                changed[i] = changed[i][:-1] + b"\x0b"
        (path / MANIFEST).write_bytes(head + b"".join(changed))
        with pytest.raises(CorruptCacheError, match="featcache repair"):
            Cache.open(path)
        report = repair(path)
        assert report.is_sound
        assert report.dropped == ()
        lines_now = [(x["component"], x["file"]) for x in shard_lines(root)]
        assert len(lines_now) == len(set(lines_now))
        world.check_files(root, **LITTLE)
    assert world.extract(root, **LITTLE).encoded == {}
    assert len(world.backbone.batches) == batches


@pytest.mark.parametrize("name", [KEY_FILE, MANIFEST])
def test_a_folder_in_the_place_of_a_file_of_the_cache(world: World, root: Path, name: str) -> None:
    path = world.sound(root, **LITTLE)
    (path / name).unlink()
    (path / name).mkdir()
    answer = world.command("repair", "--cache", root)
    assert answer.code == 1
    assert f"{path / name} is no plain file. Move it away and run `featcache repair`." in answer.err
    (path / name).rmdir()
    assert world.command("repair", "--cache", root).code == 0
    world.check_files(root, **LITTLE)


def test_a_cache_that_is_lost_says_so(world: World, root: Path) -> None:
    path = world.sound(root, **LITTLE)
    flip(path / KEY_FILE, 20)
    flip(path / MANIFEST, 20)
    answer = world.command("repair", "--cache", root)
    assert answer.code == 1
    assert "is lost: both key.json and the first line of manifest.jsonl are damaged" in answer.err
    assert "featcache rm" in answer.err
    assert world.command("rm", "zoo", "--yes", "--cache", root).code == 0


@pytest.mark.long
def test_every_changed_byte_is_found(tmp_path: Path) -> None:
    with World(tmp_path, rows=16).stand_in() as small:
        path = small.sound(tmp_path / "caches")
        found = list(flips(path, TRIALS, seed=1))
        assert [f for f in found if not f.problems] == []
        assert len({f.file for f in found}) > 20
        small.check_whole(tmp_path / "caches")
        flip(path / found[0].file, found[0].place, found[0].mask)
        assert small.command("verify", "--cache", tmp_path / "caches").code == 1


@pytest.mark.long
def test_no_changed_byte_is_read(tmp_path: Path) -> None:
    with World(tmp_path, rows=16).stand_in() as small:
        path = small.sound(tmp_path / "caches")
        kinds = {name.partition(".")[0] for name in Cache.open(path).shards}
        assert kinds == {"global", "patches", "views", "crops", "boxes", "view_patches"}
        found = list(read_flips(path, TRIALS, seed=2))
        assert [f for f in found if f.is_missed] == []
        assert {f.component for f in found if f.is_in_rows} == Cache.open(path).shards.keys()
        for beside in path.glob("*/*.sums"):
            beside.unlink()  # as earlier versions left it
        assert [f for f in read_flips(path, 60, seed=3) if f.is_missed] == []
        assert small.extract(tmp_path / "caches").encoded == {}
        small.check_whole(tmp_path / "caches")


def test_checksums_that_are_gone_are_added_by_the_next_pass(world: World, root: Path) -> None:
    path, said = world.sound(root, **LITTLE), list[str]()
    gone = sorted(path.glob("*/*.sums"))[::2]
    for beside in gone:
        beside.unlink()
    flip(gone[0].with_suffix(".h5"), 2_600)
    before = gone[0].with_suffix(".h5").read_bytes()
    cure = r"is not what was written.*featcache repair"
    with pytest.raises(CorruptCacheError, match=cure):
        world.extract(root, said.append, **LITTLE)
    assert any(
        f"Added checksums of rows to {len(gone) - 1} shards that had none" in s for s in said
    )
    assert not gone[0].exists()
    assert gone[0].with_suffix(".h5").read_bytes() == before
    assert world.command("repair", "--cache", root).code == 0
    world.check_files(root, **LITTLE)


def test_images_that_are_gone_are_missed(world: World, root: Path) -> None:
    path = world.sound(root, **LITTLE)
    (path / "global/00000004-00000008.h5").unlink()
    listing = Cache.open(path).listing()
    assert listing is not None
    photo = world.photos / listing.ids[5]
    photo.rename(world.folder / "aside.png")
    try:
        answer = world.command("repair", "--cache", root)
    finally:
        (world.folder / "aside.png").rename(photo)
    assert answer.code == 1
    assert "encoded again: global 3 rows" in answer.out
    assert "1 row has lost its image" in answer.out
    assert "featcache extract --dataset zoo --backbone fake" in answer.out
    assert lost_in(path) == ["1 rows of"]
    assert world.extract(root, **LITTLE).encoded == {"global": 1}
    assert verify(path, full=True).problems == ()


def test_a_folder_of_images_that_is_gone(world: World, root: Path) -> None:
    path = world.sound(root, **LITTLE)
    (path / "global/00000004-00000008.h5").unlink()
    world.photos.rename(world.folder / "moved")
    try:
        answer = world.command("repair", "--cache", root)
    finally:
        (world.folder / "moved").rename(world.photos)
    assert answer.code == 1
    assert f"The images were in {world.photos}, which is gone. Put them back" in answer.err
    assert lost_in(path) == ["4 rows of"]
    assert world.extract(root, **LITTLE).encoded == {"global": 4}
    world.check_files(root, **LITTLE)


def test_other_versions_are_compared_first(
    world: World, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = world.sound(root, **LITTLE)
    flip(shard(path, "patches.clearclip"), 2_600)
    monkeypatch.setitem(world.environment, "torch", "2")
    with monkeypatch.context() as patch:
        patch.setattr(world.backbone, "wide", world.backbone.wide.flip(0))
        answer = world.command("repair", "--cache", root)
        assert answer.code == 1
        assert "8 images of this cache" in answer.err
        assert "Use the environment that wrote it" in answer.err
    assert lost_in(path) == ["4 rows of"]
    encoded = world.extract(root, **LITTLE).encoded  # versions that give the same numbers may add
    assert encoded == {"patches.clearclip": 4}


@pytest.mark.parametrize("call", quick(["open", "write", "fsync", "replace"], 2))
@pytest.mark.parametrize("at", quick([2, 6], 1))
def test_a_repair_that_fails_can_be_tried_again(
    world: World, root: Path, call: str, at: int
) -> None:
    path = world.sound(root, **LITTLE)
    shard(path).unlink()
    flip(path / MANIFEST, 1_500)
    flip(listed(path, 0) / "hashes.bin", 5)
    with failing(root, Fault(call=call, error=errno.EIO, at=at, lasting=True)) as tally:
        answer = world.command("repair", "--cache", root)
    assert (answer.code == 1) == bool(tally.failed), answer
    assert not tally.failed or "Input/output error" in answer.err
    again = world.command("repair", "--cache", root)
    assert again.code == 0, again
    world.extract(root, **LITTLE)  # what the first repair took out and could not encode
    world.check_files(root, **LITTLE)
