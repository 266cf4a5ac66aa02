"""Commands that choose texts in a cache, write texts to a file, or make a contact sheet."""

import json
from pathlib import Path
from typing import ClassVar
from unittest import mock

from featcache.pipeline.text_sets import stored_sets
from featcache.sources.descriptions import read_json
from featcache.store.cache import Cache
from featcache.store.repair.verify import verify
from featcache.text.writer.endpoint import Endpoint
from featcache.text.writer.write import Order, write_texts
from tests.featcache.text.writer.chatting import completion
from tests.reliability.checks import FaultError
from tests.reliability.faults import LITTLE, World, cache_in
from tests.reliability.story import DONE, Story, expect_advice

CLASSES = ("red fox", "owl", "newt")


class UseTexts(Story):
    """`text --use`: an earlier text set becomes the current one."""

    name = "text-use"

    def before(self, disk: Path) -> None:
        two_text_sets(self.world, disk / "home", self.folder)
        self.new, self.old = (s.digest for s in stored_sets(Cache.open(cache_in(disk / "home"))))

    def act(self, disk: Path) -> None:
        answer = self.world.command("text", "zoo", "--use", self.old, "--cache", disk / "home")
        if answer.code:
            raise FaultError(f"text --use said: {answer.err}")

    def check(self, disk: Path, said: frozenset[str]) -> None:
        expect_advice(disk / "home")
        path = cache_in(disk / "home")
        if not verify(path, full=True).is_sound:
            raise FaultError("a cache was damaged by choosing its texts")
        current = Cache.open(path).feature_set().text_set
        if current not in ({self.old} if DONE in said else {self.old, self.new}):
            raise FaultError(f"the current texts are {current or 'gone'}")


class WriteTexts(Story):
    """`text --generate`: sentences of a language model, class by class."""

    name = "text-generate"
    asked: ClassVar[list[str]] = []

    @property
    def order(self) -> Order:
        endpoint = Endpoint(url="http://127.0.0.1:9/v1/chat/completions", model="parrot")
        return Order(dataset="zoo", classes=CLASSES, endpoint=endpoint, per_class=2)

    def before(self, disk: Path) -> None:
        (disk / "home").mkdir()

    def act(self, disk: Path) -> None:
        with mock.patch.object(Endpoint, "ask", answer_of):
            write_texts(self.order, disk / "home" / "zoo.json")

    def check(self, disk: Path, said: frozenset[str]) -> None:
        file = disk / "home" / "zoo.json"
        found = read_json("zoo", file.read_bytes()).descriptions if file.exists() else {}
        if list(found) != list(CLASSES[: len(found)]) or any(len(s) != 2 for s in found.values()):
            raise FaultError(f"the file has {found}")
        if DONE in said and len(found) != len(CLASSES):
            raise FaultError(f"of what was written {len(found)} classes are left")

    def compare(self, disk: Path) -> None:
        self.check(disk, frozenset({DONE}))
        names = [path.name for path in (disk / "home").iterdir()]
        if names != ["zoo.json"]:
            raise FaultError(f"beside the file stand {names}")


class SaveSheet(Story):
    """A contact sheet replaces another one."""

    name = "sheet"
    suffix: ClassVar[str] = ".html"

    def prepare(self) -> None:
        self.caches = self.folder / "searched"
        self.world.sound(self.caches, **LITTLE)

    def sheet(self, disk: Path) -> Path:
        return disk / f"sheet{self.suffix}"

    def save(self, disk: Path, k: int) -> None:
        words = ("search", "--class", "ant", "--k", str(k), "--cache", self.caches)
        answer = self.world.command(*words, "--sheet", self.sheet(disk), "--quiet")
        if answer.code:
            raise FaultError(f"search said: {answer.err}")

    def before(self, disk: Path) -> None:
        self.save(disk, 3)
        self.old = self.sheet(disk).read_bytes()
        self.save(self.folder, 2)
        self.new = self.sheet(self.folder).read_bytes()

    def act(self, disk: Path) -> None:
        self.save(disk, 2)

    def check(self, disk: Path, said: frozenset[str]) -> None:
        left = self.sheet(disk).read_bytes()
        if left not in ([self.new] if DONE in said else [self.old, self.new]):
            raise FaultError("the sheet is neither the old one nor the new one")

    def compare(self, disk: Path) -> None:
        self.check(disk, frozenset({DONE}))


class SavePngSheet(SaveSheet):
    """The same as a picture."""

    name = "sheet-png"
    suffix = ".png"


STORIES_OF_FILES: tuple[type[Story], ...] = (UseTexts, WriteTexts, SaveSheet, SavePngSheet)


def two_text_sets(world: World, root: Path, folder: Path) -> None:
    """Make a cache whose texts were replaced by others."""
    for told in ("round", "square"):
        file = folder / "texts.json"
        file.write_text(json.dumps({name: [f"a {told} {name}"] for name in ("ant", "bee")}))
        world.extract(root, **LITTLE, cupl=file)


def answer_of(endpoint: Endpoint, system: str, question: str, *, most_tokens: int) -> bytes:
    """Answer a question with two sentences that nobody else gets."""
    name = question.split("Class: ")[1].split(". Write")[0]
    place = [json.dumps(known) for known in CLASSES].index(name)
    return completion(json.dumps([f"a photo of thing {place} with mark{i}." for i in range(2)]))
