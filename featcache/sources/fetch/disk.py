"""Free space, durable small files, and what the operating system says about a write."""

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from featcache.errors import CacheError, SourceError
from featcache.scarcity import lacking
from featcache.store.format.files import FULL, REFUSED, read_limited, sync_folder, write_all
from featcache.units import human_bytes
from featcache.wording import Argument, Placeholder

RESERVE = 64 << 20
"""Bytes that stay free beside what is written."""

NOTE_BYTES = 16 << 20
"""Most bytes that are read of a file of notes."""


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turn errors of the operating system about a write into messages.

    Raises:
        SourceError: For every OSError of the block.
    """
    elsewhere = Argument("data_root", Placeholder("DIR"))
    try:
        yield
    except OSError as error:
        if error.errno in FULL:
            raise SourceError(
                f"No space is left to write {path} ({error.strerror}); what was downloaded so far "
                f"is kept. Free some space and run the same command again, or choose another disk "
                f"with ",
                elsewhere,
                ".",
            ) from error
        if error.errno in REFUSED:
            raise SourceError(
                f"{path} cannot be written ({error.strerror}). Make it writable, or choose another "
                f"folder with ",
                elsewhere,
                ".",
            ) from error
        raise SourceError(
            f"Writing {path} failed: {lacking(error) or error.strerror or error}. What was "
            f"downloaded so far is kept; the same command goes on from there."
        ) from error


def check_room(folder: Path, needed: int, what: str) -> None:
    """Check the free space before anything is written.

    Args:
        folder: Where it will be written; it exists.
        needed: Bytes.
        what: What they are needed for, for the error.

    Raises:
        SourceError: If there is less.
    """
    with explained(folder):
        found = os.statvfs(folder)
    free = found.f_bavail * found.f_frsize
    if needed + RESERVE > free:
        raise SourceError(
            f"{what} needs about {human_bytes(needed)} in {folder}, and {human_bytes(free)} are "
            f"free there. Free some space, or choose another disk with ",
            Argument("data_root", Placeholder("DIR")),
            ".",
        )


def write_note(path: Path, note: Mapping[str, Any]) -> None:
    """Put a small JSON file in place in one step that survives a power cut.

    Its folder is written by one process at a time, so that what a killed one left is replaced.
    """
    temporary = path.with_name(f"{path.name}.tmp")
    with explained(path):
        handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o666)
        try:
            write_all(handle, json.dumps(note, indent=1).encode())
            os.fsync(handle)
        finally:
            os.close(handle)
        temporary.replace(path)
        sync_folder(path.parent)


def read_note(path: Path) -> dict[str, Any]:
    """Read what `write_note` wrote; empty where nothing, or something else, is there."""
    with suppress(OSError, ValueError, RecursionError, CacheError):
        note = json.loads(read_limited(path, NOTE_BYTES))
        if isinstance(note, dict):
            return note
    return {}
