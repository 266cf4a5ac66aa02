"""The caches that a corpus is built from: how they are named and opened, and their state."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Int64

from featcache.errors import CacheError, FeatcacheError, UnknownNameError, UsageError
from featcache.retrieval.corpora.images import guarded_splits
from featcache.store.cache import Cache
from featcache.store.format.corpus_file import SourceRecord
from featcache.store.format.files import canonical
from featcache.store.library import caches, find_cache, find_summaries
from featcache.types import FeatureSet
from featcache.wording import Argument, Call


@dataclass(frozen=True, kw_only=True)
class Origin:
    """A cache whose rows may enter a corpus."""

    features: FeatureSet
    splits: tuple[str, ...] = ()
    """Splits whose rows may; empty for all."""

    def rows(self) -> Int64[np.ndarray, " r"]:
        """Return the rows of these splits, ascending.

        Raises:
            UnknownNameError: If the cache has no such split.
        """
        listed = self.features.listing.splits
        rows = [self.features.listing.rows(name) for name in self.splits or listed]
        union: Int64[np.ndarray, " r"] = np.unique(
            np.concatenate([np.empty(0, dtype=np.int64), *rows])
        )
        return union

    def guarded(self, target: FeatureSet) -> tuple[str, ...]:
        """Return its splits that heads for a data set are selected or evaluated on."""
        if self.features.listing.dataset != target.listing.dataset:
            return ()
        return tuple(n for n in guarded_splits(target) if not self.splits or n in self.splits)


def open_origins(root: Path, names: Sequence[str], target: FeatureSet) -> list[Origin]:
    """Open the caches of other data sets that have the feature key of a cache.

    Args:
        root: Folder of all caches.
        names: Data sets, each as NAME or NAME:SPLIT; a data set may be named with several splits.
        target: Cache that the corpus is for.

    Raises:
        UsageError: If no data set is named, a name is empty, or a split stands after an @.
        UnknownNameError: If a data set has no cache, or no such split.
        CacheError: If its caches have other feature keys, or one is damaged or unfinished.
    """
    splits: dict[str, list[str]] = {}
    for text in names:
        name, colon, split = text.partition(":")
        if not name or (colon and not split):
            raise UsageError(
                Argument("sources"),
                f" takes data sets with caches as NAME or NAME:SPLIT; got {text[:80]!r}.",
            )
        if "@" in name and all(cache.dataset != name for cache in caches(root)):
            raise UsageError(
                Argument("sources"),
                f" takes a split after a colon; got {text[:80]!r}. Did you mean "
                f"{text.replace('@', ':', 1)[:80]!r}?",
            )
        splits.setdefault(name, []).append(split)
    if not splits:
        raise UsageError(Argument("sources"), " names no data set; name one or more.")
    return [
        Origin(
            features=_open(root, name, target),
            splits=() if "" in chosen else tuple(dict.fromkeys(chosen)),
        )
        for name, chosen in splits.items()
    ]


def state_of(cache: Cache, component: str, rows: Int64[np.ndarray, " r"]) -> str:
    """Return 12 hex digits of some rows of a component and of the shards that hold it."""
    shards = [[line.file, line.facts.sha256] for line in cache.shards.get(component, ())]
    found = hashlib.sha256(canonical(shards))
    found.update(rows.astype("<i8").tobytes())
    return found.hexdigest()[:12]


def changes(root: Path, source: SourceRecord) -> str:
    """Tell what has happened to a source since a corpus was built from it; empty for nothing.

    Args:
        root: Folder of all caches.
        source: Its record.
    """
    try:
        found = find_summaries(root, source.dataset, key=source.key)
        fitting = [f for f in found if f.dataset == source.dataset]
        if not fitting:
            return f"the cache of {source.dataset} is gone"
        cache = Cache.open(fitting[0].path)
        features = cache.feature_set()
        rows = Origin(features=features, splits=source.splits).rows()
        present = features.components[source.component].present() & features.ok
        rows = rows[present[rows]]
    except UnknownNameError:
        return f"the cache of {source.dataset}, or a split of it, is gone"
    except KeyError:
        return f"{source.dataset} has no {source.component} any more"
    except FeatcacheError:
        return f"the cache of {source.dataset} is damaged"
    if state_of(cache, source.component, rows) != source.state:
        return f"{source.dataset} has changed"
    return ""


def _open(root: Path, name: str, target: FeatureSet) -> FeatureSet:
    found = find_summaries(root, name)  # raises if there is none
    if not any(f.digest == target.key.digest() for f in found):
        have = ", ".join(sorted({f"{f.backbone} ({f.digest})" for f in found}))
        raise CacheError(
            f"{found[0].dataset} has no cache of {target.backbone} with the key "
            f"{target.key.digest()} of {target.listing.dataset}; it has {have}. Only features of "
            "one key can be compared. Make one with: ",
            Call("featcache.extract", {"dataset": name, "backbone": target.backbone}),
        )
    return find_cache(root, name, key=target.key.digest()).feature_set()
