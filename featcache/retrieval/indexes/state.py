"""Whether an index still fits the caches it was built from."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from featcache.errors import CorruptCacheError, FeatcacheError
from featcache.retrieval.indexes.description import Covered, Description
from featcache.retrieval.vectors import Source
from featcache.store.cache import Cache
from featcache.store.format.files import read_limited
from featcache.store.format.identity import MANIFEST
from featcache.store.library import caches
from featcache.wording import Call, Part

State = Literal["fresh", "grown", "changed", "removed", "unreadable"]


@dataclass(frozen=True, kw_only=True)
class Freshness:
    """Whether an index can be used."""

    state: State
    why: Part = ""
    """Which cache, and what to do; empty if it is fresh."""


def covered(source: Source) -> Covered:
    """Describe the vectors of one cache as they are now.

    Raises:
        CorruptCacheError: If the manifest is damaged.
    """
    path, component = source.features.path, source.component
    manifest, shards = _records(path, component)
    return Covered(
        dataset=source.features.listing.dataset,
        backbone=source.features.backbone,
        key=source.features.key.digest(),
        component=component,
        parts=source.parts,
        manifest=manifest,
        shards=shards,
    )


def freshness(root: Path, index: Description) -> Freshness:
    """Compare an index with the caches below a root.

    Args:
        root: Folder of all caches.
        index: The index.
    """
    places = {(c.dataset, c.digest): c.path for c in caches(root) if not c.problem}
    states = [_compare(index, each, places.get((each.dataset, each.key))) for each in index.covered]
    order = ("removed", "unreadable", "changed", "grown", "fresh")
    return min(states, key=lambda s: order.index(s.state))


def _compare(index: Description, old: Covered, path: Path | None) -> Freshness:
    if path is None:
        return Freshness(
            state="removed",
            why=(
                f"The cache of {old.dataset} with {old.backbone}, key {old.key}, is gone or "
                f"unreadable, so the index {index.name} cannot be used. Delete it with: ",
                Call("featcache.retrieval.indexes.folder.remove_index", {"name": index.name}),
            ),
        )
    try:
        manifest, shards = _records(path, old.component)
    except FeatcacheError as error:
        return Freshness(state="unreadable", why=error.parts)
    if manifest == old.manifest or shards == old.shards:
        return Freshness(state="fresh")
    if shards[: len(old.shards)] == old.shards:
        return Freshness(state="grown", why=grown(index, old))
    return Freshness(state="changed", why=changed(index, old))


def grown(index: Description, old: Covered) -> Part:
    """Say that a cache has more rows than an index."""
    call = Call("featcache.retrieval.indexes.building.add_to_index", {"name": index.name})
    return (
        f"The cache of {old.dataset} has grown since the index {index.name} was built. "
        "Append its new rows with: ",
        call,
    )


def changed(index: Description, old: Covered) -> Part:
    """Say that a cache has other rows than an index."""
    call = Call("featcache.retrieval.indexes.building.rebuild_index", {"name": index.name})
    return (
        f"The cache of {old.dataset} has other rows than those the index {index.name} was built "
        "from. Build it again with: ",
        call,
    )


def _records(path: Path, component: str) -> tuple[str, tuple[str, ...]]:
    try:
        manifest = hashlib.sha256(read_limited(path / MANIFEST)).hexdigest()[:12]
    except OSError as error:
        raise CorruptCacheError(
            f"{path / MANIFEST} cannot be read ({error.strerror}). Run `featcache repair`."
        ) from error
    shards = Cache.open(path).shards.get(component, ())
    return manifest, tuple(line.facts.sha256[:16] for line in shards)
