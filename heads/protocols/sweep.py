"""Many runs in one process: stored ones are skipped, failures are recorded.

After an interruption the same call continues, because every finished run is on disk.
"""

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from featcache.errors import FeatcacheError
from featcache.store.format.files import write_atomically
from featcache.store.format.seal import seal
from featcache.store.library import cache_root, find_cache
from featcache.types import FeatureSet
from heads.protocols import obtain, training
from heads.protocols.corpus_only import CORPUS_ONLY
from heads.protocols.plan import Request
from heads.results.record import Result, now
from heads.results.store import runs_root
from heads.spec import RunSpec

FAILURES = ".failures"
"""Folder under the root of all runs: one file for each run that failed, named by its digest."""


@dataclass(frozen=True, kw_only=True)
class Entry:
    """The result of one run of a sweep."""

    spec: RunSpec | None
    """None where no plan could be made."""
    result: Result | None
    """None where it failed."""
    folder: Path | None
    was_there: bool = False
    error: str = ""
    kind: str = ""
    """Name of the error's class."""


def sweep(
    runs: Iterable[Request | RunSpec],
    *,
    root: Path | None = None,
    caches_root: Path | None = None,
    again: bool = False,
    keep_heads: bool = False,
    device: str = "auto",
    report: Callable[[Entry], None] | None = None,
) -> list[Entry]:
    """Make many runs, one after the other.

    Args:
        runs: Requests, or RunSpecs whose cache is looked up.
        root: Folder of all runs; the usual one if not given.
        caches_root: Folder of all caches, for RunSpecs; the usual one if not given.
        again: Repeat runs that are stored already.
        keep_heads: Keep the heads of every run.
        device: auto, cpu, cuda, cuda:1, ...
        report: Told of every run.

    Returns:
        One entry a query set, in order. A run that fails does not stop the others.

    Example:
        >>> import featcache, heads
        >>> from heads.protocols.plan import Request
        >>> cache = featcache.open("fieldguide", "tiny")
        >>> runs = [Request(method=m, features=cache, shots=2) for m in ("ridge", "knn")]
        >>> [entry.error for entry in heads.sweep(runs)]
        ['', '']
    """
    root = runs_root(root)
    opened: dict[tuple[str, str], FeatureSet] = {}
    entries = []
    for request in runs:
        for entry in _entries(request, root, caches_root, opened, again, keep_heads, device):
            entries.append(entry)
            if report is not None:
                report(entry)
    return entries


def _entries(
    request: Request | RunSpec,
    root: Path,
    caches_root: Path | None,
    opened: dict[tuple[str, str], FeatureSet],
    again: bool,
    keep_heads: bool,
    device: str,
) -> Iterator[Entry]:
    spec = request if isinstance(request, RunSpec) else None
    try:
        plan = training.plan(
            request_of(request, caches_root, opened) if isinstance(request, RunSpec) else request
        )
    except FeatcacheError as error:
        yield _failed(root, spec, error)
        return
    specs = {split: plan.spec(split) for split in plan.splits}
    try:
        made = obtain.obtain(plan, root, again=again, keep_heads=keep_heads, device=device)
        folders = [obtain.save(one, root) for one in made]
    except FeatcacheError as error:
        for spec in specs.values():
            yield _failed(root, spec, error)
        return
    for one, folder in zip(made, folders, strict=True):
        spec = specs[one.result.split]
        (root / FAILURES / f"{spec.digest()}.json").unlink(missing_ok=True)
        result = replace(one.result, beside={})  # heads are on disk; a long sweep cannot hold them
        yield Entry(spec=spec, result=result, folder=folder, was_there=not one.is_new)


def request_of(
    spec: RunSpec, caches_root: Path | None, opened: dict[tuple[str, str], FeatureSet]
) -> Request:
    """Find the cache of a spec and make the same request.

    Raises:
        CacheNotFoundError: If no cache under the root has the data set and key.
    """
    fit = spec.fit
    name = (fit.dataset, fit.key)
    if name not in opened:
        opened[name] = find_cache(cache_root(caches_root), fit.dataset, key=fit.key).feature_set()
    return Request(
        method=fit.method,
        features=opened[name],
        shots=fit.shots if fit.protocol in ("few_shot", CORPUS_ONLY) else 16,
        seeds=fit.seeds,
        splits=(spec.split,),
        selection=fit.selection,
        settings=dict(fit.settings),
        class_weights=_weights(dict(fit.extra).get("class_weights")),
        augment=fit.augment.rpartition("@")[0] or None,
        support=dict(fit.extra).get("support"),
        calibrate_on=dict(fit.extra).get("calibrate_on", "auto"),
    )


def _weights(text: str | None) -> str | list[float] | None:
    if text is None or text == "balanced":
        return text
    return [float(number) for number in text.split(",")]


def _failed(root: Path, spec: RunSpec | None, error: FeatcacheError) -> Entry:
    """Record a failure; the next sweep tries again."""
    if spec is not None:
        value: dict[str, Any] = {
            "spec": json.loads(json.dumps(spec.as_dict())),
            "error": str(error),
            "kind": type(error).__name__,
            "created": now(),
        }
        folder = root / FAILURES
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(folder / f"{spec.digest()}.json", seal(value)[0])
    return Entry(spec=spec, result=None, folder=None, error=str(error), kind=type(error).__name__)
