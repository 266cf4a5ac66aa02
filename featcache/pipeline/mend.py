"""Encoding again what damage has cost a cache: exactly those rows, in the shards they stood in.

The images are found where the listing saw them, and only those whose bytes are still the same are
used; labels, splits and class names are not looked at.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int64

from featcache.backbones.base import Backbone
from featcache.backbones.registry import load_backbone
from featcache.errors import CacheError, SourceError
from featcache.keys import Listing, parse_component
from featcache.pipeline.asks import ask_again
from featcache.pipeline.continuity import FLAGS, admit_environment, as_before, micro_batch_of
from featcache.pipeline.decode import pixel_limit
from featcache.pipeline.encode import Encoder
from featcache.pipeline.passes import Options, Pass, Progress, Source
from featcache.pipeline.plan import Plan, Todo, cpu_cores
from featcache.pipeline.settings import PassSettings
from featcache.pipeline.texts import put_texts
from featcache.pipeline.views import Preprocess
from featcache.sources.base import Dataset, Sample
from featcache.sources.hashing import hash_files
from featcache.store.cache import Cache

Lost = Mapping[str, Sequence[Int64[np.ndarray, " _"]]]
"""Component -> the rows of each of its shards that was taken out."""


@dataclass(frozen=True, kw_only=True)
class Mended:
    """What was encoded again."""

    encoded: Mapping[str, int] = field(default_factory=dict)
    """Component -> rows."""
    missing: int = 0
    """Rows whose image is gone or has changed since; `extract` deals with those."""
    text: bool = False
    """Whether texts were encoded again."""

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return asdict(self)


def mend(
    path: Path,
    lost: Lost,
    *,
    weights: str | None = None,
    device: str = "auto",
    progress: Callable[[Progress], None] | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> Mended:
    """Encode the rows of lost shards again, and the texts if they were lost.

    Args:
        path: The cache, repaired.
        lost: What was taken out.
        weights: As `extract` was given them; needed where they were a file.
        device: auto, cpu, cuda, ...
        progress: Called several times a second.
        say: Called with sentences that the user should read.

    Raises:
        SourceError: If the folder of the images is gone.
        CacheError: If the backbone at hand is not the one that wrote the cache.
    """
    cache = Cache.open(path)
    listing = cache.listing()
    if listing is None or cache.key.image_size == 0:
        raise CacheError(
            f"{path} holds imported features, which nobody can encode again; import them anew."
        )
    with cache.lock():
        settings = PassSettings.of(cache)
        backbone = _backbone(cache, settings, weights, device)
        sources = _sources(listing, lost, progress)
        encoder = Encoder(backbone, micro_batch_of(backbone, settings, None))
        counts: dict[str, int] = {}
        missing: set[int] = set()
        recorder = None
        for plan in _plans(cache, lost, backbone):
            missing |= set(plan.rows.tolist()) - sources.keys()
            plan = _only(plan, sources)
            if not len(plan.rows):
                continue
            limit = pixel_limit()
            recorder = recorder or admit_environment(
                cache, settings, encoder, sources, max_pixels=limit
            )
            options = Options(
                threads=cpu_cores(), max_pixels=limit, allow_bad=True, progress=progress
            )
            Pass(plan, sources, encoder, Preprocess.of(backbone), options).run(recorder)
            for todo in plan.todos:
                counts[todo.ask.name] = counts.get(todo.ask.name, 0) + len(todo.rows)
        text = put_texts(cache, _words(listing), backbone, say=say)
    return Mended(encoded=counts, missing=len(missing), text=text)


def _backbone(
    cache: Cache, settings: PassSettings | None, weights: str | None, device: str
) -> Backbone:
    compute = "auto" if settings is None else FLAGS[settings.compute]

    def load(compute: str) -> Backbone:
        return load_backbone(cache.backbone, weights=weights, device=device, compute=compute)

    backbone = as_before(load(compute), settings, "auto", load)
    if backbone.key != cache.key:
        raise CacheError(
            f"{cache.path} was made with other weights than {backbone.name} has here (key "
            f"{cache.key.digest()}, not {backbone.key.digest()}). Name them with --weights."
        )
    return backbone


def _sources(
    listing: Listing, lost: Lost, progress: Callable[[Progress], None] | None
) -> dict[int, Source]:
    """Find the images whose bytes are still those that were listed."""
    root = Path(listing.root)
    if not root.is_dir():
        raise SourceError(
            f"The images were in {root}, which is gone. Put them back, or run `featcache extract "
            f"--dataset folder:... --name {listing.dataset} --moved` on their new place."
        )

    def report(what: str, done: int, total: int) -> None:
        if progress is not None:
            progress(Progress(stage=what, done=done, total=total))

    rows = np.unique(np.concatenate([r for shards in lost.values() for r in shards] or [_NONE]))
    # Eight rows of the whole cache, for the check of this environment, beside those that are lost.
    rows = np.union1d(rows, np.linspace(0, max(len(listing) - 1, 0), 64).astype(np.int64))
    ids = {r: listing.ids[r] for r in rows.tolist()}
    rows = np.array([r for r, name in ids.items() if _is_inside(name)], dtype=np.int64)
    samples = [Sample(ids[r], root / ids[r], -1, "") for r in rows.tolist()]
    hashes, _ = hash_files(samples, root, None, report, cpu_cores())
    return {
        row: Source(sample.id, sample.path, sha256)
        for row, sample, sha256 in zip(rows.tolist(), samples, hashes, strict=True)
        if sha256 and sha256 == listing.hashes[row]
    }


def _plans(cache: Cache, lost: Lost, backbone: Backbone) -> list[Plan]:
    """Make one plan for each set of rows that stood in a shard, so shards come out as before."""
    groups: dict[tuple[int, ...], list[str]] = {}
    for component, shards in lost.items():
        for rows in shards:
            groups.setdefault(tuple(rows.tolist()), []).append(component)
    plans = []
    for key, components in groups.items():
        rows = np.array(key, dtype=np.int64)
        asks = [ask_again(parse_component(name), backbone) for name in components]
        todos = tuple(Todo(ask=ask, rows=rows) for ask in asks)
        plans.append(Plan(todos=todos, held={}, blocks=(rows,), seconds=0.0))
    return plans


def _only(plan: Plan, sources: Mapping[int, Source]) -> Plan:
    """Leave out the rows whose image is gone."""
    rows = np.array([row for row in plan.rows.tolist() if row in sources], dtype=np.int64)
    todos = tuple(Todo(ask=todo.ask, rows=rows) for todo in plan.todos)
    return Plan(todos=todos, held={}, blocks=(rows,) if len(rows) else (), seconds=0.0)


def _words(listing: Listing) -> Dataset:
    """Return what the listing knows of the texts, as a data set without images."""
    return Dataset(
        name=listing.dataset,
        root=Path(listing.root),
        classes=listing.classes,
        samples=(),
        templates=listing.templates,
        descriptions=listing.descriptions,
        default_text=listing.default_text,
        own_texts=listing.own_texts,
    )


def _is_inside(image_id: str) -> bool:
    """Tell whether an id, which a stranger may have written, names a file below its root."""
    parts = Path(image_id)
    return bool(image_id) and not parts.is_absolute() and ".." not in parts.parts


_NONE = np.empty(0, dtype=np.int64)
