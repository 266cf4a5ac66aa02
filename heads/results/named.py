"""Naming a head that a run keeps: RUN, RUN@SEED, or `last`.

<runs root>/<data set>/<backbone>-<key>/<run>/head-<seed>.safetensors

`last` is the run stored last, and the first of its heads: seeds differ in the draw of the shots
only, and to take the one with the best top-1 would choose by the queries.
"""

import re
from dataclasses import dataclass
from pathlib import Path

from featcache.errors import CacheNotFoundError, HeadError, UsageError
from featcache.paths import expand
from featcache.wording import Call
from heads.results import store
from heads.results.record import Result

LAST = "last"
FILE = re.compile(r"head-(-?[0-9]{1,18})\.safetensors")


@dataclass(frozen=True, kw_only=True)
class Named:
    """A head of a run."""

    run: str
    seed: int
    folder: Path
    """Where its file is: the folder of the run, or of another run with equal heads."""
    seeds: tuple[int, ...]
    """Seeds of all heads of the run."""

    @property
    def path(self) -> Path:
        """File of the head."""
        return self.folder / file_of(self.seed)

    def __str__(self) -> str:
        return f"{self.run}@{self.seed}"


def file_of(seed: int) -> str:
    """Name the file of the head of a repetition."""
    return f"head-{seed}.safetensors"


def seeds_of(folder: Path) -> list[int]:
    """List the seeds whose heads are kept in the folder of a run."""
    matches = (FILE.fullmatch(path.name) for path in folder.iterdir())
    return sorted(int(match[1]) for match in matches if match)


def as_file(name: Path | str) -> Path | None:
    """Return the path of a head's file if a name is one, and not that of a run.

    Example:
        >>> as_file("moths.head"), as_file("last")
        (PosixPath('moths.head'), None)
    """
    path = expand(name)
    return path if path.suffix or path.exists() or len(path.parts) > 1 else None


def find(root: Path, name: str) -> Named:
    """Find the head of a run.

    Args:
        root: Folder of all runs.
        name: `RUN@SEED`; RUN where it keeps a single head; `last` or `last@SEED`.

    Raises:
        CacheNotFoundError: If `last` is asked for and there is no run.
        UnknownNameError: If there is no such run.
        UsageError: If the run keeps several heads and none is named, or none of that seed.
        HeadError: If the run keeps no head.
    """
    run, _, seed = name.partition("@")
    is_last = run == LAST
    if is_last:
        run = last_run(root)
    folder = folder_of_heads(root, store.find(root, run))
    seeds = tuple(seeds_of(folder))
    if not seeds:
        raise HeadError(
            f"Run {run}{', stored last,' if is_last else ''} keeps no head: it is of episodes, of "
            f"a transductive method, of an earlier version, or was asked to keep none. Train it "
            f"again, or name another run; `heads ls` shows which keep heads."
        )
    choice = ", ".join(f"{run}@{s}" for s in seeds)
    if not seed and len(seeds) > 1 and not is_last:
        raise UsageError(f"Run {run} keeps {len(seeds)} heads; name one of {choice}.")
    wanted = seed or str(seeds[0])
    one_of = "one of " if len(seeds) > 1 else ""
    if wanted not in map(str, seeds):
        raise UsageError(f"Run {run} keeps no head of seed '{wanted[:40]}'; name {one_of}{choice}.")
    return Named(run=run, seed=int(wanted), folder=folder, seeds=seeds)


def last_run(root: Path) -> str:
    """Return the name of the run stored last; damaged ones do not count.

    Raises:
        CacheNotFoundError: If there is none.
    """
    results = store.load_all(root).results
    if not results:
        raise CacheNotFoundError(
            f"There are no runs in {root}. Train one with: ",
            Call("heads.evaluate", {"method": "gda", "shots": 16}),
        )
    return results[-1].run


def folder_of_heads(root: Path, folder: Path) -> Path:
    """Return the folder with the heads of a run: its own, or that of a run with equal heads."""
    if seeds_of(folder):
        return folder
    return next((place for _, place in equal_runs(root, folder) if seeds_of(place)), folder)


def equal_runs(root: Path, folder: Path) -> list[tuple[Result, Path]]:
    """List the runs whose heads are equal to those of a run, itself among them; oldest first.

    Raises:
        FeatcacheError: If its record cannot be read.
    """
    result = store.load(folder, predictions=False)
    records = store.load_records(root, result.dataset, result.backbone, result.key)
    return [(one, place) for one, place in records if result.fit and one.fit == result.fit]
