"""Storing the last block of a backbone beside the tokens that it reads."""

from collections.abc import Iterable

from featcache.backbones.base import Backbone
from featcache.keys import parse_component
from featcache.store.cache import Cache


def put_last_block(cache: Cache, backbone: Backbone, components: Iterable[str]) -> bool:
    """Store the last block where components of a cache need it; tell whether it was missing.

    It is written before the first tokens, so that no cache holds tokens that nothing reads.

    Args:
        cache: Locked cache.
        backbone: Backbone of the cache.
        components: Components that the cache holds, or will hold.

    Raises:
        CacheError: If writing fails.
        BackboneError: If the backbone has no such block.
    """
    if not any(parse_component(name).kind == "tokens" for name in components):
        return False
    return cache.put_last_block(backbone.last_block())
