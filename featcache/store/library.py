"""All caches below one root: where the root is, what is there, which one is meant."""

import os
import re
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path, PurePath
from shlex import quote
from typing import Any

from featcache.errors import (
    CacheNotFoundError,
    CorruptCacheError,
    FeatcacheError,
    UnknownNameError,
    UsageError,
)
from featcache.keys import FeatureKey
from featcache.paths import as_text, check_folder, expand, file_in, from_text
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
from featcache.store.provenance import origin_of, weights_of
from featcache.store.rows import count_rows
from featcache.wording import Argument

IMAGES = "images"
"""Folder of a root: images that are drawn or downloaded here."""

PLAIN_NAME = re.compile(r"\w(?:[\w.+@= -]*[\w.+@=-])?")
"""What a user may call a new data set."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ComponentSummary:
    """One component, for a list."""

    rows: int
    shape: tuple[int, ...]
    """Shape of one row."""
    bytes: int
    """Bytes of its shards."""
    shards: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheSummary:
    """One cache, for a list."""

    path: Path
    dataset: str
    backbone: str
    digest: str
    weights: str = ""
    """Which they are, or which file was imported, in a word or two; empty where unknown."""
    images: int = 0
    components: Mapping[str, ComponentSummary] = field(default_factory=dict)
    """By folder name; the current texts are one of them."""
    finished: float | None = None
    """Seconds since 1970 of the last pass that ended; None where none did."""
    complete: bool = False
    """Whether that pass was over all images."""
    problem: str = ""
    """Why the cache cannot be opened; empty where it can."""

    @property
    def bytes(self) -> int:
        """Bytes of all shards."""
        return sum(c.bytes for c in self.components.values())

    @property
    def is_ahead(self) -> bool:
        """Tell whether a wrong clock finished it: nobody knows when that was."""
        return self.finished is not None and is_ahead(self.finished)

    @property
    def finished_text(self) -> str:
        """When it was finished, in local time, or what is the matter."""
        if self.problem:
            return "unreadable"
        if self.finished is None:
            return "unfinished"
        local = datetime.fromtimestamp(self.finished, tz=UTC).astimezone()
        when = local.strftime("%Y-%m-%d %H:%M %Z")
        when += " by a wrong clock" if self.is_ahead else ""
        return when if self.complete else f"{when} (part)"

    def to_json(self) -> dict[str, Any]:
        """Return one plain object; times in ISO 8601, UTC."""
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
            "problem": self.problem,
        }


def check_name(root: Path, name: str) -> None:
    """Refuse to call a new data set what is no plain name of a folder.

    Args:
        root: Folder of all caches; a data set that is there already keeps its name.
        name: What a user wants to call it.

    Raises:
        UsageError: If it is none.
    """
    if PLAIN_NAME.fullmatch(name) or any(s.dataset == name for s in caches(root)):
        return
    raise UsageError(
        f"--name takes letters, digits, spaces and any of . _ - + @ =, beginning with a letter, a "
        f"digit or _ and not ending with a space; got {name!r}. Write e.g. --name {slug(name)}"
    )


def cache_root(option: Path | None) -> Path:
    """Return the folder of all caches: the option, else $FEATCACHE_HOME, else the user's cache.

    Raises:
        CacheError: If what the user names is no folder.
        UsageError: If it begins with the home folder of nobody.
    """
    if option is not None:
        return check_folder(expand(option).absolute(), Argument("root"))
    if home := os.environ.get("FEATCACHE_HOME"):
        return check_folder(expand(home).absolute(), "$FEATCACHE_HOME or ", Argument("root"))
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "featcache"
    xdg = Path(os.environ.get("XDG_CACHE_HOME", ""))
    # The XDG rules say that a relative path is to be ignored.
    return (xdg if xdg.is_absolute() else Path.home() / ".cache") / "featcache"


def caches(root: Path) -> list[CacheSummary]:
    """Summarise every cache below a root: finished last first, then unfinished, then damaged.

    A time that lies in the future says nothing; such a cache stands behind all others that are
    finished, until its next pass.
    """
    folders = {path.parent for name in (KEY_FILE, MANIFEST) for path in root.glob(f"*/*/{name}")}
    found = [_summary(folder) for folder in sorted(folders) if not is_temporary(folder)]
    return sorted(found, key=_order)


def _order(summary: CacheSummary) -> tuple[bool, bool, bool, float]:
    unfinished = summary.finished is None
    return bool(summary.problem), unfinished, summary.is_ahead, -(summary.finished or 0.0)


def summarise(cache: Cache) -> CacheSummary:
    """Summarise one cache that is open."""
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
    """Open the cache that was finished last among those that fit.

    Args:
        root: Folder of all caches.
        dataset: Name of a data set; None fits all.
        backbone: Name of a backbone; None fits all.
        key: First digits of the key's digest; None fits all.

    Raises:
        CacheNotFoundError: If there is none, or none that was finished.
        UnknownNameError: If no cache has that data set, backbone or key.
        UsageError: If another fits that has the same names and other weights.
        CorruptCacheError: If the only one that fits is damaged.
    """
    best, *others = find_summaries(root, dataset, backbone, key)
    opened = Cache.open(best.path)  # or raises what is the matter
    if best.problem:
        raise CorruptCacheError(best.problem)
    if best.finished is not None:
        _refuse_rivals(best, opened, others)
        return opened
    extract = f"Go on with: featcache extract --dataset {best.dataset} --backbone {best.backbone}"
    if weights := weights_of(opened.shards):
        extract += f" --weights {quote(weights)}"
    extract += ", and whatever else it was begun with."
    raise CacheNotFoundError(
        f"The cache of {best.dataset} with {best.backbone} was interrupted before it was "
        f"finished. {opened.cure or extract}"
    )


def _refuse_rivals(best: CacheSummary, opened: Cache, others: Sequence[CacheSummary]) -> None:
    """Ask which cache is meant where one name stands for features of different weights.

    Caches that differ in precision or preprocessing alone hold the same features, nearly.
    """
    rivals = [
        o
        for o in others
        if (o.dataset, o.backbone) == (best.dataset, best.backbone)
        and o.finished is not None
        and _origin(read_identity(o.path).key) != _origin(opened.key)
    ]
    if rivals:
        which = "; ".join(
            f"--key {c.digest} ({c.weights}, {c.finished_text})" for c in (best, *rivals)
        )
        raise UsageError(
            f"{len(rivals) + 1} caches of '{best.dataset}' with {best.backbone} come from "
            f"different weights or files. Say which one is meant: {which}."
        )


def _origin(key: FeatureKey) -> str:
    """Return what tells the weights, or the file that was imported, whatever the precision."""
    return key.preprocessing if key.is_imported else key.weights


def find_summaries(
    root: Path, dataset: str | None = None, backbone: str | None = None, key: str | None = None
) -> list[CacheSummary]:
    """Summarise the caches that fit, damaged and unfinished ones too, in the order of `caches`.

    Raises:
        CacheNotFoundError: If there are no caches at all.
        UnknownNameError: If no cache has that data set, backbone or key.
    """
    everything = caches(root)
    if not everything:
        raise CacheNotFoundError(
            f"There are no caches in {root}. Make one with: featcache extract "
            f"--dataset {dataset or 'fieldguide'} --backbone {backbone or 'tiny'}"
        )
    fitting = _named(everything, "cached data set", "dataset", dataset)
    fitting = _named(fitting, "cached backbone", "backbone", backbone)
    if key is None:
        return fitting
    keyed = [s for s in fitting if s.digest.startswith(key.lower())]
    if not keyed:
        known = {s.digest for s in fitting}
        raise UnknownNameError("key of a cache", key, known, "`featcache ls` shows the keys.")
    return keyed


def image_roots(root: Path, dataset: str) -> list[str]:
    """Return where the images of a data set are for each of its caches; imported ones have none."""
    return [where for where, _ in image_sources(root, dataset)]


def image_sources(root: Path, dataset: str) -> list[tuple[str, str]]:
    """Return where the images are for each cache of a data set, and the spec that opens them.

    Args:
        root: Folder of all caches.
        dataset: Its name.

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
        (with_root(root, where), spec) for name, where, spec in origins if name == dataset and where
    ]


