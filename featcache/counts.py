"""Numbers with their nouns, as messages have them."""


def counted(count: int, one: str, many: str = "") -> str:
    """Say how many there are: 1 shard, 2 shards.

    Args:
        count: How many.
        one: The noun, with the verb behind it if there is one.
        many: The same for other numbers; with an s behind it where not given.
    """
    return f"{count} {one if count == 1 else many or one + 's'}"


def human_bytes(count: float | int) -> str:
    """Say a number of bytes in decimal units.

    Example:
        >>> human_bytes(94280567)
        '94.3 MB'
    """
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"
