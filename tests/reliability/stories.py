"""Commands whose power goes: what was on the disk before, and what must be there after."""

from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar
from unittest import mock

import numpy as np

from featcache.importers import npz, storing
from featcache.sources import hashing
from featcache.sources.fieldguide import world as drawn
from featcache.store.cache import Cache
from featcache.store.corpora import corpus_path
from featcache.store.format.identity import KEY_FILE, MANIFEST
from featcache.store.repair.verify import verify
from heads.results import store
from tests.reliability.checks import FaultError, check_instant
from tests.reliability.faults import cache_in, flip
from tests.reliability.stories_of_files import STORIES_OF_FILES
from tests.reliability.story import DONE, Story, expect_advice

EVERY_KIND: dict[str, Any] = {"patches": ["clearclip"], "views": ["2@val"]}
"""What is extracted: whole images, patches, views, in shards of eight rows."""


class Extract(Story):
    """A first pass: listing, texts, and shards of several components."""

    name = "extract"

    def act(self, disk: Path) -> None:
        with remembering():
            self.world.extract(disk / "home", **EVERY_KIND)

    def promised(self, disk: Path) -> set[str]:
        return promises_of(disk / "home")

    def check(self, disk: Path, said: frozenset[str]) -> None:
        check_instant(disk / "home", self.whole)
        if missing := said - promises_of(disk / "home") - {DONE}:
            raise FaultError(f"promised, and lost: {'; '.join(sorted(missing))}")


class Add(Extract):
    """A second pass over more photographs, for one component more."""

    name = "add"
    more: ClassVar[dict[str, Any]] = {**EVERY_KIND, "crops": ["2:lazsl@test"]}

    def before(self, disk: Path) -> None:
        self.world.sound(disk / "home", **EVERY_KIND)

    def act(self, disk: Path) -> None:
        new = self.world.photos / "train" / "ant" / "new.png"
        new.write_bytes((self.world.photos / "val/ant/0.png").read_bytes() + b"and more")
        try:
            with remembering():
                self.world.extract(disk / "home", **self.more)
        finally:
            new.unlink()


class Import(Extract):
    """Features of somebody else, with texts."""

    name = "import"

    def prepare(self) -> None:
        rng = np.random.default_rng(0)
        arrays: dict[str, Any] = {"classnames": np.array(["ant", "bee"])}
        for split, rows in (("train4", 8), ("val", 4), ("test", 6)):
            values = rng.normal(size=(rows, 6))
            arrays[f"{split}_features"] = (values / np.linalg.norm(values, axis=1)[:, None]).astype(
                np.float32
            )
            arrays[f"{split}_labels"] = np.arange(rows) % 2
        arrays["text_features"] = np.eye(6, dtype=np.float32)[:2]
        np.savez(self.folder / "theirs.npz", **arrays)

    def act(self, disk: Path) -> None:
        with mock.patch.object(storing, "SHARD_ROWS", 8):
            npz.import_npz(self.folder / "theirs.npz", disk / "home", "insects", "ViT-B/32")


class Repair(Story):
    """`repair` of a cache with damage of every kind."""

    name = "repair"

    def before(self, disk: Path) -> None:
        path = self.world.sound(disk / "home", **EVERY_KIND)
        self.kept = {}
        damaged = [sorted((path / "global").iterdir())[1], next(path.glob("text.*/rows.h5"))]
        for file in path.glob("*/*.h5"):
            if file not in damaged:
                self.kept[file.relative_to(disk).as_posix()] = file.read_bytes()
        (path / KEY_FILE).unlink()
        flip(path / MANIFEST, (path / MANIFEST).read_bytes().index(b"patches.clearclip"))
        for file in (*damaged, next(path.glob("listing/set-*/labels.npy"))):
            flip(file, file.stat().st_size - 1)

    def act(self, disk: Path) -> None:
        answer = self.world.command("repair", "--cache", disk / "home", "--quiet")
        if answer.code:
            raise FaultError(f"repair said: {answer.err}")

    def check(self, disk: Path, said: frozenset[str]) -> None:
        expect_advice(disk / "home")
        for name, data in self.kept.items():
            if (disk / name).read_bytes() != data:
                raise FaultError(f"{name} was sound before the repair")
        if DONE in said and not verify(cache_in(disk / "home"), full=True).is_sound:
            raise FaultError("a repair that had ended came undone")

    def compare(self, disk: Path) -> None:
        self.world.check_files(disk / "home", **EVERY_KIND)


class Remove(Story):
    """`rm` of a cache."""

    name = "rm"

    def before(self, disk: Path) -> None:
        self.world.sound(disk / "home", **EVERY_KIND)

    def act(self, disk: Path) -> None:
        answer = self.world.command("rm", "zoo", "--yes", "--cache", disk / "home")
        if answer.code and "no caches" not in answer.err:
            raise FaultError(f"rm said: {answer.err}")

    def check(self, disk: Path, said: frozenset[str]) -> None:
        expect_advice(disk / "home")
        if DONE in said and any((disk / "home").glob(f"*/[!.]*/{KEY_FILE}")):
            raise FaultError("a cache that was removed is there again")


class RemoveThenExtract(Remove):
    """`rm` of a cache; whatever is left of it, an extraction makes a whole one."""

    name = "rm-extract"

    def again(self, disk: Path) -> None:
        self.world.extract(disk / "home", **EVERY_KIND)

    def compare(self, disk: Path) -> None:
        self.world.check_whole(disk / "home", **EVERY_KIND)
        if left := [p for p in disk.rglob("*") if ".tmp-" in p.name]:
            raise FaultError(f"temporary files stayed: {left}")


