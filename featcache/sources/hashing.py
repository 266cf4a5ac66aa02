"""Content hashes of images, remembered in a small text file for as long as nothing changed.

An image counts as unchanged if size, time of modification (mtime), time of change (ctime) and inode
of the file that holds it are those it had when the image was hashed, as borg and restic have it,
and it is still the same part of that file. Only the mtime can be set at will, so content that was
replaced, or names that were swapped, show in one of the others. An archive is looked at once for
all images in it.
"""

import hashlib
import os
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple, TypeVar

from featcache.limits import IMAGE_FILE
from featcache.paths import open_regular
from featcache.sources.base import Report, Sample
from featcache.sources.remembered import (
    Remembered,
    can_be_remembered,
    differ_in_inode_only,
    forget_unfinished,
    line_of,
    name_of,
    read_remembered,
    sha256_in,
    state_in,
    state_of,
    write_remembered,
)
from featcache.wording import Argument, Part

RACY_SECONDS = 2.0
"""A file changed this recently may change again within one tick of its clock: never remembered."""

_BATCH = 512
"""Images that a thread takes at once."""
_PROBE, _BATCHES = 32, 64
"""Images after which it is decided how to go on; batches until it is decided again."""
_QUICK = 20e-6
"""Seconds an image within which threads only wait for each other: states that are in memory."""


def _is_recent(found: os.stat_result, now: float) -> bool:
    return max(found.st_mtime_ns, found.st_ctime_ns) >= (now - RACY_SECONDS) * 1e9


T = TypeVar("T")


class _Read(NamedTuple):
    """An image that was read."""

    sha256: str
    line: bytes
    """What to remember of it; empty if the same state may mean other bytes."""
    inode_moved: bool
    """Whether it was read for another inode alone, and had the same bytes."""


def hash_files(
    samples: Sequence[Sample],
    root: Path,
    known: Path | None,
    report: Report | None,
    workers: int,
    *,
    keep_known: bool = True,
    rehash: bool = False,
    ignore_inode: bool = False,
    say: Callable[[Part], None] | None = None,
) -> tuple[list[str], list[int]]:
    """Hash every image that is not remembered, or has changed since.

    Args:
        samples: The images.
        root: What their ids are relative to; what is remembered of another one does not count.
        known: File of remembered hashes; None without.
        report: Told how many are done.
        workers: Threads that read.
        keep_known: Whether to bring that file up to date, if it can be written.
        rehash: Read every image, whatever is remembered.
        ignore_inode: Whether size and times alone decide, for file systems that renumber inodes.
        say: Called with messages for the user.

    Returns:
        sha256 of each image in hex, empty for those that cannot be read, and the places of those.
    """
    remembered = Remembered() if known is None else read_remembered(known, root, len(samples))
    trusted = Remembered() if rehash else remembered
    hashes = [""] * len(samples)
    lines = [b""] * len(samples)
    unreadable: list[int] = []
    moved = 0

    def hash_batch(batch: range) -> list[_Read | bytes | None]:
        return [_hash(samples[i], i, trusted, ignore_inode=ignore_inode) for i in batch]

    for batch, results in _in_threads_if_slow(hash_batch, len(samples), workers):
        for i, found in zip(batch, results, strict=True):
            if found is None:
                unreadable.append(i)
            elif isinstance(found, bytes):
                hashes[i], lines[i] = sha256_in(found), found
            else:
                hashes[i], lines[i] = found.sha256, found.line
                moved += found.inode_moved
        if report:
            report("hashing images", batch.stop, len(samples))
    for i in _of_changed_containers(samples, lines):
        lines[i] = b""
    if known is not None and keep_known:
        forget_unfinished(known)
        settled = [line for line in lines if line]
        if settled != remembered.lines:
            write_remembered(known, root, settled)
    if moved and say:
        say(
            (
                f"{moved} images had another inode than last time and were read again; they are "
                "the same. If this file system renumbers inodes, ",
                Argument("ignore_inode", True),
                " ignores them.",
            )
        )
    return hashes, unreadable


def _in_threads_if_slow(
    run: Callable[[range], list[T]], count: int, workers: int
) -> Iterator[tuple[range, list[T]]]:
    """Run a function on all batches in their order, in threads where that helps.

    A state in memory comes in two microseconds: threads would spend longer on passing the
    interpreter's lock round. A disk or a network takes milliseconds, and threads wait together.
    """
    at, is_quick = 0, False
    with ThreadPoolExecutor(workers) as pool:
        while at < count:
            batch = range(at, min(at + (_BATCH if is_quick else _PROBE), count))
            begin = time.perf_counter()
            results = run(batch)
            is_quick = time.perf_counter() - begin < _QUICK * len(batch)
            yield batch, results
            at = batch.stop
            if not is_quick:
                stop = min(at + _BATCHES * _BATCH, count)
                batches = [range(i, min(i + _BATCH, stop)) for i in range(at, stop, _BATCH)]
                yield from zip(batches, pool.map(run, batches), strict=True)
                at = stop


def _hash(
    sample: Sample, i: int, remembered: Remembered, *, ignore_inode: bool
) -> _Read | bytes | None:
    """Return the line of an image that did not change, or read it; None if it cannot be read."""
    place, within = sample.place, sample.place.within
    try:
        now = time.time()
        found = place.stat()
        state, name = state_of(found), name_of(sample.id, within)
        before = remembered.line(i, name)
        inode_moved = False
        if before:
            known = state_in(before, name)
            if known == state:
                return before
            inode_moved = differ_in_inode_only(known, state)
            if inode_moved and ignore_inode:
                return before
        if within:  # whether the container stays as it was is looked at once, in the end
            digest, same = hashlib.sha256(place.read(IMAGE_FILE)).hexdigest(), True
        else:
            with open_regular(place.container, IMAGE_FILE) as file:
                found = os.fstat(file.fileno())
                state = state_of(found)
                digest = hashlib.file_digest(file, "sha256").hexdigest()
                same = state == state_of(os.fstat(file.fileno()))
    except (OSError, ValueError):  # a ValueError is of a path that no file can have, with a NUL
        return None
    # As git has it: a change in the tick of the clock in which it was read would not show.
    may_remember = same and not _is_recent(found, now) and can_be_remembered(sample.id, within)
    return _Read(
        digest,
        line_of(digest, state, name) if may_remember else b"",
        inode_moved=inode_moved and sha256_in(before) == digest,
    )


def _of_changed_containers(samples: Sequence[Sample], lines: Sequence[bytes]) -> Iterator[int]:
    """Yield which images to be remembered are in archives that changed since they were opened."""
    now: dict[Path, str | None] = {}
    for i, (sample, line) in enumerate(zip(samples, lines, strict=True)):
        if not line or not sample.place.within:
            continue
        container = sample.place.container
        if container not in now:
            now[container] = None
            with suppress(OSError):
                now[container] = state_of(container.stat())
        if now[container] != state_of(sample.place.stat()):
            yield i
