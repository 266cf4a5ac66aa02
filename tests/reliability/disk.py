"""A disk that loses its power: what was written, what was synced, and all that may be left.

A change of a file is durable once the file was synced, an entry of a folder (a name given, taken
away or moved) once the folder was. Whatever is not may be left or lost, each thing by itself and
whatever came before or after it; a rename is left whole or not at all. That is the strict reading
of POSIX: most file systems lose less.
"""

import itertools
import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum

ROOT = 0
"""The node of the folder that all paths begin in."""

Tree = Mapping[str, bytes | None]
"""Path -> content; None for a folder."""


@dataclass(frozen=True, slots=True)
class Change:
    """New bytes of a file."""

    node: int
    keep: int
    """How many bytes at its beginning stay; those behind go."""
    data: bytes
    """What follows them."""


@dataclass(frozen=True, slots=True)
class Entry:
    """Names that come, go or move, in one step."""

    names: tuple[tuple[int, str, int | None], ...]
    """(folder, name, what it names from now on; None for nothing)."""


@dataclass(frozen=True, slots=True)
class Sync:
    """A barrier: what was done to a file, or to the entries of a folder, is durable."""

    node: int


@dataclass(frozen=True, slots=True)
class Said:
    """A promise that somebody may rely on from now on."""

    what: frozenset[str]


Step = Change | Entry | Sync | Said


class Left(Enum):
    """What is left of a thing that was not synced. An entry is left whole or lost."""

    LOST = "lost"
    WHOLE = "whole"
    EMPTY = "cut off where it begins"
    ZEROS = "as long as it was, of zeros"
    HALF = "its first half"
    HALF_AND_ZEROS = "its first half, and zeros"
    ZEROS_AND_HALF = "zeros, and its second half"


TORN = tuple(left for left in Left if left not in (Left.LOST, Left.WHOLE))


@dataclass
class Disk:
    """Files and folders by number; names stand in the folders."""

    files: dict[int, bytes] = field(default_factory=dict)
    folders: dict[int, dict[str, int]] = field(default_factory=lambda: {ROOT: {}})

    def copy(self) -> "Disk":
        """Return a disk that changes by itself."""
        return Disk(dict(self.files), {node: dict(names) for node, names in self.folders.items()})

    def new(self, *, folder: bool) -> int:
        """Make a file or folder that has no name yet."""
        node = 1 + max(itertools.chain(self.files, self.folders))
        if folder:
            self.folders[node] = {}
        else:
            self.files[node] = b""
        return node

    def apply(self, step: Change | Entry, left: Left = Left.WHOLE) -> None:
        """Let a step, or what is left of it, happen."""
        if left is Left.LOST:
            return
        if isinstance(step, Entry):
            for folder, name, node in step.names:
                if node is None:
                    self.folders[folder].pop(name, None)
                else:
                    self.folders[folder][name] = node
            return
        before = self.files[step.node][: step.keep].ljust(step.keep, b"\0")
        self.files[step.node] = before + _remains(step.data, left)

    def tree(self) -> dict[str, bytes | None]:
        """Return everything that has a name."""
        found: dict[str, bytes | None] = {}
        todo = [("", ROOT)]
        while todo:
            prefix, folder = todo.pop()
            for name, node in self.folders[folder].items():
                if node in self.folders:
                    found[prefix + name] = None
                    todo.append((f"{prefix}{name}/", node))
                else:
                    found[prefix + name] = self.files[node]
        return found


def _remains(data: bytes, left: Left) -> bytes:
    middle = len(data) // 2
    match left:
        case Left.EMPTY:
            return b""
        case Left.ZEROS:
            return bytes(len(data))
        case Left.HALF:
            return data[:middle]
        case Left.HALF_AND_ZEROS:
            return data[:middle].ljust(len(data), b"\0")
        case Left.ZEROS_AND_HALF:
            return bytes(middle) + data[middle:]
    return data


@dataclass(frozen=True)
class Moment:
    """An instant at which the power may go."""

    number: int
    """Steps that were made."""
    durable: Disk
    pending: tuple[Change | Entry, ...]
    """In the order in which they were made."""
    said: frozenset[str]

    def left(self, choice: Sequence[Left]) -> Disk:
        """Return the disk of which so much of each pending step is left."""
        disk = self.durable.copy()
        for step, left in zip(self.pending, choice, strict=True):
            disk.apply(step, left)
        return disk

    def choices(self, *, most: int, samples: int, rng: random.Random) -> Iterator[tuple[Left, ...]]:
        """Go through what may be left of the pending steps.

        Every subset of the latest, with all older ones and with none; every prefix; every step lost
        by itself and left by itself, and every change torn in every way beside others that are
        whole and that are lost; and a sample of everything else.

        Args:
            most: How many of the latest go through every subset.
            samples: How many are drawn.
            rng: Draws them.
        """
        count = len(self.pending)
        whole, lost = (Left.WHOLE,) * count, (Left.LOST,) * count
        fresh = min(count, most)
        for last in itertools.product((Left.WHOLE, Left.LOST), repeat=fresh):
            yield whole[: count - fresh] + last
            yield lost[: count - fresh] + last
        for i in range(count):
            yield whole[:i] + lost[i:]
            yield (*whole[:i], Left.LOST, *whole[i + 1 :])
            yield (*lost[:i], Left.WHOLE, *lost[i + 1 :])
            if isinstance(self.pending[i], Change):
                for torn in TORN:
                    yield (*whole[:i], torn, *whole[i + 1 :])
                    yield (*lost[:i], torn, *lost[i + 1 :])
        for _ in range(samples if count > 1 else 0):
            yield tuple(
                rng.choice(tuple(Left) if isinstance(step, Change) else (Left.WHOLE, Left.LOST))
                for step in self.pending
            )


def moments(start: Disk, steps: Iterable[Step]) -> Iterator[Moment]:
    """Go through the instants before every barrier, after every promise, and at the end.

    What is between two of them is a prefix of what is pending at the second. A move from one folder
    to another is durable once both were synced.

    Args:
        start: The disk before, all durable; files and folders that get their name later are there.
        steps: What was done.
    """
    durable, said = start.copy(), frozenset[str]()
    pending: list[tuple[Change | Entry, set[int]]] = []  # with what must be synced yet
    number = 0

    def now() -> Moment:
        left = tuple(step for step, _ in pending)
        return Moment(number, durable.copy(), left, said)

    for step in steps:
        if isinstance(step, Sync):
            yield now()
            for other, missing in pending:
                missing.discard(step.node)
                if not missing:
                    durable.apply(other)
            pending = [(other, missing) for other, missing in pending if missing]
        elif isinstance(step, Said):
            said |= step.what
            number += 1
            yield now()
            continue
        else:
            nodes = {step.node} if isinstance(step, Change) else {f for f, _, _ in step.names}
            pending.append((step, nodes))
        number += 1
    yield now()
