"""A cache: the folder that holds what one backbone made of one data set.

    key.json  listing/  manifest.jsonl  <component>/<shard>.h5  text.<digest>/

Whatever is finished stays finished: a shard counts once its manifest line is on disk, and nothing
is ever changed in place. One process writes at a time; any number may read meanwhile.
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
)
from featcache.store.listing.listing import write_listing
from featcache.store.lock import writer_lock
from featcache.store.reader import CacheReader
from featcache.store.removal import start_anew
from featcache.store.rows import images_crc32
from featcache.wording import Argument

if TYPE_CHECKING:
    import featcache.types


AHEAD = 3600.0
"""Seconds by which a time may lie ahead of our clock: two machines differ by less."""


class Cache(CacheReader):
    """One cache folder; `open` and `create` are the ways in. Writing takes the lock."""

    @classmethod
    def create(cls, root: Path, dataset: str, backbone: str, key: FeatureKey) -> "Cache":
        """Open the cache of this data set, backbone and key below a root; make it if need be.

        Raises:
            CacheError: If the folder cannot be written, or belongs to something else.
        """
        identity = Identity(dataset, backbone, key)
        path = identity.folder(root)
        said = start_anew(path)
        if not (path / KEY_FILE).exists():
            make_folder(path)
            sync_names(path)  # which a process that was killed just here may have made
            notes: list[str] = []
            with writer_lock(path, notes.append):
                if not (path / MANIFEST).exists():
                    write_manifest(path / MANIFEST, identity)
                if not (path / KEY_FILE).exists():
                    read_manifest(path / MANIFEST, identity)  # or says that it is another's
                    write_identity(path, identity)
        found = cls.open(path)
        found._journal.notes.extend(said)
        if found.dataset != dataset:
            raise CacheError(
                f"{path} belongs to the data set '{found.dataset}', whose folder has the same name "
                f"as that of '{dataset}'. Choose another name with ",
                Argument("name"),
                ".",
            )
        return found

    @classmethod
    def open(cls, path: Path) -> "Cache":
        """Open an existing cache.

        Raises:
            CacheNotFoundError: If the folder is no cache.
            CorruptCacheError: If its key or manifest is damaged.
            NewerFormatError: If a later version wrote it.
            CacheError: If an earlier version wrote it.
        """
        return cls(path, read_identity(path))

    # Listing

    def put_listing(self, listing: Listing) -> None:
        """Replace the listing in one step; rows keep their image.

        Raises:
            CacheError: If a row that has features would get another image, or the disk refuses.
        """
        with self._journal.writing():
            old = self._listing_before(listing)
            kept = 0 if old is None else len(old)
            if old is not None and old.hashes != listing.hashes[:kept]:
                raise CacheError(
                    f"The new listing of {self.path} gives rows to other images than the old one. "
                    "Rows are only ever appended; extract under another name with ",
                    Argument("name"),
                    ".",
                )
            write_listing(self.path / LISTING, listing)

    def _listing_before(self, new: Listing) -> Listing | None:
        """Read the listing; one that is lost is none where all shards are of the new one's images.

        Raises:
            CorruptCacheError: If it is lost, and a shard was made of other images.
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
        """Write one shard and enter it in the manifest; on return it survives a power cut.

        Args:
            component: What the rows are.
            rows: Rows of the listing, ascending.
            values: Their features, of the component's type; where that is float16 or float32,
                floats of any width.
            bad: Row -> why its image could not be read. It counts as covered, its values as zeros.
            provenance: What computed the numbers: at most 64 texts of fewer than 200 characters.

        Raises:
            CacheError: If a value does not fit, the width is another one, or the disk refuses.
            UsageError: If rows, type or provenance are none.
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
        """Let a damaged shard, or damaged texts, count as missing, and delete what is there."""
        folder = self.path / component
        with self._journal.writing():
            refuse_link(folder)
            lines = self.shards.get(component, ())
            held = next((line.rows for line in lines if line.file == file), ())
            self._journal.enter(DropLine(component=component, file=file, rows=held))
            self._seen.discard((component, file))
            # What is derived goes first: alone it would belong to nothing.
            second = TEXT_STRINGS if file == TEXT_ROWS else sums_path(Path(file)).name
            for name in (second, file):
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
        """Record that a pass ended as it was meant to.

        Args:
            components: Folders of what was asked for.
            images: How many images the pass was over.
            seconds: How long it took.
            complete: False where only part of the images was asked for.
            when: Seconds since 1970; None for now.
        """
        now = time.time() if when is None else when
        with self._journal.writing():
            before = (p.time for p in self.passes if not is_ahead(p.time))
            self._journal.enter(
                PassLine(
                    time=max((now, *before)),  # clocks are set back
                    components=tuple(components),
                    images=images,
                    seconds=seconds,
                    complete=complete,
                )
            )

    # Texts, the whole

    def put_text(self, bank: "featcache.types.TextBank", provenance: Mapping[str, str]) -> None:
        """Store embedded texts; from now on they are the current ones.

        Args:
            bank: The texts and their rows.
            provenance: What computed the rows, as for `append`.
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

    def lock(self) -> AbstractContextManager[None]:
        """Be the one writer while the block runs; nests, and may be entered on any thread.

        The first entry takes note of what others wrote, and cleans up after interrupted writers.

        Raises:
            CacheError: If another process is writing, or the folder cannot be written.
        """
        return self._journal.lock()


def is_ahead(when: float) -> bool:
    """Tell whether a time, in seconds since 1970, lies in the future: a wrong clock wrote it."""
    return when > time.time() + AHEAD
