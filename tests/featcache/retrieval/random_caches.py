"""Caches of random vectors, without a backbone."""

import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np

from featcache.keys import ComponentKey, FeatureKey, Listing
from featcache.store.cache import Cache

KEY = FeatureKey(
    architecture="toy", weights="0" * 64, activation="gelu", image_size=32, preprocessing="none"
)
DIM, CLUSTERS = 16, 40

Make = Callable[..., Cache]


def listing(name: str, images: int) -> Listing:
    return Listing(
        dataset=name,
        root="photos",
        classes=("ant", "bee"),
        ids=tuple(f"{i}.jpg" for i in range(images)),
        hashes=tuple(hashlib.sha256(f"{name}{i}".encode()).hexdigest() for i in range(images)),
        labels=np.arange(images, dtype=np.int64) % 2,
        splits={"train": np.arange(images, dtype=np.int64)},
    )


def clustered(seed: int, rows: int, shape: tuple[int, ...]) -> np.ndarray:
    """Vectors around a few centres, as features are."""
    centres = np.random.default_rng(0).normal(size=(CLUSTERS, shape[-1]))
    rng = np.random.default_rng(seed)
    near = centres[rng.integers(0, CLUSTERS, (rows, *shape[:-1]))]
    return (near + 0.3 * rng.normal(size=near.shape)).astype(np.float16)


def grow(cache: Cache, rows: np.ndarray, patches: int = 0) -> None:
    """Add a shard of some rows to a cache."""
    seed = 100 * int(rows[0]) + len(rows)
    made = {"featcache": "0", "device": "cpu"}
    values = clustered(seed, len(rows), (DIM,))
    cache.append(ComponentKey(kind="global"), rows, values, {}, made)
    if patches:
        part = ComponentKey(kind="patches", variant="vanilla")
        cache.append(part, rows, clustered(seed + 1, len(rows), (patches, DIM)), {}, made)
    cache.finish(components=["global"], images=len(rows), seconds=1.0, complete=True)


def make_cache(
    root: Path,
    name: str = "toys",
    images: int = 600,
    *,
    filled: int | None = None,
    patches: int = 0,
    key: FeatureKey = KEY,
) -> Cache:
    cache = Cache.create(root, name, "Toy/1", key)
    cache.put_listing(listing(name, images))
    if filled != 0:
        grow(cache, np.arange(filled or images, dtype=np.int64), patches)
    return cache
