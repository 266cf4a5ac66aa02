"""Downloading one file from the first address that works, resumed after interruptions.

What is downloaded counts only after its size and checksum were found to be the published ones. An
address that fails, or gives something else, is followed by the next.
"""

import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from featcache.errors import DownloadNeededError, SourceError
from featcache.limits import DOWNLOAD
from featcache.sources.base import Report
from featcache.sources.fetch.archive import Archive
from featcache.sources.fetch.checksum import Checksum
from featcache.sources.fetch.connect import (
    Answer,
    BrokenTransferError,
    TransferError,
    check_address,
    chunks,
    number,
    request,
)
from featcache.sources.fetch.disk import check_room, explained
from featcache.sources.fetch.partial import Partial
from featcache.sources.fetch.progress import Bytes
from featcache.units import human_bytes
from featcache.wording import Argument, Part, Placeholder

WAITS = (1.0, 2.0, 4.0, 8.0, 16.0)
"""Seconds before each further try at one address."""
LONGEST_WAIT = 60.0
"""Seconds that a server may ask us to wait."""
ADVANCE = 1 << 20
"""Bytes after which a broken connection counts as the first again."""

_RANGE = re.compile(r"bytes (?:([0-9]{1,18})-[0-9]{1,18}|\*)/([0-9]{1,18}|\*)")


@dataclass(frozen=True, slots=True)
class Downloaded:
    """A downloaded file that has the published digest."""

    path: Path
    digest: str
    """sha256:... or md5:..., of all of its bytes."""
    bytes: int
    url: str
    """Where the last of its bytes came from; empty where it was there already."""


def download(
    archive: Archive,
    folder: Path,
    *,
    title: str = "",
    report: Report | None = None,
    headers: Mapping[str, str] | None = None,
    instead: Sequence[Part] | None = None,
) -> Downloaded:
    """Fetch a file, or take the one that is there.

    Args:
        archive: What to fetch.
        folder: Where it goes; it exists, and no other process writes to it.
        title: Title of the data set, for messages.
        report: Told how far it is, in bytes.
        headers: Further headers of each request, as `request` takes them.
        instead: What else the reader can do if the file cannot be fetched, behind "Run the same
            command again later, which keeps what came so far"; None for where it can be put.

    Raises:
        DownloadNeededError: If no address gives it; each is named with its reason.
        SourceError: If the disk is full or refuses, or the file is larger than the limit.
    """
    limit = DOWNLOAD.value()
    if archive.bytes is not None and archive.bytes > limit:
        raise _too_large(archive, archive.bytes)
    if there := present(archive, folder / archive.file):
        return there
    job = _Job(archive, folder, report, headers or {})
    failed: list[tuple[str, str]] = []
    try:
        for url in archive.urls:
            try:
                return job.fetch(url)
            except TransferError as error:
                failed.append((url, str(error)))
    finally:
        job.part.close()
    raise _not_fetched(archive, title, failed, instead or _by_hand(archive, folder))


def present(archive: Archive, path: Path) -> Downloaded | None:
    """Return a file that is there and has the published size and checksum; None for any other."""
    checksum = Checksum(archive)
    try:
        size = path.lstat().st_size
        if archive.bytes not in (None, size):
            return None
        checksum.read(path, size)
    except OSError:
        return None
    return None if checksum.fault() else Downloaded(path, checksum.value, size, "")


