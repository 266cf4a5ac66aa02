"""What shows of a damaged cache without reading its bytes: records, listing, sizes of files."""

from pathlib import Path

from featcache.errors import FeatcacheError
from featcache.store.cache import Cache
from featcache.store.format.identity import LISTING
from featcache.store.format.shard import check_size
from featcache.store.listing.files import LOST
from featcache.store.listing.listing import check_listing
from featcache.store.repair.consistency import check_parts, say_lost
from featcache.store.repair.examine import lines_of, path_of
from featcache.wording import Part


def glance(path: Path) -> list[Part]:
    """Check a cache as far as its records and the sizes of its files tell; `verify` reads it all.

    Args:
        path: The cache.

    Returns:
        One sentence a problem, with the cure; none for a cache that looks sound.
    """
    try:
        cache = Cache.open(path)
    except FeatcacheError as error:
        return [error.parts, *check_listing(path / LISTING)]
    problems = check_listing(path / LISTING, cure=cache.cure or LOST)
    problems += check_parts(cache, listed=not problems)
    for line in lines_of(cache):
        try:
            check_size(path_of(cache, line), line.facts, cache.cure)
        except FeatcacheError as error:
            problems.append(error.parts)
    return [*problems, *say_lost(path)]
