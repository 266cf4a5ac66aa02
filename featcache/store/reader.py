"""Read a cache: its manifest, listing, rows and texts."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Bool, Int64

from featcache.errors import (
    CacheError,
    CorruptCacheError,
    MissingComponentError,
    UnknownNameError,
    UsageError,
)
from featcache.imported import import_advice
from featcache.keys import FeatureKey, Listing, parse_component
from featcache.recipes import LAST_BLOCK
from featcache.store.again import extract_call
from featcache.store.bad import bad_rows
from featcache.store.format.identity import LAST_BLOCK_FILE, LISTING, Identity
from featcache.store.format.records import TEXT_PREFIX, PassLine, ShardLine, TextLine
from featcache.store.format.shard import check_size
from featcache.store.journal import Journal
from featcache.store.listing.files import LOST, UNLESS_REPAIRED
from featcache.store.listing.listing import current_set, read_listing
from featcache.store.lost import lost_rows
from featcache.store.provenance import encoding_of, weights_of
from featcache.store.rows import ShardRows, check_images
from featcache.wording import Part

if TYPE_CHECKING:
    import featcache.last_block
    import featcache.types


class CacheReader:
    """The read-only part of a cache."""

    def __init__(self, path: Path, identity: Identity) -> None:
        """Read the manifest."""
        self.path = path
        self.dataset = identity.dataset
        self.backbone = identity.backbone
        """Name as the user typed it: ViT-B/16, tiny."""
        self.key: FeatureKey = identity.key
        self._journal = Journal(path, identity)
        self._rows: dict[str, ShardRows] = {}
        self._seen: set[tuple[str, str]] = set()  # shards whose size was checked
        self._journal.changed = self._rows.clear
        self._listing: tuple[str, Listing | None] = ("", None)

    @property
    def notes(self) -> Sequence[str]:
        """Messages for the user: what was cleaned up, and whether a file replaces the lock."""
        return self._journal.notes

    @property
    def shards(self) -> Mapping[str, Sequence[ShardLine]]:
        """Component folder -> its shards, oldest first."""
        return self._journal.contents.shards

    @property
    def text_line(self) -> TextLine | None:
        """Record of the current texts; None if there are none."""
        return self._journal.contents.text

    @property
    def texts(self) -> Sequence[TextLine]:
        """Records of all texts, the current ones last."""
        return tuple(self._journal.contents.texts.values())

    @property
    def torn(self) -> int:
        """Bytes of an unfinished last record of the manifest."""
        return self._journal.torn

    @property
    def passes(self) -> Sequence[PassLine]:
        """Passes that ended normally, oldest first."""
        return self._journal.contents.passes

    @property
    def cure(self) -> Part:
        """How to restore lost rows and texts; empty if they can be encoded again."""
        return import_advice(self.key, self.path, self.dataset, self.backbone)

    # Listing

    def listing(self) -> Listing | None:
        """Return the images and labels; None before the first `put_listing`.

        Raises:
            CorruptCacheError: If its files are damaged, or gone while there are shards: a new
                listing could assign their rows to other images.
        """
        current = current_set(self.path / LISTING)
        if self._listing[0] != current:
            self._listing = (current, read_listing(self.path / LISTING))
            self._rows.clear()
        if self._listing[1] is None and self.shards:
            raise CorruptCacheError(
                f"{self.path / LISTING} is gone, and only it says which image a row belongs to. ",
                UNLESS_REPAIRED,
                self.cure or LOST,
            )
        return self._listing[1]

    # Rows

    def covered(self, component: str, *, retry_bad: bool = False) -> Bool[np.ndarray, " n"]:
        """Tell for every row of the listing whether a component has it already.

        Args:
            component: Folder name; a component that was never written covers nothing.
            retry_bad: Whether unreadable images count as not covered.

        Raises:
            CorruptCacheError: If a shard is missing, has a wrong size, or was made from other
                images than the listing names.
        """
        if component not in self.shards:
            return np.zeros(len(self._listed()), dtype=bool)
        rows = self.rows(component)
        new = [x for x in self.shards[component] if (component, x.file) not in self._seen]
        check_images(self.path / component, new, self._listed())
        for line in new:
            check_size(self.path / component / line.file, line.facts, self.cure)
            self._seen.add((component, line.file))
        return rows.present() & ~rows.bad() if retry_bad else rows.present()

    def rows(self, component: str) -> ShardRows:
        """Open one component for reading.

        Raises:
            CorruptCacheError: If its shards are inconsistent with each other or with the listing.
        """
        listing = self._listed()  # clears the readers if the listing has changed
        if component not in self._rows:
            lines = self.shards[component]
            self._rows[component] = ShardRows(
                self.path / component, lines, len(listing), self.cure, listing
            )
        return self._rows[component]

    def bad_rows(self) -> dict[int, str]:
        """Return rows whose image could not be read, with the reason.

        Raises:
            CorruptCacheError: If shards have rows that are not listed.
        """
        bad: dict[int, str] = {}
        for component, lines in self.shards.items():
            if any(line.bad for line in lines):
                self.rows(component)  # checks rows against the listing
                bad |= bad_rows(lines)
        return bad

    def needs_mending(self) -> bool:
        """Tell whether rows, texts or weights were lost that only an encoder can restore.

        Imported features may come without texts; for them only dropped texts count.
        """
        if self.text_line is None and self.listing() is not None:
            dropped = any(c.startswith(TEXT_PREFIX) for c, _ in self._journal.contents.dropped)
            if dropped or not self.key.is_imported:
                return True
        return self.lacks_last_block() or bool(self.lost())

    def lost(self) -> dict[str, list[Int64[np.ndarray, " _"]]]:
        """Return lost rows: dropped as damaged and not encoded again.

        Returns:
            Component -> ascending rows of each dropped shard that are in a split and that no shard
            contains now.

        Raises:
            CorruptCacheError: If listing and shards are inconsistent.
        """

        def present(component: str) -> Bool[np.ndarray, " n"]:
            if component in self.shards:
                return self.rows(component).present()
            return np.zeros(len(self._listed()), dtype=bool)

        listing = self.listing()
        return {} if listing is None else lost_rows(self._journal.contents, listing, present)

    # Texts and everything

    def text(self, line: TextLine | None = None) -> "featcache.types.TextBank | None":
        """Return the current texts, or others that are stored; None if there are none.

        Args:
            line: One of `texts`; None for the current ones.

        Raises:
            CorruptCacheError: If their files are damaged.
        """
        from featcache.store.text import read_text

        line = line or self.text_line
        if line is None:
            return None
        return read_text(self.path / line.component, line, self.cure)

    def text_set(self, digest: str) -> TextLine:
        """Find stored texts by the first digits of their digest; nothing but the manifest is read.

        Raises:
            UnknownNameError: If no set begins like that.
            UsageError: If several do.
        """
        by_digest = {line.digest: line for line in self.texts}
        begin = digest.lower().removeprefix(TEXT_PREFIX)
        fitting = [name for name in by_digest if name.startswith(begin)]
        if not fitting:
            raise UnknownNameError("text set", digest, by_digest, "`featcache text` lists them.")
        if len(fitting) > 1:
            raise UsageError(
                f"{len(fitting)} text sets begin with '{digest}': {', '.join(fitting)}."
            )
        return by_digest[fitting[0]]

    def text_of_classes(self, line: TextLine) -> "featcache.types.TextBank":
        """Return stored texts that are for the classes of the listing.

        Raises:
            UsageError: If they are for other classes.
            CorruptCacheError: If their files are damaged.
            CacheError: If the cache has no listing.
        """
        bank, listing = self.text(line), self._listed()
        assert bank is not None
        if bank.classes != listing.classes:
            raise UsageError(
                f"The texts {line.digest} are for {len(bank.classes)} classes, and the data set "
                f"now has {len(listing.classes)} classes or other names. Choose texts that were "
                "made since."
            )
        return bank

    def lacks_last_block(self) -> bool:
        """Tell whether the cache holds tokens without the weights of the block that reads them."""
        return self._has_tokens() and not (self.path / LAST_BLOCK_FILE).exists()

    def last_block_bytes(self) -> int:
        """Return the size of the file of the last block; 0 if there is none."""
        path = self.path / LAST_BLOCK_FILE
        return path.lstat().st_size if path.exists() else 0

    def last_block(self) -> "featcache.last_block.LastBlock":
        """Return the weights of the last block, which reads the tokens of this cache.

        Raises:
            MissingComponentError: If the cache holds no tokens.
            CorruptCacheError: If the file of the weights is missing or damaged.
        """
        from featcache.store.last_block import read_last_block

        if not self._has_tokens() and not (self.path / LAST_BLOCK_FILE).exists():
            call = extract_call(self.path, self.dataset, self.backbone, weights_of(self.shards))
            more = replace(call, arguments={**call.arguments, "tokens": [LAST_BLOCK]})
            raise MissingComponentError(
                f"{self.path} holds no tokens before a last block, and so not its weights. ",
                self.cure and "These features were imported, so choose another method.",
                () if self.cure else ("Add both with: ", more),
            )
        return read_last_block(self.path, self.key.digest())

    def _has_tokens(self) -> bool:
        return any(parse_component(name).kind == "tokens" for name in self.shards)

    def feature_set(self, texts: str | None = None) -> "featcache.types.FeatureSet":
        """Open everything for reading; rows are loaded on access.

        Args:
            texts: First digits of the digest of a stored text set; None for the current one.

        Raises:
            UnknownNameError: If there is no such text set.
            UsageError: If several begin like that, or it is for other classes.
            CacheError: If the cache has no listing yet.
            CorruptCacheError: If its parts are inconsistent.
        """
        from featcache.types import FeatureSet

        listing = self._listed()
        line = self.text_line if texts is None else self.text_set(texts)
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
            text=self.text() if texts is None or line is None else self.text_of_classes(line),
            text_set="" if line is None else line.digest,
            weights=weights_of(self.shards),
            encoding=encoding_of(self.shards),
            read_last_block=self.last_block,
        )

    def _listed(self) -> Listing:
        listing = self.listing()
        if listing is None:
            raise CacheError(
                f"{self.path} has no listing yet: its first pass was interrupted early. ",
                self.cure or "Run the same `featcache extract` command again.",
            )
        return listing
