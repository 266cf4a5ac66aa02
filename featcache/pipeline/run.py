"""Extraction: from a request to a cache that holds what was requested."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from featcache.pipeline.dry_run import forecast, read_only
from featcache.pipeline.extraction import Extraction, prepare
from featcache.pipeline.opening import NOTHING_STORED, Opened, open_request
from featcache.pipeline.plan import Plan
from featcache.pipeline.progress import Progress, reporter
from featcache.pipeline.request import Request
from featcache.pipeline.summary import Summary
from featcache.pipeline.update import update
from featcache.store.cache import Cache
from featcache.store.format.files import is_temporary
from featcache.store.format.identity import KEY_FILE
from featcache.store.format.records import TEXT_PREFIX
from featcache.wording import Part

__all__ = ["Progress", "Request", "Summary", "extract"]

KEPT = "Finished shards are kept; the same command goes on from there."


def extract(
    request: Request | Opened,
    *,
    progress: Callable[[Progress], None] | None = None,
    say: Callable[[Part], None] | None = None,
    confirm: Callable[[Plan], bool] | None = None,
) -> Summary:
    """Encode what the cache of a data set and a backbone lacks.

    Args:
        request: What is requested, opened already or not.
        progress: Called several times a second.
        say: Called with sentences that the user should read.
        confirm: Asked before more than 20 GB are written; without it `yes` decides.

    Raises:
        FeatcacheError: If the request cannot be met; the message says what to do.
        KeyboardInterrupt: If the user interrupts; finished shards stay, and a note says whether
            there are any.
    """
    say = say or (lambda _: None)
    if isinstance(request, Request):
        request = open_request(request, report=reporter(progress), say=say)
    with _telling_what_is_kept(dry_run=request.request.dry_run) as kept:
        extraction = prepare(request, progress=progress, say=say, confirm=confirm)
        kept.append(extraction.path)
        return _extract(extraction, say)


def _extract(extraction: Extraction, say: Callable[[Part], None]) -> Summary:
    path = extraction.path
    if extraction.request.dry_run:
        return forecast(extraction)
    if (path / KEY_FILE).exists() and not os.access(path, os.W_OK):
        return read_only(extraction)
    dataset, backbone = extraction.dataset, extraction.backbone
    cache = Cache.create(extraction.root, dataset.name, backbone.name, backbone.key)
    with cache.lock():
        for note in cache.notes:
            say(note)
        return update(extraction, cache)


@contextmanager
def _telling_what_is_kept(*, dry_run: bool) -> Iterator[list[Path]]:
    """Add a note to an interruption: whether the cache, put into the list, holds a shard."""
    path: list[Path] = []
    try:
        yield path
    except KeyboardInterrupt as error:
        if not dry_run:
            stored = any(_is_shard(file) for folder in path for file in folder.glob("*/*.h5"))
            error.add_note(KEPT if stored else NOTHING_STORED)
        raise


def _is_shard(file: Path) -> bool:
    return not is_temporary(file) and not file.parent.name.startswith(TEXT_PREFIX)
