"""Content hashes of images, remembered in a small text file for as long as nothing changed.

An image counts as unchanged if size, time of modification (mtime), time of change (ctime) and inode
of the file that holds it are those it had when the image was hashed, as borg and restic have it,
and it is still the same part of that file. Only the mtime can be set at will, so content that was
replaced, or names that were swapped, show in one of the others. An archive is looked at once for
all images in it.

Every line begins with a checksum of its rest; one that is not what was written is forgotten.
"""

import hashlib
import os
import time
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from featcache.limits import IMAGE_FILE
from featcache.paths import open_descriptor, open_regular
from featcache.places import Place
from featcache.sources.base import Report, Sample

RACY_SECONDS = 2.0
"""A file changed this recently may change again within one tick of its clock: never remembered."""

LINE_BYTES = 1024
"""Bytes of `hashes.tsv` read for each image of the data set; a line has about 150."""

_BATCH = 512


class _State(NamedTuple):
    """What tells whether a file has changed; times in nanoseconds."""

    size: int
    mtime: int
    ctime: int
    inode: int

    @staticmethod
    def of(found: os.stat_result) -> "_State":
        return _State(found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino)

    def differs_in_inode_only(self, other: "_State") -> bool:
        return self[:3] == other[:3] and self.inode != other.inode

    def is_recent(self, now: float) -> bool:
        return max(self.mtime, self.ctime) >= (now - RACY_SECONDS) * 1e9


class _Known(NamedTuple):
    """An image as it was when it was hashed."""

    state: _State
    """Of the file that holds it."""
    within: str
    sha256: str


class _Found(NamedTuple):
    """An image as it is now."""

    known: _Known
    may_remember: bool = True
    """Whether the same state will mean the same bytes."""
    inode_moved: bool = False
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
    say: Callable[[str], None] | None = None,
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
        ignore_inode: For file systems that give out inodes anew: size and times decide alone.
        say: Called with what the user should know of it.

    Returns:
        sha256 of each image in hex, empty for those that cannot be read, and the places of those.
    """
    remembered = {} if known is None else _read_known(known, root, len(samples))
    trusted = {} if rehash else remembered
    hashes = [""] * len(samples)
    unreadable: list[int] = []
    settled: dict[str, _Known] = {}
    moved = 0
    starts = range(0, len(samples), _BATCH)

    def hash_batch(start: int) -> list[_Found | None]:
        batch = samples[start : start + _BATCH]
        return [_hash(s.place, trusted.get(s.id), ignore_inode=ignore_inode) for s in batch]

    with ThreadPoolExecutor(workers) as pool:
        for start, batch in zip(starts, pool.map(hash_batch, starts), strict=True):
            for i, found in enumerate(batch, start):
                if found is None:
                    unreadable.append(i)
                    continue
                hashes[i] = found.known.sha256
                moved += found.inode_moved
                if found.may_remember:
                    settled[samples[i].id] = found.known
            if report:
                report("hashing images", min(start + _BATCH, len(samples)), len(samples))
    for image_id in _of_changed_containers(samples, settled):
        del settled[image_id]
    if known is not None and keep_known:
        for left in known.parent.glob(f".{known.name}.tmp-*"):
            _forget(left)  # of a writer that was killed; another's is only written anew
        if settled != remembered:
            _write_known(known, root, settled)
    if moved and say:
        say(
            f"{moved} images had another inode than last time and were read again; they are the "
            f"same. If this file system gives out inodes anew each time, the option to ignore "
            f"inodes (ignore_inode) leaves them out."
        )
    return hashes, unreadable


def _hash(place: Place, before: _Known | None, *, ignore_inode: bool) -> _Found | None:
    """Look an image up, or read it; None if it cannot be read."""
    try:
        now = time.time()
        state = _State.of(place.stat())
        inode_moved = False
        if before is not None and before.within == place.within:
            if before.state == state:
                return _Found(before)
            inode_moved = before.state.differs_in_inode_only(state)
            if inode_moved and ignore_inode:
                return _Found(before)
        if place.within:  # whether the container stays as it was is looked at once, in the end
            digest, same = hashlib.sha256(place.read(IMAGE_FILE)).hexdigest(), True
        else:
            with open_regular(place.container, IMAGE_FILE) as file:
                state = _State.of(os.fstat(file.fileno()))
                digest = hashlib.file_digest(file, "sha256").hexdigest()
                same = state == _State.of(os.fstat(file.fileno()))
    except (OSError, ValueError):  # a ValueError is of a path that no file can have, with a NUL
        return None
    return _Found(
        _Known(state, place.within, digest),
        # As git has it: a change in the tick of the clock in which it was read would not show.
        may_remember=same and not state.is_recent(now),
        inode_moved=inode_moved and before is not None and before.sha256 == digest,
    )


def _of_changed_containers(
    samples: Sequence[Sample], settled: Mapping[str, _Known]
) -> Iterator[str]:
    """Yield the images in archives that are not any more what they were when they were opened."""
    now: dict[Path, _State | None] = {}
    for sample in samples:
        if not sample.place.within or sample.id not in settled:
            continue
        container = sample.place.container
        if container not in now:
            now[container] = None
            with suppress(OSError):
                now[container] = _State.of(container.stat())
        if now[container] != _State.of(sample.place.stat()):
            yield sample.id


def _read_known(path: Path, root: Path, most: int) -> dict[str, _Known]:
    """Read what is remembered; a line that is not whole is forgotten, and its file hashed again."""
    try:
        with os.fdopen(open_descriptor(path, links=False), "rb") as file:
            # A stranger's may be of any size: of one that is larger than our own would be, the
            # rest is forgotten.
            lines = file.read(LINE_BYTES * (most + 1)).split(b"\n")
    except OSError:
        return {}
    known: dict[str, _Known] = {}
    if lines[0] != _line(f"root\t{str(root)!a}").rstrip(b"\n"):
        return known
    for line in lines[1:]:
        crc, _, rest = line.partition(b"\t")
        if crc != b"%08x" % zlib.crc32(rest):
            continue
        match rest.decode("utf-8", "surrogateescape").split("\t"):
            case [digest, size, mtime, ctime, inode, image_id, *within] if (
                len(digest) == 64
                and len(within) <= 1
                and all(map(_is_number, (size, mtime, ctime, inode)))
            ):
                state = _State(int(size), int(mtime), int(ctime), int(inode))
                known[image_id] = _Known(state, "".join(within), digest)
    return known


def _is_number(text: str) -> bool:
    return len(text) <= 20 and text.isascii() and text.isdecimal()  # 64 bits are 20 digits


def _line(text: str) -> bytes:
    rest = text.encode("utf-8", "surrogateescape")
    return b"%08x\t%s\n" % (zlib.crc32(rest), rest)


def _write_known(path: Path, root: Path, settled: Mapping[str, _Known]) -> None:
    """Remember hashes; losing them costs time only, so nothing is raised where it fails."""
    lines = [_line(f"root\t{str(root)!a}")]
    for image_id, (state, within, sha256) in settled.items():
        names = (image_id, within) if within else (image_id,)
        if not any("\n" in name or "\t" in name for name in names):
            lines.append(_line("\t".join((sha256, *map(str, state), *names))))
    aside = path.with_name(f".{path.name}.tmp-{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        aside.write_bytes(b"".join(lines))
        aside.replace(path)
    except OSError:
        _forget(aside)


def _forget(path: Path) -> None:
    with suppress(OSError):
        path.unlink(missing_ok=True)
