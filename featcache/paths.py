"""Paths as a user writes them."""

from pathlib import Path

from featcache.errors import UsageError


def expand(path: Path | str) -> Path:
    """Put the home folder in the place of a leading `~` or `~user`.

    Raises:
        UsageError: If there is no such user.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise UsageError(
            f"{path} begins with the home folder of somebody who is unknown here. Write the whole "
            f"path, or ./{path} if it is a name."
        ) from error
