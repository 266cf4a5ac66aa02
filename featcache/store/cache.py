"""A cache: the folder with the features of one data set from one backbone.

    key.json  listing/  manifest.jsonl  <component>/<shard>.h5  text.<digest>/

A shard is part of the cache once its record is in the manifest on disk, and files are never changed
in place, so completed work is never lost. One process writes at a time; any number may read.
"""

import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Int64, Shaped

from featcache.errors import CacheError, CorruptCacheError
from featcache.keys import ComponentKey, FeatureKey, Listing
from featcache.store.append import check_rows, check_width, free_name, provenance_of, write_rows
from featcache.store.format.checksums import sums_path
from featcache.store.format.files import (
    clear_folder,
    explained,
    make_folder,
    refuse_link,
    sync_names,
)
from featcache.store.format.identity import (
    KEY_FILE,
    LAST_BLOCK_FILE,
    LISTING,
    MANIFEST,
    Identity,
    read_identity,
    write_identity,
)
from featcache.store.format.manifest import read_manifest, write_manifest
from featcache.store.format.records import (
    TEXT_ROWS,
    TEXT_STRINGS,
    DropLine,
    PassLine,
    TextLine,
)
from featcache.store.listing.listing import write_listing
from featcache.store.lock import writer_lock
from featcache.store.reader import CacheReader
from featcache.store.removal import start_anew
from featcache.store.rows import images_crc32
from featcache.wording import Argument

if TYPE_CHECKING:
    import featcache.last_block
    import featcache.types


AHEAD = 3600.0
"""Seconds that a time may be ahead of our clock; clocks of two machines differ by less."""


