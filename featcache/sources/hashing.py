"""Content hashes of image files, remembered by size and time of change in a small text file.

Every line begins with a checksum of its rest; one that is not what was written is forgotten.
"""

import hashlib
import os
import time
import zlib
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from featcache.limits import IMAGE_FILE
from featcache.paths import open_descriptor, open_regular
from featcache.sources.base import Report, Sample

RACY_SECONDS = 2.0
"""A file changed this recently may change again within one tick of its clock: never remembered."""

LINE_BYTES = 1024
"""Of `hashes.tsv` that are read for each file of the data set; a line has about 150."""

_BATCH = 64


@dataclass(frozen=True, slots=True)
class _Stat:
    size: int
    mtime_ns: int
    sha256: str


def hash_files(
    samples: Sequence[Sample],
    root: Path,
    known: Path | None,
    report: Report | None,
    workers: int,
) -> tuple[list[str], list[int]]:
    """Hash every file that is not remembered.

    Args:
        samples: The files.
        root: What their ids are relative to; what is remembered of another one does not count.
        known: File of remembered hashes, brought up to date if it can be written; None without.
        report: Told how many files are done.
        workers: Threads that read.

    Returns:
        sha256 of each file in hex, empty for those that cannot be read, and the places of those.
    """
    remembered = {} if known is None else _read_known(known, root, len(samples))
    for left in [] if known is None else known.parent.glob(f".{known.name}.tmp-*"):
        _forget(left)  # of a writer that was killed; another's is only written anew
    stats: dict[str, _Stat] = {}
    unreadable: list[int] = []
    starts = range(0, len(samples), _BATCH)
    with ThreadPoolExecutor(workers) as pool:
        batches = pool.map(lambda i: _hash_batch(samples[i : i + _BATCH], remembered), starts)
        for start, batch in zip(starts, batches, strict=True):
            for i, stat in enumerate(batch, start):
                if stat is None:
                    unreadable.append(i)
                else:
                    stats[samples[i].id] = stat
            if report:
                report("hashing images", min(start + _BATCH, len(samples)), len(samples))
    if known is not None and stats != remembered:
        _write_known(known, root, stats)
    return [stats[s.id].sha256 if s.id in stats else "" for s in samples], unreadable


def _hash_batch(samples: Sequence[Sample], remembered: Mapping[str, _Stat]) -> list[_Stat | None]:
    return [_hash(sample, remembered.get(sample.id)) for sample in samples]


def _hash(sample: Sample, before: _Stat | None) -> _Stat | None:
    try:
        now = sample.path.stat()
        if before and (before.size, before.mtime_ns) == (now.st_size, now.st_mtime_ns):
            return before
        with open_regular(sample.path, IMAGE_FILE) as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return None
    return _Stat(now.st_size, now.st_mtime_ns, digest)


def _read_known(path: Path, root: Path, most: int) -> dict[str, _Stat]:
    """Read what is remembered; a line that is not whole is forgotten, and its file hashed again."""
    try:
        with os.fdopen(open_descriptor(path, links=False), "rb") as file:
            # A stranger's may be of any size: of one that is larger than our own would be, the
            # rest is forgotten.
            lines = file.read(LINE_BYTES * (most + 1)).split(b"\n")
    except OSError:
        return {}
    known: dict[str, _Stat] = {}
    if lines[0] != _line(f"root\t{str(root)!a}").rstrip(b"\n"):
        return known
    for line in lines[1:]:
        crc, _, rest = line.partition(b"\t")
        if crc != b"%08x" % zlib.crc32(rest):
            continue
        match rest.decode("utf-8", "surrogateescape").split("\t"):
            case [digest, size, mtime_ns, image_id] if (
                len(digest) == 64
                and max(len(size), len(mtime_ns)) < 20
                and size.isdecimal()
                and mtime_ns.isdecimal()
            ):
                known[image_id] = _Stat(int(size), int(mtime_ns), digest)
    return known


def _line(text: str) -> bytes:
    rest = text.encode("utf-8", "surrogateescape")
    return b"%08x\t%s\n" % (zlib.crc32(rest), rest)


def _write_known(path: Path, root: Path, stats: Mapping[str, _Stat]) -> None:
    """Remember hashes; losing them costs time only, so nothing is raised where it fails."""
    settled = (time.time() - RACY_SECONDS) * 1e9
    lines = [_line(f"root\t{str(root)!a}")]
    lines += [
        _line(f"{s.sha256}\t{s.size}\t{s.mtime_ns}\t{image_id}")
        for image_id, s in stats.items()
        if s.mtime_ns < settled and "\n" not in image_id and "\t" not in image_id
    ]
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
