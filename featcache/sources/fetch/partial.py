"""Partial download: its bytes so far, and a note of the file that they belong to."""

import os
from pathlib import Path
from typing import Any

from featcache.sources.fetch.disk import explained, read_note, write_note
from featcache.store.format.files import sync_folder, write_all

SYNC_EVERY = 64 << 20
"""Bytes between two syncs where no digest would show what a power cut left out."""


class Partial:
    """`NAME.part` and `NAME.part.json`, of one process at a time."""

    def __init__(self, target: Path, *, has_digest: bool) -> None:
        """Read what an earlier process left.

        Args:
            target: The file when it is whole.
            has_digest: Whether a published digest will judge the whole. Without one, only what was
                synced counts as there.
        """
        self.target = target
        self.path = target.with_name(f"{target.name}.part")
        self._note_path = target.with_name(f"{target.name}.part.json")
        self._has_digest = has_digest
        self._note: dict[str, Any] = read_note(self._note_path)
        self._handle = -1
        self._unsynced = 0
        self.count = 0
        try:
            size = self.path.lstat().st_size
        except OSError:
            return
        synced = self._note.get("synced")
        if not has_digest:
            size = min(size, synced) if isinstance(synced, int) else 0
        self.count = size if self._note and not self.path.is_symlink() else 0

    @property
    def url(self) -> str:
        """The address it came from."""
        return str(self._note.get("url", ""))

    @property
    def validator(self) -> str:
        """Version of the file on its server: an ETag or a date; empty if unknown."""
        return str(self._note.get("validator", ""))

    @property
    def size(self) -> int | None:
        """Bytes of the whole file, where its server said so."""
        size = self._note.get("size")
        return size if isinstance(size, int) else None

    def begin(self, url: str, validator: str, size: int | None, count: int) -> None:
        """Open the file after its first `count` bytes and note which file they belong to.

        Raises:
            SourceError: If the disk refuses.
        """
        self.close()
        note = {"url": url, "validator": validator, "size": size, "synced": count}
        with explained(self.path):
            self._handle = os.open(
                self.path, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK, 0o666
            )
            os.ftruncate(self._handle, count)
            os.lseek(self._handle, count, os.SEEK_SET)
        if count == 0 or {**self._note, "synced": count} != note:
            write_note(self._note_path, note)
        self._note, self.count = note, count

    def write(self, data: bytes) -> None:
        """Append bytes.

        Raises:
            SourceError: If the disk is full or refuses.
        """
        with explained(self.path):
            write_all(self._handle, data)
        self.count += len(data)
        self._unsynced += len(data)
        if not self._has_digest and self._unsynced >= SYNC_EVERY:
            self._sync()

    def _sync(self) -> None:
        with explained(self.path):
            os.fsync(self._handle)
        self._unsynced = 0
        self._note["synced"] = self.count
        write_note(self._note_path, self._note)

    def close(self) -> None:
        """Close the file; what is there stays."""
        if self._handle >= 0:
            try:
                if self._unsynced and not self._has_digest:
                    self._sync()
            finally:
                os.close(self._handle)
                self._handle = -1

    def discard(self) -> None:
        """Delete the bytes.

        Raises:
            SourceError: If the disk refuses.
        """
        self._unsynced = 0
        self.close()
        with explained(self.path):
            self.path.unlink(missing_ok=True)
            self._note_path.unlink(missing_ok=True)
        self._note, self.count = {}, 0

    def finish(self) -> None:
        """Put the whole file in place in one step that survives a power cut.

        Raises:
            SourceError: If the disk refuses.
        """
        self.close()
        with explained(self.path):
            handle = os.open(self.path, os.O_RDONLY | os.O_NOFOLLOW)
            try:
                os.fsync(handle)
            finally:
                os.close(handle)
            self.path.replace(self.target)
            sync_folder(self.target.parent)
            self._note_path.unlink(missing_ok=True)
