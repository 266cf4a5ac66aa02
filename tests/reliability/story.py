"""What a story of a command whose power goes is made of."""

from pathlib import Path
from typing import ClassVar

from featcache.errors import FeatcacheError
from featcache.store.cache import Cache
from featcache.store.format.identity import is_cache
from featcache.store.repair.verify import verify
from tests.reliability.checks import FaultError, Snapshot, snapshot
from tests.reliability.faults import World

DONE = "done"
"""What is promised when a command has ended."""


class Story:
    """One command."""

    name: ClassVar[str]

    def __init__(self, world: World, folder: Path) -> None:
        """Make what the command needs.

        Args:
            world: Whose photographs and model.
            folder: For files that are not on the disk that loses its power.
        """
        self.world, self.folder = world, folder
        self.whole = Snapshot({}, {})
        """What the command leaves when nobody disturbs it; known once it was recorded."""
        self.prepare()

    def prepare(self) -> None:
        """Make what the command needs from elsewhere."""

    def before(self, disk: Path) -> None:
        """Put on the disk what is durable when the command begins."""

    def act(self, disk: Path) -> None:
        """Run the command, or run it again."""
        raise NotImplementedError

    def again(self, disk: Path) -> None:
        """Do what makes good whatever the power cut has left: run the same command again."""
        self.act(disk)

    def promised(self, disk: Path) -> set[str]:
        """Say what somebody may rely on whose command has come this far."""
        return set()

    def check(self, disk: Path, said: frozenset[str]) -> None:
        """See that a disk that is left keeps what was promised, and is sound or says what to do."""
        raise NotImplementedError

    def compare(self, disk: Path) -> None:
        """See that the command, run again, has ended as if nobody had disturbed it."""
        if wrong := snapshot(disk / "home").differences(self.whole):
            raise FaultError(f"taken up again it differs: {'; '.join(wrong)}")


def expect_advice(home: Path) -> None:
    """Let every cache open, or say which command helps; and `verify` name one for each problem."""
    for path in home.glob("*/[!.]*"):
        if not is_cache(path):
            continue
        said = [str(p) for p in verify(path, full=True).problems]
        try:
            Cache.open(path).feature_set()
        except FeatcacheError as error:
            said.append(str(error))
        for what in said:
            if "`featcache " not in what:
                raise FaultError(f"nobody says what to do: {what}")
