"""How fast do rows come back, beside the same from memory, HDF5 with one row a chunk, and memcpy?

Files are warm: they were written just before. CPU time stands beside the clock, which a busy
machine spoils.

Example: python benchmarks/reading.py --images 4000
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from PIL import Image

from featcache.keys import FeatureKey, Listing, parse_component
from featcache.store.cache import Cache

SHARD, PATCHES, DIM = 500, 49, 512
TAKEN = 1000
"""Scattered rows."""
SUPPORT = 16_000
"""Rows of a support set of 16 shots and 1000 classes."""


def main() -> None:
    """Build, measure, then print a table and one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=4000)
    parser.add_argument("--repeat", type=int, default=5, help="of each reading; the best counts")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        figures = {
            **rows(Path(folder), arguments.images, arguments.repeat),
            **command(Path(folder), arguments.repeat),
            "load_average": round(os.getloadavg()[0], 1),
        }
    for name, value in figures.items():
        print(f"{name:36} {value}")
    print(json.dumps(figures))


def rows(folder: Path, images: int, repeat: int) -> dict[str, Any]:
    """Read patch features in three ways, and a support set of global ones."""
    rng = np.random.default_rng(0)
    patches = rng.standard_normal((images, PATCHES, DIM), dtype=np.float32).astype(np.float16)
    path = build(folder, images, patches)
    slow = folder / "rows.h5"
    with h5py.File(slow, "w") as file:
        file.create_dataset("x", data=patches.reshape(-1, DIM), chunks=(1, DIM))
    chosen = rng.permutation(images)[:TAKEN]
    cache = Cache.open(path)
    reader = cache.rows("patches.clearclip")

    def one_row_a_chunk() -> None:
        """Read as tools with one patch a chunk do: image by image."""
        with h5py.File(slow, "r") as file:
            data = file["x"]
            for row in chosen[: max(1, len(chosen) // 10)]:
                data[row * PATCHES : (row + 1) * PATCHES]

    def one_row_a_chunk_at_once() -> None:
        """Name all rows in one selection."""
        some = np.sort(chosen[: max(1, len(chosen) // 10)])
        with h5py.File(slow, "r") as file:
            file["x"][(some[:, None] * PATCHES + np.arange(PATCHES)).ravel()]

    everything = np.arange(images)
    room = np.empty_like(patches)
    scattered = timed(lambda: reader.gather(chosen), repeat)
    from_memory = timed(lambda: patches[chosen], repeat)
    chunks = timed(one_row_a_chunk, repeat)
    selection = timed(one_row_a_chunk_at_once, 1)
    sequential = timed(lambda: reader.gather(everything), repeat)
    memcpy = timed(lambda: patches.copy(), repeat)
    into_room = timed(lambda: np.copyto(room, patches), repeat)
    support = np.sort(rng.choice(4 * SUPPORT, SUPPORT, replace=False))
    in_memory = timed(lambda: Cache.open(path).rows("global").gather(support), repeat)
    tenth = TAKEN / max(1, len(chosen) // 10)
    return {
        "images": images,
        "scattered_s": scattered,
        "scattered_from_memory_s": from_memory,
        "scattered_over_memory": ratio(scattered, from_memory),
        "one_row_a_chunk_s": [round(tenth * s, 4) for s in chunks],
        "one_row_a_chunk_at_once_s": [round(tenth * s, 4) for s in selection],
        "one_row_a_chunk_over_scattered": ratio([tenth * s for s in chunks], scattered),
        "at_once_over_scattered": ratio([tenth * s for s in selection], scattered),
        "sequential_s": sequential,
        "memcpy_s": memcpy,
        "memcpy_into_used_memory_s": into_room,
        "memcpy_over_sequential": ratio(memcpy, sequential),
        "support_16x1000_s": in_memory,
    }


def build(folder: Path, images: int, patches: np.ndarray[Any, Any]) -> Path:
    """Make a cache of given patch features, and of global ones for 1000 classes."""
    count = max(images, 4 * SUPPORT)
    key = FeatureKey(
        architecture="toy", weights="0" * 64, activation="gelu", image_size=32, preprocessing="none"
    )
    cache = Cache.create(folder / "caches", "drawn", "toy", key)
    vectors = np.random.default_rng(1).standard_normal((count, DIM), dtype=np.float32)
    with cache.lock():
        cache.put_listing(
            Listing(
                dataset="drawn",
                root="images",
                classes=tuple(f"class {i}" for i in range(1000)),
                ids=tuple(f"{i:08d}.jpg" for i in range(count)),
                hashes=tuple(f"{i:064x}" for i in range(count)),
                labels=np.arange(count) % 1000,
                splits={"train": np.arange(count)},
            )
        )
        for first in range(0, images, SHARD):
            some = np.arange(first, min(first + SHARD, images))
            cache.append(parse_component("patches.clearclip"), some, patches[some], {}, {})
        for first in range(0, count, 16 * SHARD):
            some = np.arange(first, min(first + 16 * SHARD, count))
            cache.append(parse_component("global"), some, vectors[some], {}, {})
    return cache.path


def command(folder: Path, repeat: int) -> dict[str, Any]:
    """Time `heads train` of a small task beside an import of torch, each a new process."""
    images, root = folder / "photos", folder / "small"
    rng = np.random.default_rng(0)
    for split, each in (("train", 16), ("val", 8), ("test", 16)):
        for label in range(5):
            place = images / split / f"kind{label}"
            place.mkdir(parents=True)
            for i in range(each):
                coarse = rng.integers(0, 256, (4, 4, 3), dtype=np.uint8)
                coarse[..., label % 3] //= 1 + label
                Image.fromarray(coarse).resize((64, 64)).save(place / f"{i}.png")
    photos = ["--dataset", f"folder:{images}", "--backbone", "tiny", "--weights", "random"]
    run("cli.featcache", "extract", *photos, "--patches", "none", "--cache", str(root), "--quiet")
    task = ["--dataset", "photos", "--backbone", "tiny", "--shots", "4", "--cache", str(root)]
    train = []
    for i in range(repeat):  # each into a folder of its own: what is there already is skipped
        own = ["--runs", str(folder / f"runs{i}"), "--quiet"]
        call = partial(run, "cli.heads", "train", "tip-adapter", *task, *own)
        train.append(children(call))
    bare = [
        children(lambda: subprocess.run([sys.executable, "-c", "import torch"], check=True))
        for _ in range(repeat)
    ]
    return {
        "heads_train_s": best(train),
        "import_torch_s": best(bare),
        "heads_train_over_import": ratio(best(train), best(bare)),
    }


def run(module: str, *arguments: str) -> None:
    """Run one of the commands in a process of its own."""
    call = f"import sys; from {module} import main; sys.argv[0] = 'benchmark'; main()"
    subprocess.run([sys.executable, "-c", call, *arguments], check=True, stdout=subprocess.DEVNULL)


def children(call: Callable[[], object]) -> list[float]:
    """Time child processes: [seconds, CPU seconds]."""
    start, used = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    call()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - used.ru_utime - used.ru_stime
    return [round(time.perf_counter() - start, 4), round(cpu, 4)]


def timed(call: Callable[[], object], repeat: int) -> list[float]:
    """Time a call: best [seconds, CPU seconds]."""
    found = []
    for _ in range(repeat):
        start, cpu = time.perf_counter(), time.process_time()
        call()
        found.append([time.perf_counter() - start, time.process_time() - cpu])
    return best(found)


def best(found: list[list[float]]) -> list[float]:
    """Take the least of each column."""
    return [round(min(column), 4) for column in zip(*found, strict=True)]


def ratio(a: list[float], b: list[float]) -> list[float]:
    """Divide clock by clock, and CPU by CPU."""
    return [round(x / max(y, 1e-9), 2) for x, y in zip(a, b, strict=True)]


if __name__ == "__main__":
    main()
