"""A whole extraction: data set, backbone, cache, texts, and the pass over what is missing."""

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from jaxtyping import Bool

from featcache.backbones.base import Backbone
from featcache.backbones.names import choose
from featcache.backbones.registry import load_backbone
from featcache.errors import UsageError
from featcache.keys import Listing
from featcache.pipeline.decode import pixel_limit
from featcache.pipeline.encode import Encoder, micro_batch_for
from featcache.pipeline.passes import Options, Pass, Progress, Source, sources_of
from featcache.pipeline.plan import Ask, Plan, admit, asks_for, cpu_cores, make_plan
from featcache.pipeline.recheck import encode_again, readable_now
from featcache.pipeline.request import Request
from featcache.pipeline.settings import (
    LARGEST_BATCH,
    PassSettings,
    check_same_numbers,
    environment,
    sample_rows,
)
from featcache.pipeline.summary import Summary
from featcache.pipeline.views import Preprocess
from featcache.sources.base import Dataset
from featcache.sources.listing import build_listing, check_root
from featcache.sources.named import datasets
from featcache.sources.registry import open_dataset
from featcache.store.cache import Cache
from featcache.store.identity import KEY_FILE, Identity
from featcache.store.library import cache_root, image_roots
from featcache.text.encode import encode_texts, keep_own_texts, texts_of, with_texts

__all__ = ["Progress", "Request", "Summary", "extract"]

COMPUTE = {"float32": "fp32", "bfloat16": "bf16"}
"""torch's name of a compute type -> the user's."""

KNOWN_HASHES = "hashes.tsv"
"""File in the cache that remembers which files were hashed."""


def extract(
    request: Request,
    *,
    progress: Callable[[Progress], None] | None = None,
    say: Callable[[str], None] | None = None,
    confirm: Callable[[Plan], bool] | None = None,
) -> Summary:
    """Encode what the cache of a data set and a backbone lacks.

    Args:
        request: What is asked for.
        progress: Called several times a second.
        say: Called with sentences that the user should read.
        confirm: Asked before more than 20 GB are written; without it `yes` decides.

    Raises:
        FeatcacheError: If anything a user can cause stands in the way.
        KeyboardInterrupt: As it came; finished shards stay.
    """
    return _Extraction(request, progress, say or (lambda _: None), confirm).run()


