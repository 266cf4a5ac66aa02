"""Shards of a data set: the files of a folder, one file, or a pattern with braces."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from featcache.errors import SourceError
from featcache.limits import WORDS
from featcache.paths import as_text, expand
from featcache.sources.layouts.split_names import USUAL, split_in
from featcache.sources.trees.folder import FolderTree

_BRACES = re.compile(r"\{([0-9]+)\.\.([0-9]+)\}")
MOST_SHARDS = 100_000
"""Shards that a pattern may name."""


@dataclass(frozen=True, slots=True)
class Shard:
    """One of the files of a data set."""

    path: Path
    name: str
    """Below the root, with `/`."""
    split: str
    """As its folder or its name says; empty where neither does."""


def expand_braces(pattern: str) -> list[str]:
    """Write out `{000..012}`, as the webdataset library does.

    Raises:
        SourceError: If a range runs backwards, or there are too many.

    Example:
        >>> expand_braces("x-{08..11}.tar")
        ['x-08.tar', 'x-09.tar', 'x-10.tar', 'x-11.tar']
    """
    found = _BRACES.search(pattern)
    if found is None:
        return [pattern]
    first, last = found.groups()
    low, high = int(first), int(last)
    if high < low or high - low >= MOST_SHARDS:
        raise SourceError(
            f"Pattern {pattern} names no shards, or more than {MOST_SHARDS}; expected a range such "
            f"as {{000000..000012}}."
        )
    width = len(first) if first.startswith("0") or len(first) == len(last) else 0
    made = []
    for number in range(low, high + 1):
        text = str(number).zfill(width)
        made += expand_braces(pattern[: found.start()] + text + pattern[found.end() :])
        if len(made) > MOST_SHARDS:
            raise SourceError(f"Pattern {pattern} names more than {MOST_SHARDS} shards.")
    return made


def named_shards(pattern: str) -> tuple[Path, list[Shard]]:
    """Return the shards that a path or a pattern names, and the folder that holds them all.

    Raises:
        SourceError: If one is not there.
    """
    paths = [expand(text) for text in expand_braces(pattern)]
    missing = [path for path in paths if not path.is_file()]
    if missing:
        raise SourceError(
            f"{len(missing)} of the {len(paths)} shards of {pattern} are not there; the first is "
            f"{missing[0]}."
        )
    paths = [path.absolute() for path in paths]
    root = paths[0].parent
    while not all(path.is_relative_to(root) for path in paths):
        root = root.parent
    root = root.resolve()
    names = [as_text(path.name if len(paths) == 1 else _below(path, root)) for path in paths]
    return root, [
        Shard(path, name, _split_of(name)) for path, name in zip(paths, names, strict=True)
    ]


def shards_below(root: Path, suffix: str, *, deep: bool = True) -> list[Shard]:
    """Find the shards in a folder and its sub-folders, in the order of their numbers.

    Args:
        root: The folder, resolved.
        suffix: What their names end in, as ".tar".
        deep: Whether folders are looked into.
    """
    tree = FolderTree(root)
    found = [
        Shard(root / name, name, _split_of(name))
        for name in _walk(tree, "", suffix, deep)
        if tree.find(name) is not None
    ]
    return sorted(found, key=lambda shard: _natural(shard.name))


def configurations(names: Iterable[str]) -> dict[str, str]:
    """Tell the configurations of a data set apart by the folders of its parquet files.

    Args:
        names: Paths of the files below the root, with `/`.

    Returns:
        Folders without those of splits -> their first folder; one entry for one data set.

    Example:
        >>> configurations(["small/train/0.parquet", "large/train/0.parquet"])
        {'small': 'small', 'large': 'large'}
        >>> len(configurations(["data/train-0.parquet", "data/test-0.parquet"]))
        1
    """
    found = {}
    for name in names:
        folders = name.split("/")[:-1]
        own = "/".join(f for f in folders if f != "data" and f.lower() not in USUAL)
        found[own] = folders[0] if folders else ""
    return found


def check_count(tree: FolderTree, folder: str, shards: list[Shard]) -> None:
    """Compare the shards of a folder with the number in its `nshards.txt`, if there is one.

    Raises:
        SourceError: If a shard is missing.
    """
    listed = f"{folder}/nshards.txt" if folder else "nshards.txt"
    if tree.find(listed) is None:
        return
    text = tree.read(listed, WORDS).strip()
    if not text.isdigit() or len(text) > 9:
        raise SourceError(f"{tree.root / listed} holds {text[:40]!a}; expected a number of shards.")
    there = sum(shard.name.rpartition("/")[0] == folder for shard in shards)
    if there != int(text):
        raise SourceError(
            f"{tree.root / listed} says {int(text)} shards, and {there} are there; get a whole one."
        )


def _below(path: Path, root: Path) -> str:
    return (
        path.resolve().relative_to(root).as_posix()
        if path.resolve().is_relative_to(root)
        else path.name
    )


def _walk(tree: FolderTree, folder: str, suffix: str, deep: bool) -> Iterator[str]:
    for name in tree.names(folder):
        path = f"{folder}/{name}" if folder else name
        if name.lower().endswith(suffix) and not tree.has_folder(path):
            yield path
        elif deep and path.count("/") < 4 and tree.has_folder(path):
            yield from _walk(tree, path, suffix, deep)


def _split_of(name: str) -> str:
    """Return the split that a file's name mentions, or else the nearest folder with one's name."""
    *folders, file = name.split("/")
    named = split_in(file.partition(".")[0])
    return named or next((USUAL[f.lower()] for f in reversed(folders) if f.lower() in USUAL), "")


def _natural(name: str) -> list[tuple[int, str]]:
    parts = re.split(r"([0-9]{1,18})", name)
    return [(int(p), "") if i % 2 else (0, p) for i, p in enumerate(parts)]
