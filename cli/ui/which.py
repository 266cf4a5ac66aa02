"""Sentences that say which cache and which head a command takes, as a name may mean several."""

from typing import TYPE_CHECKING

from featcache.counts import counted

if TYPE_CHECKING:
    from featcache.store.cache import Cache
    from heads.head import Head
    from heads.results.named import Named


def cache_text(cache: "Cache", *, is_named: bool) -> str:
    """Say which cache is used.

    Args:
        cache: The cache.
        is_named: Whether the user named its data set; else it is the one finished last.
    """
    from featcache.store.provenance import origin_of

    last = "" if is_named else ", finished last"
    origin = origin_of(cache.key, cache.shards)
    what = origin if cache.key.is_imported else f"{origin} weights"
    return (
        f"Using the cache of {cache.dataset} with {cache.backbone} "
        f"({what}, key {cache.key.digest()}){last}."
    )


def head_text(head: "Head", named: "Named | None", *, is_last: bool) -> str:
    """Say which head is used.

    Args:
        head: The head.
        named: Where it is kept; None where it came as a file.
        is_last: Whether it was asked for as `last`.
    """
    where = f"Head {named}: " if named is not None else "The head is of "
    trained = f" trained on {head.dataset}" if head.dataset else ""
    with_ = f" with {head.backbone}" if head.backbone else ""
    classes = counted(len(head.classes), "class", "classes")
    text = f"{where}{head.method.name}{trained}{with_}, {classes}."
    if named is not None and is_last and len(named.seeds) > 1:
        text += (
            f" The run stored last keeps {len(named.seeds)} heads, of which the first is taken; "
            f"last@{named.seeds[1]} is the next."
        )
    return text
