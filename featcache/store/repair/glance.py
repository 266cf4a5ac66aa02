"""A quick check of a cache: records, listing and file sizes, without reading the shards."""

from pathlib import Path

from featcache.errors import FeatcacheError
from featcache.store.cache import Cache
from featcache.store.format.identity import LISTING
from featcache.store.format.shard import check_size
from featcache.store.listing.files import LOST
from featcache.store.listing.listing import check_listing
from featcache.store.repair.consistency import check_consistency, lost_messages
from featcache.store.repair.examine import lines_of, path_of
from featcache.wording import Part


def glance(path: Path) -> list[Part]:
    """Check records, listing and file sizes of a cache; `verify` reads every byte.

    Args:
        path: Folder of the cache.

    Returns:
        One message per problem, with advice; empty for a cache that looks sound.
    """
    try:
        cache = Cache.open(path)
    except FeatcacheError as error:
        return [error.parts, *check_listing(path / LISTING)]
    problems = check_listing(path / LISTING, cure=cache.cure or LOST)
    problems += check_consistency(cache, report_listing=not problems)
    for line in lines_of(cache):
        try:
            check_size(path_of(cache, line), line.facts, cache.cure)
        except FeatcacheError as error:
            problems.append(error.parts)
    return [*problems, *lost_messages(path)]
