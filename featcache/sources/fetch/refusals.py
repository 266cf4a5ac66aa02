"""Errors for archives that are damaged, and for those that are unsafe to unpack."""

from featcache.errors import SourceError
from featcache.wording import Argument, Part, Placeholder

QUOTED = 200
"""Characters of a member's name that are quoted."""

BY_HAND: tuple[Part, ...] = (
    "unpack it yourself and name the folder with ",
    Argument("dataset_root", Placeholder("DIR")),
    ".",
)


def damaged(archive: str, what: str) -> SourceError:
    """Compose the error for bytes that are not what was published.

    Args:
        archive: Its name.
        what: What is wrong, as a verb and the rest: "ends in the midst of a header".
    """
    return SourceError(
        f"{archive} {what}. It is damaged, cut short, or not what its name says; nothing of it was "
        f"put in place. Get it again."
    )


def unsafe(archive: str, what: str) -> SourceError:
    """Compose the error for an archive that may be sound and is not unpacked here.

    Args:
        archive: Its name.
        what: What is wrong, as `damaged` takes it.
    """
    return SourceError(
        f"{archive} {what}; nothing of it was put in place. If you trust it, ", *BY_HAND
    )


def quoted(name: str) -> str:
    """Quote a member's name, as far as a sentence has room for it."""
    return f"'{name[:QUOTED]}'"
