"""`featcache ls`: the caches below a root."""

from cli.ui import output, tables, units
from cli.ui.flags import in_flags
from cli.ui.options import CacheDir, Json


def list_caches(cache: CacheDir = None, json_: Json = False) -> None:
    """List the caches, the one finished last first.

    Example: featcache ls
    """
    import shlex

    from featcache.store.library import cache_root, caches
    from featcache.store.removal import all_left, digest_of

    found = caches(cache_root(cache))
    for path in all_left(cache_root(cache)):
        words = ["featcache", "rm", path.parent.name]
        words += ["--key", digest_of(path)] if digest_of(path) else []
        words += [] if cache is None else ["--cache", str(cache)]
        output.say(
            f"{path} is what an interrupted removal has left. Delete it with: {shlex.join(words)}"
        )
    if json_:
        for item in found:
            output.emit_json(item.to_json(in_flags))
        return
    if not found:
        output.say(f"No caches in {cache_root(cache)} yet; `featcache extract` makes one.")
        return
    for item in found:
        if item.problem:
            output.say(in_flags([item.problem]))
    tables.emit_table(
        ("dataset", "backbone", "weights", "key", "images", "components", "size", "finished"),
        [
            (
                item.dataset,
                item.backbone,
                item.weights,
                item.digest,
                str(item.images),
                " ".join(item.components),
                units.human_bytes(item.bytes),
                item.finished_text,
            )
            for item in found
        ],
        right=("images", "size"),
        spare=("components", "finished", "size", "images", "weights"),
    )
