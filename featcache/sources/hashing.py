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
import re
import time
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple, TypeVar

from featcache.limits import IMAGE_FILE
from featcache.paths import open_descriptor, open_regular
from featcache.places import Place
from featcache.sources.base import Report, Sample
from featcache.wording import Argument, Part

RACY_SECONDS = 2.0
"""A file changed this recently may change again within one tick of its clock: never remembered."""

LINE_BYTES = 1024
"""Bytes of `hashes.tsv` read for each image of the data set; a line has about 150."""

_BATCH = 512
"""Images that a thread takes at once."""
_PROBE, _BATCHES = 32, 64
"""Images after which it is decided how to go on; batches until it is decided again."""
_QUICK = 20e-6
"""Seconds an image within which threads only wait for each other: states that are in memory."""


_LINE = re.compile(
    rb"^([0-9a-f]{8})\t(([0-9a-f]{64})\t((?:[0-9]{1,20}\t){3}[0-9]{1,20})\t([^\t\n]*)(?:\t([^\t\n]+))?)$",
    re.MULTILINE,
)
"""crc32 of the rest; the rest: sha256, state, id, and which part of its file the image is."""


def _state_of(found: os.stat_result) -> str:
    """Return the state of a file that changes with its content, as written to the hash file.

    Size, mtime, ctime and inode; times in nanoseconds.
    """
    return f"{found.st_size}\t{found.st_mtime_ns}\t{found.st_ctime_ns}\t{found.st_ino}"


def _differ_in_inode_only(one: str, other: str) -> bool:
    (mine, inode), (others, another) = one.rsplit("\t", 1), other.rsplit("\t", 1)
    return mine == others and inode != another


def _is_recent(found: os.stat_result, now: float) -> bool:
    return max(found.st_mtime_ns, found.st_ctime_ns) >= (now - RACY_SECONDS) * 1e9


T = TypeVar("T")


class _Known(NamedTuple):
    """State and hash of an image when it was hashed."""

    state: str
    """State of the file that holds it."""
    within: str
    sha256: str


class _Found(NamedTuple):
    """An image that was read."""

    known: _Known
    may_remember: bool
    """Whether the same state will mean the same bytes."""
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
    remembered = {} if known is None else _read_known(known, root, len(samples))
    trusted = {} if rehash else remembered
    hashes = [""] * len(samples)
    unreadable: list[int] = []
    settled: dict[str, _Known] = {}
    moved, has_new = 0, False

    def hash_batch(batch: range) -> list[_Found | _Known | None]:
        places = samples[batch.start : batch.stop]
        return [_hash(s.place, trusted.get(s.id), ignore_inode=ignore_inode) for s in places]

    for batch, results in _in_threads_if_slow(hash_batch, len(samples), workers):
        for i, found in zip(batch, results, strict=True):
            if found is None:
                unreadable.append(i)
                continue
            if isinstance(found, _Found):
                has_new = True
                moved += found.inode_moved
                if found.may_remember:
                    settled[samples[i].id] = found.known
                found = found.known
            else:
                settled[samples[i].id] = found
            hashes[i] = found.sha256
        if report:
            report("hashing images", batch.stop, len(samples))
    for image_id in _of_changed_containers(samples, settled):
        del settled[image_id]
    if known is not None and keep_known:
        for left in known.parent.glob(f".{known.name}.tmp-*"):
            _forget(left)  # of a writer that was killed; another's is only written anew
        # Without a new one, all that is settled was remembered as it is.
        if len(settled) != len(remembered) or (has_new and settled != remembered):
            _write_known(known, root, settled)
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


def _hash(place: Place, before: _Known | None, *, ignore_inode: bool) -> _Found | _Known | None:
    """Return what is known of an image that did not change, or read it; None if it cannot be."""
    try:
        now = time.time()
        found = place.stat()
        state = _state_of(found)
        inode_moved = False
        if before is not None and before.within == place.within:
            if before.state == state:
                return before
            inode_moved = _differ_in_inode_only(before.state, state)
            if inode_moved and ignore_inode:
                return before
        if place.within:  # whether the container stays as it was is looked at once, in the end
            digest, same = hashlib.sha256(place.read(IMAGE_FILE)).hexdigest(), True
        else:
            with open_regular(place.container, IMAGE_FILE) as file:
                found = os.fstat(file.fileno())
                state = _state_of(found)
                digest = hashlib.file_digest(file, "sha256").hexdigest()
                same = state == _state_of(os.fstat(file.fileno()))
    except (OSError, ValueError):  # a ValueError is of a path that no file can have, with a NUL
        return None
    return _Found(
        _Known(state, place.within, digest),
        # As git has it: a change in the tick of the clock in which it was read would not show.
        may_remember=same and not _is_recent(found, now),
        inode_moved=inode_moved and before is not None and before.sha256 == digest,
    )


def _of_changed_containers(
    samples: Sequence[Sample], settled: Mapping[str, _Known]
) -> Iterator[str]:
    """Yield the images in archives that changed since they were opened."""
    now: dict[Path, str | None] = {}
    for sample in samples:
        if not sample.place.within or sample.id not in settled:
            continue
        container = sample.place.container
        if container not in now:
            now[container] = None
            with suppress(OSError):
                now[container] = _state_of(container.stat())
        if now[container] != _state_of(sample.place.stat()):
            yield sample.id


def _read_known(path: Path, root: Path, most: int) -> dict[str, _Known]:
    """Read the remembered hashes; damaged lines are ignored."""
    try:
        with os.fdopen(open_descriptor(path, links=False), "rb") as file:
            # A stranger's may be of any size: of one that is larger than our own would be, the
            # rest is forgotten.
            data = file.read(LINE_BYTES * (most + 1))
    except OSError:
        return {}
    known: dict[str, _Known] = {}
    head, _, lines = data.partition(b"\n")
    if head != _line(f"root\t{str(root)!a}").rstrip(b"\n"):
        return known
    crc32 = zlib.crc32
    for found in _LINE.finditer(lines):
        crc, rest, digest, state, image_id, within = found.groups()
        if int(crc, 16) == crc32(rest):
            known[_decoded(image_id)] = _Known(
                state.decode(), _decoded(within or b""), digest.decode()
            )
    return known


def _decoded(text: bytes) -> str:
    return text.decode("utf-8", "surrogateescape")


def _line(text: str) -> bytes:
    rest = text.encode("utf-8", "surrogateescape")
    return b"%08x\t%s\n" % (zlib.crc32(rest), rest)


def _write_known(path: Path, root: Path, settled: Mapping[str, _Known]) -> None:
    """Write the hashes; errors are ignored, because they only cost time."""
    lines = [_line(f"root\t{str(root)!a}")]
    for image_id, (state, within, sha256) in settled.items():
        names = (image_id, within) if within else (image_id,)
        if not any("\n" in name or "\t" in name for name in names):
            lines.append(_line("\t".join((sha256, state, *names))))
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
