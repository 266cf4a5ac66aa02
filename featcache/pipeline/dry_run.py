"""Extractions that write nothing: dry runs, and complete caches that cannot be written."""

from dataclasses import replace

from featcache.errors import CacheError
from featcache.pipeline.extraction import Extraction
from featcache.pipeline.plan import Plan, admit
from featcache.pipeline.setup import Setup, set_up
from featcache.pipeline.summary import Summary
from featcache.pipeline.texts import missing_texts, say_lacking
from featcache.pipeline.timeline import UNTIMED
from featcache.pipeline.unreadable import refuse_all, refuse_any, unreadable_images
from featcache.store.cache import Cache
from featcache.store.format.identity import KEY_FILE
from featcache.wording import Argument


def forecast(extraction: Extraction) -> Summary:
    """Predict what an extraction would encode and write.

    Raises:
        CacheError: If the disk is too small.
    """
    setup = _set_up(extraction)
    plan = setup.plan()
    admit(plan, extraction.path, yes=True, confirm=None)
    return _predicted(extraction, setup, plan)


def read_only(extraction: Extraction) -> Summary:
    """Return the summary of a cache that cannot be written and lacks nothing.

    Raises:
        CacheError: If something is missing.
        SourceError: If no image could be read, or one could not and the request is strict.
    """
    request, path = extraction.request, extraction.path
    setup = _set_up(extraction)
    predicted = _predicted(extraction, setup, setup.plan())
    if missing := predicted.missing():
        raise CacheError(
            f"{path} lacks {missing} and cannot be written. Make it writable, or copy it to "
            "another folder and name that with ",
            Argument("root"),
            ".",
        )
    cache = Cache.open(path)
    if any(spec.key.kind == "tokens" for spec in setup.specs):
        cache.last_block()  # refuses a missing one
    sources = setup.sources()
    if request.strict:
        refuse_any(cache, sources)
    refuse_all(cache, sources)
    return replace(
        predicted,
        bad=unreadable_images(cache, sources),
        dry_run=False,
        complete=request.limit is None,
        texts=None,
        verdict=UNTIMED if request.profile else "",
    )


def _set_up(extraction: Extraction) -> Setup:
    path = extraction.path
    cache = Cache.open(path) if (path / KEY_FILE).exists() else None
    if cache is not None and cache.listing() is None:  # interrupted before its first row
        cache = None
    return set_up(extraction, cache, keep_known=False)


def _predicted(extraction: Extraction, setup: Setup, plan: Plan) -> Summary:
    extraction.seconds["forecast"] = plan.seconds
    say_lacking(setup.cache, setup.backbone, extraction.say)
    return Summary(
        dataset=setup.dataset.name,
        backbone=setup.backbone.name,
        key=setup.backbone.key.digest(),
        path=extraction.path,
        images=len(setup.dataset.samples),
        encoded={t.spec.name: len(t.rows) for t in plan.todos},
        held=plan.held,
        seconds=extraction.seconds,
        bytes=plan.bytes,
        component_bytes=plan.component_bytes,
        dry_run=True,
        texts=missing_texts(setup.cache, setup.dataset, setup.backbone),
        notes=setup.listing.notes,
    )
