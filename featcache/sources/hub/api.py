"""The hub's interface over http: which commit a revision is, and which files it has.

    GET /api/datasets/OWNER/NAME/revision/REVISION          {"sha": ...}
    GET /api/datasets/OWNER/NAME/tree/COMMIT?recursive=true  [{"type", "path", "size", "lfs"}, ...]
    GET /datasets/OWNER/NAME/resolve/COMMIT/PATH             the bytes of a file

A list of very many files comes in parts; the header `Link` of each part names the next. The
variables HF_ENDPOINT (another server) and HF_TOKEN (for private data sets) are those of the hub's
own library. The token is sent to the endpoint alone and is never part of a message.
"""

import json
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar
from urllib.parse import quote, urljoin, urlsplit

from featcache.errors import SourceError
from featcache.limits import MEMBERS
from featcache.sources.fetch import download
from featcache.sources.fetch.connect import (
    Answer,
    BrokenTransferError,
    TransferError,
    chunks,
    request,
)
from featcache.sources.hub.names import HubName, is_commit

ENDPOINT = "https://huggingface.co"
MOST_ANSWER = 32 << 20
"""Bytes of one answer; a list of a thousand files has about 300 000."""

_TOKEN = re.compile(r"[!-~]{1,1000}")
_NEXT = re.compile(r'<([^<>]+)>\s*;\s*rel="?next"?')
_SHA256 = re.compile(r"[0-9a-f]{64}")

T = TypeVar("T")


class UnreachableError(Exception):
    """The hub does not answer, or answers that it cannot at the moment."""


@dataclass(frozen=True, slots=True)
class HubFile:
    """A file of a repository."""

    path: str
    """Below the repository's top, with `/`."""
    size: int
    sha256: str
    """Digest of its bytes; empty for a small file that the hub keeps in git itself."""


def endpoint() -> str:
    """Return the address of the hub: $HF_ENDPOINT, or that of Hugging Face."""
    return (os.environ.get("HF_ENDPOINT", "").strip() or ENDPOINT).rstrip("/")


def authorization() -> dict[str, str]:
    """Return the header that identifies the user; empty without $HF_TOKEN.

    Raises:
        SourceError: If the token has characters that no token has.
    """
    token = os.environ.get("HF_TOKEN", "").strip()
    if token and not _TOKEN.fullmatch(token):
        raise SourceError("HF_TOKEN holds something else than a token; set it anew, or unset it.")
    return {"Authorization": f"Bearer {token}"} if token else {}


def commit_of(hub: HubName) -> str:
    """Ask the hub which commit a revision is.

    Raises:
        UnreachableError: If the hub does not answer.
        SourceError: If there is no such data set or revision, or it needs another token.
    """
    url = f"{_api(hub)}/revision/{quote(hub.revision, safe='')}"
    content, _ = _ask(url, hub)
    commit = content.get("sha") if isinstance(content, dict) else None
    if not isinstance(commit, str) or not is_commit(commit):
        raise _strange(url, "no commit")
    if is_commit(hub.revision) and commit != hub.revision:
        raise _strange(url, "another commit")
    return commit


def files_of(hub: HubName, commit: str) -> list[HubFile]:
    """Ask the hub for the files of a commit.

    Raises:
        UnreachableError: If the hub does not answer.
        SourceError: If what it answers is no list of files, or there are too many.
    """
    url, files, most = f"{_api(hub)}/tree/{commit}?recursive=true", [], MEMBERS.value()
    seen: set[str] = set()
    while url:
        seen.add(url)
        content, following = _ask(url, hub)
        files += list(_files(content, url))
        if len(files) > most:
            raise SourceError(
                f"{hub.repository} has more than {most} files; {MEMBERS.variable} raises the limit."
            )
        if following in seen or (following and not content):
            raise _strange(url, "a list without end")
        url = following
    if len({file.path for file in files}) < len(files):
        raise _strange(url, "a list that names a file twice")
    return files


def address_of(hub: HubName, commit: str, path: str) -> str:
    """Return the address of a file's bytes."""
    return f"{endpoint()}/datasets/{hub.repository}/resolve/{commit}/{quote(path)}"


def page_of(hub: HubName) -> str:
    """Return the address of the data set's page, for people."""
    return f"{endpoint()}/datasets/{hub.repository}"


