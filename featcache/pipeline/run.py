"""A whole extraction: data set, backbone, cache, texts, and the pass over what is missing."""

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Int64

from featcache.backbones.base import Backbone
from featcache.backbones.devices import has_bf16_units
from featcache.backbones.registry import load_backbone
from featcache.caution import caution
from featcache.encoding.components import ComponentSpec, component_specs, merge_counts
from featcache.encoding.encoder import Encoder, unwatched
from featcache.errors import CacheError, CorruptCacheError, SourceError
from featcache.imaging.decode import pixel_limit
from featcache.imaging.loader import FileSource, file_sources
from featcache.imaging.windows import Preprocess
from featcache.keys import Listing
from featcache.paths import as_text, expand
from featcache.pipeline.compatibility import PassSettings, as_before, micro_batch_of
from featcache.pipeline.opening import Opened, open_request
from featcache.pipeline.passes import Filler, Progress
from featcache.pipeline.plan import Plan, admit, make_plan, plans_for
from featcache.pipeline.request import Request
from featcache.pipeline.retry import readable_now
from featcache.pipeline.summary import Summary, listed, to_encode
from featcache.pipeline.texts import missing_texts, write_texts
from featcache.pipeline.timeline import STAGES, UNTIMED, Timeline, verdict
from featcache.sources.base import Dataset, Report
from featcache.sources.listing import build_listing, check_root
from featcache.store.cache import Cache
from featcache.store.format.files import is_full
from featcache.store.format.identity import KEY_FILE, KNOWN_HASHES, TRACE, Identity
from featcache.store.library import cache_root, image_roots, with_root
from featcache.store.repair.examine import add_sums
from featcache.text.encode import keep_own_texts, with_texts
from featcache.threads import cpu_cores
from featcache.units import human_bytes

__all__ = ["Progress", "Request", "Summary", "extract"]


def extract(
    request: Request | Opened,
    *,
    progress: Callable[[Progress], None] | None = None,
    say: Callable[[str], None] | None = None,
    confirm: Callable[[Plan], bool] | None = None,
) -> Summary:
    """Encode what the cache of a data set and a backbone lacks.

    Args:
        request: What is asked for, opened already or not.
        progress: Called several times a second.
        say: Called with sentences that the user should read.
        confirm: Asked before more than 20 GB are written; without it `yes` decides.

    Raises:
        FeatcacheError: If anything a user can cause stands in the way.
        KeyboardInterrupt: As it came; finished shards stay.
    """
    say = say or (lambda _: None)
    opened = request
    if isinstance(opened, Request):
        opened = open_request(opened, report=reported(progress), say=say)
    return _Extraction(opened, progress, say, confirm).run()


def reported(progress: Callable[[Progress], None] | None) -> Report:
    """Return a reporter of (what is being done, done so far, of how many)."""

    def report(what: str, done: int, total: int) -> None:
        if progress is not None:
            progress(Progress(stage=what, done=done, total=total))

    return report