class _Job:
    """Download of one file from any of its addresses."""

    def __init__(
        self, archive: Archive, folder: Path, report: Report | None, headers: Mapping[str, str]
    ) -> None:
        self.archive, self.folder, self.report = archive, folder, report
        self.headers = headers
        self.part = Partial(folder / archive.file, has_digest=bool(archive.published))
        self.checksum = Checksum(archive)

    def fetch(self, url: str) -> Downloaded:
        """Fetch from one address; retry after temporary errors.

        Raises:
            TransferError: If it does not give the file.
        """
        check_address(url)
        part, tries, best = self.part, 0, self.part.count
        restarted = False
        while True:
            start = self._start(url)
            try:
                if start == 0 or start != self.archive.bytes:
                    self._transfer(url, start)
            except BrokenTransferError as error:
                if part.count >= best + ADVANCE:
                    tries, best = 0, part.count
                if tries == len(WAITS):
                    raise TransferError(f"{error}; tried {tries + 1} times") from error
                time.sleep(max(WAITS[tries], min(error.wait, LONGEST_WAIT)))
                tries += 1
                continue
            with explained(part.path):
                self.checksum.read(part.path, part.count)
            fault = self.checksum.fault()
            if not fault:
                part.finish()
                return Downloaded(part.target, self.checksum.value, self.checksum.count, url)
            part.discard()
            if start == 0 or restarted:
                raise TransferError(fault)
            restarted = True  # its two parts may have been of two files: once more, from the start

    def _start(self, url: str) -> int:
        """Return how many bytes of the part may be continued from an address."""
        part, archive = self.part, self.archive
        same = part.url == url and part.validator.startswith('"')
        fits = archive.bytes is None or part.count <= archive.bytes
        if part.count and not (fits and (same or archive.published)):
            part.discard()
        return part.count

    def _transfer(self, url: str, start: int) -> None:
        """Make one request and append its body after the first `start` bytes."""
        part = self.part
        headers = {**self.headers, **({"Range": f"bytes={start}-"} if start else {})}
        if start and part.url == url and part.validator:
            headers["If-Range"] = part.validator
        with request(url, headers) as answer:
            total = self._check(answer, url, start)
            if answer.status == 416:  # all of it is there
                return
            count = start if answer.status == 206 else 0
            most = total or self.archive.bytes or DOWNLOAD.value()
            check_room(self.folder, total - count if total else 0, self.archive.file)
            part.begin(url, _validator(answer), total or self.archive.bytes, count)
            with explained(part.path):
                self.checksum.read(part.path, count)
            self._receive(answer, most)
        expected = total or self.archive.bytes
        if expected is not None and part.count < expected:
            raise BrokenTransferError(
                f"the connection ended after {part.count} of {expected} bytes"
            )

    def _receive(self, answer: Answer, most: int) -> None:
        what, total = f"downloading {self.archive.file}", Bytes(self.part.size or 0)
        for data in chunks(answer):
            if self.part.count + len(data) > most:
                self.part.discard()
                raise TransferError(f"it sends more than {most} bytes")
            self.part.write(data)
            self.checksum.update(data)
            if self.report:
                self.report(what, Bytes(self.part.count), total)

    def _check(self, answer: Answer, url: str, start: int) -> int | None:
        """Check the headers of an answer before its body is read.

        Returns:
            The bytes of the whole file; None where the server does not say.

        Raises:
            TransferError: If it is another file.
            BrokenTransferError: If the part does not fit it and was discarded.
            SourceError: If it is larger than the limit.
        """
        part, archive = self.part, self.archive
        found = _RANGE.fullmatch(answer.headers.get("content-range", "").strip())
        total = number(found[2]) if found else None
        if answer.status == 200:
            total = answer.number("content-length")
            if "chunked" in answer.headers.get("transfer-encoding", "").lower():
                total = None
        elif start == 0:
            raise TransferError(f"the server answered {answer.status} without being asked for less")
        elif answer.status == 416:
            if total != start or archive.bytes not in (None, start):
                part.discard()
                raise BrokenTransferError("the file has other bytes than before")
        else:
            other = part.size is not None and total is not None and part.size != total
            if part.url == url and part.validator:
                other |= _validator(answer) not in ("", part.validator)
            if found is None or number(found[1] or "") != start or other:
                part.discard()
                raise BrokenTransferError("the file changed between two parts")
        if total is not None and total > DOWNLOAD.value():
            raise _too_large(archive, total)
        if None not in (total, archive.bytes) and total != archive.bytes:
            raise TransferError(f"it offers {total} bytes, {archive.bytes} were published")
        return total


def _validator(answer: Answer) -> str:
    """Return the version of a file on its server: a strong ETag, else a date; empty if unknown."""
    etag = answer.headers.get("etag", "").strip()
    strong = etag.startswith('"') and etag.isascii() and etag.isprintable()
    text = etag if strong else answer.headers.get("last-modified", "").strip()
    return text if text.isascii() and text.isprintable() and len(text) <= 200 else ""


def _too_large(archive: Archive, size: int) -> SourceError:
    return SourceError(
        f"{archive.file} has {size} bytes, more than the limit of {DOWNLOAD.value()}; "
        f"{DOWNLOAD.variable} raises it."
    )


def _not_fetched(
    archive: Archive, title: str, failed: Sequence[tuple[str, str]], instead: Sequence[Part]
) -> DownloadNeededError:
    size = f" ({human_bytes(archive.bytes)})" if archive.bytes else ""
    reasons = "; ".join(f"{url} ({reason})" for url, reason in failed)
    return DownloadNeededError(
        f"{archive.file}{f' of {title}' if title else ''}{size} could not be fetched: {reasons}. "
        f"Run the same command again later, which keeps what came so far",
        *instead,
    )


def _by_hand(archive: Archive, folder: Path) -> tuple[Part, ...]:
    return (
        f"; or put the file at {folder / archive.file}; or, if you have its files, name their "
        f"folder with ",
        Argument("dataset_root", Placeholder("DIR")),
        ".",
    )
