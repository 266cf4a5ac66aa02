"""Consistency checks between the parts of a cache: listing, shards, texts, files."""

import os
from collections.abc import Collection
from pathlib import Path

from featcache.errors import CorruptCacheError, FeatcacheError
from featcache.keys import parse_component
from featcache.store.cache import Cache
from featcache.store.format.identity import KEY_FILE, LAST_BLOCK_FILE, LISTING, MANIFEST
from featcache.store.lock import OWNER, is_locked
from featcache.store.rows import ShardRows, check_images
from featcache.store.settle import LOCK
from featcache.wording import Part

CACHE_FILES = frozenset({KEY_FILE, MANIFEST, LAST_BLOCK_FILE, LOCK, OWNER})
"""Files directly in the folder of a cache."""
NOTED = 20
"""Most files without a record that are named; further ones are counted."""


def check_consistency(cache: Cache, *, report_listing: bool) -> list[Part]:
    """Check that listing, shards and texts are consistent.

    Args:
        cache: Open cache.
        report_listing: Whether to report errors of the listing; False if already reported.

    Returns:
        One message per problem.
    """
    problems: list[Part] = []
    listing = None
    try:
        listing = cache.listing()
        if listing is None and report_listing:
            again = cache.cure or "Run the same `featcache extract` command again."
            problems.append((f"{cache.path} has no listing yet. ", again))
    except FeatcacheError as error:
        if report_listing:
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
    """Tell whether the last axis of a component is the joint space."""
    key = parse_component(component)
    return key.kind not in ("boxes", "tokens") and key.dtype != "int8"


def last_block_fault(cache: Cache) -> FeatcacheError | None:
    """Return the fault of the stored last block; None if it is sound, or there is none."""
    if not os.path.lexists(cache.path / LAST_BLOCK_FILE):
        return None
    try:
        cache.last_block()
    except FeatcacheError as error:
        return error
    return None


def lost_messages(path: Path) -> list[Part]:
    """Report rows, or a last block, that were dropped as damaged and not restored yet."""
    try:
        cache = Cache.open(path)
        lost = cache.lost()
    except FeatcacheError:
        return []  # reported elsewhere
    again = "put back" if cache.cure else "encoded again"
    block: list[Part] = []
    if cache.lacks_last_block():
        block.append(
            f"{cache.path} holds tokens without the weights of the last block. Run "
            f"`featcache repair`, which takes them from the backbone again."
        )
    return block + [
        (
            f"{sum(map(len, losses))} rows of {path / component} were lost to damage "
            f"and not {again}. ",
            cache.cure or "Run `featcache repair`.",
        )
        for component, losses in lost.items()
    ]


def files_without_record(path: Path, known: Collection[tuple[str, str]]) -> tuple[str, ...]:
    """Report files in the cache that no record mentions.

    Args:
        path: Folder of the cache.
        known: (component, file) of all files with a record.
    """
    unknown = []
    for entry in sorted(path.iterdir()):
        if entry.is_symlink() or not entry.is_dir():
            unknown += [] if entry.name in CACHE_FILES else [entry]
        elif entry.name != LISTING:
            unknown += [p for p in sorted(entry.iterdir()) if (entry.name, p.name) not in known]
    notes = [
        f"{entry} is in no line of the manifest; `featcache repair` takes it up if it belongs here."
        for entry in unknown[:NOTED]
    ]
    if len(unknown) > NOTED:
        notes.append(f"{len(unknown) - NOTED} more files are in no line of the manifest.")
    return tuple(notes)
