"""Counts with their nouns for messages."""


def counted(count: int, one: str, many: str = "") -> str:
    """Return a count with its noun: 1 shard, 2 shards.

    Args:
        count: Number of things.
        one: Singular noun, optionally with a verb.
        many: Plural; the singular with an s by default.

    Example:
        >>> counted(2, "shard")
        '2 shards'
    """
    return f"{count} {one if count == 1 else many or one + 's'}"
