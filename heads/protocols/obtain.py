"""Reusing stored runs and kept heads instead of training again.

A run is identified by its `RunSpec` before it is made. A stored run with an equal spec is returned;
where only the queries differ, its kept heads are evaluated on them.
"""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from featcache.errors import FeatcacheError
from featcache.progress import Report
from heads import kept
from heads.head import Head
from heads.protocols.evaluation import judge, measure
from heads.protocols.plan import Plan
from heads.results import named, store
from heads.results.record import Result

Stored: TypeAlias = tuple[Result, Path]
"""A record, and the folder of its run."""


@dataclass(frozen=True, kw_only=True)
class Obtained:
    """A run, and where it came from."""

    result: Result
    folder: Path | None
    """Its folder; None before it is saved."""
    heads: tuple[Head, ...]
    """Heads to be saved with it; empty where none are, or the run is stored already."""
    trained: bool
    """Whether heads were trained for it now."""

    @property
    def is_new(self) -> bool:
        """Tell whether it is not stored yet."""
        return self.folder is None


def obtain(
    plan: Plan,
    root: Path,
    *,
    again: bool = False,
    keep_heads: bool = True,
    device: str = "auto",
    progress: Report | None = None,
) -> list[Obtained]:
    """Return the runs of a plan, one a query set, making only those that are not stored.

    Args:
        plan: The plan of a protocol.
        root: Folder of all runs.
        again: Repeat runs that are stored already.
        keep_heads: Return trained heads, to be saved with their run.
        device: auto, cpu, cuda, cuda:1, ...
        progress: Told of every finished run.
    """
    stored = [] if again else _runs_of(plan, root)
    found = _equal(plan, stored)
    missing = [split for split in plan.splits if split not in found]
    for split in list(missing):
        heads = _kept_heads(plan, stored, split)
        if heads:
            result = judge(plan, heads, split, device=device, progress=progress)
            found[split] = Obtained(result=result, folder=None, heads=(), trained=False)
            missing.remove(split)
    if missing:
        trained = measure(plan.on(missing), device=device, progress=progress)
        fits: set[str] = set()  # heads that answer several query sets are kept once
        for result, heads_of_run in zip(trained.results, trained.heads, strict=True):
            keeps = keep_heads and result.fit not in fits and not plan.run.method.transductive
            fits.add(result.fit)
            found[result.split] = Obtained(
                result=kept.with_heads(result, heads_of_run) if keeps else result,
                folder=None,
                heads=heads_of_run if keeps else (),
                trained=True,
            )
    return [found[split] for split in plan.splits]


def save(obtained: Obtained, root: Path) -> Path:
    """Store a run with its heads and return its folder; a stored one is left as it is."""
    return obtained.folder or store.save(obtained.result, root)


def _equal(plan: Plan, stored: Sequence[Stored]) -> dict[str, Obtained]:
    """Find the newest sound run of each spec."""
    specs = {plan.spec(split).digest(): split for split in plan.splits} if stored else {}
    found: dict[str, Obtained] = {}
    for result, folder in reversed(stored):
        split = specs.get(result.spec)
        if split is not None and split not in found:
            with suppress(FeatcacheError):  # damaged: an older one may be whole
                found[split] = Obtained(
                    result=store.load(folder), folder=folder, heads=(), trained=False
                )
    return found


def _kept_heads(plan: Plan, stored: Sequence[Stored], split: str) -> Sequence[Head]:
    """Read the heads of a run whose FitSpec is equal; none where one cannot be used."""
    fit = plan.fit_spec(split).digest()
    for result, folder in stored:
        if result.fit == fit and set(named.seeds_of(folder)) == set(result.seeds):
            try:
                return [kept.read(folder, seed) for seed in result.seeds]
            except FeatcacheError:
                continue  # damaged, or of another version: another run may have them
    return ()


def _runs_of(plan: Plan, root: Path) -> list[Stored]:
    """List the runs on the features of a plan, oldest first; what cannot be read is left out."""
    features = plan.run.features
    return store.load_records(
        root, features.listing.dataset, features.backbone, features.key.digest()
    )
