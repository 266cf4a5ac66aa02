"""The archives of a data set, downloaded, checked, unpacked and put in place as a whole.

Everything happens in a folder beside the target. Its state file says which archives are done, so
that a killed fetch goes on where it was; the target appears in one step, with a record of what it
is made of. Into a folder that holds files already, files are moved one by one, and the record is
written last.
"""

import os
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from featcache.errors import SourceError
from featcache.paths import expand
from featcache.sources.base import Report
from featcache.sources.fetch.archive import Archive
from featcache.sources.fetch.checksum import vouched
from featcache.sources.fetch.disk import check_room, explained, read_note, write_note
from featcache.sources.fetch.download import Downloaded, download, present
from featcache.sources.fetch.names import MARKER
from featcache.sources.fetch.placing import check_merge, merge, put_whole, remove
from featcache.sources.fetch.staging import staging, staging_folder
from featcache.sources.fetch.unpack import unpack

STATE, UNPACKING, WHOLE = "state.json", "unpacking", "whole"
"""In the folder beside the target: what is done, one archive being unpacked, all that were."""

TOPS = 100
"""Top names of an archive that the record keeps, to see whether they are still there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fetched:
    """Result of `fetch`."""

    path: Path
    """The folder."""
    notes: tuple[str, ...]
    """What the user should know, a sentence each: files that no checksum vouches for."""
    bytes: int
    """Bytes of the archives that this call downloaded; 0 where all was there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """Record of an unpacked archive."""

    digest: str
    """Digest of the archive: sha256:... or md5:..."""
    bytes: int
    url: str
    """Where it came from; empty where it lay there."""
    tops: list[str]
    """Names that it brought, relative to the target; not all where there are very many."""


def fetch(
    archives: Sequence[Archive],
    into: Path | str,
    *,
    title: str = "",
    report: Report | None = None,
    keep: bool = False,
) -> Fetched:
    """Fetch and unpack archives, or take what an earlier call put there.

    An archive that lies in the target, beside it, or among those that were kept, and that has the
    published checksum, is not downloaded.

    Args:
        archives: Archives in the order in which they are fetched.
        into: The folder of the data set. Files in it that are not of the archives stay.
        title: Title of the data set, for messages.
        report: Told how far it is.
        keep: Whether archives are kept, in `.NAME.archives` beside the target, after they were
            unpacked.

    Raises:
        DownloadNeededError: If an archive cannot be fetched; each address is named with its reason.
        SourceError: If an archive is damaged or unsafe, the disk is full, or other files are in
            the way.

    Example:
        >>> from featcache.sources.fetch.archive import Archive
        >>> url = "http://127.0.0.1:1/pets.zip"  # nobody answers there
        >>> fetch([Archive("pets.zip", (url,), 1000)], "pets", title="Oxford Pets")
        Traceback (most recent call last):
        ...
        featcache.errors.DownloadNeededError: pets.zip of Oxford Pets (1.0 kB) could not be ...
    """
    into = expand(into).absolute()
    notes = tuple(filter(None, map(vouched, archives)))
    if len({a.file.casefold() for a in archives}) < len(archives):
        raise SourceError(f"Two archives of {title or into} have one name. Name each differently.")
    if into.exists() and not into.is_dir():
        raise SourceError(f"{into} is a file, not a folder. Move it away and run the same again.")
    done = Fetched(path=into, notes=notes, bytes=0)
    if is_fetched(archives, into) and not staging_folder(into).exists():
        return done
    with staging(into, title, report) as (folder, told):
        if is_fetched(archives, into):  # by a process that was waited for, or killed at the end
            remove(folder)
            return done
        job = _Job(archives, into, folder, title, told, keep)
        job.run()
        remove(folder)
        return Fetched(path=into, notes=notes, bytes=job.bytes)


def is_fetched(archives: Sequence[Archive], into: Path) -> bool:
    """Tell whether a folder holds what these archives unpack to.

    Args:
        archives: As `fetch` takes them.
        into: The folder of the data set.

    Returns:
        True if its record names each archive with its published digest, and what the archives
        brought is still there; single files below are not looked at.
    """
    records = read_note(into / MARKER).get("archives")
    if not isinstance(records, dict):
        return False
    for archive in archives:
        record = records.get(archive.file)
        if not isinstance(record, dict) or archive.published not in ("", record.get("digest")):
            return False
        if archive.bytes not in (None, record.get("bytes")):
            return False
        tops = record.get("tops")
        if not isinstance(tops, list) or not all(os.path.lexists(into / str(t)) for t in tops):
            return False
    return True


