"""`featcache rm`: remove one cache."""

from pathlib import Path
from typing import Annotated

import typer

from cli.ui import errors, output, units
from cli.ui.flags import in_flags
from cli.ui.options import CacheDir, Json, Key, OfBackbone, Yes


def rm(
    dataset: Annotated[str, typer.Argument(help="Data set whose cache goes.")],
    backbone: OfBackbone = None,
    key: Key = None,
    yes: Yes = False,
    cache: CacheDir = None,
    json_: Json = False,
) -> None:
    """Remove one cache; the images and the results stay.

    What an interrupted removal has left goes first, and then nothing else.

    Example: featcache rm trashnet --backbone tiny --yes
    """
    from featcache.errors import CacheNotFoundError, UnknownNameError, UsageError
    from featcache.store.library import cache_root, find_summaries
    from featcache.store.removal import count_bytes, finish_removal, left_by_removals, remove

    root = cache_root(cache)
    left = left_by_removals(root, dataset, backbone, key)
    try:
        fitting = find_summaries(root, dataset, backbone, key)
    except (CacheNotFoundError, UnknownNameError):
        if not left:
            raise
        fitting = []
    for path in left:
        size = units.human_bytes(count_bytes(path))
        what = f"what an interrupted removal has left, {size}: {path}"
        output.agree(what, yes)
        with errors.noting("The same command removes the rest."):
            freed = finish_removal(path)
        _emit_removed(path, freed, what, json_)
    if left:
        for found in fitting:
            output.say(
                f"{found.path} is another cache and stays; the same command again is for it."
            )
        return
    if len(fitting) > 1:
        which = ", ".join(f"{f.digest} ({f.backbone}, {f.finished_text})" for f in fitting)
        raise UsageError(f"{len(fitting)} caches of '{dataset}' fit: {which}. Add --key of one.")
    (found,) = fitting
    what = f"{found.dataset}, {found.backbone}, {units.human_bytes(found.bytes)}: {found.path}"
    output.agree(what, yes)
    with errors.noting("The same command removes the rest."):
        freed = remove(root, found.path)
    _emit_removed(found.path, freed, what, json_)
    _name_indexes(root, found.dataset, found.digest)


def _name_indexes(root: Path, dataset: str, key: str) -> None:
    """Say which indexes covered a cache that was removed."""
    from featcache.retrieval.indexes.folder import descriptions
    from featcache.retrieval.indexes.state import freshness

    for _, index in descriptions(root):
        if not isinstance(index, Exception):
            gone = any((c.dataset, c.key) == (dataset, key) for c in index.covered)
            if gone:
                output.say(in_flags([freshness(root, index).why]))


def _emit_removed(path: Path, freed: int, what: str, json_: bool) -> None:
    if json_:
        output.emit_json({"removed": str(path), "bytes": freed})
    else:
        output.emit(f"Removed {what}")
