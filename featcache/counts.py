"""Numbers with their nouns, as messages have them."""


def counted(count: int, one: str, many: str = "") -> str:
    """Say how many there are: 1 shard, 2 shards.

    Args:
        count: How many.
        one: The noun, with the verb behind it if there is one.
        many: The same for other numbers; with an s behind it where not given.
    """
    return f"{count} {one if count == 1 else many or one + 's'}"