class _Extraction:
    """One call of `extract`, step by step."""

    def __init__(
        self,
        opened: Opened,
        progress: Callable[[Progress], None] | None,
        say: Callable[[str], None],
        confirm: Callable[[Plan], bool] | None,
    ) -> None:
        request = opened.request
        self._request, self._opened = request, opened
        self._progress = progress
        self._say = say
        self._confirm = confirm
        self._report = reported(progress)
        self._seconds: dict[str, float] = {"list": opened.seconds}
        self._max_pixels = pixel_limit(request.max_pixels)
        self._timeline = Timeline() if request.profile else None

    def run(self) -> Summary:
        request = self._request
        root = cache_root(request.root)
        dataset = with_texts(
            self._opened.dataset,
            templates=request.templates,
            descriptions=request.descriptions,
            cupl=request.cupl,
            dclip=request.dclip,
            waffle=request.waffle,
        )
        roots = image_roots(root, dataset.name)
        if roots and as_text(dataset.root) not in roots:
            check_root(dataset, roots[0], moved=request.moved)
        with self._stage("load"):
            backbone = self._load(request.compute)
        specs, notes = component_specs(
            backbone,
            patches=request.patches,
            views=request.views,
            crops=request.crops,
            view_patches=request.view_patches,
            seed=request.seed,
        )
        if note := caution(backbone.key, as_text(dataset.root)):
            self._say(note)
        for note in notes:
            self._say(note)
        path = Identity(dataset.name, backbone.name, backbone.key).folder(root)
        if request.dry_run:
            return self._forecast(path, dataset, backbone, specs, writable=True)
        if (path / KEY_FILE).exists() and not os.access(path, os.W_OK):
            return self._read_only(
                path, dataset, self._forecast(path, dataset, backbone, specs, writable=False)
            )
        cache = Cache.create(root, dataset.name, backbone.name, backbone.key)
        with cache.lock():
            for note in cache.notes:
                self._say(note)
            return self._fill(cache, dataset, backbone, specs)

    def _forecast(
        self,
        path: Path,
        dataset: Dataset,
        backbone: Backbone,
        specs: Sequence[ComponentSpec],
        *,
        writable: bool,
    ) -> Summary:
        """Plan without leaving a trace in the cache; room is only needed where one can write."""
        cache = Cache.open(path) if (path / KEY_FILE).exists() else None
        specs = self._settled(specs, backbone, cache)
        previous = None if cache is None else cache.listing()
        dataset = keep_own_texts(dataset, previous)
        listing = self._listed(path, dataset, previous, keep_known=False)
        settings = None if cache is None else PassSettings.of(cache)
        plan = self._plan(
            None if previous is None else cache,
            listing,
            as_before(backbone, settings, self._request.compute, self._load),
            specs,
            micro_batch_of(backbone, settings, self._request.micro_batch),
        )
        for note in (listed(listing), *listing.notes):
            self._say(note)
        if writable:
            admit(plan, path, yes=True, confirm=None)
        texts = self._missing_texts(cache, dataset, backbone)
        self._seconds["forecast"] = plan.seconds
        return Summary(
            dataset=dataset.name,
            backbone=backbone.name,
            key=backbone.key.digest(),
            path=path,
            images=len(dataset.samples),
            encoded={t.spec.name: len(t.rows) for t in plan.todos},
            held=plan.held,
            seconds=self._seconds,
            bytes=plan.bytes,
            component_bytes=plan.component_bytes,
            dry_run=True,
            texts=texts,
            notes=listing.notes,
        )

    def _read_only(self, path: Path, dataset: Dataset, forecast: Summary) -> Summary:
        """Accept a cache that cannot be written where nothing is missing.

        Raises:
            CacheError: If something is.
            SourceError: If no image could be read, or with `strict` if one could not.
        """
        if missing := forecast.missing():
            raise CacheError(
                f"{path} lacks {missing} and cannot be written. Make it writable, or copy it to "
                f"another folder and name that with --cache."
            )
        cache = Cache.open(path)
        listing = cache.listing()
        places = {s.id: s.place for s in dataset.samples}
        sources = {} if listing is None else file_sources(listing.ids, listing.hashes, places)
        self._be_strict(cache.bad_rows(), sources, {})
        _refuse_all_bad(cache, sources)
        return replace(
            forecast,
            bad=_known_bad(cache, sources),
            dry_run=False,
            complete=self._request.limit is None,
            texts=None,
            verdict=UNTIMED if self._request.profile else "",
        )

    def _fill(
        self, cache: Cache, dataset: Dataset, backbone: Backbone, specs: Sequence[ComponentSpec]
    ) -> Summary:
        """Bring listing, texts and rows of a locked cache up to date."""
        start = time.perf_counter()
        specs = self._settled(specs, backbone, cache)
        with self._stage("list"):
            previous = cache.listing()
            dataset = keep_own_texts(dataset, previous)
            listing = self._listed(cache.path, dataset, previous)
            cache.put_listing(listing)
        for note in (listed(listing), *listing.notes):
            self._say(note)
        settings = PassSettings.of(cache)
        backbone = as_before(backbone, settings, self._request.compute, self._load)
        micro_batch = micro_batch_of(backbone, settings, self._request.micro_batch)
        places = {s.id: s.place for s in dataset.samples}
        sources = file_sources(listing.ids, listing.hashes, places)
        watch = unwatched if self._timeline is None else self._timeline.watch
        encoder = Encoder(backbone, micro_batch, watch)
        filler = Filler(
            cache=cache,
            encoder=encoder,
            sources=sources,
            settings=settings,
            max_pixels=self._max_pixels,
            weights=self._request.weights_anywhere(),
            strict=self._request.strict,
            allow_bad=self._request.allow_bad,
            progress=self._progress,
            say=self._say,
            watch=watch,
        )
        mended = self._mended(cache, sources, encoder.preprocess)
        self._be_strict(cache.bad_rows(), sources, mended)
        # Images known to be unreadable are drawn at first, as in a pass that does not know it yet:
        # a pass that was killed and taken up again then leaves the same bytes as one that was not.
        plan = first = self._plan(cache, listing, backbone, specs, micro_batch, around_bad=False)
        texts = self._missing_texts(cache, dataset, backbone)
        self._say(to_encode(plan, texts))
        admit(plan, cache.path, yes=self._request.yes, confirm=self._confirm)
        if texts is not None:
            with self._stage("text"):
                write_texts(cache, dataset, backbone, report=self._report, say=self._say)
        with self._stage("pass"):
            for again in plans_for(mended, backbone):
                filler.encode(again, mended=frozenset(again.rows.tolist()))
            filler.encode(plan)
            # Draws step around images that turned out unreadable: their stand-ins need views.
            while len((plan := self._plan(cache, listing, backbone, specs, micro_batch)).rows):
                filler.encode(plan)
        _refuse_all_bad(cache, sources)
        whole = self._plan(cache, listing, backbone, specs, micro_batch, limited=False)
        with self._note_of_the_end(cache, changed=bool(filler.outcomes) or texts is not None):
            cache.finish(
                components=[spec.name for spec in specs],
                images=len(dataset.samples),
                seconds=time.perf_counter() - start,
                complete=not len(whole.rows),
            )
        self._add_sums(cache)
        outcomes = filler.outcomes
        for outcome in outcomes:
            for stage, seconds in outcome.seconds.items():
                self._seconds[stage] = self._seconds.get(stage, 0.0) + seconds
        passed = sum(o.images for o in outcomes)
        profile, advice = self._profiled(cache.path, backbone, passed)
        return Summary(
            dataset=dataset.name,
            backbone=backbone.name,
            key=backbone.key.digest(),
            path=cache.path,
            images=len(dataset.samples),
            encoded=filler.encoded,
            held=first.held,
            passed=passed,
            bad=_known_bad(cache, sources),
            seconds=self._seconds,
            images_per_s=passed / self._seconds["pass"] if passed else None,
            bytes=sum(o.bytes for o in outcomes),
            complete=not len(whole.rows),
            texts=texts,
            profile=profile,
            verdict=advice,
            notes=listing.notes,
        )

    def _listed(
        self, path: Path, dataset: Dataset, previous: Listing | None, *, keep_known: bool = True
    ) -> Listing:
        before = "" if previous is None else with_root(path.parent.parent, previous.root)
        return build_listing(
            dataset,
            previous,
            moved=self._request.moved or before == as_text(dataset.root),
            known=path.parent / KNOWN_HASHES,  # serves the caches of all backbones
            keep_known=keep_known,
            rehash=self._request.rehash,
            ignore_inode=self._request.ignore_inode,
            report=self._report,
            say=self._say,
        )

    @contextmanager
    def _note_of_the_end(self, cache: Cache, *, changed: bool) -> Iterator[None]:
        """Let a full disk not spoil a pass that found everything there; only its time is lost."""
        was_complete = bool(cache.passes) and cache.passes[-1].complete
        try:
            yield
        except CacheError as error:
            if changed or not was_complete or not is_full(error):
                raise
            self._say(
                f"The disk of {cache.path} is full, so the time of this pass was not noted; "
                f"nothing else was left to do."
            )

    def _add_sums(self, cache: Cache) -> None:
        """Put checksums of rows beside shards of earlier versions, or of a pass that was killed.

        Raises:
            CorruptCacheError: If one of these shards is damaged: its rows are not there.
        """
        added = add_sums(cache, self._report)
        if added.shards:
            self._say(
                f"Added checksums of rows to {added.shards} shards that had none, after reading "
                f"{human_bytes(added.bytes)}."
            )
        for why in (*added.refused, *added.damaged[1:]):
            self._say(why)
        if added.damaged:
            raise CorruptCacheError(added.damaged[0])

    def _profiled(self, cache: Path, backbone: Backbone, passed: int) -> tuple[Path | None, str]:
        """Write the timeline, if one was asked for; return where, and what it says."""
        if self._timeline is None:
            return None, ""
        if not any(self._timeline.count.values()):  # the file of an earlier pass stays
            return None, UNTIMED
        asked = self._request.profile
        path = expand(asked) if isinstance(asked, Path) else cache.with_name(cache.name + TRACE)
        self._timeline.write(path)
        return path, verdict(
            busy=self._timeline.busy,
            waited={stage: self._seconds.get(stage, 0.0) for stage in STAGES},
            seconds=self._seconds.get("total", 0.0),
            cpu=self._seconds.get("cpu", 0.0),
            images=passed,
            cores=cpu_cores(),
            device=backbone.device.type,
            compute=str(backbone.compute_dtype).removeprefix("torch."),
            has_bf16=has_bf16_units(backbone.device),
            batches=self._timeline.count["encode"],
            compile_s=backbone.compile_s,
        )

    def _settled(
        self, specs: Sequence[ComponentSpec], backbone: Backbone, cache: Cache | None
    ) -> tuple[ComponentSpec, ...]:
        settled, notes = merge_counts(specs, backbone, () if cache is None else cache.shards)
        for note in notes:
            self._say(note)
        return settled

    def _mended(
        self, cache: Cache, sources: Mapping[int, FileSource], preprocess: Preprocess
    ) -> dict[str, list[Int64[np.ndarray, " r"]]]:
        """Find images that could not be read before and can be now: their rows, by component."""
        readable = readable_now(
            [row for row in cache.bad_rows() if row in sources],
            sources,
            preprocess,
            threads=cpu_cores(),
            max_pixels=self._max_pixels,
            report=self._report,
        )
        if not readable:
            return {}
        self._say(f"{len(readable)} images that could not be read before can be read now.")
        rows = np.array(sorted(readable), dtype=np.int64)
        return {name: [rows[cache.rows(name).bad()[rows]]] for name in cache.shards}

    def _be_strict(
        self,
        bad: Mapping[int, str],
        sources: Mapping[int, FileSource],
        mended: Mapping[str, Sequence[Int64[np.ndarray, " _"]]],
    ) -> None:
        again = {int(row) for parts in mended.values() for rows in parts for row in rows}
        left = [row for row in bad if row in sources and row not in again]
        if self._request.strict and left:
            raise SourceError(
                f"{sources[left[0]].id} {bad[left[0]]}; {len(left)} images of this cache could not "
                f"be read. Without --strict they are skipped."
            )

    def _missing_texts(
        self, cache: Cache | None, dataset: Dataset, backbone: Backbone
    ) -> dict[str, int] | None:
        """Count the texts that a cache lacks, and say so where they cannot be encoded here."""
        if backbone.lacks_texts is not None and (cache is None or cache.text_line is None):
            self._say(str(backbone.lacks_texts))
        return missing_texts(cache, dataset, backbone)

    def _load(self, compute: str) -> Backbone:
        request = self._request
        return load_backbone(
            self._opened.backbone,
            weights=request.weights,
            device=request.device,
            compute=compute,
            compiled=request.compiled,
            tokenizer=request.tokenizer,
            image_size=request.image_size,
        )

    def _plan(
        self,
        cache: Cache | None,
        listing: Listing,
        backbone: Backbone,
        specs: Sequence[ComponentSpec],
        micro_batch: int,
        *,
        limited: bool = True,
        around_bad: bool = True,
    ) -> Plan:
        nothing = np.zeros(len(listing), dtype=bool)

        def covered(component: str) -> Bool[np.ndarray, " n"]:
            have = nothing if cache is None else cache.covered(component)
            return np.concatenate([have, nothing[len(have) :]])  # a forecast may list new images

        usable = ~nothing
        if cache is not None and around_bad:
            usable[list(cache.bad_rows())] = False
        return make_plan(
            listing,
            backbone,
            specs,
            covered=covered,
            micro_batch=micro_batch,
            usable=usable,
            limit=self._request.limit if limited else None,
        )

    @contextmanager
    def _stage(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self._seconds[name] = self._seconds.get(name, 0.0) + time.perf_counter() - start


def _known_bad(cache: Cache, sources: Mapping[int, FileSource]) -> tuple[tuple[str, str], ...]:
    """Return (image, reason) for those of the data set that could not be read."""
    return tuple((sources[r].id, why) for r, why in cache.bad_rows().items() if r in sources)


def _refuse_all_bad(cache: Cache, sources: Mapping[int, FileSource]) -> None:
    """Fail where images were read and not one of them could be: such features serve nobody.

    Raises:
        SourceError: If so.
    """
    bad = {row: why for row, why in cache.bad_rows().items() if row in sources}
    rows = np.array(sorted(sources), dtype=np.int64)
    if bad and not cache.covered("global", retry_bad=True)[rows].any():
        first, why = next(iter(bad.items()))
        raise SourceError(
            f"None of the {len(bad)} images could be read (first: {sources[first].id} {why}). "
            f"Repair them and run the same command again."
        )