class _Job:
    """Fetching of one data set."""

    def __init__(
        self,
        archives: Sequence[Archive],
        into: Path,
        folder: Path,
        title: str,
        report: Report,
        keep: bool,
    ) -> None:
        self.archives, self.into, self.folder, self.title = archives, into, folder, title
        self.report, self.keep = report, keep
        self.whole, self.unpacking = folder / WHOLE, folder / UNPACKING
        self.bytes = 0
        self.state = read_note(folder / STATE)
        wanted = [
            list(map(str, (a.file, a.published, a.bytes, a.into, a.nested))) for a in archives
        ]
        if self.state.get("wanted") != wanted:  # what lies there is of another list of archives
            remove(self.whole)
            remove(self.unpacking)
            self.state = {"wanted": wanted, "done": {}, "merging": {}}

    def run(self) -> None:
        """Fetch, unpack and put in place what is not done yet."""
        left = [a for a in self.archives if a.file not in self.state["done"]]
        check_room(self.folder, self._needed(left), f"Fetching {self.title or self.into.name}")
        for archive in self.archives:
            if archive.file not in self.state["done"]:
                self._take(archive)
            self._settle(archive)
        self._place()

    def _take(self, archive: Archive) -> None:
        """Download and unpack one archive."""
        merging: dict[str, Any] = self.state["merging"]
        if archive.file not in merging:
            got = self._get(archive)
            tops = self._unpack(archive, got)
            check_merge(self.unpacking, self.whole / archive.into)
            record = Record(digest=got.digest, bytes=got.bytes, url=got.url, tops=tops)
            merging = {archive.file: asdict(record)}
            self._note(merging=merging)
        if self.unpacking.exists():
            merge(self.unpacking, self.whole / archive.into)
        self._note(merging={}, done={**self.state["done"], **merging})

    def _get(self, archive: Archive) -> Downloaded:
        places = (self._archives(), self.into, self.into.parent) if archive.published else ()
        for place in places:
            if (place / archive.file).is_file() and (got := present(archive, place / archive.file)):
                return got
        got = download(archive, self.folder, title=self.title, report=self.report)
        self.bytes += got.bytes if got.url else 0
        return got

    def _unpack(self, archive: Archive, got: Downloaded) -> list[str]:
        """Unpack an archive durably into a temporary folder; return the names of its top level."""
        remove(self.unpacking)
        with explained(self.unpacking):
            self.unpacking.mkdir()
        if archive.kind:
            unpack(got.path, self.unpacking, nested=archive.nested, report=self.report)
        else:
            with explained(self.unpacking):
                shutil.copyfile(got.path, self.unpacking / archive.file)
        os.sync()  # one by one thousands of small files would take minutes
        tops = sorted(entry.name for entry in os.scandir(self.unpacking))[:TOPS]
        return [f"{archive.into}/{top}" if archive.into else top for top in tops]

    def _settle(self, archive: Archive) -> None:
        """Keep or delete an archive that was unpacked, if it is still there."""
        path = self.folder / archive.file
        with explained(path):
            if not path.exists():
                return
            if self.keep and archive.kind:
                self._archives().mkdir(exist_ok=True)
                path.replace(self._archives() / archive.file)
            else:
                path.unlink()

    def _place(self) -> None:
        """Move the complete folder into place and write its record."""
        before = read_note(self.into / MARKER).get("archives")
        archives = {**(before if isinstance(before, dict) else {}), **self.state["done"]}
        marker = {"title": self.title, "archives": archives}
        if not self.state.get("placing"):
            write_note(self.whole / MARKER, marker)
            os.sync()
            if put_whole(self.whole, self.into):
                return
            (self.whole / MARKER).unlink()
            check_merge(self.whole, self.into)
            self._note(placing=True)
        if self.whole.exists():
            merge(self.whole, self.into)
        write_note(self.into / MARKER, marker)

    def _archives(self) -> Path:
        return self.into.parent / f".{self.into.name}.archives"

    def _needed(self, left: Sequence[Archive]) -> int:
        """Return the bytes that will be written.

        If the unpacked size is unknown, the archive's own size is taken: images do not compress.
        """
        unpacked = sum(a.unpacked or a.bytes or 0 for a in left)
        sizes = [a.bytes or 0 for a in left] or [0]
        there = 0
        for archive in left:
            for name in (archive.file, f"{archive.file}.part"):
                path = self.folder / name
                there += path.stat().st_size if path.exists() else 0
        return max(0, unpacked + (sum(sizes) if self.keep else max(sizes)) - there)

    def _note(self, **changes: Any) -> None:
        self.state = {**self.state, **changes}
        write_note(self.folder / STATE, self.state)
