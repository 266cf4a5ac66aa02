"""A disk that fails, fills up or cannot be written; locks, clocks and other processes in the way.

Each time: the user is told in one sentence what to do, nothing finished is lost, and the same
command then completes to the bytes of an undisturbed run.
"""

import errno
import fcntl
import os
import shutil
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from featcache.errors import CacheError, CorruptCacheError, FeatcacheError
from featcache.store import library
from featcache.store.cache import Cache
from featcache.store.lock import OWNER
from featcache.store.repair.verify import verify
from tests.reliability.checks import check_instant, shard_lines
from tests.reliability.faults import (
    LITTLE,
    Child,
    Fault,
    World,
    cache_in,
    failing,
    flip,
    said_by,
)
from tests.tiers import quick

KEPT = "the same command"
CALLS = {"open": 49, "write": 59, "fsync": 83, "replace": 37, "mkdir": 19}
"""How many calls a small extraction makes, about."""


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with World(tmp_path_factory.mktemp("faults")).stand_in() as world:
        world.extract(tmp_path_factory.mktemp("warm"), **LITTLE)
        yield world


@pytest.fixture
def child() -> Child:
    return Child()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "caches"


def finished(root: Path) -> dict[str, bytes]:
    """Return the shards that the manifest speaks of."""
    folders = [p.parent for p in root.glob("*/*/manifest.jsonl")]
    names = [f"{p.relative_to(root)}/{x['component']}/{x['file']}"
             for p in folders for x in shard_lines(root)]  # fmt: skip
    return {name: (root / name).read_bytes() for name in names}


def fail_twice_then_complete(world: World, root: Path, *faults: Fault) -> list[str]:
    """Extract on a failing disk, again and again, and then on a sound one."""
    said: list[str] = []
    before: dict[str, bytes] = {}
    for fault in faults:
        with failing(root, fault) as tally:
            try:
                world.extract(root, **LITTLE)
            except FeatcacheError as error:
                said.append(said_by(error))
                assert str(root) in said[-1], fault
        # A folder that cannot be made, but is there already, is no failure.
        assert tally.failed == 0 or said or fault.call == "mkdir", fault
        world.check_kept(root, before, **LITTLE)
        before = finished(root)
    world.extract(root, **LITTLE)
    for name, data in before.items():
        assert (root / name).read_bytes() == data
    check_instant(root, None)
    world.check_whole(root, **LITTLE)
    return said


@pytest.mark.parametrize(
    ("room", "code"),
    quick(
        [(0, errno.ENOSPC), (3_000, errno.EDQUOT), (20_000, errno.EFBIG), (50_001, errno.ENOSPC)], 1
    ),
)
def test_a_full_disk(world: World, root: Path, room: int, code: int) -> None:
    full = Fault(call="write", error=code, room=room)
    said = fail_twice_then_complete(world, root, full, full)
    assert said[0].startswith("No space is left to write ")
    assert "Free some space and run the same command again." in said[0]


