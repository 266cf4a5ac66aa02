"""Encoding the rows of damaged shards again, in shards of the same rows.

Images are read from where they were listed, and only if their bytes are unchanged. Labels, splits
and class names are kept.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int64

from featcache.backbones.base import Backbone, check_key
from featcache.backbones.names import COMPUTE_FLAGS
from featcache.backbones.registry import load_backbone
from featcache.encoding.encoder import Encoder
from featcache.errors import BackboneError, CacheError
from featcache.imaging.decode import pixel_limit
from featcache.imaging.loader import FileSource
from featcache.keys import Listing
from featcache.paths import from_text
from featcache.pipeline.compatibility import PassSettings, as_before, micro_batch_of
from featcache.pipeline.filler import Filler
from featcache.pipeline.last_block import put_last_block
from featcache.pipeline.plan import plans_for
from featcache.pipeline.progress import Progress, reporter
from featcache.pipeline.texts import put_texts
from featcache.sources.base import Dataset, Sample
from featcache.sources.hashing import hash_files
from featcache.store.cache import Cache
from featcache.store.images import ListedImages
from featcache.store.provenance import weights_argument, weights_of
from featcache.store.repair.verify import finish_whole
from featcache.threads import cpu_cores
from featcache.wording import Part


@dataclass(frozen=True, kw_only=True)
class Mended:
    """What was encoded again."""

    encoded: Mapping[str, int] = field(default_factory=dict)
    """Component -> rows."""
    missing: int = 0
    """Rows whose image is gone or has changed; `extract` replaces those."""
    text: bool = False
    """Whether texts were encoded again."""
    last_block: bool = False
    """Whether the weights of the last block were stored again."""

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return asdict(self)


def mend(
    path: Path,
    *,
    weights: str | None = None,
    device: str = "auto",
    progress: Callable[[Progress], None] | None = None,
    say: Callable[[Part], None] = lambda _: None,
) -> Mended:
    """Restore the rows, the texts and the last block that a repair removed.

    Args:
        path: Folder of the cache, after `store.repair.verify.repair`.
        weights: Weights of the backbone; None takes those that `extract` was given.
        device: auto, cpu, cuda, ...
        progress: Called several times a second.
        say: Called with sentences that the user should read.

    Raises:
        SourceError: If the folder of the images is gone.
        CacheError: If the backbone is not the one that wrote the cache.
    """
    cache = Cache.open(path)
    with cache.lock():
        listing, lost = cache.listing(), cache.lost()
        if listing is None or not cache.needs_mending():
            return Mended()
        if cache.key.is_imported:
            raise CacheError(f"{path} has lost imported features. ", cache.cure)
        settings = PassSettings.of(cache)
        weights = weights or weights_of(cache.shards)
        load = weights or weights_argument(cache.key, cache.shards)
        backbone = _backbone(cache, settings, load or None, device, say)
        last_block = put_last_block(cache, backbone, [*cache.shards, *lost])
        missing = 0
        encoded: Mapping[str, int] = {}
        if lost:
            home = path.parent.parent
            sources = _sources(listing, home, cache.backbone, lost, progress, say)
            there = {
                name: [_there(rows, sources) for rows in parts] for name, parts in lost.items()
            }
            gone = {int(r) for parts in lost.values() for rows in parts for r in rows}
            missing = len(gone - sources.keys())
            filler = Filler(
                cache=cache,
                encoder=Encoder(backbone, micro_batch_of(backbone, settings, None)),
                sources=sources,
                settings=settings,
                max_pixels=pixel_limit(),
                weights=weights,
                allow_bad=True,
                progress=progress,
                say=say,
            )
            for plan in plans_for(there, backbone):
                filler.encode(plan)
            encoded = filler.encoded
        text = put_texts(cache, _words(listing), backbone, say=say)
        finish_whole(cache)
    return Mended(encoded=encoded, missing=missing, text=text, last_block=last_block)


def _backbone(
    cache: Cache,
    settings: PassSettings | None,
    weights: str | None,
    device: str,
    say: Callable[[Part], None],
) -> Backbone:
    compute = "auto" if settings is None else COMPUTE_FLAGS[settings.compute]
    load_any = partial(
        load_backbone,
        cache.backbone,
        weights=weights,
        device=device,
        image_size=cache.key.image_size,
    )

    def load(compute: str) -> Backbone:
        if settings is not None and settings.compiled:
            try:
                return load_any(compute=compute, compiled=True)
            except BackboneError as error:
                say(("The lost rows came from a compiled tower; these do not: ", error.parts))
        return load_any(compute=compute)

    backbone = as_before(load(compute), settings, "auto", load)
    check_key(backbone, cache.key, cache.path)
    return backbone


def _sources(
    listing: Listing,
    home: Path,
    backbone: str,
    lost: Mapping[str, Sequence[Int64[np.ndarray, " _"]]],
    progress: Callable[[Progress], None] | None,
    say: Callable[[Part], None],
) -> dict[int, FileSource]:
    """Return row -> image, for images whose bytes are unchanged since they were listed."""
    images = ListedImages(listing, home, backbone, download=True)
    say(f"Reading images in {images.root}.")

    rows = np.unique(np.concatenate([r for shards in lost.values() for r in shards]))
    # Some rows of the whole cache, for the check of this environment, beside those that are lost.
    rows = np.union1d(rows, np.linspace(0, len(listing) - 1, 64).astype(np.int64))
    samples, rows_of = [], []
    for row in rows.tolist():
        for place in images.places(row):
            samples.append(Sample(listing.ids[row], place, -1, ""))
            rows_of.append(row)
    hashes, _ = hash_files(samples, images.root, None, reporter(progress), cpu_cores())
    return {
        row: FileSource(sample.id, sample.place, sha256)
        for row, sample, sha256 in zip(rows_of, samples, hashes, strict=True)
        if sha256 and sha256 == listing.hashes[row]
    }


def _there(
    rows: Int64[np.ndarray, " r"], sources: Mapping[int, FileSource]
) -> Int64[np.ndarray, " _"]:
    """Return the rows whose image is there."""
    return np.array([row for row in rows.tolist() if row in sources], dtype=np.int64)


def _words(listing: Listing) -> Dataset:
    """Return the classes and texts of a listing as a data set without images."""
    return Dataset(
        name=listing.dataset,
        root=from_text(listing.root),
        classes=listing.classes,
        samples=(),
        templates=listing.templates,
        descriptions=listing.descriptions,
        sets=listing.sets,
        waffle=listing.waffle,
        prompts=listing.prompts,
        default_text=listing.default_text,
        own_texts=listing.own_texts,
    )
