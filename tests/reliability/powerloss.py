"""Commands whose power goes: each is recorded once, then every disk it may leave is looked at.

Of every disk that may be left, what was promised is there and the rest is sound or says what to do;
and the same command, run again, ends with the bytes of one that nobody disturbed. So it does if a
process was killed, its successor has ended, and then the power goes.
"""

import os
import random
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

from featcache.store.cache import Cache
from tests.reliability import strace
from tests.reliability.checks import FaultError, snapshot
from tests.reliability.disk import Tree, moments
from tests.reliability.faults import World
from tests.reliability.recorder import KilledError, Recorder
from tests.reliability.replica import Replica
from tests.reliability.stories import STORIES
from tests.reliability.story import DONE, Story


@dataclass(frozen=True)
class Case:
    """A disk that may be left."""

    tree: Tree
    said: frozenset[str]
    number: int
    """Steps that were made before the power went."""


@dataclass(kw_only=True)
class Figures:
    """What was done for a story."""

    disks: int = 0
    """That may be left, all different."""
    checked: int = 0
    recovered: int = 0
    kills: int = 0
    faults: list[str] = field(default_factory=list)


def record(story: Story, disk: Path) -> Recorder:
    """Run a command to its end, and take what it leaves as what it should leave.

    Args:
        story: The command.
        disk: Where; it is made.
    """
    recorder = _recorder(story, disk)
    run(story, recorder, disk)
    story.whole = snapshot(disk / "home")
    return recorder


def record_killed(story: Story, disk: Path, at: int) -> tuple[Recorder, int]:
    """Kill a command that was recorded before, and run it again.

    Args:
        story: The command.
        disk: Where; it is made.
        at: The call instead of which the process is killed.

    Returns:
        The recorder, and how many steps had been made when the process was killed.
    """
    recorder = _recorder(story, disk)
    recorder.dies_at = at
    with suppress(KilledError):
        run(story, recorder, disk)
    died = len(recorder.steps)
    run(story, recorder, disk)
    return recorder, died


def _recorder(story: Story, disk: Path) -> Recorder:
    disk.mkdir()
    story.before(disk)
    recorder = Recorder(disk)
    recorder.say(story.promised(disk))
    return recorder


def run(story: Story, recorder: Recorder, disk: Path) -> None:
    with recorder, _saying(lambda: recorder.say(story.promised(disk))):
        story.act(disk)
    recorder.say({*story.promised(disk), DONE})


@contextmanager
def _saying(say: Callable[[], None]) -> Iterator[None]:
    """Say what is promised whenever a method of a cache returns that promises something."""

    def wrapped(method: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **options: Any) -> Any:
            out = method(*args, **options)
            say()
            return out

        return call

    with ExitStack() as stack:
        for name in ("append", "put_listing", "put_text", "finish"):
            method = wrapped(getattr(Cache, name))
            stack.enter_context(mock.patch.object(Cache, name, method))
        yield


def cases(
    recorder: Recorder,
    *,
    most: int,
    samples: int,
    rng: random.Random,
    total: int | None = None,
    since: int = 0,
) -> list[Case]:
    """List the disks that may be left, each once, with all that was promised before it.

    Args:
        recorder: Of the command.
        most: How many of the latest pending steps go through every subset.
        samples: Of each moment, beside those that are gone through.
        rng: Draws them.
        total: Draw so many; None takes all.
        since: The first moment, by the number of steps before it.
    """
    ways = [
        (moment, choice)
        for moment in moments(recorder.start, recorder.steps)
        if moment.number >= since
        for choice in dict.fromkeys(moment.choices(most=most, samples=samples, rng=rng))
    ]
    if total is not None and total < len(ways):
        drawn = sorted(rng.sample(range(len(ways)), total))
        ways = [ways[i] for i in drawn]
    found: dict[frozenset[tuple[str, bytes | None]], Case] = {}
    for moment, choice in ways:
        tree = moment.left(choice).tree()
        found[frozenset(tree.items())] = Case(tree, moment.said, moment.number)
    return list(found.values())


