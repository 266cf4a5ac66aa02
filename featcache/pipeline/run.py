"""Extraction: from a request to a cache that holds what was requested."""

import os
from collections.abc import Callable

from featcache.pipeline.dry_run import forecast, read_only
from featcache.pipeline.extraction import prepare
from featcache.pipeline.opening import Opened, open_request
from featcache.pipeline.plan import Plan
from featcache.pipeline.progress import Progress, reporter
from featcache.pipeline.request import Request
from featcache.pipeline.summary import Summary
from featcache.pipeline.update import update
from featcache.store.cache import Cache
from featcache.store.format.identity import KEY_FILE
from featcache.wording import Part

__all__ = ["Progress", "Request", "Summary", "extract"]


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
        KeyboardInterrupt: If the user interrupts; finished shards stay.
    """
    say = say or (lambda _: None)
    if isinstance(request, Request):
        request = open_request(request, report=reporter(progress), say=say)
    extraction = prepare(request, progress=progress, say=say, confirm=confirm)
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
