"""Saving heads beside the record of their run, and loading them by `RUN@SEED`.

<runs root>/<data set>/<backbone>-<key>/<run>/head-<seed>.safetensors
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from featcache.errors import HeadError, ImportedFileError, UsageError
from heads.head import Head
from heads.head_file import pack, unpack
from heads.results import store
from heads.results.record import Result

NAME = re.compile(r"head-(-?[0-9]{1,18})\.safetensors")


def file_of(seed: int) -> str:
    """Name the file of the head of a repetition."""
    return f"head-{seed}.safetensors"


def with_heads(result: Result, heads: Sequence[Head]) -> Result:
    """Return a record that is saved together with its heads, one a repetition."""
    files = {
        file_of(seed): pack(replace(head, about={**head.about, "run": result.run}))
        for seed, head in zip(result.seeds, heads, strict=True)
    }
    return replace(result, beside={**result.beside, **files})


def seeds_of(folder: Path) -> list[int]:
    """List the seeds whose heads are kept in the folder of a run."""
    matches = (NAME.fullmatch(path.name) for path in folder.iterdir())
    return sorted(int(match[1]) for match in matches if match)


def load(root: Path, name: str) -> Head:
    """Read the head of a run.

    Args:
        root: Folder of all runs.
        name: `RUN@SEED`, or RUN where it keeps a single head.

    Raises:
        UnknownNameError: If there is no such run.
        UsageError: If the run keeps several heads and none is named, or none of that seed.
        HeadError: If the run keeps no head, or the file is damaged.
    """
    run, _, seed = name.partition("@")
    folder = _folder_of_heads(root, store.find(root, run))
    seeds = seeds_of(folder)
    if not seeds:
        raise HeadError(
            f"Run {run} keeps no head: it is of episodes, of a transductive method, of an earlier "
            f"version, or was asked to keep none. Train it again."
        )
    choice = ", ".join(f"{run}@{s}" for s in seeds)
    if not seed and len(seeds) > 1:
        raise UsageError(f"Run {run} keeps {len(seeds)} heads; name one of {choice}.")
    wanted = seed or str(seeds[0])
    if wanted not in map(str, seeds):
        raise UsageError(f"Run {run} keeps no head of seed '{wanted[:40]}', but {choice}.")
    return read(folder, int(wanted))


def _folder_of_heads(root: Path, folder: Path) -> Path:
    """Return the folder with the heads of a run: its own, or that of a run with equal heads."""
    if seeds_of(folder):
        return folder
    result = store.load(folder, predictions=False)
    for other, place in store.load_records(root, result.dataset, result.backbone, result.key):
        if result.fit and other.fit == result.fit and seeds_of(place):
            return place
    return folder


def read(folder: Path, seed: int) -> Head:
    """Read the head of a repetition and check it against the record of the run.

    Raises:
        HeadError: If the file is damaged.
    """
    try:
        return unpack(store.read_beside(folder, file_of(seed)), str(folder / file_of(seed)))
    except ImportedFileError as error:
        raise HeadError(*error.parts) from error


def read_all(folder: Path) -> Iterator[Head]:
    """Read the heads of a run in the order of its seeds; errors as `read`."""
    for seed in seeds_of(folder):
        yield read(folder, seed)