class Cache(CacheReader):
    """One cache folder, from `open` or `create`. Writing takes the lock."""

    @classmethod
    def create(cls, root: Path, dataset: str, backbone: str, key: FeatureKey) -> "Cache":
        """Open the cache of a data set, backbone and key below a root; create it if needed.

        Raises:
            CacheError: If the folder cannot be written, or belongs to another data set.
        """
        identity = Identity(dataset, backbone, key)
        path = identity.folder(root)
        notes = [*start_anew(path)]
        if not (path / KEY_FILE).exists():
            make_folder(path)
            sync_names(path)  # a process that was killed here may have created it without syncing
            with writer_lock(path, lambda _: None):
                if not (path / MANIFEST).exists():
                    write_manifest(path / MANIFEST, identity)
                if not (path / KEY_FILE).exists():
                    read_manifest(path / MANIFEST, identity)  # raises if it is of another cache
                    write_identity(path, identity)
        cache = cls.open(path)
        cache._journal.notes.extend(notes)
        if cache.dataset != dataset:
            raise CacheError(
                f"{path} belongs to the data set '{cache.dataset}', whose folder has the same name "
                f"as that of '{dataset}'. Choose another name with ",
                Argument("name"),
                ".",
            )
        return cache

    @classmethod
    def open(cls, path: Path) -> "Cache":
        """Open an existing cache.

        Raises:
            CacheNotFoundError: If the folder is not a cache.
            CorruptCacheError: If its key or manifest is damaged.
            NewerFormatError: If a later version wrote it.
            CacheError: If an earlier version wrote it.
        """
        return cls(path, read_identity(path))

    # Listing

    def put_listing(self, listing: Listing) -> None:
        """Replace the listing atomically; every row keeps its image.

        Raises:
            CacheError: If a row would get another image, or writing fails.
        """
        with self._journal.writing():
            old = self._listing_before(listing)
            if old is not None and old.hashes != listing.hashes[: len(old)]:
                raise CacheError(
                    f"The new listing of {self.path} gives rows to other images than the old one. "
                    "Rows are only ever appended; extract under another name with ",
                    Argument("name"),
                    ".",
                )
            write_listing(self.path / LISTING, listing)

    def _listing_before(self, new: Listing) -> Listing | None:
        """Read the listing; None if there is none, or it is lost and all shards match the new one.

        Raises:
            CorruptCacheError: If it is lost, and a shard was made from other images.
        """
        try:
            return self.listing()
        except CorruptCacheError:
            lines = [line for lines in self.shards.values() for line in lines]
            if any(images_crc32(new, line.rows) != line.images_crc32 for line in lines):
                raise
            return None

    # Rows

    def append(
        self,
        component: ComponentKey,
        rows: Int64[np.ndarray, " r"],
        values: Shaped[np.ndarray, "r ..."],
        bad: Mapping[int, str],
        provenance: Mapping[str, str],
    ) -> None:
        """Write one shard and its record; after this call it survives a power cut.

        Args:
            component: Component of the rows.
            rows: Rows of the listing, ascending.
            values: Features [r ...] of the type of the component; floats of any width for float16
                and float32.
            bad: Row -> why its image could not be read. The row counts as covered; zeros are
                stored for it.
            provenance: Versions, device and settings that produced the features: at most 64 texts
                of fewer than 200 characters.

        Raises:
            CacheError: If a value is not finite, the width differs, or writing fails.
            UsageError: If rows, type or provenance are invalid.
        """
        with self._journal.writing():
            listing = self._listed()
            check_rows(listing, component, rows, values, bad)
            folder = self.path / component.folder
            check_width(folder, self.shards.get(folder.name, ()), values, component.dtype)
            path = folder / free_name(self._journal.contents.files, folder.name, rows)
            clear_folder(path)
            digest = self.key.digest()
            self._journal.enter(
                write_rows(path, digest, listing, component, rows, values, bad, provenance)
            )

    def drop(self, component: str, file: str) -> None:
        """Mark a damaged shard, or damaged texts, as missing and delete the files."""
        folder = self.path / component
        with self._journal.writing():
            refuse_link(folder)
            lines = self.shards.get(component, ())
            rows = next((line.rows for line in lines if line.file == file), ())
            self._journal.enter(DropLine(component=component, file=file, rows=rows))
            self._seen.discard((component, file))
            # Delete the derived file first, so that it is never left without its source.
            derived = TEXT_STRINGS if file == TEXT_ROWS else sums_path(Path(file)).name
            for name in (derived, file):
                clear_folder(folder / name)
                with explained(folder / name):
                    if folder.exists() and not folder.is_dir():
                        folder.unlink()
                    (folder / name).unlink(missing_ok=True)

    def finish(
        self,
        *,
        components: Sequence[str],
        images: int,
        seconds: float,
        complete: bool,
        when: float | None = None,
    ) -> None:
        """Record that a pass ended normally.

        Args:
            components: Folders of the requested components.
            images: Number of images in the pass.
            seconds: Duration.
            complete: False if only part of the images was requested.
            when: End of the pass in seconds since 1970; None for now.
        """
        now = time.time() if when is None else when
        with self._journal.writing():
            before = (p.time for p in self.passes if not is_ahead(p.time))
            self._journal.enter(
                PassLine(
                    time=max((now, *before)),  # the clock may have been set back
                    components=tuple(components),
                    images=images,
                    seconds=seconds,
                    complete=complete,
                )
            )

    # Texts, last block and lock

    def put_text(self, bank: "featcache.types.TextBank", provenance: Mapping[str, str]) -> None:
        """Store embedded texts and make them the current ones.

        Args:
            bank: Texts and their features.
            provenance: Origin of the features, as for `append`.
        """
        from featcache.store.text import text_component, write_text

        name = text_component(bank)
        with self._journal.writing():
            known = self._journal.contents.texts.get(name)
            if known is None:
                refuse_link(self.path / name)
                digest, origin = self.key.digest(), provenance_of(provenance)
                self._journal.enter(write_text(self.path / name, bank, digest, origin))
            elif known != self.text_line:
                self._journal.enter(known)

    def choose_text(self, line: TextLine) -> None:
        """Make stored texts the current ones.

        Args:
            line: One of `texts`.

        Raises:
            CacheError: If they are no longer stored, or writing fails.
        """
        with self._journal.writing():
            if self._journal.contents.texts.get(line.component) != line:
                raise CacheError(
                    f"{self.path} no longer holds {line.component}. Choose other texts; "
                    "`featcache text` lists them."
                )
            if line != self.text_line:
                self._journal.enter(line)

    def put_last_block(self, block: "featcache.last_block.LastBlock") -> bool:
        """Store the last block of the backbone unless it is there; tell whether it was not.

        A damaged file is replaced.

        Raises:
            CacheError: If writing fails.
        """
        from featcache.store.last_block import read_last_block, write_last_block

        with self._journal.writing():
            try:
                read_last_block(self.path, self.key.digest())
            except CorruptCacheError:
                write_last_block(self.path, block, self.key.digest())
                return True
        return False

    def drop_last_block(self) -> None:
        """Delete a damaged last block; `repair` takes it from the backbone again."""
        path = self.path / LAST_BLOCK_FILE
        with self._journal.writing(), explained(path):
            clear_folder(path)
            path.unlink(missing_ok=True)

    def lock(self) -> AbstractContextManager[None]:
        """Be the only writer while the block runs; reentrant, from any thread.

        The outermost entry reads what others wrote and cleans up after interrupted writers.

        Raises:
            CacheError: If another process is writing, or the folder cannot be written.
        """
        return self._journal.lock()


def is_ahead(when: float) -> bool:
    """Tell whether a time, in seconds since 1970, is in the future because a clock was wrong."""
    return when > time.time() + AHEAD
