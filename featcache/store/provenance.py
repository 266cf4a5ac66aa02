"""What a number came from, as far as installed packages tell."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cache
from importlib import metadata

from featcache.keys import FeatureKey
from featcache.store.format.records import ShardLine

WEIGHTS = "weights"
"""Entry of a provenance: weights as --weights had them."""

MICRO_BATCH, COMPUTE = "micro_batch", "compute"
"""Entries of a provenance: the batch size and the compute type (float32, bfloat16) of the encoder,
which decide the last bits of every row."""

FILE = "file"
"""Entry of a provenance: name of the file that imported features came from."""


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
    return _last(shards, WEIGHTS)


def encoding_of(shards: Mapping[str, Sequence[ShardLine]]) -> dict[str, str]:
    """Return micro-batch and compute type of the encoder; empty for imported features.

    A pass never mixes two of them in one cache.
    """
    values = {name: _last(shards, name) for name in (MICRO_BATCH, COMPUTE)}
    return values if all(values.values()) else {}


def weights_flag(key: FeatureKey, shards: Mapping[str, Sequence[ShardLine]]) -> str:
    """Return what --weights has to say for the same key, as far as it is known; else nothing."""
    return weights_of(shards) or (key.weights if key.weights.startswith("random-") else "")


def origin_of(key: FeatureKey, shards: Mapping[str, Sequence[ShardLine]]) -> str:
    """Say in a word or two which weights, or which file, the features of a cache came from."""
    if key.is_imported:
        return f"file {_last(shards, FILE) or key.preprocessing.removeprefix('imported:')}"
    if key.weights.startswith("random-"):
        return key.weights
    return weights_of(shards) or "usual"


def _last(shards: Mapping[str, Sequence[ShardLine]], entry: str) -> str:
    said = [p[entry] for p in distinct(shards) if p.get(entry)]
    return said[-1] if said else ""
