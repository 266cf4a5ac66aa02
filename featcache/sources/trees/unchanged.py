"""A file that images are parts of, compared with its state when it was opened."""

import os
from pathlib import Path

from featcache.errors import SourceError


def check_unchanged(path: Path, before: os.stat_result, now: os.stat_result) -> None:
    """Check that a file is as it was; to be called after a part of it was read.

    Inodes are not compared: some file systems number them anew. A file that is put in place of
    another has a later time of change (ctime).

    Args:
        path: The file, for the message.
        before: Its state when its names or labels were read.
        now: Its state after the part was read.

    Raises:
        SourceError: If it has changed.
    """
    if _times(now) != _times(before):
        raise SourceError(
            f"{path} has changed since its labels were read, so they may belong to other images. "
            f"Run again once it is complete."
        )


def _times(found: os.stat_result) -> tuple[int, int, int]:
    return found.st_size, found.st_mtime_ns, found.st_ctime_ns
