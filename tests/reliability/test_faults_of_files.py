"""A disk that is full, fails or cannot be written, under corpora, texts and contact sheets.

Each time: one sentence says what to do, what was there stays, and the same command then ends as if
nothing had happened. Two processes that write one file of texts do not undo each other's work.
"""

import errno
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import pytest

from featcache.errors import CacheError, FeatcacheError
from featcache.store.lock import file_lock
from featcache.text.writer.endpoint import Endpoint
from featcache.text.writer.write import write_texts
from tests.reliability.checks import FaultError
from tests.reliability.faults import Fault, World, failing, said_by
from tests.reliability.powerloss import record
from tests.reliability.stories import BuildCorpus
from tests.reliability.stories_of_files import (
    STORIES_OF_FILES,
    SaveSheet,
    UseTexts,
    WriteTexts,
    answer_of,
)
from tests.reliability.story import Story
from tests.tiers import quick

KINDS: tuple[type[Story], ...] = (SaveSheet, WriteTexts, UseTexts, BuildCorpus)
FAULTS = {
    "full": Fault(call="write", error=errno.ENOSPC, room=0),
    "nearly full": Fault(call="write", error=errno.EDQUOT, room=300),
    "read-only": Fault(call="open", error=errno.EROFS, lasting=True),
    "broken": Fault(call="fsync", error=errno.EIO),
    "no rename": Fault(call="replace", error=errno.EIO),
}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("files").resolve()
    with World(folder, rows=8).stand_in() as world:
        yield world


@pytest.mark.parametrize("kind", quick(KINDS, 2), ids=lambda kind: kind.name)
def test_a_disk_that_does_not_take_it(kind: type[Story], world: World, tmp_path: Path) -> None:
    story = kind(world, tmp_path.resolve())
    record(story, story.folder / "undisturbed")
    for name, fault in FAULTS.items():
        disk = story.folder / name
        disk.mkdir()
        story.before(disk)
        with failing(disk, fault) as tally:
            try:
                story.act(disk)
            except (FaultError, FeatcacheError) as error:
                said = str(error)
                assert "Traceback" not in said
                assert str(disk) in said, name
                assert os.strerror(fault.error) in said, (name, said)
            else:
                assert tally.failed == 0, name
        story.check(disk, frozenset())
        story.again(disk)
        story.compare(disk)


def test_every_story_of_files_is_tried() -> None:
    assert {kind.name.removesuffix("-png") for kind in STORIES_OF_FILES} <= {k.name for k in KINDS}


def test_two_writers_of_one_file_of_texts(world: World, tmp_path: Path) -> None:
    """The second is refused while the first is at work; then it asks for nothing again."""
    order, path = WriteTexts(world, tmp_path).order, tmp_path / "zoo.json"
    asked: list[str] = []
    in_midst, may_go = threading.Event(), threading.Event()

    def ask(endpoint: Endpoint, system: str, question: str, *, most_tokens: int) -> bytes:
        asked.append(question)
        if len(asked) == 2:
            in_midst.set()
            assert may_go.wait(60)
        return answer_of(endpoint, system, question, most_tokens=most_tokens)

    with mock.patch.object(Endpoint, "ask", ask):
        first = threading.Thread(target=write_texts, args=(order, path))
        first.start()
        try:
            assert in_midst.wait(60)
            with pytest.raises(CacheError) as caught:
                write_texts(order, path)
        finally:
            may_go.set()
            first.join(60)
        assert write_texts(order, path).requests == 0
    said = said_by(caught.value)
    assert f"is writing to {path}" in said
    assert "wait for it to end, or stop it, and run the same command again" in said
    assert len(asked) == 3
    assert [left.name for left in tmp_path.iterdir() if left.name != "zoo.json"] == []


def test_files_that_lie_in_one_folder_have_locks_of_their_own(tmp_path: Path) -> None:
    with file_lock(tmp_path / "a.json"), file_lock(tmp_path / "b.json"):
        assert len(list(tmp_path.iterdir())) == 2
        with (
            pytest.raises(CacheError, match=r"is writing to .*a\.json"),
            file_lock(tmp_path / "a.json"),
        ):
            pass
    assert list(tmp_path.iterdir()) == []
