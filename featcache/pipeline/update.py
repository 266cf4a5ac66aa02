"""Bringing a locked cache up to date: its listing, then its texts, then its rows."""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from jaxtyping import Int64

from featcache.backbones.devices import has_bf16_units
from featcache.encoding.encoder import Encoder, unwatched
from featcache.errors import CacheError, CorruptCacheError
from featcache.imaging.decode import pixel_limit
from featcache.paths import expand
from featcache.pipeline.extraction import Extraction
from featcache.pipeline.filler import Filler
from featcache.pipeline.last_block import put_last_block
from featcache.pipeline.plan import Plan, admit, plans_for
from featcache.pipeline.setup import Setup, set_up
from featcache.pipeline.summary import Summary, to_encode
from featcache.pipeline.texts import missing_texts, say_lacking, write_texts
from featcache.pipeline.timeline import STAGES, UNTIMED, Timeline, verdict
from featcache.pipeline.unreadable import (
    readable_now,
    refuse_all,
    refuse_any,
    unreadable_images,
)
from featcache.store.cache import Cache
from featcache.store.format.files import is_full
from featcache.store.format.identity import TRACE
from featcache.store.repair.examine import add_sums
from featcache.threads import cpu_cores
from featcache.units import human_bytes
from featcache.wording import Part


def update(extraction: Extraction, cache: Cache) -> Summary:
    """Add the images, texts and rows that a cache lacks.

    Args:
        extraction: What is extracted.
        cache: Its cache, locked by the caller.

    Raises:
        SourceError: If the images are not those that were cached, or too many are unreadable.
        UsageError: If the compute type or the micro-batch is not that of the cache.
        CacheError: If the disk is too small, or the features differ from those that are stored.
    """
    start = time.perf_counter()
    setup = set_up(extraction, cache, keep_known=True)
    with extraction.stage("list"):
        cache.put_listing(setup.listing)
    return _Update(extraction, cache, setup, start).run()


