"""What a pass is made of, decided once from an extraction and the cache as it stands."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool

from featcache.backbones.base import Backbone
from featcache.encoding.components import ComponentSpec, merge_counts
from featcache.imaging.loader import FileSource, file_sources
from featcache.keys import Listing
from featcache.paths import as_text
from featcache.pipeline.compatibility import PassSettings, as_before, micro_batch_of
from featcache.pipeline.extraction import Extraction
from featcache.pipeline.plan import Plan, make_plan
from featcache.pipeline.summary import listed
from featcache.sources.base import Dataset
from featcache.sources.listing import build_listing
from featcache.store.cache import Cache
from featcache.store.format.identity import KNOWN_HASHES
from featcache.store.moved import current_root
from featcache.text.encode import keep_own_texts


@dataclass(frozen=True, kw_only=True)
class Setup:
    """Rows, backbone and components of the passes over one cache."""

    cache: Cache | None
    """None if there is none yet."""
    dataset: Dataset
    """With the texts that the user gave to earlier passes."""
    listing: Listing
    """Rows of the images, those of earlier passes first; not yet stored."""
    settings: PassSettings | None
    """Settings that the first pass fixed; None before it."""
    backbone: Backbone
    """In the compute type of the cache."""
    specs: tuple[ComponentSpec, ...]
    """Requested components, with the larger number of views where the cache has more."""
    micro_batch: int
    limit: int | None
    """Maximum number of images; None for all."""

    def sources(self) -> dict[int, FileSource]:
        """Return row -> image; rows whose image is gone have none."""
        places = {sample.id: sample.place for sample in self.dataset.samples}
        return file_sources(self.listing.ids, self.listing.hashes, places)

    def plan(self, *, limited: bool = True, around_bad: bool = True) -> Plan:
        """Plan a pass over the rows that the cache lacks now.

        Args:
            limited: Whether `limit` applies.
            around_bad: Whether draws avoid the images that are known to be unreadable.
        """
        nothing = np.zeros(len(self.listing), dtype=bool)

        def covered(component: str) -> Bool[np.ndarray, " n"]:
            have = nothing if self.cache is None else self.cache.covered(component)
            return np.concatenate([have, nothing[len(have) :]])  # a forecast may list new images

        usable = ~nothing
        if self.cache is not None and around_bad:
            usable[list(self.cache.bad_rows())] = False
        return make_plan(
            self.listing,
            self.backbone,
            self.specs,
            covered=covered,
            micro_batch=self.micro_batch,
            usable=usable,
            limit=self.limit if limited else None,
        )


def set_up(extraction: Extraction, cache: Cache | None, *, keep_known: bool) -> Setup:
    """Hash the images, give them rows and keep to the settings of the cache.

    Args:
        extraction: What is extracted.
        cache: The cache as it stands; None if there is none yet.
        keep_known: Whether to store the hashes of the images for later passes.

    Raises:
        SourceError: If the data set is empty, or is not the one that was cached.
        UsageError: If the compute type or the micro-batch is not that of the cache.
        CorruptCacheError: If the cache is damaged.
    """
    request, say = extraction.request, extraction.say
    shards = () if cache is None else cache.shards
    specs, notes = merge_counts(extraction.specs, extraction.backbone, shards)
    for note in notes:
        say(note)
    with extraction.stage("list"):
        previous = None if cache is None else cache.listing()
        dataset = keep_own_texts(extraction.dataset, previous)
        before = ""
        if previous is not None:
            before = current_root(previous.root, dataset.name, extraction.root, request.data_root)
        listing = build_listing(
            dataset,
            previous,
            moved=request.moved or before == as_text(dataset.root),
            known=extraction.path.parent / KNOWN_HASHES,  # shared by the caches of all backbones
            keep_known=keep_known,
            rehash=request.rehash,
            ignore_inode=request.ignore_inode,
            report=extraction.report,
            say=say,
        )
    for note in (listed(listing), *listing.notes):
        say(note)
    settings = None if cache is None else PassSettings.of(cache)
    backbone = as_before(extraction.backbone, settings, request.compute, extraction.load)
    return Setup(
        cache=cache,
        dataset=dataset,
        listing=listing,
        settings=settings,
        backbone=backbone,
        specs=specs,
        micro_batch=micro_batch_of(backbone, settings, request.micro_batch),
        limit=request.limit,
    )
