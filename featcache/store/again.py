"""The command that takes up a cache again."""

import shlex
from pathlib import Path

from featcache.store.library import cache_root


def extract_command(path: Path, dataset: str, backbone: str, weights: str = "") -> str:
    """Compose the `featcache extract` command of a cache, without what was added by flags.

    Args:
        path: The cache.
        dataset: Its data set.
        backbone: Its backbone.
        weights: What --weights said; empty where it said nothing.
    """
    words = ["featcache", "extract", "--dataset", dataset, "--backbone", backbone]
    words += ["--weights", weights] if weights else []
    root = path.parent.parent
    words += ["--cache", str(root)] if root != cache_root(None) else []
    return shlex.join(words)