class _Update:
    """Texts and passes over one cache whose listing is up to date."""

    def __init__(self, extraction: Extraction, cache: Cache, setup: Setup, start: float) -> None:
        request = extraction.request
        self._extraction, self._request = extraction, request
        self._cache, self._setup, self._start = cache, setup, start
        self._max_pixels = pixel_limit(request.max_pixels)
        self._timeline = Timeline() if request.profile else None
        watch = unwatched if self._timeline is None else self._timeline.watch
        self._sources = setup.sources()
        self._filler = Filler(
            cache=cache,
            encoder=Encoder(setup.backbone, setup.micro_batch, watch),
            sources=self._sources,
            settings=setup.settings,
            max_pixels=self._max_pixels,
            weights=request.weights_anywhere(),
            strict=request.strict,
            allow_bad=request.allow_bad,
            progress=extraction.progress,
            say=extraction.say,
            watch=watch,
        )

    def run(self) -> Summary:
        request, cache, setup = self._request, self._cache, self._setup
        readable = self._readable()
        if request.strict:
            refuse_any(cache, self._sources, readable=readable)
        # Known unreadable images count as usable at first, as in a pass that does not know them:
        # an interrupted pass that is continued then leaves the same bytes as an undisturbed one.
        first = setup.plan(around_bad=False)
        say_lacking(cache, setup.backbone, self._extraction.say)
        texts = missing_texts(cache, setup.dataset, setup.backbone)
        self._extraction.say(to_encode(first, texts))
        admit(first, cache.path, yes=request.yes, confirm=self._extraction.confirm)
        if texts is not None:
            with self._extraction.stage("text"):
                write_texts(
                    cache,
                    setup.dataset,
                    setup.backbone,
                    report=self._extraction.report,
                    say=self._extraction.say,
                )
        components = [*cache.shards, *(spec.name for spec in setup.specs)]
        put_last_block(cache, setup.backbone, components)
        with self._extraction.stage("pass"):
            self._encode(first, readable)
        refuse_all(cache, self._sources)
        is_complete = not len(setup.plan(limited=False).rows)
        with self._ignoring_full_disk(changed=bool(self._filler.outcomes) or texts is not None):
            cache.finish(
                components=[spec.name for spec in setup.specs],
                images=len(setup.dataset.samples),
                seconds=time.perf_counter() - self._start,
                complete=is_complete,
            )
        self._add_sums()
        return self._summary(first, texts, is_complete=is_complete)

    def _encode(self, first: Plan, readable: frozenset[int]) -> None:
        """Encode images that can be read again, then what was planned, then replacements."""
        for plan in plans_for(self._components_of(readable), self._setup.backbone):
            self._filler.encode(plan, mended=frozenset(plan.rows.tolist()))
        self._filler.encode(first)
        # A draw replaces images that turned out unreadable by others, whose views are missing yet.
        while len((plan := self._setup.plan()).rows):
            self._filler.encode(plan)

    def _readable(self) -> frozenset[int]:
        """Return the rows whose image could not be read before and can be now."""
        readable = readable_now(
            [row for row in self._cache.bad_rows() if row in self._sources],
            self._sources,
            self._filler.encoder.preprocess,
            threads=cpu_cores(),
            max_pixels=self._max_pixels,
            report=self._extraction.report,
        )
        if readable:
            self._extraction.say(
                f"{len(readable)} images that could not be read before can be read now."
            )
        return readable

    def _components_of(self, readable: frozenset[int]) -> dict[str, list[Int64[np.ndarray, " r"]]]:
        """Return component -> those of the rows that it marks as unreadable."""
        if not readable:
            return {}
        rows = np.array(sorted(readable), dtype=np.int64)
        cache = self._cache
        return {name: [rows[cache.rows(name).bad()[rows]]] for name in cache.shards}

    @contextmanager
    def _ignoring_full_disk(self, *, changed: bool) -> Iterator[None]:
        """Let a full disk not fail a pass that had nothing to do; only its time is lost."""
        passes = self._cache.passes
        was_complete = bool(passes) and passes[-1].complete
        try:
            yield
        except CacheError as error:
            if changed or not was_complete or not is_full(error):
                raise
            self._extraction.say(
                f"The disk of {self._cache.path} is full, so the time of this pass was not noted; "
                f"nothing else was left to do."
            )

    def _add_sums(self) -> None:
        """Add checksums of rows to shards of earlier versions, or of a killed pass.

        Raises:
            CorruptCacheError: If one of these shards is damaged.
        """
        added = add_sums(self._cache, self._extraction.report)
        if added.shards:
            self._extraction.say(
                f"Added checksums of rows to {added.shards} shards that had none, after reading "
                f"{human_bytes(added.bytes)}."
            )
        for why in (*added.refused, *added.damaged[1:]):
            self._extraction.say(why)
        if added.damaged:
            raise CorruptCacheError(added.damaged[0])

    def _summary(
        self, first: Plan, texts: Mapping[str, int] | None, *, is_complete: bool
    ) -> Summary:
        setup, seconds = self._setup, self._extraction.seconds
        outcomes = self._filler.outcomes
        for outcome in outcomes:
            for stage, spent in outcome.seconds.items():
                seconds[stage] = seconds.get(stage, 0.0) + spent
        passed = sum(o.images for o in outcomes)
        profile, advice = self._profiled(passed)
        return Summary(
            dataset=setup.dataset.name,
            backbone=setup.backbone.name,
            key=setup.backbone.key.digest(),
            path=self._cache.path,
            images=len(setup.dataset.samples),
            encoded=self._filler.encoded,
            held=first.held,
            passed=passed,
            bad=unreadable_images(self._cache, self._sources),
            seconds=seconds,
            images_per_s=passed / seconds["pass"] if passed else None,
            bytes=sum(o.bytes for o in outcomes),
            complete=is_complete,
            texts=texts,
            profile=profile,
            verdict=advice,
            notes=setup.listing.notes,
        )

    def _profiled(self, passed: int) -> tuple[Path | None, Part]:
        """Write the requested timeline; return its path and the advice that follows from it."""
        if self._timeline is None:
            return None, ""
        if not any(self._timeline.count.values()):  # the file of an earlier pass stays
            return None, UNTIMED
        asked, folder = self._request.profile, self._cache.path
        path = expand(asked) if isinstance(asked, Path) else folder.with_name(folder.name + TRACE)
        self._timeline.write(path)
        seconds, backbone = self._extraction.seconds, self._setup.backbone
        return path, verdict(
            busy=self._timeline.busy,
            waited={stage: seconds.get(stage, 0.0) for stage in STAGES},
            seconds=seconds.get("total", 0.0),
            cpu=seconds.get("cpu", 0.0),
            images=passed,
            cores=cpu_cores(),
            device=backbone.device.type,
            compute=str(backbone.compute_dtype).removeprefix("torch."),
            has_bf16=has_bf16_units(backbone.device),
            batches=self._timeline.count["encode"],
            compile_s=backbone.compile_s,
        )
