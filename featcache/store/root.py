"""The folder of all caches."""

import os
import sys
from pathlib import Path

from featcache.paths import check_folder, expand
from featcache.wording import Argument


def cache_root(option: Path | None) -> Path:
    """Return the folder of all caches: the option, else $FEATCACHE_HOME, else the user's cache.

    Raises:
        CacheError: If the path is not a folder.
        UsageError: If it begins with the home folder of an unknown user.
    """
    if option is not None:
        return check_folder(expand(option).absolute(), Argument("root"))
    if home := os.environ.get("FEATCACHE_HOME"):
        return check_folder(expand(home).absolute(), "$FEATCACHE_HOME or ", Argument("root"))
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "featcache"
    xdg = Path(os.environ.get("XDG_CACHE_HOME", ""))
    # The XDG specification says to ignore relative paths.
    return (xdg if xdg.is_absolute() else Path.home() / ".cache") / "featcache"
