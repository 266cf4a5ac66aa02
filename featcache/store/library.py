"""All caches below one root: list them, choose one."""

import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from featcache.errors import (
    CacheNotFoundError,
    CorruptCacheError,
    FeatcacheError,
    UnknownNameError,
    UsageError,
)
from featcache.keys import FeatureKey
from featcache.paths import from_text
from featcache.store.again import extract_call
from featcache.store.cache import Cache, is_ahead
from featcache.store.format.files import is_temporary
from featcache.store.format.identity import (
    KEY_FILE,
    LISTING,
    MANIFEST,
    Identity,
    is_cache,
    read_identity,
    slug,
)
from featcache.store.format.records import PassLine, ShardLine
from featcache.store.listing.listing import count_images, read_origin
from featcache.store.moved import current_root
from featcache.store.provenance import origin_of, weights_of
from featcache.store.root import cache_root as cache_root
from featcache.store.rows import count_rows
from featcache.units import human_time
from featcache.wording import Argument, Call, Part, in_python

PLAIN_NAME = re.compile(r"\w(?:[\w.+@= -]*[\w.+@=-])?")
"""Valid names of new data sets."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ComponentSummary:
    """Summary of one component."""

    rows: int
    shape: tuple[int, ...]
    """Shape of one row."""
    bytes: int
    """Bytes of its shards."""
    shards: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheSummary:
    """Summary of one cache."""

    path: Path
    dataset: str
    backbone: str
    digest: str
    weights: str = ""
    """Short name of the weights or of the imported file; empty if unknown."""
    images: int = 0
    components: Mapping[str, ComponentSummary] = field(default_factory=dict)
    """Folder name -> component, with the current texts."""
    finished: float | None = None
    """End of the last pass in seconds since 1970; None if no pass has ended."""
    complete: bool = False
    """Whether that pass covered all images."""
    problem: Part = ""
    """Why the cache cannot be opened; empty if it can."""

    @property
    def bytes(self) -> int:
        """Bytes of all shards."""
        return sum(c.bytes for c in self.components.values())

    @property
    def is_ahead(self) -> bool:
        """Tell whether its time is in the future because a clock was wrong."""
        return self.finished is not None and is_ahead(self.finished)

    @property
    def finished_text(self) -> str:
        """Local time of the last pass, or unfinished or unreadable."""
        if self.problem:
            return "unreadable"
        if self.finished is None:
            return "unfinished"
        when = human_time(datetime.fromtimestamp(self.finished, tz=UTC))
        when += " by a wrong clock" if self.is_ahead else ""
        return when if self.complete else f"{when} (part)"

    def to_json(self, phrase: Callable[[Sequence[Part]], str] = in_python) -> dict[str, Any]:
        """Return one plain object; times in ISO 8601, UTC.

        Args:
            phrase: Writes a message as text.
        """
        when = None if self.finished is None else datetime.fromtimestamp(self.finished, tz=UTC)
        return {
            "dataset": self.dataset,
            "backbone": self.backbone,
            "key": self.digest,
            "weights": self.weights,
            "path": str(self.path),
            "images": self.images,
            "bytes": self.bytes,
            "components": {
                name: {"rows": c.rows, "shape": list(c.shape), "bytes": c.bytes, "shards": c.shards}
                for name, c in self.components.items()
            },
            "finished": None if when is None else when.isoformat(timespec="seconds"),
            "complete": self.complete,
            "problem": phrase([self.problem]),
        }


def check_name(root: Path, name: str) -> None:
    """Refuse names of new data sets that are not valid folder names.

    Args:
        root: Folder of all caches; names of existing data sets are always accepted.
        name: Name to check.

    Raises:
        UsageError: If it is not valid.
    """
    if PLAIN_NAME.fullmatch(name) or any(s.dataset == name for s in caches(root)):
        return
    raise UsageError(
        Argument("name"),
        " takes letters, digits, spaces and any of . _ - + @ =, beginning with a letter, a digit "
        f"or _ and not ending with a space; got {name!r}. Write e.g. ",
        Argument("name", slug(name)),
    )


def caches(root: Path) -> list[CacheSummary]:
    """Summarise all caches below a root: the newest first, then unfinished, then damaged ones.

    Caches with a time in the future come last among the finished ones.
    """
    folders = {path.parent for name in (KEY_FILE, MANIFEST) for path in root.glob(f"*/*/{name}")}
    summaries = [_summary(folder) for folder in sorted(folders) if not is_temporary(folder)]
    return sorted(summaries, key=_order)


def _order(summary: CacheSummary) -> tuple[bool, bool, bool, float]:
    unfinished = summary.finished is None
    return bool(summary.problem), unfinished, summary.is_ahead, -(summary.finished or 0.0)


def summarise(cache: Cache) -> CacheSummary:
    """Summarise one open cache."""
    components = {name: _component(lines) for name, lines in sorted(cache.shards.items())}
    if text := cache.text_line:
        components[text.component] = ComponentSummary(
            rows=text.facts.shape[0],
            shape=text.facts.shape[1:],
            bytes=text.facts.bytes + text.strings_bytes,
            shards=1,
        )
    last: PassLine | None = cache.passes[-1] if cache.passes else None
    return CacheSummary(
        path=cache.path,
        dataset=cache.dataset,
        backbone=cache.backbone,
        digest=cache.key.digest(),
        weights=origin_of(cache.key, cache.shards),
        images=count_images(cache.path / LISTING),
        components=components,
        finished=last.time if last else None,
        complete=last.complete if last else False,
    )


def find_cache(
    root: Path, dataset: str | None = None, backbone: str | None = None, key: str | None = None
) -> Cache:
    """Open the newest matching cache.

    Args:
        root: Folder of all caches.
        dataset: Name of a data set; None matches all.
        backbone: Name of a backbone; None matches all.
        key: First digits of the digest of the key; None matches all.

    Raises:
        CacheNotFoundError: If there is none, or none is finished.
        UnknownNameError: If no cache has that data set, backbone or key.
        UsageError: If another matching cache has the same names and different weights.
        CorruptCacheError: If the only matching cache is damaged.
    """
    best, *others = find_summaries(root, dataset, backbone, key)
    opened = Cache.open(best.path)  # raises if it is damaged
    if best.problem:
        raise CorruptCacheError(best.problem)
    if best.finished is not None:
        _refuse_rivals(best, opened, others)
        return opened
    weights = weights_of(opened.shards)
    extract = extract_call(best.path, best.dataset, best.backbone, weights)
    raise CacheNotFoundError(
        f"The cache of {best.dataset} with {best.backbone} was interrupted before it was "
        "finished. ",
        opened.cure or ("Go on with: ", extract, ", and whatever else it was begun with."),
    )


def _refuse_rivals(best: CacheSummary, opened: Cache, others: Sequence[CacheSummary]) -> None:
    """Raise if caches of the same names have features from different weights.

    Caches that differ only in precision or preprocessing have nearly the same features.
    """
    rivals = [
        o
        for o in others
        if (o.dataset, o.backbone) == (best.dataset, best.backbone)
        and o.finished is not None
        and _origin(read_identity(o.path).key) != _origin(opened.key)
    ]
    if rivals:
        choices: list[Part] = []
        for c in (best, *rivals):
            choices += ["; "] if choices else []
            choices += [Argument("key", c.digest), f" ({c.weights}, {c.finished_text})"]
        raise UsageError(
            f"{len(rivals) + 1} caches of '{best.dataset}' with {best.backbone} come from "
            "different weights or files. Say which one is meant: ",
            choices,
            ".",
        )


def _origin(key: FeatureKey) -> str:
    """Return what identifies the weights, or the imported file, at any precision."""
    return key.preprocessing if key.is_imported else key.weights


def find_summaries(
    root: Path, dataset: str | None = None, backbone: str | None = None, key: str | None = None
) -> list[CacheSummary]:
    """Summarise the matching caches, also damaged and unfinished ones, in the order of `caches`.

    Args:
        root: Folder of all caches.
        dataset: Name of a data set, or an alias of a named one; None fits all.
        backbone: Name of a backbone; None fits all.
        key: First digits of the key's digest; None fits all.

    Raises:
        CacheNotFoundError: If there are no caches at all.
        UnknownNameError: If no cache has that data set, backbone or key.
    """
    everything = caches(root)
    if not everything:
        raise CacheNotFoundError(
            f"There are no caches in {root}. Make one with: ",
            Call(
                "featcache.extract",
                {"dataset": dataset or "fieldguide", "backbone": backbone or "tiny"},
            ),
        )
    if dataset is not None and all(s.dataset != dataset for s in everything):
        from featcache.sources.named import resolve  # reads the tables of all named data sets

        dataset = resolve(dataset)
    fitting = _named(everything, "cached data set", "dataset", dataset)
    fitting = _named(fitting, "cached backbone", "backbone", backbone)
    if key is None:
        return fitting
    keyed = [s for s in fitting if s.digest.startswith(key.lower())]
    if not keyed:
        known = {s.digest for s in fitting}
        raise UnknownNameError("key of a cache", key, known, "`featcache ls` shows the keys.")
    return keyed


def image_roots(root: Path, dataset: str, data_root: Path | None = None) -> list[str]:
    """Return the root of the images of each cache of a data set, except for imported features.

    Args:
        root: Folder of all caches.
        dataset: Name of the data set.
        data_root: Folder of named data sets, as `image_folder` takes it.
    """
    return [where for where, _ in image_sources(root, dataset, data_root)]


def image_sources(root: Path, dataset: str, data_root: Path | None = None) -> list[tuple[str, str]]:
    """Return where the images of each cache of a data set are, and the spec that opens them.

    Args:
        root: Folder of all caches.
        dataset: Name of the data set.
        data_root: Folder of named data sets, as `image_folder` takes it.

    Returns:
        Pairs of the root of the images and a spec, which is empty where the root tells enough.
    """
    folders = sorted((root / from_text(slug(dataset))).glob(f"*/{LISTING}"))
    origins = [
        read_origin(folder)
        for folder in folders
        if is_cache(folder.parent) and not is_temporary(folder.parent)
    ]
    return [
        (current_root(where, dataset, root, data_root), spec)
        for name, where, spec in origins
        if name == dataset and where
    ]


def made_with(root: Path, dataset: str) -> list[tuple[str, str]]:
    """Return (backbone, weights) of each cache of a data set, except for imported features.

    Weights are as the user named them; empty if none were named, or a damaged cache does not tell.
    """
    pairs = set()
    for file in (root / from_text(slug(dataset))).glob(f"*/{KEY_FILE}"):
        weights = ""
        try:
            identity = read_identity(file.parent)
            if is_temporary(file.parent) or identity.dataset != dataset:
                continue  # being removed, or a data set whose name maps to the same folder
            if identity.key.is_imported:
                continue
            with suppress(FeatcacheError):
                weights = weights_of(Cache(file.parent, identity).shards)
            pairs.add((identity.backbone, weights))
        except FeatcacheError:
            continue
    return sorted(pairs)


def _summary(path: Path) -> CacheSummary:
    identity: Identity | None = None
    try:
        identity = read_identity(path)
        return summarise(Cache(path, identity))
    except FeatcacheError as error:
        backbone, _, digest = path.name.rpartition("-")
        return CacheSummary(
            path=path,
            dataset=identity.dataset if identity else path.parent.name,
            backbone=identity.backbone if identity else backbone,
            digest=digest,
            problem=error.parts,
        )


def _component(lines: Sequence[ShardLine]) -> ComponentSummary:
    return ComponentSummary(
        rows=count_rows(lines),
        shape=lines[0].facts.shape[1:],
        bytes=sum(line.facts.bytes for line in lines),
        shards=len(lines),
    )


def _named(
    summaries: Sequence[CacheSummary], kind: str, attribute: str, name: str | None
) -> list[CacheSummary]:
    if name is None:
        return list(summaries)
    wanted = slug(name).lower()
    fitting = [s for s in summaries if slug(getattr(s, attribute)).lower() == wanted]
    if not fitting:
        known = {str(getattr(s, attribute)) for s in summaries}
        raise UnknownNameError(kind, name, known, "`featcache ls` shows the caches.")
    return fitting