def with_root(root: Path, where: str) -> str:
    """Return where images are now that may have moved together with the root they belong to.

    Images that are still where they were have moved only if caches are still above them too: the
    whole root was copied. A folder of the user's may have a part called `images` as well.

    Args:
        root: Folder of all caches; what this program draws or downloads lies in `images` there.
        where: Where a listing saw its images.
    """
    before = PurePath(where)
    if IMAGES not in before.parts:
        return where
    inside = len(before.parts) - before.parts[::-1].index(IMAGES)
    now = root.joinpath(IMAGES, *map(from_text, before.parts[inside:]))
    if not before.parts[inside:] or not _is_there(now):
        return where
    old = from_text(where)
    try:
        is_there = _is_there(old)
    except OSError:  # above it is a folder that we may not enter
        is_there = True
    home = old.parents[len(before.parts) - inside]
    return where if is_there and not any(home.glob(f"*/*/{KEY_FILE}")) else as_text(now)


def _is_there(root: Path) -> bool:
    """Tell whether a folder, an archive or the archive around a folder is there."""
    return root.is_dir() or file_in(root) is not None


def made_with(root: Path, dataset: str) -> list[tuple[str, str]]:
    """Return backbone and weights of each cache of a data set; imported ones are left out.

    Weights are as --weights had them, empty where it was not given, or where a damaged cache does
    not tell.
    """
    found = set()
    for file in (root / from_text(slug(dataset))).glob(f"*/{KEY_FILE}"):
        weights = ""
        try:
            identity = read_identity(file.parent)
            if is_temporary(file.parent) or identity.dataset != dataset:
                continue  # on its way to removal, or of another name with the same folder
            if identity.key.is_imported:
                continue
            with suppress(FeatcacheError):
                weights = weights_of(Cache(file.parent, identity).shards)
            found.add((identity.backbone, weights))
        except FeatcacheError:
            continue
    return sorted(found)


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
            problem=str(error),
        )


def _component(lines: Sequence[ShardLine]) -> ComponentSummary:
    return ComponentSummary(
        rows=count_rows(lines),
        shape=lines[0].facts.shape[1:],
        bytes=sum(line.facts.bytes for line in lines),
        shards=len(lines),
    )


def _named(
    found: Sequence[CacheSummary], kind: str, attribute: str, name: str | None
) -> list[CacheSummary]:
    if name is None:
        return list(found)
    wanted = slug(name).lower()
    fitting = [s for s in found if slug(getattr(s, attribute)).lower() == wanted]
    if not fitting:
        known = {str(getattr(s, attribute)) for s in found}
        raise UnknownNameError(kind, name, known, "`featcache ls` shows the caches.")
    return fitting
