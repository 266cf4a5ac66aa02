"""Indexes over caches: time to build against faiss alone, most memory, milliseconds of a search.

Draws clustered vectors into shards of a temporary cache by the interface of the store, then runs
each measurement in a process of its own. `build` is the whole of `build_index`: reading and
checking the shards, training, adding, measuring the recall, writing. `faiss` trains and adds the
same number of vectors of the same kind from one float32 array in memory, and writes nothing.

Example: python benchmarks/retrieval.py --rows 1000000 --kind ivf --faiss
Example: python benchmarks/retrieval.py --rows 51021 --patches 196 --kind ivfpq --set lists=1024
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from featcache.keys import ComponentKey, FeatureKey, Listing
from featcache.retrieval.index import open_index
from featcache.retrieval.indexes.building import build_index
from featcache.retrieval.indexes.filling import sample
from featcache.retrieval.kinds.registry import structure_of
from featcache.retrieval.kinds.structure import chosen
from featcache.retrieval.vectors import Vectors
from featcache.store.cache import Cache

CENTRES, SEARCHES = 2000, 30
SHARD = 64 << 20
"""Bytes of a shard, about."""
KEY = FeatureKey(
    architecture="drawn", weights="0" * 64, activation="gelu", image_size=224, preprocessing="none"
)


def main() -> None:
    """Draw the cache, measure, print one JSON line a measurement."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--patches", type=int, default=0, help="of each row; 0 for global features")
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--kind", default="flat")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=N")
    parser.add_argument("--faiss", action="store_true", help="measure faiss alone too")
    parser.add_argument("--at", type=Path, help="folder of the cache; made there and kept")
    parser.add_argument("--only", choices=("build", "faiss", "search"))
    options = parser.parse_args()
    if options.only:
        print(json.dumps(measure(options)), flush=True)
        return
    with tempfile.TemporaryDirectory() as folder:
        options.at = options.at or Path(folder)
        if not (options.at / "drawn").exists():
            draw(options.at, options.rows, options.patches, options.dim)
        for only in ("build", "faiss", "search"):
            if only != "faiss" or options.faiss:
                again = [*sys.argv[1:], "--only", only, "--at", str(options.at)]
                subprocess.run([sys.executable, __file__, *again], check=True)


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Take one measurement in this process."""
    of = "patches" if options.patches else "global"
    (path,) = (options.at / "drawn").glob("*-*")
    vectors = Vectors([Cache.open(path).feature_set()], of)
    given = dict(item.split("=", 1) for item in options.set)
    figures: dict[str, Any] = {"what": options.only, "kind": options.kind, "vectors": len(vectors)}
    if options.only == "build":
        start, cpu = time.perf_counter(), time.process_time()
        built = build_index(
            [vectors.sources[0].features], of, kind=options.kind, name="it", parameters=given
        )
        figures |= times(start, cpu)
        figures |= {"parameters": dict(built.index.parameters), "bytes": built.index.size}
        figures |= {"recall": built.index.recall.value if built.index.recall else None}
    elif options.only == "faiss":
        figures |= faiss_alone(vectors, options.kind, given)
    else:
        figures |= search(vectors, options.at)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return figures | {"peak_GB": round(peak * 1024 / 1e9, 2), "threads": torch.get_num_threads()}


def faiss_alone(vectors: Vectors, kind: str, given: dict[str, str]) -> dict[str, Any]:
    """Train and add by faiss what lies in memory already."""
    structure = structure_of(kind)
    assert structure is not None, "flat builds nothing"
    parameters = chosen(structure, len(vectors), vectors.dim, given)
    index = structure(vectors.dim, parameters)
    rows = np.empty((len(vectors), vectors.dim), dtype=np.float32)
    done = 0
    for block in vectors.blocks():
        rows[done : done + len(block)] = block.numpy()
        done += len(block)
    at = sample(vectors, index.sample_size(len(vectors)))
    start, cpu = time.perf_counter(), time.process_time()
    index.train(rows[at])
    index.add(rows)
    return times(start, cpu)


def search(vectors: Vectors, root: Path) -> dict[str, Any]:
    """Time opening, the first search and later ones; queries are vectors with noise."""
    start, cpu = time.perf_counter(), time.process_time()
    opened = open_index(vectors, root, name="it")
    figures: dict[str, Any] = {f"open_{k}": v for k, v in times(start, cpu).items()}
    rng = np.random.default_rng(3)
    queries = vectors.take(rng.choice(len(vectors), SEARCHES, replace=False))
    noise = 0.02 * torch.randn(queries.shape, generator=torch.Generator().manual_seed(0))
    queries = torch.nn.functional.normalize(queries + noise, dim=1)
    wall, spent = [], []
    for query in queries:
        start, cpu = time.perf_counter(), time.process_time()
        opened.search(query[None], 20)
        wall.append(1e3 * (time.perf_counter() - start))
        spent.append(1e3 * (time.process_time() - cpu))
    for name, taken in (("ms", wall), ("cpu_ms", spent)):
        later = sorted(taken[1:])
        figures |= {f"first_{name}": round(taken[0], 1)}
        figures |= {f"median_{name}": round(later[len(later) // 2], 1)}
    return figures


def times(start: float, cpu: float) -> dict[str, float]:
    """Return seconds since two readings of the clocks."""
    wall, spent = time.perf_counter() - start, time.process_time() - cpu
    return {"wall_s": round(wall, 1), "cpu_s": round(spent, 1)}


def draw(root: Path, rows: int, patches: int, dim: int) -> None:
    """Fill a cache with vectors around a few thousand centres."""
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(CENTRES, dim)).astype(np.float32)
    noise = rng.normal(size=(1 << 16, dim)).astype(np.float32)
    cache = Cache.create(root, "drawn", "drawn", KEY)
    ids: Sequence[str] = tuple(f"{i:08d}.jpg" for i in range(rows))
    listing = Listing(
        dataset="drawn",
        root="nowhere",
        classes=("thing",),
        ids=tuple(ids),
        hashes=tuple(f"{i:064x}" for i in range(rows)),
        labels=np.zeros(rows, dtype=np.int64),
        splits={"train": np.arange(rows)},
    )
    cache.put_listing(listing)
    each = max(1, patches)
    step = max(1, SHARD // (2 * dim * each))
    kind = ComponentKey(kind="global")
    if patches:
        kind = ComponentKey(kind="patches", variant="drawn")
    with cache.lock():
        for first in range(0, rows, step):
            own = np.arange(first, min(rows, first + step))
            count = len(own) * each
            values = centres[rng.integers(0, CENTRES, count)]
            values += 0.7 * noise[rng.integers(0, len(noise), count)]
            shape = (len(own), each, dim) if patches else (len(own), dim)
            cache.append(kind, own, values.reshape(shape), {}, {"device": "cpu"})
        cache.finish(components=[kind.folder], images=rows, seconds=1.0, complete=True)


if __name__ == "__main__":
    main()
