"""A removal that is killed at any step: the same command ends it, and an extraction starts anew."""

import fcntl
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from featcache.errors import CacheError
from featcache.store.cache import Cache
from featcache.store.format.identity import KEY_FILE, KNOWN_HASHES, MANIFEST, TRACE
from featcache.store.library import caches, image_roots
from featcache.store.lock import writer_lock
from featcache.store.removal import all_left, digest_of
from tests.reliability.checks import snapshot
from tests.reliability.faults import LITTLE, World
from tests.reliability.killing import Death, End, Server
from tests.tiers import quick

EXTRACTIONS = 6
"""Steps after which the data set is extracted again, evenly spread."""


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with World(tmp_path_factory.mktemp("removal")).stand_in() as world:
        yield world


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "caches"


def remove_until(server: Server, path: Path, death: Death) -> End:
    """Remove a cache in a process of its own that may be killed."""
    return server.live({"remove": str(path)}, death)


def prepare(world: World, root: Path) -> Path:
    """Put a whole cache there, with all that may lie beside it."""
    shutil.rmtree(root, ignore_errors=True)
    path = world.sound(root, **LITTLE)
    path.with_name(path.name + TRACE).write_text("{}")
    (path.parent / f".{KNOWN_HASHES}.tmp-1").touch()
    return path


@pytest.mark.long
def test_killed_at_every_step(world: World, root: Path, server: Server) -> None:
    steps = remove_until(server, prepare(world, root), Death()).calls
    assert steps > 40
    assert list(root.iterdir()) == []
    again = {1 + i * steps // EXTRACTIONS for i in range(EXTRACTIONS)}
    seen = set()
    for step in range(1, steps + 1):
        path = prepare(world, root)
        before = snapshot(path)
        death = Death(call=step, torn=step % 2 == 0)
        assert remove_until(server, path, death).outcome == "killed"
        is_there = bool(caches(root))
        seen.add(is_there)
        if is_there:
            assert snapshot(path) == before, step
        else:
            assert image_roots(root, "zoo") == []
        if step in again:
            world.extract(root, **LITTLE)
            path.with_name(path.name + TRACE).unlink(missing_ok=True)  # of the cache that is kept
            world.check_whole(root, **LITTLE)
            assert all_left(root) == []
        if list(root.iterdir()):
            assert world.command("rm", "zoo", "--yes", "--cache", root).code == 0, step
        assert list(root.iterdir()) == [], step
    assert seen == {True, False}


def aside(world: World, root: Path, server: Server) -> Path:
    """Put two caches there, kill the removal of one in the middle, and return where it was."""
    steps = remove_until(server, prepare(world, root), Death()).calls
    path = prepare(world, root)
    Cache.create(root, "zoo", "other", replace(world.backbone.key, architecture="other"))
    remove_until(server, path, Death(call=steps // 2))
    assert [found.backbone for found in caches(root)] == ["other"]
    return path


@pytest.mark.long
def test_what_is_left_is_named_and_another_cache_is_not_touched(
    world: World, root: Path, server: Server
) -> None:
    path = aside(world, root, server)
    (other,) = (found.path for found in caches(root))
    (left,) = all_left(root)
    listed = " ".join(world.command("ls", "--cache", root).err.split())
    assert f"{left} is what an interrupted removal has left" in listed
    before = snapshot(other)
    command = ("rm", "zoo", "--key", path.name[-12:], "--cache", root)
    refused = world.command(*command)
    assert refused.code == 2
    assert "what an interrupted removal has left" in refused.err
    assert world.command(*command, "--yes").code == 0
    assert snapshot(other) == before
    assert all_left(root) == []
    assert world.command(*command, "--yes").code == 2  # nothing is left of it


@pytest.mark.long
def test_what_is_left_goes_before_a_cache_that_is_whole(
    world: World, root: Path, server: Server
) -> None:
    aside(world, root, server)
    (left,), (other,) = all_left(root), (found.path for found in caches(root))
    before = snapshot(other)
    listed = " ".join(world.command("ls", "--cache", root).err.split())
    command = listed.partition("Delete it with: featcache ")[2].split()
    assert command == ["rm", "zoo", "--key", digest_of(left), "--cache", str(root)]
    first = world.command("rm", "zoo", "--yes", "--cache", root)
    assert first.code == 0
    assert "what an interrupted removal has left" in first.out
    assert f"{other} is another cache and stays" in " ".join(first.err.split())
    assert snapshot(other) == before
    assert all_left(root) == []
    assert world.command("rm", "zoo", "--yes", "--cache", root).code == 0
    assert caches(root) == []


@pytest.mark.long
def test_repair_of_another_cache_clears_it_too(world: World, root: Path, server: Server) -> None:
    path = aside(world, root, server)
    assert not path.exists()
    answer = world.command("repair", "zoo", "--cache", root)
    assert "Deleted what an interrupted removal had left in" in " ".join(answer.err.split())
    assert all_left(root) == []


@pytest.mark.parametrize(
    "gone", quick(["global views.rrc50-2 listing/current.json", "", "listing"], 1)
)
def test_what_an_earlier_version_left(world: World, root: Path, gone: str) -> None:
    for command in ("extract", "rm"):
        path = prepare(world, root)
        for name in (MANIFEST, KEY_FILE, *gone.split()):
            target = path / name
            shutil.rmtree(target) if target.is_dir() else target.unlink()
        assert caches(root) == []
        if command == "rm":
            assert world.command("rm", "zoo", "--yes", "--cache", root).code == 0
            assert list(root.iterdir()) == []
            continue
        said: list[str] = []
        world.extract(root, said.append, **LITTLE)
        assert any(f"{path} had neither key nor manifest" in note for note in said)
        assert any("starts anew" in note for note in said)
        world.check_whole(root, **LITTLE)


def test_a_lock_in_a_folder_that_was_put_aside_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, original = tmp_path / "cache", fcntl.flock
    folder.mkdir()

    def late(handle: int, operation: int) -> None:
        if folder.exists():
            folder.rename(tmp_path / "aside")
        original(handle, operation)

    monkeypatch.setattr(fcntl, "flock", late)
    with pytest.raises(CacheError, match=r"has removed .* meanwhile"), writer_lock(folder, print):
        raise AssertionError("two processes would write")
