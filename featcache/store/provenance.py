"""Provenance of features: versions of packages, weights and files."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cache
from importlib import metadata

from featcache.keys import FeatureKey
from featcache.store.format.records import ShardLine

WEIGHTS = "weights"
"""Provenance entry: weights as the user named them."""

MICRO_BATCH, COMPUTE = "micro_batch", "compute"
"""Entries of a provenance: the batch size and the compute type (float32, bfloat16) of the encoder,
which decide the last bits of every row."""

FILE = "file"
"""Provenance entry: name of the file of imported features."""


@cache
def _version(package: str) -> str | None:
    with suppress(metadata.PackageNotFoundError):
        return metadata.version(package)
    return None


def versions_of(*packages: str) -> dict[str, str]:
    """Return the versions of the installed packages among these."""
    return {package: version for package in packages if (version := _version(package))}


def distinct(shards: Mapping[str, Sequence[ShardLine]]) -> list[dict[str, str]]:
    """Return the distinct provenances of the shards of a cache, oldest first."""
    every = (line.provenance for lines in shards.values() for line in lines)
    return [dict(items) for items in dict.fromkeys(tuple(sorted(p.items())) for p in every)]


def weights_of(shards: Mapping[str, Sequence[ShardLine]]) -> str:
    """Return the weights that were named for the newest shards; empty if none were."""
    return _last(shards, WEIGHTS)


def encoding_of(shards: Mapping[str, Sequence[ShardLine]]) -> dict[str, str]:
    """Return micro-batch and compute type of the encoder; empty for imported features.

    A pass never mixes two of them in one cache.
    """
    values = {name: _last(shards, name) for name in (MICRO_BATCH, COMPUTE)}
    return values if all(values.values()) else {}


def weights_argument(key: FeatureKey, shards: Mapping[str, Sequence[ShardLine]]) -> str:
    """Return the weights to name for the same key; empty if unknown or the default."""
    return weights_of(shards) or (key.weights if key.weights.startswith("random-") else "")


def origin_of(key: FeatureKey, shards: Mapping[str, Sequence[ShardLine]]) -> str:
    """Return a short name of the weights or the file that the features of a cache came from."""
    if key.is_imported:
        return f"file {_last(shards, FILE) or key.preprocessing.removeprefix('imported:')}"
    if key.weights.startswith("random-"):
        return key.weights
    return weights_of(shards) or "usual"


def _last(shards: Mapping[str, Sequence[ShardLine]], entry: str) -> str:
    values = [p[entry] for p in distinct(shards) if p.get(entry)]
    return values[-1] if values else ""
