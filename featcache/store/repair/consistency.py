"""What may be wrong with a cache besides the bytes of its files: parts that do not fit together."""

from collections.abc import Collection
from pathlib import Path

from featcache.errors import CorruptCacheError, FeatcacheError
from featcache.keys import parse_component
from featcache.store.cache import Cache
from featcache.store.format.identity import KEY_FILE, LISTING, MANIFEST
from featcache.store.lock import OWNER, is_locked
from featcache.store.rows import ShardRows, check_images
from featcache.store.settle import LOCK
from featcache.wording import Part

OWN = frozenset({KEY_FILE, MANIFEST, LOCK, OWNER})
"""Files directly in a cache's folder."""
NOTED = 20
"""Files that belong to nothing and are named; of further ones only the number is told."""


def check_parts(cache: Cache, *, listed: bool) -> list[Part]:
    """Compare listing, shards and texts with each other; say what is wrong, a sentence each.

    Args:
        cache: Opened.
        listed: Whether what is wrong with the listing is news.
    """
    problems: list[Part] = []
    listing = None
    try:
        listing = cache.listing()
        if listing is None and listed:
            again = cache.cure or "Run the same `featcache extract` command again."
            problems.append((f"{cache.path} has no listing yet. ", again))
    except FeatcacheError as error:
        if listed:
            problems.append(error.parts)
    if cache.torn and not is_locked(cache.path):
        what = (
            f"{cache.path / MANIFEST} ends in a line that an interrupted writer left unfinished. "
            f"Run `featcache repair`, or go on with `featcache extract`."
        )
        problems.append(what)
    for name, lines in cache.shards.items():
        if listing is None:
            break
        try:
            ShardRows(cache.path / name, lines, len(listing))
            check_images(cache.path / name, lines, listing)
        except CorruptCacheError as error:
            problems.append(error.parts)
    widths = {lines[0].facts.shape[-1] for name, lines in cache.shards.items() if _is_joint(name)}
    widths |= {line.facts.shape[-1] for line in cache.texts[-1:]}
    if len(widths) > 1:
        what = (
            f"Components of {cache.path} have different widths: "
            f"{', '.join(map(str, sorted(widths)))}. They come from different models: remove "
            f"this cache with `featcache rm` and extract again."
        )
        problems.append(what)
    return problems


def _is_joint(component: str) -> bool:
    """Tell whether the last axis of a component is the joint space itself."""
    key = parse_component(component)
    return key.kind != "boxes" and key.dtype != "int8"


def say_lost(path: Path) -> list[Part]:
    """Say what earlier repairs took out and nobody encoded again."""
    try:
        cache = Cache.open(path)
        lost = cache.lost()
    except FeatcacheError:
        return []  # which is a problem of its own
    again = "put back" if cache.cure else "encoded again"
    return [
        (
            f"{sum(map(len, losses))} rows of {path / component} were lost to damage "
            f"and not {again}. ",
            cache.cure or "Run `featcache repair`.",
        )
        for component, losses in lost.items()
    ]


def strangers(path: Path, known: Collection[tuple[str, str]]) -> tuple[str, ...]:
    """Name what lies in the cache and belongs to nothing."""
    found = []
    for entry in sorted(path.iterdir()):
        if entry.is_symlink() or not entry.is_dir():
            found += [] if entry.name in OWN else [entry]
        elif entry.name != LISTING:
            found += [p for p in sorted(entry.iterdir()) if (entry.name, p.name) not in known]
    notes = [
        f"{entry} is in no line of the manifest; `featcache repair` takes it up if it belongs here."
        for entry in found[:NOTED]
    ]
    if len(found) > NOTED:
        notes.append(f"{len(found) - NOTED} more files are in no line of the manifest.")
    return tuple(notes)