def _api(hub: HubName) -> str:
    return f"{endpoint()}/api/datasets/{hub.repository}"


def head_of(hub: HubName, commit: str, path: str, most: int) -> bytes:
    """Return the first bytes of a file.

    Args:
        hub: The data set.
        commit: Its commit.
        path: Of the file, below the repository's top.
        most: How many bytes at most.

    Raises:
        UnreachableError: If the hub does not answer.
        SourceError: If it has no such file, or not for this token.
    """
    url = address_of(hub, commit, path)

    def get(headers: Mapping[str, str]) -> bytes:
        with request(url, headers) as answer:
            return _body(answer, most)

    return _tried(get, hub)


def _ask(url: str, hub: HubName) -> tuple[Any, str]:
    """Return the JSON at an address, and the address of the next part, if any."""
    return _tried(lambda headers: _get(url, headers), hub)


def _tried(get: Callable[[Mapping[str, str]], T], hub: HubName) -> T:
    """Ask until there is an answer, with pauses."""
    headers = authorization()
    for wait in (*download.WAITS, None):
        try:
            return get(headers)
        except BrokenTransferError as error:
            if wait is None:
                raise UnreachableError(str(error)) from error
            time.sleep(max(wait, min(error.wait, download.LONGEST_WAIT)))
        except TransferError as error:
            if error.status in (401, 403, 404):
                raise _refused(error.status, hub, has_token=bool(headers)) from error
            raise UnreachableError(str(error)) from error
    raise AssertionError("the last try returns or raises")


def _body(answer: Answer, most: int) -> bytes:
    """Read at most so many bytes.

    Raises:
        BrokenTransferError: If the connection ended before them.
    """
    data = bytearray()
    for part in chunks(answer):
        data += part
        if len(data) >= most:
            return bytes(data[:most])
    length = answer.number("content-length")
    if length is not None and len(data) < length:
        raise BrokenTransferError(f"the connection ended after {len(data)} of {length} bytes")
    return bytes(data)


def _get(url: str, headers: Mapping[str, str]) -> tuple[Any, str]:
    with request(url, headers) as answer:
        data = _body(answer, MOST_ANSWER + 1)
        if len(data) > MOST_ANSWER:
            raise _strange(url, f"more than {MOST_ANSWER} bytes")
        found = _NEXT.search(answer.headers.get("link", ""))
    following = urljoin(url, found[1]) if found else ""
    if following and urlsplit(following)[:2] != urlsplit(url)[:2]:
        raise _strange(url, "a list that goes on at another server")
    try:
        return json.loads(data), following
    except (ValueError, RecursionError, MemoryError) as error:
        raise _strange(url, "no JSON") from error


def _files(content: object, url: str) -> Iterator[HubFile]:
    if not isinstance(content, list):
        raise _strange(url, "no list of files")
    for entry in content:
        if not isinstance(entry, dict) or entry.get("type") not in ("file", "directory"):
            raise _strange(url, "an entry that is neither a file nor a folder")
        if entry["type"] == "directory":
            continue
        path, size, lfs = entry.get("path"), entry.get("size"), entry.get("lfs")
        if not isinstance(path, str) or type(size) is not int or not 0 <= size < 1 << 60:
            raise _strange(url, "a file without path or size")
        digest = lfs.get("oid") if isinstance(lfs, dict) else None
        digest = digest.removeprefix("sha256:") if isinstance(digest, str) else ""
        if isinstance(lfs, dict) and not _SHA256.fullmatch(digest):
            raise _strange(url, "a large file without its sha256")
        yield HubFile(path, size, digest)


def _refused(status: int, hub: HubName, *, has_token: bool) -> SourceError:
    what = f"{endpoint()} has no data set {hub.repository} at revision '{hub.revision}'"
    if status == 404:
        return SourceError(f"{what}; check the name at {page_of(hub)}.")
    if has_token:
        return SourceError(
            f"{what} for the token in HF_TOKEN ({status}); check the name, and accept the terms at "
            f"{page_of(hub)} if it has any."
        )
    return SourceError(
        f"{what} that everyone may read ({status}); check the name, or put a token that may read "
        f"it into the environment variable HF_TOKEN."
    )


def _strange(url: str, what: str) -> SourceError:
    return SourceError(
        f"{url[:300]} answered with {what}, which the hub does not do; check HF_ENDPOINT and the "
        f"network, and run the same command again."
    )
