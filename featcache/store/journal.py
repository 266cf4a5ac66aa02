"""The current contents of a cache, and the only way to change them.

A Journal combines the manifest, the lock of the writer, and the clean-up after interrupted writers.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from featcache.store.format.checksums import sums_path
from featcache.store.format.files import explained, is_temporary
from featcache.store.format.identity import MANIFEST, Identity
from featcache.store.format.manifest import Contents, read_manifest, write_manifest
from featcache.store.format.records import Line
from featcache.store.lock import writer_lock
from featcache.store.repair.orphans import find_orphans, lone_sums, merged
from featcache.store.settle import folders


class Journal:
    """The open manifest of one cache; written only under the lock."""

    def __init__(self, folder: Path, identity: Identity) -> None:
        """Read the manifest.

        Args:
            folder: Folder of the cache.
            identity: Content of its key.json.

        Raises:
            CorruptCacheError: If a record is damaged.
            NewerFormatError: If a later version wrote it.
        """
        self.folder = folder
        self.notes: list[str] = []
        """Messages for the user: what was cleaned up, and whether a file replaces the lock."""
        self.changed: Callable[[], None] = lambda: None
        """Callback for possible changes of the contents."""
        self._identity = identity
        self._manifest = read_manifest(folder / MANIFEST, identity)
        self._contents = Contents(self._manifest.lines)
        self._serial = threading.RLock()
        self._held = ExitStack()
        self._depth = 0

    @property
    def contents(self) -> Contents:
        """Contents of the cache according to all records."""
        return self._contents

    @property
    def torn(self) -> int:
        """Bytes of an unfinished last record."""
        return self._manifest.torn

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Be the only writing process while the block runs; reentrant, from any thread.

        Raises:
            CacheError: If another process is writing, or the folder cannot be written.
        """
        with self._serial:
            if self._depth == 0:
                with ExitStack() as stack:
                    stack.enter_context(writer_lock(self.folder, self.notes.append))
                    self._take_over()
                    self._held = stack.pop_all()
            self._depth += 1
        try:
            yield
        finally:
            with self._serial:
                self._depth -= 1
                if self._depth == 0:
                    self._held.close()

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Hold the lock and exclude other threads of this process."""
        with self.lock(), self._serial:
            yield

    def enter(self, line: Line) -> None:
        """Append a record; the files it describes are on disk already."""
        self._manifest.append(line)
        self._contents.take(line)
        self.changed()

    def _take_over(self) -> None:
        """Read what other writers did, and clean up after interrupted ones."""
        path = self.folder / MANIFEST
        self._manifest = read_manifest(path, self._identity)
        if self._manifest.torn:
            self.notes.append(f"Removed an unfinished last line of {path}.")
            self._manifest.truncate()
        self._contents = Contents(self._manifest.lines)
        self.changed()
        self._clean()
        self._adopt()

    def _clean(self) -> None:
        """Delete temporary files; symbolic links are not followed."""
        with explained(self.folder):
            for folder in folders(self.folder):
                for path in folder.iterdir():
                    if is_temporary(path):
                        path.unlink(missing_ok=True)

    def _adopt(self) -> None:
        """Add records of sound orphans; delete useless orphans and keep foreign files."""
        with explained(self.folder):
            orphans = find_orphans(self.folder, self._identity.key.digest(), self._contents)
            if sound := orphans.sound:
                self._enter_again(merged(self._manifest.lines, sound, texts_are_newest=True))
                self.notes.append(
                    f"Took up {len(sound)} files whose entries in the manifest of {self.folder} "
                    f"were missing: {sum(line.facts.shape[0] for line in sound)} rows."
                )
            for path, why in orphans.useless.items():
                sums_path(path).unlink(missing_ok=True)
                path.unlink(missing_ok=True)
                self.notes.append(f"Deleted {path}, of which the manifest knows nothing: {why}")
            for path in lone_sums(self.folder, self._contents):
                path.unlink(missing_ok=True)
            for path, why in orphans.foreign.items():
                self.notes.append(f"Left {path} alone, of which the manifest knows nothing: {why}")

    def _enter_again(self, lines: list[Line]) -> None:
        """Append new records; rewrite the manifest if some of them are not at its end."""
        known = self._manifest.lines
        if all(a is b for a, b in zip(known, lines, strict=False)):
            for line in lines[len(known) :]:
                self.enter(line)
            return
        path = self.folder / MANIFEST
        write_manifest(path, self._identity, lines)
        self._manifest = read_manifest(path, self._identity)
        self._contents = Contents(self._manifest.lines)
        self.changed()
