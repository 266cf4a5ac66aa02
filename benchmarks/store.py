"""How long does a very large cache take to list, to open and to read from?

Builds a cache of sparse files, so that ten million rows in ten thousand shards take 1.4 GB of disk.
All shards of a component hold zeros, and are links to one file, as are the checksums beside them.

Example: python benchmarks/store.py --rows 10000000 --shards 10000
"""

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from featcache.keys import FeatureKey, Listing
from featcache.store.cache import Cache
from featcache.store.format.checksums import sums_of, sums_path, write_sums
from featcache.store.format.crc import crc32
from featcache.store.format.identity import LISTING, MANIFEST, Identity, write_identity
from featcache.store.format.manifest import write_manifest
from featcache.store.format.records import PassLine, ShardLine
from featcache.store.format.scan import checksums
from featcache.store.format.shard import ShardFacts
from featcache.store.library import caches, find_summaries
from featcache.store.listing.files import write_set
from featcache.store.listing.lazy_columns import to_npy
from featcache.store.listing.listing import current_set, write_listing

KINDS: dict[str, tuple[tuple[int, ...], str]] = {
    "global": ((512,), "float16"),
    "views.rrc50-10": ((10, 512), "float16"),
    "patches.clearclip": ((49, 512), "float16"),
    "patches.clearclip.int8": ((49, 516), "int8"),
}
"""Component -> shape of a row as stored, and type."""
OFFSET = 4096
TAKEN = 1000
"""Random rows that are read."""
CLASSES = 1000


