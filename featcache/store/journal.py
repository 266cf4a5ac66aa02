"""What is true of a cache right now, and the one door through which that changes.

A Journal joins the manifest, the writer's lock and the cleaning up after interrupted writers.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from featcache.store.files import explained, is_temporary
from featcache.store.lines import SHARD_NAME, Line
from featcache.store.lock import writer_lock
from featcache.store.manifest import Contents, contents_of, read_manifest, truncate

MANIFEST = "manifest.jsonl"


class Journal:
    """The manifest of one cache, opened; written under the lock only."""

    def __init__(self, folder: Path, digest: str, *, salvage: bool = False) -> None:
        """Read the manifest.

        Args:
            folder: The cache.
            digest: Of its key.
            salvage: Take the whole lines before damage instead of raising.

        Raises:
            CorruptCacheError: If a line is not what was written.
            NewerFormatError: If a later version wrote it.
        """
        self.folder = folder
        self.notes: list[str] = []
        """Sentences for the user: what was cleaned up, what stands in for a lock."""
        self.changed: Callable[[], None] = lambda: None
        """Called whenever the contents may have changed."""
        self._digest, self._salvage = digest, salvage
        self._manifest = read_manifest(folder / MANIFEST, digest, salvage=salvage)
        self._contents = contents_of(self._manifest.lines)
        self._serial = threading.RLock()
        self._held = ExitStack()
        self._depth = 0

    @property
    def contents(self) -> Contents:
        """What all lines taken together say."""
        return self._contents

    @property
    def lines(self) -> list[Line]:
        """Every line, oldest first."""
        return self._manifest.lines

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
        self._refresh()

    def _take_over(self) -> None:
        """Take note of what other writers did, and remove what interrupted ones left."""
        path = self.folder / MANIFEST
        self._manifest = read_manifest(path, self._digest, salvage=self._salvage)
        if self._manifest.torn:
            what = "damaged lines" if self._manifest.damage else "an unfinished last line"
            self.notes.append(f"Removed {what} of {path}.")
            truncate(self._manifest)
        self._refresh()
        self._clean()

    def _refresh(self) -> None:
        self._contents = contents_of(self._manifest.lines)
        self.changed()

    def _clean(self) -> None:
        """Delete temporary files, and shards whose line was never written."""
        known = {f"{c}/{s.file}" for c, shards in self._contents.shards.items() for s in shards}
        with explained(self.folder):
            for depth in (".*", "*/.*", "*/*/.*"):
                for path in self.folder.glob(depth):
                    if is_temporary(path):
                        path.unlink(missing_ok=True)
            for path in self.folder.glob("*/*.h5"):
                name = f"{path.parent.name}/{path.name}"
                if SHARD_NAME.fullmatch(path.name) and name not in known:
                    path.unlink(missing_ok=True)
