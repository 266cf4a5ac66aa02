"""Downloading a data set of the hub, file by file, into a folder of its commit.

    DATA_ROOT/hub/OWNER/NAME/COMMIT/...           files below it as in the repository
    DATA_ROOT/hub/OWNER/NAME/COMMIT-CONFIG/...    those of one configuration

Everything happens in a folder beside the target, which appears in one step. A killed download goes
on where it was. What is there is used without asking the hub if the revision is a commit, or the
hub cannot be reached.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from featcache.errors import DownloadNeededError, SourceError
from featcache.sources.base import Report
from featcache.sources.fetch.archive import Archive
from featcache.sources.fetch.disk import check_room, explained, read_note, write_note
from featcache.sources.fetch.download import download
from featcache.sources.fetch.names import MARKER
from featcache.sources.fetch.placing import put_whole, remove
from featcache.sources.fetch.progress import Bytes
from featcache.sources.fetch.staging import staging
from featcache.sources.hub.api import (
    HubFile,
    UnreachableError,
    address_of,
    authorization,
    commit_of,
    endpoint,
    files_of,
    head_of,
    page_of,
)
from featcache.sources.hub.choose import chosen_files
from featcache.sources.hub.names import HubName, is_commit
from featcache.sources.layouts.own.card import MOST_CARD
from featcache.wording import Part

HUB, WHOLE = "hub", "whole"
"""Folder of all data sets of the hub; folder of one while it is downloaded."""


@dataclass(frozen=True, slots=True)
class FetchedHub:
    """Result of `fetch_hub`."""

    path: Path
    """The folder."""
    notes: tuple[str, ...]
    """What the user should know, a sentence each."""


def fetch_hub(
    hub: HubName, images_root: Path, *, can_download: bool = True, report: Report | None = None
) -> FetchedHub:
    """Bring a data set of the hub here, or take what an earlier call put there.

    Args:
        hub: The data set, its revision and configuration.
        images_root: Where data sets are kept.
        can_download: Whether missing files may be fetched.
        report: Told how far it is, in bytes.

    Raises:
        DownloadNeededError: If files are missing and cannot be fetched.
        SourceError: If the hub has no such data set, it has a loading script, or the disk is full.
    """
    folder = images_root / HUB / hub.owner / hub.name
    if is_commit(hub.revision) and _is_here(into := _target(folder, hub.revision, hub)):
        return FetchedHub(into, ())
    earlier = _earlier(folder, hub)
    if not can_download:
        if earlier is None:
            raise DownloadNeededError(
                f"hf:{hub} is not in {folder}, and downloading is off here; allow it to fetch the "
                f"data set from {endpoint()}."
            )
        return earlier
    try:
        commit = commit_of(hub)
        into = _target(folder, commit, hub)
        if not _is_here(into):
            _fetch(hub, commit, into, report)
    except UnreachableError as error:
        if earlier is not None:
            notes = (f"{endpoint()} could not be reached ({error}).", *earlier.notes)
            return FetchedHub(earlier.path, notes)
        raise DownloadNeededError(
            f"hf:{hub} could not be fetched: {endpoint()} could not be reached ({error}). Run the "
            f"same command again later, which keeps what came so far."
        ) from error
    return FetchedHub(into, (f"hf:{hub} is at commit {commit}.",))


def _target(folder: Path, commit: str, hub: HubName) -> Path:
    return folder / "-".join((commit, *filter(None, hub.config.split("/"))))


def _is_here(into: Path) -> bool:
    """Tell whether a folder still holds as many files and bytes as were put there."""
    note = read_note(into / MARKER)
    return bool(note) and _held(into) == (note.get("files"), note.get("bytes"))


def _earlier(folder: Path, hub: HubName) -> FetchedHub | None:
    """Return what was fetched last for this revision and configuration."""
    found = []
    for path in folder.glob(f"*/{MARKER}"):
        note = read_note(path)
        wanted = (hub.revision, hub.config)
        if (note.get("revision"), note.get("config")) == wanted and _is_here(path.parent):
            found.append((str(note.get("fetched")), path.parent))
    if not found:
        return None
    when, path = max(found)
    said = f"hf:{hub} is taken as it was fetched on {when[:10]}, at commit {path.name[:40]}."
    return FetchedHub(path, (said,))


def _fetch(hub: HubName, commit: str, into: Path, report: Report | None) -> None:
    """Download the files of a commit and put them in place as a whole."""
    title = f"hf:{hub}"
    files = chosen_files(
        hub, files_of(hub, commit), lambda file: head_of(hub, commit, file.path, MOST_CARD)
    )
    with staging(into, title, report) as (folder, told):
        if _is_here(into):  # by a process that was waited for
            remove(folder)
            return
        whole, done, total = folder / WHOLE, 0, sum(file.size for file in files)
        check_room(folder, max(0, total - _held(whole)[1]), f"Fetching {title}")
        for file in files:
            _take(hub, commit, file, whole, _counting(told, title, done, total))
            done += file.size
        note: dict[str, Any] = {
            "title": title,
            "revision": hub.revision,
            "config": hub.config,
            "commit": commit,
            "endpoint": endpoint(),
            "fetched": datetime.now(UTC).isoformat(timespec="seconds"),
            "files": len(files),
            "bytes": total,
        }
        write_note(whole / MARKER, note)
        if not put_whole(whole, into):
            raise SourceError(
                f"{into} holds something else than what was fetched; nothing was replaced. Move it "
                f"away and run the same command again."
            )
        remove(folder)


def _take(hub: HubName, commit: str, file: HubFile, whole: Path, report: Report) -> None:
    """Download one file to its place below a folder."""
    target = whole / file.path
    with explained(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        if not file.size:
            target.touch()
            return
    headers = authorization()
    address = address_of(hub, commit, file.path)
    archive = Archive(target.name, (address,), file.size, sha256=file.sha256)
    download(
        archive,
        target.parent,
        title=f"hf:{hub}",
        report=report,
        headers=headers,
        instead=tuple(_advice(hub, has_token=bool(headers))),
    )


def _advice(hub: HubName, *, has_token: bool) -> Iterator[Part]:
    if has_token:
        yield f"; or, if it has terms, accept them at {page_of(hub)} first."
    else:
        yield "; a private data set, or one with terms, needs a token in HF_TOKEN."


def _counting(report: Report, title: str, before: int, total: int) -> Report:
    """Report the bytes of one file as those of all files."""
    return lambda _, done, __: report(f"downloading {title}", Bytes(before + done), Bytes(total))


def _held(folder: Path) -> tuple[int, int]:
    """Return the number and the bytes of the files in a folder, without the record."""
    files = [p for p in folder.rglob("*") if p.is_file() and p != folder / MARKER]
    return len(files), sum(path.lstat().st_size for path in files)
