"""A cache: the folder that holds what one backbone made of one data set.

    key.json  listing/  manifest.jsonl  errors.jsonl  pass.json  <component>/<shard>.h5

Whatever is finished stays finished: a shard counts once its manifest line is on disk, and nothing
is ever changed in place. One process writes at a time; any number may read meanwhile.
"""

import json
import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Bool, Float, Int64

from featcache.errors import CacheError, CorruptCacheError, UsageError
from featcache.keys import ComponentKey, FeatureKey, Listing
from featcache.store.faults import note_faults, read_faults
from featcache.store.files import canonical, explained, make_folder, write_atomically
from featcache.store.identity import KEY_FILE, Identity, read_identity, write_identity
from featcache.store.journal import MANIFEST, Journal
from featcache.store.lines import DropLine, PassLine, ShardLine, TextLine
from featcache.store.listing import current_set, read_listing, write_listing
from featcache.store.lock import writer_lock
from featcache.store.manifest import create_manifest
from featcache.store.rows import ShardRows, ranges_of
from featcache.store.shard import write_shard

if TYPE_CHECKING:
    import featcache.types

ERRORS, PASS, LISTING = "errors.jsonl", "pass.json", "listing"
PACKAGES = ("featcache", "torch", "open_clip_torch", "numpy", "h5py")