def main() -> None:
    """Build, measure, then print a table and one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--shards", type=int, default=10_000, help="Of all components together.")
    parser.add_argument("--folder", type=Path, help="Where the cache is built; a temporary one.")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        started = time.perf_counter()
        path = build(Path(folder), rows=arguments.rows, shards=arguments.shards, kinds=KINDS)
        figures: dict[str, Any] = {"rows": arguments.rows, "shards": arguments.shards}
        figures["build_s"] = round(time.perf_counter() - started, 2)
        figures |= measure(Path(folder), path)
    for name, value in figures.items():
        print(f"{name:28} {value}")
    print(json.dumps(figures))


def measure(root: Path, path: Path) -> dict[str, Any]:
    """Time what a user does, each for the first time in this process."""
    figures: dict[str, Any] = {}

    def timed(name: str, call: Callable[[], Any]) -> Any:
        started = time.perf_counter()
        value = call()
        figures[f"{name}_s"] = round(time.perf_counter() - started, 3)
        return value

    timed("ls", lambda: caches(root))
    timed("info", lambda: information(root))
    import featcache.types  # noqa: F401  torch: seconds of its own

    before = anonymous_memory()
    features = timed("feature_set", lambda: Cache.open(path).feature_set())
    figures["feature_set_MiB"] = (anonymous_memory() - before) >> 20
    rows = np.sort(np.random.default_rng(0).choice(len(features.listing), TAKEN, replace=False))
    for component in features.components:
        timed(f"take {component}", partial(features.rows, component, rows))
        timed(f"again {component}", partial(features.rows, component, rows))
    timed("first label", lambda: features.labels[rows])
    timed("first split", lambda: features.listing.splits)
    timed("first id", lambda: features.listing.ids[int(rows[0])])
    timed("first hash", lambda: features.listing.hashes[int(rows[0])])
    figures["all_MiB"] = (anonymous_memory() - before) >> 20
    return figures


def information(root: Path) -> None:
    """Ask for what `featcache info` shows."""
    opened = Cache.open(find_summaries(root)[0].path)
    listing, bad = opened.listing(), opened.bad_rows()
    assert listing is not None
    assert listing.classes
    assert [len(rows) for rows in listing.splits.values()]
    assert {listing.ids[row]: reason for row, reason in bad.items()}


def build(
    root: Path, *, rows: int, shards: int, kinds: Mapping[str, tuple[tuple[int, ...], str]]
) -> Path:
    """Make a cache whose shards are sparse files of zeros; return its folder."""
    key = FeatureKey(
        architecture="toy", weights="0" * 64, activation="gelu", image_size=32, preprocessing="none"
    )
    identity = Identity("simulated", "toy", key)
    path = identity.folder(root)
    path.mkdir(parents=True)
    lines: list[ShardLine | PassLine] = []
    hashes = np.random.default_rng(0).bytes(32 * rows)
    for component, (shape, dtype) in kinds.items():
        each = -(-rows * len(kinds) // shards)
        lines += _shards(path / component, rows, each, shape, dtype, hashes)
    last = PassLine(time=1.0, components=tuple(kinds), images=rows, seconds=1.0, complete=True)
    write_manifest(path / MANIFEST, identity, [*lines, last])
    write_identity(path, identity)
    _list(path / LISTING, rows, hashes)
    return path


def _shards(
    folder: Path, rows: int, each: int, shape: tuple[int, ...], dtype: str, hashes: bytes
) -> list[ShardLine]:
    """Link one sparse file to the name of every full shard; a last, shorter one is its own."""
    folder.mkdir()
    known: dict[int, tuple[Path, ShardFacts]] = {}
    provenance = {f"package {i}": "1.2.3" for i in range(10)}
    lines = []
    for number, first in enumerate(range(0, rows, each)):
        last = min(first + each, rows)
        file = folder / f"{first:08d}-{last:08d}.h5"
        if last - first in known:
            os.link(known[last - first][0], file)
            os.link(sums_path(known[last - first][0]), sums_path(file))
        else:
            known[last - first] = file, _sparse(file, (last - first, *shape), dtype)
        lines.append(
            ShardLine(
                component=folder.name,
                file=file.name,
                rows=((first, last),),
                bad=((7, "UnidentifiedImageError"),) if number % 100 == 0 else (),
                facts=known[last - first][1],
                images_crc32=crc32(hashes[32 * first : 32 * last].hex().encode()),
                provenance=provenance,
            )
        )
    return lines


def _sparse(path: Path, shape: tuple[int, ...], dtype: str) -> ShardFacts:
    size = OFFSET + int(np.prod(shape)) * np.dtype(dtype).itemsize
    with path.open("wb") as file:
        file.truncate(size)
    facts = ShardFacts(
        offset=OFFSET,
        shape=shape,
        dtype=dtype,
        bytes=size,
        crc32=checksums(path, sha256=False).crc32,
        sha256="0" * 64,
    )
    rows = np.memmap(path, dtype=dtype, mode="r", offset=OFFSET, shape=shape)
    write_sums(path, facts, sums_of(rows, facts))
    return facts


def _list(folder: Path, rows: int, hashes: bytes) -> None:
    """Write a listing by columns: as Python texts, ten million ids would take minutes."""
    small = Listing(
        dataset="simulated",
        root="photos",
        classes=tuple(f"class {i}" for i in range(CLASSES)),
        ids=(),
        hashes=(),
        labels=np.empty(0, dtype=np.int64),
        splits={},
    )
    write_listing(folder, small)
    about = json.loads((folder / current_set(folder) / "listing.json").read_bytes())
    half = rows // 2
    digits = np.arange(rows)[:, None] // 10 ** np.arange(8)[::-1] % 10 + ord("0")  # [n 8]
    ids = np.concatenate([digits, np.tile(np.array([*b".jpg"]), (rows, 1))], axis=1)
    files = {
        "listing.json": json.dumps({**about, "splits": [["train", half], ["test", half]]}).encode(),
        "ids.utf8": ids.astype(np.uint8).tobytes(),
        "offsets.npy": to_npy(np.arange(rows + 1) * 12),
        "hashes.bin": hashes,
        "labels.npy": to_npy(np.arange(rows) % CLASSES),
        "splits.npy": to_npy(np.arange(2 * half)),
    }
    write_set(folder, rows, files)


def anonymous_memory() -> int:
    """Return the bytes of this process that no file backs; 0 where the system does not tell."""
    status = Path("/proc/self/status")
    if not status.exists():
        return 0
    line = next(s for s in status.read_text().splitlines() if s.startswith("RssAnon"))
    return int(line.split()[1]) << 10


if __name__ == "__main__":
    main()
