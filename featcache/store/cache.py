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
from jaxtyping import Bool, Int64, Shaped

from featcache.errors import CacheError, CorruptCacheError
from featcache.keys import ComponentKey, FeatureKey, Listing
from featcache.store.append import check_rows, provenance_of, write_rows
from featcache.store.bad import bad_rows
from featcache.store.files import clear_folder, explained, make_folder, refuse_link
from featcache.store.identity import KEY_FILE, MANIFEST, Identity, read_identity, write_identity
from featcache.store.journal import Journal
from featcache.store.lines import (
    TEXT_ROWS,
    TEXT_STRINGS,
    DropLine,
    PassLine,
    ShardLine,
    TextLine,
)
from featcache.store.listing import current_set, read_listing, write_listing
from featcache.store.lock import writer_lock
from featcache.store.manifest import read_manifest, write_manifest
from featcache.store.rows import ShardRows
from featcache.store.salvage import LISTING
from featcache.store.shard import check_size

if TYPE_CHECKING:
    import featcache.types


class Cache:
    """One cache folder, opened. Reading never writes; every writing method takes the lock."""

    def __init__(self, path: Path, identity: Identity) -> None:
        """Read the manifest; `Cache.open` and `Cache.create` are the ways in."""
        self.path = path
        self.dataset = identity.dataset
        self.backbone = identity.backbone
        """As the user calls it: ViT-B/16, tiny."""
        self.key: FeatureKey = identity.key
        self._journal = Journal(path, identity)
        self._rows: dict[str, ShardRows] = {}
        self._seen: set[tuple[str, str]] = set()  # shards whose size was compared
        self._journal.changed = self._rows.clear
        self._listing: tuple[str, Listing | None] = ("", None)

    @classmethod
    def create(cls, root: Path, dataset: str, backbone: str, key: FeatureKey) -> "Cache":
        """Open the cache of this data set, backbone and key below a root; make it if need be.

        Raises:
            CacheError: If the folder cannot be written, or belongs to something else.
        """
        identity = Identity(dataset, backbone, key)
        path = identity.folder(root)
        if not (path / KEY_FILE).exists():
            make_folder(path)
            notes: list[str] = []
            with writer_lock(path, notes.append):
                if not (path / MANIFEST).exists():
                    write_manifest(path / MANIFEST, identity)
                if not (path / KEY_FILE).exists():
                    read_manifest(path / MANIFEST, identity)  # or says that it is another's
                    write_identity(path, identity)
        found = cls.open(path)
        if found.dataset != dataset:
            raise CacheError(
                f"{path} belongs to the data set '{found.dataset}', whose folder has the same name "
                f"as that of '{dataset}'. Choose another name with --name."
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

    @property
    def notes(self) -> Sequence[str]:
        """Sentences that a user should see: what was cleaned up, what stands in for a lock."""
        return self._journal.notes

    @property
    def shards(self) -> Mapping[str, Sequence[ShardLine]]:
        """Component folder -> its shards, oldest first."""
        return self._journal.contents.shards

    @property
    def text_line(self) -> TextLine | None:
        """What the manifest says of the current texts."""
        return self._journal.contents.text

    @property
    def texts(self) -> Sequence[TextLine]:
        """What the manifest says of all texts, the current ones last."""
        return tuple(self._journal.contents.texts.values())

    @property
    def torn(self) -> int:
        """Bytes of an unfinished last line of the manifest."""
        return self._journal.torn

    @property
    def passes(self) -> Sequence[PassLine]:
        """Passes that ended as they were meant to, oldest first."""
        return self._journal.contents.passes

    # Listing

    def listing(self) -> Listing | None:
        """Return the images and labels; None before the first `put_listing`.

        Raises:
            CorruptCacheError: If its files are not what was written, or are gone while there are
                shards: a new one could give their rows to other images.
        """
        current = current_set(self.path / LISTING)
        if self._listing[0] != current:
            self._listing = (current, read_listing(self.path / LISTING))
            self._rows.clear()
        if self._listing[1] is None and self.shards:
            raise CorruptCacheError(
                f"{self.path / LISTING} is gone, and only it says which image a row belongs to. "
                f"Run `featcache repair`; if no copy is left, restore it from a backup, or remove "
                f"this cache with `featcache rm` and extract again."
            )
        return self._listing[1]

    def put_listing(self, listing: Listing) -> None:
        """Replace the listing in one step; rows keep their image.

        Raises:
            CacheError: If a row that has features would get another image, or the disk refuses.
        """
        with self._journal.writing():
            old = self.listing()
            kept = 0 if old is None else len(old)
            if old is not None and old.hashes != listing.hashes[:kept]:
                raise CacheError(
                    f"The new listing of {self.path} gives rows to other images than the old one. "
                    f"Rows are only ever appended; extract under another name with --name."
                )
            write_listing(self.path / LISTING, listing)

    # Rows

    def covered(self, component: str, *, retry_bad: bool = False) -> Bool[np.ndarray, " n"]:
        """Tell for every row of the listing whether a component needs no encoding there.

        Args:
            component: Its folder name; one that was never written covers nothing.
            retry_bad: Whether unreadable images count as not covered.

        Raises:
            CorruptCacheError: If a shard is missing, or not of the recorded size.
        """
        if component not in self.shards:
            return np.zeros(len(self._listed()), dtype=bool)
        rows = self.rows(component)
        for line in self.shards[component]:
            if (component, line.file) not in self._seen:
                check_size(self.path / component / line.file, line.facts)
                self._seen.add((component, line.file))
        return rows.present() & ~rows.bad() if retry_bad else rows.present()

    def rows(self, component: str) -> ShardRows:
        """Open one component for reading.

        Raises:
            CorruptCacheError: If its shards disagree with each other or with the listing.
        """
        n = len(self._listed())  # forgets the readers where the listing has changed
        if component not in self._rows:
            self._rows[component] = ShardRows(self.path / component, self.shards[component], n)
        return self._rows[component]

    def bad_rows(self) -> dict[int, str]:
        """Return rows whose image could not be read, with the reason.

        Raises:
            CorruptCacheError: If shards speak of rows that nobody listed.
        """
        found: dict[int, str] = {}
        for component, lines in self.shards.items():
            if any(line.bad for line in lines):
                self.rows(component)  # compares rows and listing
                found |= bad_rows(lines)
        return found

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
            values: Their features, of the component's type; floats of any width for float16.
            bad: Row -> why its image could not be read. It counts as covered, its values as zeros.
            provenance: What computed the numbers: at most 64 texts of fewer than 200 characters.

        Raises:
            CacheError: If a value does not fit, the width is another one, or the disk refuses.
            UsageError: If rows, type or provenance are none.
        """
        with self._journal.writing():
            listing = self._listed()
            check_rows(listing, component, rows, values, bad)
            self._check_width(component.folder, values.shape[1:])
            path = self.path / component.folder / self._free_name(component.folder, rows)
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
            self._journal.enter(DropLine(component=component, file=file))
            self._seen.discard((component, file))
            for name in (file, TEXT_STRINGS) if file == TEXT_ROWS else (file,):
                clear_folder(folder / name)
                with explained(folder / name):
                    if folder.exists() and not folder.is_dir():
                        folder.unlink()
                    (folder / name).unlink(missing_ok=True)

    def finish(
        self, *, components: Sequence[str], images: int, seconds: float, complete: bool
    ) -> None:
        """Record that a pass ended as it was meant to.

        Args:
            components: Folders of what was asked for.
            images: How many images the pass was over.
            seconds: How long it took.
            complete: False where only part of the images was asked for.
        """
        with self._journal.writing():
            self._journal.enter(
                PassLine(
                    time=max(time.time(), self._journal.contents.newest),  # clocks are set back
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

    def text(self) -> "featcache.types.TextBank | None":
        """Return the current texts; None where there are none.

        Raises:
            CorruptCacheError: If their files are not what was written.
        """
        from featcache.store.text import read_text

        line = self.text_line
        return None if line is None else read_text(self.path / line.component, line)

    def feature_set(self) -> "featcache.types.FeatureSet":
        """Open everything for reading; nothing is loaded until rows are asked for.

        Raises:
            CacheError: If the cache has no listing yet.
            CorruptCacheError: If its parts disagree.
        """
        from featcache.types import FeatureSet

        listing = self._listed()
        components = {name: self.rows(name) for name in self.shards}
        ok = np.ones(len(listing), dtype=bool)
        for reader in components.values():
            ok[reader.bad_rows()] = False
        return FeatureSet(
            path=self.path,
            backbone=self.backbone,
            key=self.key,
            listing=listing,
            components=components,
            ok=ok,
            text=self.text(),
        )

    def lock(self) -> AbstractContextManager[None]:
        """Be the one writer while the block runs; nests, and may be entered on any thread.

        The first entry takes note of what others wrote, and cleans up after interrupted writers.

        Raises:
            CacheError: If another process is writing, or the folder cannot be written.
        """
        return self._journal.lock()

    def _listed(self) -> Listing:
        listing = self.listing()
        if listing is None:
            raise CacheError(
                f"{self.path} has no listing yet: its first pass was interrupted early. "
                f"Run the same `featcache extract` command again."
            )
        return listing

    def _check_width(self, component: str, shape: tuple[int, ...]) -> None:
        shards = self.shards.get(component)
        if shards and shards[0].facts.shape[1:] != shape:
            raise CacheError(
                f"Component '{component}' of {self.path} has rows "
                f"{list(shards[0].facts.shape[1:])}, new ones are {list(shape)}. "
                f"They come from different models; extract into another folder with --cache."
            )

    def _free_name(self, component: str, rows: Int64[np.ndarray, " r"]) -> str:
        taken = self._journal.contents.files
        stem, number = f"{int(rows[0]):08d}-{int(rows[-1]) + 1:08d}", 1
        name = f"{stem}.h5"
        while (component, name) in taken:
            number += 1
            name = f"{stem}.{number}.h5"
        return name