class Cache:
    """One cache folder, opened. Reading never writes; every writing method takes the lock."""

    def __init__(self, path: Path, identity: Identity, *, salvage: bool = False) -> None:
        """Read the manifest; `Cache.open` and `Cache.create` are the ways in."""
        self.path = path
        self.dataset = identity.dataset
        self.backbone = identity.backbone
        """As the user calls it: ViT-B/16, tiny."""
        self.key: FeatureKey = identity.key
        self._journal = Journal(path, self.key.digest(), salvage=salvage)
        self._rows: dict[str, ShardRows] = {}
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
                if not (path / KEY_FILE).exists():
                    create_manifest(path / MANIFEST, key.digest())
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
    def passes(self) -> Sequence[PassLine]:
        """Passes that ended as they were meant to, oldest first."""
        return self._journal.contents.passes

    # Listing

    def listing(self) -> Listing | None:
        """Return the images and labels; None before the first `put_listing`.

        Raises:
            CorruptCacheError: If its files are not what was written.
        """
        current = current_set(self.path / LISTING)
        if self._listing[0] != current:
            self._listing = (current, read_listing(self.path / LISTING))
            self._rows.clear()
        return self._listing[1]

    def put_listing(self, listing: Listing) -> None:
        """Replace the listing in one step; rows keep their image.

        Raises:
            CacheError: If a row that has features would get another image, or the disk refuses.
        """
        with self._journal.writing():
            old = self.listing()
            kept = 0 if old is None else len(old)
            if old is not None and list(old.hashes) != list(listing.hashes[:kept]):
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
        """
        if component not in self.shards:
            return np.zeros(len(self._listed()), dtype=bool)
        rows = self.rows(component)
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
        """Return rows whose image could not be read, with the reason."""
        reasons = read_faults(self.path / ERRORS)
        return {
            int(row): reasons.get((component, int(row)), "could not be read")
            for component in self.shards
            for row in np.flatnonzero(self.rows(component).bad())
        }

    def append(
        self,
        component: ComponentKey,
        rows: Int64[np.ndarray, " r"],
        values: Float[np.ndarray, "r ..."],
        bad: Mapping[int, str],
    ) -> None:
        """Write one shard and enter it in the manifest; on return it survives a power cut.

        Args:
            component: What the rows are.
            rows: Rows of the listing, ascending.
            values: Their features; stored as float16.
            bad: Row -> why its image could not be read. It counts as covered, its values as zeros.

        Raises:
            CacheError: If a value does not fit, the width is another one, or the disk refuses.
        """
        with self._journal.writing():
            ids = self._check_rows(component, rows, values, bad)
            with np.errstate(over="ignore"):
                stored = values.astype(np.float16, copy=bool(bad))
            positions = tuple(int(i) for i in np.flatnonzero(np.isin(rows, list(bad))))
            if positions:
                stored[list(positions)] = 0
            folder = self.path / component.folder
            make_folder(folder)
            file = self._free_name(component.folder, rows)
            facts = write_shard(
                folder / file,
                stored,
                attributes={
                    "component": component.folder,
                    "key": self.key.digest(),
                    "first_row": int(rows[0]),
                    "last_row": int(rows[-1]),
                },
                ids=ids,
            )
            note_faults(self.path / ERRORS, component.folder, bad, self._listed().ids)
            self._journal.enter(
                ShardLine(
                    component=component.folder,
                    file=file,
                    rows=ranges_of(rows),
                    bad=positions,
                    facts=facts,
                    versions=versions(),
                )
            )

    def drop(self, component: str, file: str) -> None:
        """Let a damaged shard, or damaged texts, count as missing, and delete the file."""
        with self._journal.writing():
            self._journal.enter(DropLine(component=component, file=file))
            with explained(self.path / component / file):
                (self.path / component / file).unlink(missing_ok=True)

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
                    time=time.time(),
                    components=tuple(components),
                    images=images,
                    seconds=seconds,
                    complete=complete,
                )
            )

    # Texts, settings, the whole

    def put_text(self, bank: "featcache.types.TextBank") -> None:
        """Store embedded texts; from now on they are the current ones."""
        from featcache.store.text import text_component, write_text

        name = text_component(bank)
        with self._journal.writing():
            known = [
                line
                for line in self._journal.lines
                if isinstance(line, TextLine | DropLine) and line.component == name
            ]
            if known and isinstance(known[-1], TextLine):
                if known[-1] != self.text_line:
                    self._journal.enter(known[-1])
                return
            self._journal.enter(write_text(self.path / name, bank, versions()))

    def text(self) -> "featcache.types.TextBank | None":
        """Return the current texts; None where there are none.

        Raises:
            CorruptCacheError: If their files are not what was written.
        """
        from featcache.store.text import read_text

        line = self.text_line
        return None if line is None else read_text(self.path / line.component, line)

    def put_pass_settings(self, settings: Mapping[str, Any]) -> None:
        """Record what every later pass over this cache has to keep."""
        with self._journal.writing():
            write_atomically(self.path / PASS, canonical(dict(settings)) + b"\n")

    def pass_settings(self) -> dict[str, Any] | None:
        """Return what the first pass recorded; None before it."""
        path = self.path / PASS
        try:
            value = json.loads(path.read_bytes())
        except FileNotFoundError:
            return None
        except (OSError, ValueError, RecursionError) as error:
            raise CorruptCacheError(
                f"{path} cannot be read ({error}). Restore it, or remove this cache with "
                f"`featcache rm` and extract again."
            ) from error
        if not isinstance(value, dict):
            raise CorruptCacheError(f"{path} holds no object. Restore it, or extract again.")
        return value

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
            ok &= ~reader.bad()
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

    def _check_rows(
        self,
        component: ComponentKey,
        rows: Int64[np.ndarray, " r"],
        values: Float[np.ndarray, "r ..."],
        bad: Mapping[int, str],
    ) -> list[str]:
        listing = self._listed()
        ascending = len(rows) > 0 and bool((np.diff(rows) > 0).all())
        if not ascending or rows[0] < 0 or rows[-1] >= len(listing):
            raise UsageError(
                f"rows must ascend within 0..{len(listing) - 1}, got {len(rows)} rows."
            )
        if component.kind == "text" or component.dtype != "float16" or values.ndim < 2:
            raise UsageError(f"'{component.folder}' is no component of float16 image features.")
        if not set(bad) <= set(rows.tolist()):
            raise UsageError("bad names rows that are not in this shard.")
        shards = self.shards.get(component.folder)
        if shards and shards[0].facts.shape[1:] != values.shape[1:]:
            raise CacheError(
                f"Component '{component.folder}' of {self.path} has rows "
                f"{list(shards[0].facts.shape[1:])}, new ones are {list(values.shape[1:])}. "
                f"They come from different models; extract into another folder with --cache."
            )
        return [listing.ids[int(r)] for r in rows]

    def _free_name(self, component: str, rows: Int64[np.ndarray, " r"]) -> str:
        taken = {s.file for s in self.shards.get(component, ())}
        stem, number = f"{int(rows[0]):08d}-{int(rows[-1]) + 1:08d}", 1
        while (name := f"{stem}.h5" if number == 1 else f"{stem}.{number}.h5") in taken:
            number += 1
        return name


@cache
def versions() -> dict[str, str]:
    """Return the versions of what can change a number."""
    found = {}
    for package in PACKAGES:
        with suppress(metadata.PackageNotFoundError):
            found[package] = metadata.version(package)
    return found
