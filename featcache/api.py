"""The front door: `featcache.open`, `featcache.extract`, `featcache.embed`, `featcache.search`."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from featcache.embedding import embed
from featcache.errors import UsageError
from featcache.pipeline.request import Request
from featcache.pipeline.run import extract as run_extraction
from featcache.retrieval.search import search
from featcache.store.cache import Cache
from featcache.store.library import cache_root, find_cache
from featcache.types import FeatureSet
from featcache.wording import in_python

__all__ = ["embed", "extract", "open", "search"]


def open(
    dataset: str | None = None,
    backbone: str | None = None,
    *,
    key: str | None = None,
    texts: str | None = None,
    root: Path | str | None = None,
) -> FeatureSet:
    """Open a cache for reading: lazy rows, labels, splits and texts.

    Args:
        dataset: Name of the data set; of several caches the one finished last.
        backbone: As `featcache ls` shows it.
        key: First digits of the key's digest, where names are not enough.
        texts: First digits of the digest of a stored text set, which `featcache text` lists; the
            current one if not given.
        root: Folder of all caches; the usual one if not given.

    Raises:
        CacheNotFoundError: If there is none, or none that was finished.
        UnknownNameError: If no cache has that data set, backbone or key, or it has no such texts.
        UsageError: If several fit that hold other features, or texts that are for other classes.

    Example:
        >>> import featcache
        >>> cache = featcache.open("fieldguide", "tiny")
        >>> cache.rows("global", cache.listing.rows("test")[:2]).shape
        torch.Size([2, 128])
    """
    place = cache_root(None if root is None else Path(root))
    return find_cache(place, dataset, backbone, key).feature_set(texts)


def extract(
    dataset: str,
    backbone: str | None = None,
    *,
    say: Callable[[str], None] | None = None,
    **wanted: Any,
) -> FeatureSet:
    """Encode what the cache of a data set and a backbone lacks, and open it.

    Args:
        dataset: folder:PATH, or the name of a data set.
        backbone: A backbone's name; None is that of the data set's cache.
        say: Called with sentences that the user should read.
        wanted: The other fields of `featcache.pipeline.request.Request`: views, crops, patches,
            tokens, weights, limit, device, root, data_root, ...

    Raises:
        FeatcacheError: If anything a user can cause stands in the way.

    Example:
        >>> import featcache
        >>> featcache.extract("fieldguide", "tiny", limit=48).backbone
        'tiny'
    """
    for name in ("views", "crops", "patches", "view_patches", "tokens"):
        if isinstance(wanted.get(name), str):
            raise UsageError(f"{name} takes a list, e.g. {name}=['{wanted[name]}'].")
    for name in ("root", "data_root", "dataset_root"):
        if isinstance(wanted.get(name), str):
            wanted[name] = Path(wanted[name])
    request = Request(dataset=dataset, backbone=backbone, **wanted)
    told = None if say is None else lambda message: say(in_python([message]))
    summary = run_extraction(request, say=told)
    return Cache.open(summary.path).feature_set()
