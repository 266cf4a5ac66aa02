"""The call that continues a cache."""

from pathlib import Path

from featcache.store.library import cache_root
from featcache.wording import Call


def extract_call(path: Path, dataset: str, backbone: str, weights: str = "") -> Call:
    """Compose the call that continues a cache, without further components and options.

    Args:
        path: Folder of the cache.
        dataset: Name of its data set.
        backbone: Name of its backbone.
        weights: Weights that were named when it was made; empty if none were.
    """
    arguments = {"dataset": dataset, "backbone": backbone}
    arguments |= {"weights": weights} if weights else {}
    root = path.parent.parent
    arguments |= {"root": str(root)} if root != cache_root(None) else {}
    return Call("featcache.extract", arguments)
