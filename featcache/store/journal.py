"""What is true of a cache right now, and the one door through which that changes.

A Journal joins the manifest, the writer's lock, and the tidying up after interrupted writers.
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
from featcache.store.repair.orphans import find_strays, lone_sums, merged
from featcache.store.settle import folders


class Journal:
    """The manifest of one cache, opened; written under the lock only."""

    def __init__(self, folder: Path, identity: Identity) -> None:
        """Read the manifest.

        Args:
            folder: The cache.
            identity: What its key.json says.

        Raises:
            CorruptCacheError: If a line is not what was written.
            NewerFormatError: If a later version wrote it.
        """
        self.folder = folder
        self.notes: list[str] = []
        """Sentences for the user: what was tidied up, what stands in for a lock."""
        self.changed: Callable[[], None] = lambda: None
        """Called whenever the contents may have changed."""
        self._identity = identity
        self._manifest = read_manifest(folder / MANIFEST, identity)
        self._contents = Contents(self._manifest.lines)
        self._serial = threading.RLock()
        self._held = ExitStack()
        self._depth = 0

    @property
    def contents(self) -> Contents:
        """What all lines taken together say."""
        return self._contents

    @property
    def torn(self) -> int:
        """Bytes of an unfinished last line."""
        return self._manifest.torn

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Be the one writing process while the block runs; nests, and may be entered on threads.

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
        """Hold the lock and keep the other threads of this process out."""
        with self.lock(), self._serial:
            yield

    def enter(self, line: Line) -> None:
        """Write a line; what it speaks of is on disk already."""
        self._manifest.append(line)
        self._contents.take(line)
        self.changed()

    def _take_over(self) -> None:
        """Take note of what other writers did, and finish or remove what interrupted ones left."""
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
        """Delete temporary files; what a symbolic link leads to is left alone."""
        with explained(self.folder):
            for folder in folders(self.folder):
                for path in folder.iterdir():
                    if is_temporary(path):
                        path.unlink(missing_ok=True)

    def _adopt(self) -> None:
        """Enter sound shards whose line is missing; delete useless ones, leave strange ones."""
        with explained(self.folder):
            strays = find_strays(self.folder, self._identity.key.digest(), self._contents)
            if found := strays.sound:
                self._enter_again(merged(self._manifest.lines, found, texts_are_newest=True))
                self.notes.append(
                    f"Took up {len(found)} files whose entries in the manifest of {self.folder} "
                    f"were missing: {sum(line.facts.shape[0] for line in found)} rows."
                )
            for path, why in strays.useless.items():
                sums_path(path).unlink(missing_ok=True)
                path.unlink(missing_ok=True)
                self.notes.append(f"Deleted {path}, of which the manifest knows nothing: {why}")
            for path in lone_sums(self.folder, self._contents):
                path.unlink(missing_ok=True)
            for path, why in strays.strange.items():
                self.notes.append(f"Left {path} alone, of which the manifest knows nothing: {why}")

    def _enter_again(self, lines: list[Line]) -> None:
        """Write the lines that are new; the manifest anew where some of them are not the last."""
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