class Save(Story):
    """A run of a head is stored beside another."""

    name = "save"

    def prepare(self) -> None:
        home = self.folder / "trained"
        self.world.sound(home, **EVERY_KIND)
        train(home, self.folder / "runs")
        (folder,) = store.load_all(self.folder / "runs").folders.values()
        self.result = store.load(folder)
        self.first = replace(self.result, run="another")

    def before(self, disk: Path) -> None:
        store.save(self.first, disk / "home")
        self.reported = {self.first.run}

    def act(self, disk: Path) -> None:
        store.check_writable(disk / "home")
        if not store.folder_of(self.result, disk / "home").exists():
            store.save(self.result, disk / "home")
            self.reported.add(self.result.run)

    def promised(self, disk: Path) -> set[str]:
        return self.reported

    def check(self, disk: Path, said: frozenset[str]) -> None:
        shelf = store.load_all(disk / "home")
        if shelf.problems:
            raise FaultError(" ".join(shelf.problems))
        for name, folder in shelf.folders.items():
            if store.load(folder) not in (self.first, self.result):
                raise FaultError(f"{name} is not what was stored")
        if missing := said - {DONE} - shelf.folders.keys():
            raise FaultError(f"reported as saved, and lost: {', '.join(missing)}")


class SaveFirst(Save):
    """The first run of all, in a folder that does not exist yet."""

    name = "save-first"

    def before(self, disk: Path) -> None:
        self.reported = set()


class Draw(Story):
    """The pictures of a drawn world."""

    name = "draw"

    def act(self, disk: Path) -> None:
        with mock.patch.object(drawn, "_WRITERS", 1):  # which makes the order of steps one only
            drawn.open_world("fieldguide", disk / "home", counts={"test": 1})

    def check(self, disk: Path, said: frozenset[str]) -> None:
        for path in (disk / "home").rglob("*.jpg"):
            name = path.relative_to(disk / "home").as_posix()
            if path.stat().st_size and self.whole.files[name] != path.read_bytes():
                raise FaultError(f"{name} is not what was drawn, and nobody notices")


class BuildCorpus(Story):
    """A corpus is built in a cache, and replaces one of other content."""

    name = "corpus"
    words: ClassVar[tuple[str, ...]] = ("corpus", "build", "some", "--for", "zoo", "--from",
                                        "zoo:train", "--again", "--quiet")  # fmt: skip

    def before(self, disk: Path) -> None:
        self.world.sound(disk / "home", **EVERY_KIND)
        self.build(disk, 1)
        self.old = self.corpus(disk).read_bytes()

    def build(self, disk: Path, k: int) -> None:
        answer = self.world.command(*self.words, "--k", str(k), "--cache", disk / "home")
        if answer.code:
            raise FaultError(f"corpus build said: {answer.err}")

    def corpus(self, disk: Path) -> Path:
        return corpus_path(cache_in(disk / "home"), "some")

    def act(self, disk: Path) -> None:
        self.build(disk, 2)

    def check(self, disk: Path, said: frozenset[str]) -> None:
        expect_advice(disk / "home")
        if not verify(cache_in(disk / "home"), full=True).is_sound:
            raise FaultError("a cache was damaged by building a corpus in it")
        if DONE in said and self.corpus(disk).read_bytes() == self.old:
            raise FaultError("a corpus that was built is gone")


class RemoveCorpus(BuildCorpus):
    """A corpus is removed."""

    name = "corpus-rm"

    def act(self, disk: Path) -> None:
        words = ("corpus", "rm", "some", "--yes", "--cache", disk / "home")
        answer = self.world.command(*words)
        if answer.code and "Unknown corpus" not in answer.err:
            raise FaultError(f"corpus rm said: {answer.err}")

    def check(self, disk: Path, said: frozenset[str]) -> None:
        if not verify(cache_in(disk / "home"), full=True).is_sound:
            raise FaultError("a cache was damaged by removing a corpus from it")
        if DONE in said and self.corpus(disk).exists():
            raise FaultError("a corpus that was removed is there again")


STORIES: tuple[type[Story], ...] = (
    Save,
    SaveFirst,
    Remove,
    RemoveThenExtract,
    BuildCorpus,
    RemoveCorpus,
    Repair,
    Import,
    Extract,
    Draw,
    Add,
    *STORIES_OF_FILES,
)
"""Those that may leave few different disks first."""


def remembering() -> Any:
    """Let hashes of photographs be remembered that were written a moment ago."""
    return mock.patch.object(hashing, "RACY_SECONDS", -3600.0)


def train(home: Path, runs: Path) -> None:
    """Train a head that needs no time on the world's features."""
    from cli.heads.app import app
    from tests.cli.conftest import call

    words = ["train", "nearest-mean", "--shots", "1", "--seeds", "1", "--split", "test", "--quiet"]
    answer = call(app, [*words, "--cache", str(home), "--runs", str(runs)])
    if answer.code:
        raise FaultError(f"heads train said: {answer.err}")


def promises_of(home: Path) -> set[str]:
    """Say what caches hold: each line of a manifest that counts, each row of a listing."""
    out = set()
    for key in home.glob(f"*/*/{KEY_FILE}"):
        cache = Cache.open(key.parent)
        out.add(f"{key} exists".removeprefix(str(home)))
        lines = [
            *(x for lines in cache.shards.values() for x in lines),
            *cache.texts,
            *cache.passes,
        ]
        out |= {repr(line) for line in lines}
        if listing := cache.listing():
            out |= {f"row {i} is {name}" for i, name in enumerate(listing.hashes)}
    return out