@pytest.mark.parametrize("call", quick(CALLS, 2))
@pytest.mark.parametrize("share", quick([0.25, 0.7], 1))
def test_any_call_may_fail(world: World, root: Path, call: str, share: float) -> None:
    at = 1 + int(share * CALLS[call])
    once = Fault(call=call, error=errno.EIO, at=at)
    lasting = Fault(call=call, error=errno.EIO, at=max(1, at // 3), lasting=True)
    said = fail_twice_then_complete(world, root, once, lasting)
    assert said or call == "mkdir"
    assert all("Input/output error" in text and KEPT in text for text in said)


@pytest.mark.parametrize(
    "where",
    quick(
        [
            ".h5.tmp-",
            ".sums.tmp-",
            "global/",
            "manifest.jsonl",
            "current.json",
            "listing/",
            "strings.json",
        ],
        2,
    ),
)
def test_a_failed_fsync_of_each_kind_of_file_and_folder(
    world: World, root: Path, where: str
) -> None:
    fault = Fault(call="fsync", error=errno.EIO, where=where)
    (said,) = fail_twice_then_complete(world, root, fault)
    assert said.endswith("Everything finished before is kept; the same command goes on from there.")


@pytest.mark.long
def test_a_manifest_line_that_cannot_be_taken_back(world: World, root: Path) -> None:
    """The fsync fails, and so does cutting what was written: the line may stay whole or in part."""
    with (
        failing(root, Fault(call="fsync", error=errno.EIO, where="manifest.jsonl", at=3)),
        failing(root, Fault(call="ftruncate", error=errno.EIO, where="manifest.jsonl")),
        pytest.raises(CacheError, match="Input/output error"),
    ):
        world.extract(root, **LITTLE)
    check_instant(root, world.whole(**LITTLE))
    world.extract(root, **LITTLE)
    world.check_whole(root, **LITTLE)


@pytest.mark.long
def test_a_file_size_limit_of_the_system(world: World, root: Path, child: Child) -> None:
    said = child.run(world, root, "extract", limit=3_000)
    assert said.startswith("CacheError: No space is left to write ")
    assert "File too large" in said
    check_instant(root, world.whole(**LITTLE))
    assert child.run(world, root, "extract").startswith("encoded {")
    world.check_whole(root, **LITTLE)


@pytest.mark.long
def test_a_small_file_system_that_is_really_full(world: World, root: Path, child: Child) -> None:
    root.mkdir()
    said = child.run(world, root, "extract", mount="small")
    if said.startswith("no mount"):
        pytest.skip(f"only tried where a file system may be mounted: {said}")
    assert said.count("\n") == 2, said
    first, kept, second = said.split("\n")
    assert first.startswith("CacheError: No space is left to write ")
    assert "No space left on device" in first
    assert int(kept.removesuffix(" sound")) > 0
    assert second.startswith("encoded {")


def test_two_extractions_of_one_cache_at_once(world: World, root: Path, child: Child) -> None:
    slow = child.start(world, root, "extract", wait=True)
    child.wait_for_pass()
    with pytest.raises(CacheError) as caught:
        world.extract(root, **LITTLE)
    said = said_by(caught.value)
    assert said.startswith(
        f"Another process (pid {child.pid(slow)}) is writing to {cache_in(root)}"
    )
    assert "wait for it to end, or stop it, and run the same command again" in said
    child.go_on()
    assert child.result(slow).startswith("encoded {")
    assert world.extract(root, **LITTLE).encoded == {}
    world.check_whole(root, **LITTLE)


def test_two_extractions_that_begin_together(world: World, root: Path, child: Child) -> None:
    both = [child.start(world, root, "extract") for _ in range(2)]
    said = [child.result(one) for one in both]
    assert any(text.startswith("encoded {") for text in said)
    assert all(t.startswith("encoded {") or "Another process (pid " in t for t in said), said
    world.extract(root, **LITTLE)
    world.check_whole(root, **LITTLE)


def test_a_reader_stays_open_while_a_cache_grows(world: World, root: Path) -> None:
    path = world.sound(root, **LITTLE)
    features = Cache.open(path).feature_set()
    rows = np.flatnonzero(features.ok)
    before = {n: features.rows(n, rows).clone() for n in ("global", "patches.clearclip")}
    ids, train = list(features.listing.ids), features.listing.splits["train"].tolist()
    extra = world.photos / "train/ant/00.png"
    seen = []

    def read(_: int) -> None:
        assert list(features.listing.ids) == ids
        for name, values in before.items():
            assert features.rows(name, rows).equal(values)
        now = Cache.open(path).feature_set()  # and a new reader finds what is finished
        assert now.rows("global", rows).equal(before["global"])
        seen.append(len(now.components))

    try:
        Image.new("RGB", (40, 40), (200, 10, 10)).save(extra)
        world.backbone.on_batch = read
        world.extract(root, **{**LITTLE, "crops": ["2"]})
    finally:
        world.backbone.on_batch = lambda _: None
        extra.unlink()
    assert seen
    read(0)
    assert seen[-1] > seen[0]
    assert features.listing.splits["train"].tolist() == train
    assert len(Cache.open(path).listing() or ()) == len(ids) + 1


def test_media_that_cannot_be_written(world: World, root: Path) -> None:
    path = world.sound(root, **LITTLE)
    before = finished(root)
    with pytest.MonkeyPatch.context() as patch:
        access = os.access
        patch.setattr(os, "access", lambda p, m: not m & os.W_OK and access(p, m))
        with failing(root, Fault(call="open", error=errno.EROFS, lasting=True)) as tally:
            assert world.extract(root, **LITTLE).encoded == {}
            with pytest.raises(CacheError) as caught:
                world.extract(root, **{**LITTLE, "crops": ["2"]})
            assert verify(path, full=True).problems == ()
            assert Cache.open(path).feature_set().ok.any()
            assert tally.calls == 0
            with pytest.raises(CacheError, match=r"cannot be written \(Read-only file system\)"):
                Cache.open(path).finish(components=[], images=0, seconds=0.0, complete=True)
    said = said_by(caught.value)
    assert said.startswith(f"{path} lacks crops.lazsl-2 ")
    assert said.endswith("or copy it to another folder and name that with root.")
    world.check_kept(root, before, **LITTLE)


@pytest.mark.long
def test_a_mount_that_cannot_be_written(world: World, root: Path, child: Child) -> None:
    path = world.sound(root, **LITTLE)
    said = child.run(world, root, "extract", mount="read-only")
    if said.startswith("no mount"):
        pytest.skip(f"only tried where a file system may be mounted: {said}")
    assert said == "encoded {}"
    assert child.run(world, root, "verify", mount="read-only") == "sound"
    flip(next(path.glob("global/*.h5")), 700)
    said = child.run(world, root, "repair", mount="read-only")
    assert said.startswith(f"CacheError: {path}/.lock cannot be written (Read-only file system)")


@pytest.mark.parametrize("mode", [0o755, 0o555])
def test_a_finished_cache_needs_no_room(
    world: World, root: Path, mode: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = world.sound(root, **LITTLE)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=0))
    monkeypatch.setattr(os, "access", lambda *_, **__: mode == 0o755)
    said: list[str] = []
    with failing(root, Fault(call="write", error=errno.ENOSPC, room=0)) as tally:
        assert world.extract(root, said.append, **LITTLE).complete
        assert world.extract(root, dry_run=True, **LITTLE).bytes == 0
    assert (tally.failed > 0) == (mode == 0o755)  # what only informs may be lost
    assert any("was not noted" in note for note in said) == (mode == 0o755)
    assert verify(path, full=True).problems == ()
    with pytest.raises(CacheError) as caught:
        world.extract(root, **LITTLE | {"crops": ["2"]})
    needs, lacks = "and 67.1 MB to spare, but ", "lacks crops.lazsl-2 "
    assert (needs if mode == 0o755 else lacks) in said_by(caught.value)


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.ENOTSUP])
def test_a_file_system_without_locks(
    world: World, root: Path, code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(handle: int, operation: int) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(fcntl, "flock", refuse)
    notes: list[str] = []
    world.extract(root, notes.append, **LITTLE)
    assert any(f"has no locks; {OWNER} guards the cache instead." in note for note in notes)
    world.check_whole(root, **LITTLE)
    owner = cache_in(root) / OWNER
    for text in (f"{os.getppid()} {socket.gethostname()}\n", "12 elsewhere\n", ""):
        owner.write_text(text)  # at work here, at work elsewhere, and killed before it wrote
        with pytest.raises(CacheError) as caught:
            world.extract(root, **LITTLE)
        said = said_by(caught.value)
        assert f"(pid {text.split()[0] if text else 'unknown'}) is writing" in said
        assert said.endswith(f"If no such process runs on any machine, delete {owner}.")
    owner.write_text(f"{2**22 + 1} {socket.gethostname()}\n")  # no such process can be
    world.extract(root, **LITTLE)
    assert not owner.exists()
    for fault in (
        Fault(call="open", error=errno.ENOSPC, where=OWNER),
        Fault(call="write", error=errno.ENOSPC, where=OWNER),
    ):
        with failing(root, fault), pytest.raises(CacheError, match="No space is left to write"):
            world.extract(root, **LITTLE)
        assert not owner.exists()
    world.check_whole(root, **LITTLE)


def test_a_clock_that_is_set_back(
    world: World, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    future, photo = time.time() + 1e6, world.photos / "train/ant/0.png"
    before = photo.stat().st_mtime, photo.read_bytes()
    try:
        os.utime(photo, (future - 60, future - 60))
        with monkeypatch.context() as patch:
            patch.setattr(time, "time", lambda: future)
            world.extract(root, **LITTLE)
        (first,) = library.caches(root)
        assert world.extract(root, **LITTLE).encoded == {}
        (second,) = library.caches(root)
        assert first.finished == future
        assert second.finished is not None
        assert second.finished <= time.time()  # a time that lies ahead is not kept
        world.check_whole(root, **LITTLE)
        # A photograph changed in the past of the recorded time, with as many bytes, is seen.
        changed = bytearray(before[1])
        changed[-1] ^= 1
        photo.write_bytes(bytes(changed))
        os.utime(photo, (future - 120, future - 120))
        encoded = world.extract(root, **LITTLE).encoded
        assert encoded["global"] == 1
    finally:
        photo.write_bytes(before[1])
        os.utime(photo, (before[0], before[0]))


def test_a_listing_that_is_gone_never_makes_rows_change_their_image(
    world: World, root: Path
) -> None:
    """A new listing would count the photographs in another order than the shards do."""
    path = world.sound(root, **LITTLE)
    extra = world.photos / "train/ant/00.png"
    try:
        Image.new("RGB", (40, 40), (200, 10, 10)).save(extra)
        world.extract(root, **LITTLE)
        (path / "listing/current.json").unlink()
        with pytest.raises(CorruptCacheError) as caught:
            world.extract(root, **LITTLE)
        assert "Run `featcache repair`" in said_by(caught.value)
        assert world.command("repair", "--cache", root).code == 0
        assert world.extract(root, **LITTLE).encoded == {}
        (path / "listing/current.json").unlink()
        (path / "listing/current.copy.json").unlink()
        assert world.command("verify", "--cache", root).code == 1
        assert world.command("repair", "--cache", root).code == 0  # the sets name themselves
        assert world.extract(root, **LITTLE).encoded == {}
        assert verify(path, full=True).problems == ()
    finally:
        extra.unlink()