class Replay:
    """Looks at disks that a story may leave."""

    def __init__(self, story: Story, folder: Path) -> None:
        """Begin with an empty folder of that name."""
        self.story, self._folder = story, folder
        self._replica = Replica(folder / "left")
        self.figures = Figures()

    def go_through(self, recorder: Recorder, rng: random.Random, *, until: float) -> None:
        """Check every disk that may be left, and run the command again on a sample."""
        left = cases(recorder, most=8, samples=32, rng=rng)
        self.figures.disks = len(left)
        again = set(rng.sample(range(len(left)), min(RECOVERED, len(left))))
        order = sorted(range(len(left)), key=lambda i: (i not in again, rng.random()))
        for i in order:
            if time.monotonic() > until:
                return
            self.check(left[i])
            if i in again:
                self.recover(left[i])

    def kill_first(self, at: int, rng: random.Random) -> None:
        """Kill the command, run it again to its end, and check what may be left thereafter."""
        disk = self._folder / "killed"
        self.figures.kills += 1
        try:
            recorder, died = record_killed(self.story, disk, at)
        except Exception as error:  # whatever a command says of itself is a finding
            self.figures.faults.append(f"{self.story.name}, killed at call {at}: {error!r}")
            return
        finally:
            shutil.rmtree(disk)
        for case in cases(recorder, most=4, samples=4, rng=rng, since=died):
            if DONE in case.said:
                self.check(case)

    def check(self, case: Case) -> bool:
        """See what must hold of one disk."""
        disk = self._replica.show(case.tree)
        self.figures.checked += 1
        return self._try(case, "", lambda: self.story.check(disk, case.said))

    def recover(self, case: Case) -> bool:
        """Run the command again on a copy of one disk."""
        self._replica.show(case.tree)
        disk = self._replica.copy_to(self._folder / "again")
        self.figures.recovered += 1

        def run() -> None:
            with _unsynced():
                self.story.again(disk)
            self.story.compare(disk)

        return self._try(case, "run again: ", run)

    def _try(self, case: Case, what: str, check: Callable[[], None]) -> bool:
        try:
            check()
        except Exception as error:  # whatever a command says of itself is a finding
            self.figures.faults.append(
                f"{self.story.name}, power gone after step {case.number}: {what}"
                f"{type(error).__name__}: {error}"
            )
            return False
        return True


def _unsynced() -> Any:
    """Let a disk that will not lose its power be quick."""
    return mock.patch.object(os, "fsync")


RECOVERED = 40
"""Disks of a story on which a campaign runs the command again."""


def campaign(folder: Path, *, seconds: float, seed: int) -> tuple[dict[str, Any], list[str]]:
    """Go through all stories as far as the time allows.

    Args:
        folder: For everything; it is empty.
        seconds: What all of it may take; every disk that may be left takes a minute or two, and
            what is over goes to kills before the power goes.
        seed: Of what is drawn.

    Returns:
        Figures of each story, and what was found.
    """
    begin, rng = time.monotonic(), random.Random(seed)
    figures: dict[str, Any] = {"seen by strace too": strace.missing()}
    faults: list[str] = []
    if not figures["seen by strace too"]:
        (folder / "strace").mkdir()
        try:
            names = [story.name for story in STORIES]
            figures["seen by strace too"] = strace.compare(folder / "strace", names)
        except FaultError as error:
            faults.append(str(error))
    replays: list[tuple[Replay, int]] = []
    with World(folder / "world", rows=8).stand_in() as world:
        for story in (kind(world, _new(folder / kind.name)) for kind in STORIES):
            recorder = record(story, story.folder / "disk")
            replay = Replay(story, story.folder)
            replay.go_through(recorder, rng, until=begin + seconds)
            replays.append((replay, len(recorder.calls)))
        while time.monotonic() - begin < seconds:
            replay, calls = rng.choice(replays)
            replay.kill_first(rng.randrange(calls), rng)
    counted, found = _counted([replay for replay, _ in replays])
    return {**figures, **counted}, faults + found


def every_kill(folder: Path, *, seed: int) -> tuple[dict[str, Any], list[str]]:
    """Kill each story at every call, run it again to its end, and cut the power then.

    Args:
        folder: For everything; it is empty.
        seed: Of what is drawn.

    Returns:
        Figures of each story, and what was found.
    """
    rng, replays = random.Random(seed), []
    with World(folder / "world", rows=8).stand_in() as world:
        for story in (kind(world, _new(folder / kind.name)) for kind in STORIES):
            replay = Replay(story, story.folder)
            for at in range(len(record(story, story.folder / "disk").calls)):
                replay.kill_first(at, rng)
            replays.append(replay)
    return _counted(replays)


def _counted(replays: Sequence[Replay]) -> tuple[dict[str, Any], list[str]]:
    figures = {replay.story.name: asdict(replay.figures) for replay in replays}
    return figures, [fault for found in figures.values() for fault in found.pop("faults")]


def _new(folder: Path) -> Path:
    folder.mkdir()
    return folder