class _Extraction:
    """One call of `extract`, step by step."""

    def __init__(
        self,
        request: Request,
        progress: Callable[[Progress], None] | None,
        say: Callable[[str], None],
        confirm: Callable[[Plan], bool] | None,
    ) -> None:
        self._request = request
        self._progress = progress
        self._say = say
        self._confirm = confirm
        self._seconds: dict[str, float] = {}
        self._max_pixels = pixel_limit(request.max_pixels)
        self._mended: frozenset[int] = frozenset()

    def run(self) -> Summary:
        request = self._request
        if request.limit is not None and request.limit < 1:
            raise UsageError(f"limit must be at least 1 image, got {request.limit}.")
        root = cache_root(request.root)
        choose(request.backbone, request.weights)  # a wrong name fails before anything is drawn
        spec, name = self._spec(root)
        with self._stage("list"):
            dataset = open_dataset(
                spec,
                root=root,
                name=name,
                dataset_root=request.dataset_root,
                download=not request.dry_run,
                report=self._report,
            )
            dataset = with_texts(
                dataset, templates=request.templates, descriptions=request.descriptions
            )
        roots = image_roots(root, dataset.name)
        if roots and str(dataset.root) not in roots:
            check_root(dataset, roots[0], moved=request.moved)
        with self._stage("load"):
            backbone = self._load(request.compute)
        asks, notes = asks_for(
            backbone,
            patches=request.patches,
            views=request.views,
            recipe=request.view_recipe,
            scope=request.view_scope,
        )
        for note in notes:
            self._say(note)
        if request.dry_run:
            return self._forecast(root, dataset, backbone, asks)
        cache = Cache.create(root, dataset.name, backbone.name, backbone.key)
        with cache.lock():
            for note in cache.notes:
                self._say(note)
            return self._fill(cache, dataset, backbone, asks)

    def _spec(self, root: Path) -> tuple[str, str | None]:
        """Let the name of a cached folder stand for that folder, as messages and habit have it."""
        spec, name = self._request.dataset, self._request.name
        if ":" in spec or any(spec == d.name for d in datasets()):
            return spec, name
        places = {p for p in image_roots(root, spec) if not Path(p).is_relative_to(root / "images")}
        return (f"folder:{places.pop()}", name or spec) if len(places) == 1 else (spec, name)

    def _forecast(
        self, root: Path, dataset: Dataset, backbone: Backbone, asks: Sequence[Ask]
    ) -> Summary:
        """Plan without leaving a trace in the cache."""
        path = Identity(dataset.name, backbone.name, backbone.key).folder(root)
        cache = Cache.open(path) if (path / KEY_FILE).exists() else None
        previous = None if cache is None else cache.listing()
        dataset = keep_own_texts(dataset, previous)
        listing = build_listing(dataset, previous, moved=self._request.moved, report=self._report)
        settings = None if cache is None else _settings(cache)
        plan = self._plan(
            None if previous is None else cache,
            listing,
            self._as_before(backbone, settings),
            asks,
            self._micro_batch(backbone, settings),
        )
        for note in (_listed(listing), *listing.notes):
            self._say(note)
        admit(plan, path, yes=True, confirm=None)
        self._seconds["forecast"] = plan.seconds
        return Summary(
            dataset=dataset.name,
            backbone=backbone.name,
            key=backbone.key.digest(),
            path=path,
            images=len(dataset.samples),
            encoded={t.ask.name: len(t.rows) for t in plan.todos},
            held=plan.held,
            seconds=self._seconds,
            bytes=plan.bytes,
            dry_run=True,
            notes=listing.notes,
        )

    def _fill(
        self, cache: Cache, dataset: Dataset, backbone: Backbone, asks: Sequence[Ask]
    ) -> Summary:
        """Bring listing, texts and rows of a locked cache up to date."""
        start = time.perf_counter()
        with self._stage("list"):
            previous = cache.listing()
            dataset = keep_own_texts(dataset, previous)
            listing = build_listing(
                dataset,
                previous,
                moved=self._request.moved,
                known=cache.path / KNOWN_HASHES,
                report=self._report,
            )
            cache.put_listing(listing)
        for note in (_listed(listing), *listing.notes):
            self._say(note)
        settings = _settings(cache)
        backbone = self._as_before(backbone, settings)
        micro_batch = self._micro_batch(backbone, settings)
        paths = {s.id: s.path for s in dataset.samples}
        sources = sources_of(listing.ids, listing.hashes, paths)
        self._mended = readable_now(
            [row for row in cache.bad_rows() if row in sources],
            sources,
            Preprocess.of(backbone),
            threads=cpu_cores(),
            max_pixels=self._max_pixels,
            report=self._report,
        )
        plan = first = self._plan(cache, listing, backbone, asks, micro_batch)
        self._say(plan.sentence())
        admit(plan, cache.path, yes=self._request.yes, confirm=self._confirm)
        with self._stage("text"):
            text = self._put_texts(cache, dataset, backbone)
        encoder = Encoder(backbone, micro_batch)
        if len(plan.rows):
            self._admit_environment(cache, settings, encoder, sources)
        encoded: Counter[str] = Counter()
        outcomes = []
        while len(plan.rows):
            with self._stage("pass"):
                outcomes.append(self._pass(cache, plan, encoder, sources).run(cache))
            encoded.update({t.ask.name: len(t.rows) for t in plan.todos})
            self._mended = frozenset()
            # Draws step around images that turned out unreadable: their stand-ins need views.
            plan = self._plan(cache, listing, backbone, asks, micro_batch)
        whole = self._plan(cache, listing, backbone, asks, micro_batch, limited=False)
        cache.finish(
            components=[ask.name for ask in asks],
            images=len(dataset.samples),
            seconds=time.perf_counter() - start,
            complete=not len(whole.rows),
        )
        for outcome in outcomes:
            for stage, seconds in outcome.seconds.items():
                self._seconds[stage] = self._seconds.get(stage, 0.0) + seconds
        passed = sum(o.images for o in outcomes)
        return Summary(
            dataset=dataset.name,
            backbone=backbone.name,
            key=backbone.key.digest(),
            path=cache.path,
            images=len(dataset.samples),
            encoded=dict(encoded),
            held=first.held,
            passed=passed,
            bad=tuple((sources[r].id, why) for o in outcomes for r, why in o.bad.items()),
            seconds=self._seconds,
            images_per_s=passed / self._seconds["pass"] if passed else None,
            bytes=sum(o.bytes for o in outcomes),
            complete=not len(whole.rows),
            text=text,
            notes=listing.notes,
        )

    def _load(self, compute: str) -> Backbone:
        request = self._request
        return load_backbone(
            request.backbone, weights=request.weights, device=request.device, compute=compute
        )

    def _as_before(self, backbone: Backbone, settings: PassSettings | None) -> Backbone:
        """Return the backbone in the compute type that the cache was begun with."""
        if settings is None or _compute(backbone) == settings.compute:
            return backbone
        before = COMPUTE[settings.compute]
        if self._request.compute not in ("auto", before):
            raise UsageError(
                f"This cache was begun in {before}, and rows in {self._request.compute} would "
                f"differ from it. Leave the compute type out, or choose another --cache."
            )
        return self._load(before)

    def _micro_batch(self, backbone: Backbone, settings: PassSettings | None) -> int:
        asked = self._request.micro_batch
        if asked is not None and not 1 <= asked <= LARGEST_BATCH:
            raise UsageError(f"micro-batch must be 1 to {LARGEST_BATCH} images, got {asked}.")
        if settings is None:
            return asked or micro_batch_for(backbone.gflops, backbone.device.type)
        if asked is not None and asked != settings.micro_batch:
            raise UsageError(
                f"This cache was begun with micro-batch {settings.micro_batch}, and {asked} would "
                f"change the last bits. Leave --micro-batch out, or choose another --cache."
            )
        return settings.micro_batch

    def _plan(
        self,
        cache: Cache | None,
        listing: Listing,
        backbone: Backbone,
        asks: Sequence[Ask],
        micro_batch: int,
        *,
        limited: bool = True,
    ) -> Plan:
        nothing = np.zeros(len(listing), dtype=bool)

        def covered(component: str) -> Bool[np.ndarray, " n"]:
            have = nothing if cache is None else cache.covered(component)
            if cache is not None and self._mended:
                again = list(self._mended)
                have[again] = cache.covered(component, retry_bad=True)[again]
            return np.concatenate([have, nothing[len(have) :]])  # a forecast may list new images

        usable = ~nothing
        if cache is not None:
            usable[list(cache.bad_rows().keys() - self._mended)] = False
        return make_plan(
            listing,
            backbone,
            asks,
            covered=covered,
            micro_batch=micro_batch,
            usable=usable,
            limit=self._request.limit if limited else None,
        )

    def _pass(
        self, cache: Cache, plan: Plan, encoder: Encoder, sources: Mapping[int, Source]
    ) -> Pass:
        options = Options(
            threads=cpu_cores(),
            max_pixels=self._max_pixels,
            strict=self._request.strict,
            allow_bad=self._request.allow_bad,
            known_bad=frozenset(cache.bad_rows()) - self._mended,
            progress=self._progress,
        )
        return Pass(plan, sources, encoder, Preprocess.of(encoder.backbone), options)

    def _put_texts(self, cache: Cache, dataset: Dataset, backbone: Backbone) -> bool:
        """Encode the texts unless the cache holds exactly these."""
        texts = texts_of(dataset)
        bank = cache.text()
        if (
            bank is not None
            and (bank.classes, bank.templates) == (dataset.classes, dataset.templates)
            and (bank.descriptions, bank.default) == (texts.descriptions, dataset.default_text)
            and (() if bank.owner is None else tuple(bank.owner.tolist())) == texts.owner
        ):
            return False
        every = [*texts.names, *(t for row in texts.filled for t in row), *texts.descriptions]
        if cut := backbone.truncated(every):
            self._say(f"{cut} of {len(every)} texts are longer than {backbone.name} reads; cut.")
        cache.put_text(encode_texts(dataset, backbone, self._report))
        return True

    def _admit_environment(
        self,
        cache: Cache,
        settings: PassSettings | None,
        encoder: Encoder,
        sources: Mapping[int, Source],
    ) -> None:
        """Record the first pass's settings; let another environment add only equal numbers."""
        backbone = encoder.backbone
        here = environment(backbone.device)
        if settings is None:
            settings = PassSettings(
                micro_batch=encoder.micro_batch, compute=_compute(backbone), environments=()
            )
        elif here in settings.environments:
            return
        elif "global" in cache.shards:
            reader = cache.rows("global")
            good = np.flatnonzero(reader.present() & ~reader.bad()).tolist()
            rows = sample_rows([row for row in good if row in sources])
            rows, now = encode_again(rows, sources, encoder, max_pixels=self._max_pixels)
            if rows:
                stored = reader.take(np.array(rows, dtype=np.int64)).numpy()
                check_same_numbers(stored, now, settings.compute)
        cache.put_pass_settings(settings.with_environment(here).to_json())

    def _report(self, what: str, done: int, total: int) -> None:
        if self._progress is not None:
            self._progress(Progress(stage=what, done=done, total=total))

    @contextmanager
    def _stage(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self._seconds[name] = self._seconds.get(name, 0.0) + time.perf_counter() - start


def _listed(listing: Listing) -> str:
    """Say what was found, so that a wrong folder is noticed before the pass."""
    few = ", ".join(listing.classes[:5]) + (", ..." if len(listing.classes) > 5 else "")
    splits = ", ".join(f"{name} {len(rows)}" for name, rows in listing.splits.items())
    return f"{listing.dataset}: {splits}; classes ({len(listing.classes)}): {few}."


def _settings(cache: Cache) -> PassSettings | None:
    # A pass that was stopped before its first shard has fixed nothing yet.
    stored = cache.pass_settings() if cache.shards else None
    return None if stored is None else PassSettings.from_json(stored)


def _compute(backbone: Backbone) -> str:
    return str(backbone.compute_dtype).removeprefix("torch.")
