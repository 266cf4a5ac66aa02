"""`featcache gc`: find and delete what nothing uses."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.ui import output, tables, units
from cli.ui.errors import text_of
from cli.ui.options import CacheDir, Json, RunsDir
from featcache.counts import counted

if TYPE_CHECKING:
    from featcache.store.garbage import Garbage


def gc(
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Delete it.")] = False,
    cache: CacheDir = None,
    runs: RunsDir = None,
    json_: Json = False,
) -> None:
    """List what nothing uses, with sizes; --yes deletes it.

    That is what killed commands have left, and indexes of removed caches. Caches, corpora, runs,
    heads and images stay, those of removed caches too: `featcache rm` and `heads rm` are for them.

    Example: featcache gc --yes
    """
    from featcache.errors import FeatcacheError, UsageError
    from featcache.retrieval.indexes.garbage import find_index_garbage
    from featcache.store.garbage import find_garbage
    from featcache.store.library import cache_root
    from heads.results.store import runs_root

    root = cache_root(cache)
    if cache is not None and not root.is_dir():
        raise UsageError(f"There is no folder {root}; name the one of the caches with --cache.")
    found = [*find_garbage(root), *find_index_garbage(root), *_of_runs(runs_root(runs))]
    failed = []
    for item in found:
        try:
            if yes:
                item.delete()
        except FeatcacheError as error:
            failed.append(item)
            output.say(f"{item.path} was not deleted: {text_of(error)}")
        if json_:
            output.emit_json(
                {
                    "path": str(item.path),
                    "what": item.what,
                    "bytes": item.bytes,
                    "deleted": yes and item not in failed,
                }
            )
    if found and not json_:
        rows = [(item.what, units.human_bytes(item.bytes), str(item.path)) for item in found]
        tables.emit_table(("what", "size", "where"), rows, right=("size",))
    done = [item for item in found if item not in failed]
    if not found:
        output.say("Everything here is in use: nothing to delete.")
    elif done:
        freed = units.human_bytes(sum(item.bytes for item in done))
        what = f"{counted(len(done), 'item')}, {freed}"
        output.say(f"Deleted {what}." if yes else f"{what}. --yes deletes them.")
    if failed:
        raise typer.Exit(1)


def _of_runs(root: Path) -> "list[Garbage]":
    """Return what interrupted savings and removals of runs have left."""
    from featcache.store.garbage import Garbage
    from featcache.store.removal import count_bytes
    from heads.results import leftovers

    if not root.is_dir():
        return []
    return [
        Garbage(
            path=path,
            what="remains of a run",
            bytes=count_bytes(path),
            delete=lambda: leftovers.remove(root),
        )
        for path in leftovers.unused(root)
    ]
