"""What a number came from, as far as installed packages tell."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cache
from importlib import metadata

from featcache.store.lines import ShardLine

WEIGHTS = "weights"
"""Entry of a provenance: weights as --weights had them."""


@cache
def _version(package: str) -> str | None:
    with suppress(metadata.PackageNotFoundError):
        return metadata.version(package)
    return None


def versions_of(*packages: str) -> dict[str, str]:
    """Return the version of each package that is installed."""
    return {package: version for package in packages if (version := _version(package))}


def distinct(shards: Mapping[str, Sequence[ShardLine]]) -> list[dict[str, str]]:
    """Return what the shards of a cache were made with, each combination once, oldest first."""
    every = (line.provenance for lines in shards.values() for line in lines)
    return [dict(items) for items in dict.fromkeys(tuple(sorted(p.items())) for p in every)]


def weights_of(shards: Mapping[str, Sequence[ShardLine]]) -> str:
    """Return what --weights said when the newest shards were made; empty where it said nothing."""
    said = [p[WEIGHTS] for p in distinct(shards) if p.get(WEIGHTS)]
    return said[-1] if said else ""
