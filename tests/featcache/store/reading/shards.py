"""Caches of every kind of component, and ways to read and to bend them."""

from pathlib import Path
from typing import Any

import numpy as np

from featcache.quantise import pack
from featcache.store.cache import Cache
from featcache.store.format.records import ShardLine
from featcache.types import ComponentKey, FeatureKey
from tests.featcache.store.conftest import HERE
from tests.featcache.store.conftest import _listing as make_listing

N = 12
KEYS = {
    "global": (ComponentKey(kind="global"), (8,)),
    "patches": (ComponentKey(kind="patches", variant="clearclip"), (400, 8)),
    "patches in eight bits": (ComponentKey(kind="patches", variant="v", dtype="int8"), (400, 8)),
    "views": (ComponentKey(kind="views", recipe="rrc50", count=3), (3, 8)),
    "crops": (ComponentKey(kind="crops", recipe="lazsl", count=4), (4, 8)),
    "view patches": (
        ComponentKey(kind="view_patches", variant="v", recipe="cdfsl", count=2), (2, 300, 8)),
    "boxes": (ComponentKey(kind="boxes", recipe="lazsl", count=4), (4, 4)),
}  # fmt: skip


def rows_of(key: ComponentKey, shape: tuple[int, ...], seed: int = 0) -> Any:
    values = np.random.default_rng(seed).standard_normal((N, *shape)).astype(np.float16)
    if key.dtype == "int8":
        return pack(values)
    return values if key.dtype == "float16" else (values * 100).astype(np.int32)


def make(root: Path, seed: int = 0) -> Cache:
    """Two shards of every kind of component."""
    key = FeatureKey(
        architecture="toy", weights="0" * 64, activation="gelu", image_size=32, preprocessing="none"
    )
    cache = Cache.create(root, "toys", "Toy/1", key)
    hashes = tuple(f"{seed:02d}{i:062d}" for i in range(20))
    cache.put_listing(make_listing(20, hashes=hashes))
    for component, shape in KEYS.values():
        values = rows_of(component, shape, seed)
        for rows in (np.arange(7), np.arange(7, N)):
            cache.append(component, rows, values[rows], {}, HERE)
    return Cache.open(cache.path)


def flip(path: Path, place: int, mask: int = 1) -> None:
    data = bytearray(path.read_bytes())
    data[place] ^= mask
    path.write_bytes(data)


def shard_of(cache: Cache, name: str) -> tuple[Path, ShardLine]:
    """Return the second shard of a component."""
    line = cache.shards[KEYS[name][0].folder][1]
    return cache.path / line.component / line.file, line


def read(path: Path, name: str, rows: Any = None) -> Any:
    """Read in a cache opened anew, as another process would."""
    wanted = np.arange(N) if rows is None else np.array(rows)
    return Cache.open(path).rows(KEYS[name][0].folder).gather(wanted)
