"""What a number came from, as far as installed packages tell."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cache
from importlib import metadata

from featcache.store.lines import ShardLine


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
