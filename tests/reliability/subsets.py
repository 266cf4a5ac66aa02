"""A cache in which any component of any block is finished or not, whatever a kill may leave.

A pass writes one line after another, block by block; but passes that asked for other components,
or went over other images, and repairs of lost shards leave lines in any combination.
"""

import itertools
from collections.abc import Callable, Collection
from pathlib import Path

from featcache.store.format.identity import MANIFEST, read_identity
from featcache.store.format.manifest import read_manifest, write_manifest
from featcache.store.format.records import Line, PassLine, ShardLine

Share = tuple[int, str]
"""A block's number and a component: what one line enters."""


def shares(path: Path, rows: int) -> dict[Share, list[str]]:
    """Return what a finished cache holds, and the files of each share.

    Args:
        path: The cache.
        rows: Of a block.
    """
    found: dict[Share, list[str]] = {}
    for line in _lines(path):
        if isinstance(line, ShardLine):
            found.setdefault((line.rows[0][0] // rows, line.component), []).append(line.file)
    return found


def keep_only(path: Path, rows: int, kept: Callable[[Share], bool]) -> None:
    """Undo what was finished, as if no pass had ended: lines first, then the shards.

    Args:
        path: The cache.
        rows: Of a block.
        kept: Tells of a share whether it stays.
    """
    left: list[Line] = []
    for line in _lines(path):
        if isinstance(line, ShardLine) and not kept((line.rows[0][0] // rows, line.component)):
            (path / line.component / line.file).unlink()
        elif not isinstance(line, PassLine):
            left.append(line)
    write_manifest(path / MANIFEST, read_identity(path), left)


def subsets(items: Collection[str]) -> list[frozenset[str]]:
    """Return every subset, the smallest first."""
    sizes = range(len(items) + 1)
    return [frozenset(s) for n in sizes for s in itertools.combinations(sorted(items), n)]


def _lines(path: Path) -> list[Line]:
    return read_manifest(path / MANIFEST, read_identity(path)).lines
