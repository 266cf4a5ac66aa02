"""Saving heads beside the record of their run, and loading them.

`heads.results.named` says what their files are called and how users name them.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from featcache.errors import HeadError, ImportedFileError
from heads.head import Head
from heads.head_file import pack, unpack
from heads.results import named, store
from heads.results.named import file_of, seeds_of
from heads.results.record import Result


def with_heads(result: Result, heads: Sequence[Head]) -> Result:
    """Return a record that is saved together with its heads, one a repetition."""
    files = {
        file_of(seed): pack(replace(head, about={**head.about, "run": result.run}))
        for seed, head in zip(result.seeds, heads, strict=True)
    }
    return replace(result, beside={**result.beside, **files})


def load(root: Path, name: str) -> Head:
    """Read the head of a run.

    Args:
        root: Folder of all runs.
        name: `RUN@SEED`, RUN where it keeps a single head, or `last`.

    Raises:
        CacheNotFoundError: If `last` is asked for and there is no run.
        UnknownNameError: If there is no such run.
        UsageError: If the run keeps several heads and none is named, or none of that seed.
        HeadError: If the run keeps no head, or the file is damaged.
    """
    found = named.find(root, name)
    return read(found.folder, found.seed)


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
