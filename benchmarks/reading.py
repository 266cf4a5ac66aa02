"""How fast do rows come back, beside the same from memory, HDF5 with one row a chunk, and memcpy?

Files are warm, as the system's cache holds them, but for the one cold reading. Readings take turns
in a process of their own, each round with rows of its own, so none finds its rows in the processor
and all write their result to memory that the process did not have before. `first` is the first
reading of a cache opened anew: shards are mapped, and every row is compared with its checksum.
`whole` is the same where no checksums stand beside the shards, as earlier versions left them, so
that each is read whole before. CPU time stands beside the clock, which a busy machine spoils.

Example: python benchmarks/reading.py --images 4000
"""

import argparse
import json
import os
import resource
import shutil
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
from jaxtyping import Int64
from PIL import Image

from featcache.keys import FeatureKey, Listing, parse_component
from featcache.store.cache import Cache
from featcache.store.rows import ShardRows

SHARD, PATCHES, DIM = 500, 49, 512
TAKEN = 1000
"""Scattered rows."""
SUPPORT = 16_000
"""Rows of a support set of 16 shots and 1000 classes."""
TENTH = 10
"""The rival's file is asked for a tenth of the scattered rows."""
COLD = 100
COMPONENT = "patches.clearclip"
CACHE, PATCHES_FILE, RIVAL = "cache.txt", "patches.npy", "rows.h5"

Rows = Int64[np.ndarray, " r"]


def main() -> None:
    """Build, measure, then print a table and one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=4000)
    parser.add_argument("--repeat", type=int, default=5, help="of each command; the best counts")
    parser.add_argument("--rounds", type=int, default=20, help="of the readings; the best counts")
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        print(json.dumps(rows(arguments.child, arguments.rounds)))
        return
    with tempfile.TemporaryDirectory() as folder:
        build(Path(folder), arguments.images)
        figures = {
            "images": arguments.images,
            **in_child(Path(folder), arguments.rounds),
            **command(Path(folder), arguments.repeat),
            "load_average": round(os.getloadavg()[0], 1),
        }
    for name, value in figures.items():
        print(f"{name:36} {value}")
    print(json.dumps(figures))


def in_child(folder: Path, rounds: int) -> dict[str, Any]:
    """Run `rows` in a new process."""
    call = [sys.executable, __file__, "--child", str(folder), "--rounds", str(rounds)]
    done = subprocess.run(call, check=True, stdout=subprocess.PIPE, text=True)
    figures: dict[str, Any] = json.loads(done.stdout)
    return figures


def rows(folder: Path, rounds: int) -> dict[str, Any]:
    """Read patch features in three ways, and a support set of global ones."""
    cache = Cache.open(Path((folder / CACHE).read_text()))
    slow = folder / RIVAL
    figures = cold(cache)
    patches = np.load(folder / PATCHES_FILE)
    everything = np.arange(len(patches))
    reader = cache.rows(COMPONENT)
    reader.gather(everything)
    without = folder / "without"
    shutil.copytree(cache.path, without, copy_function=os.link)
    for beside in without.glob(f"{COMPONENT}/*.sums"):
        beside.unlink()
    opened: list[ShardRows] = []

    def open_anew(path: Path = cache.path) -> ShardRows:
        # Kept: taking the maps of the one before away is not timed.
        opened[:] = [*opened[-1:], Cache.open(path).rows(COMPONENT)]
        return opened[-1]

    best_of = alternate(
        {
            "scattered": lambda _, r: reader.gather(r),
            "scattered_first": lambda new, r: new.gather(r),
            "scattered_whole": lambda _, r: open_anew(without).gather(r),
            "memory_index": lambda _, r: patches[r],
            "memory_take": lambda _, r: np.take(patches, r, axis=0),
            "sequential": lambda *_: reader.gather(everything),
            "sequential_first": lambda new, _: new.gather(everything),
            "memcpy": lambda *_: patches.copy(),
            "one_row_a_chunk": lambda _, r: one_row_a_chunk(slow, r),
        },
        open_anew,
        len(patches),
        rounds,
    )
    narrow = narrow_rows(cache.path, rounds)
    from_memory = min(best_of["memory_index"], best_of["memory_take"])
    scattered = best_of["scattered"]
    rng = np.random.default_rng(0)
    chosen = rng.permutation(len(patches))[:TAKEN]
    selection = timed(lambda: one_row_a_chunk_at_once(slow, chosen), 1)
    support = np.sort(rng.choice(4 * SUPPORT, SUPPORT, replace=False))
    in_memory = timed(lambda: Cache.open(cache.path).rows("global").gather(support), rounds)
    chunks = [round(TENTH * s, 4) for s in best_of["one_row_a_chunk"]]
    selection = [round(TENTH * s, 4) for s in selection]
    return {
        **figures,
        **{f"{name}_s": found for name, found in best_of.items()},
        "one_row_a_chunk_s": chunks,
        "one_row_a_chunk_at_once_s": selection,
        "scattered_over_memory": ratio(scattered, from_memory),
        "scattered_first_over_memory": ratio(best_of["scattered_first"], from_memory),
        "one_row_a_chunk_over_scattered": ratio(chunks, scattered),
        "at_once_over_scattered": ratio(selection, scattered),
        "memcpy_over_sequential": ratio(best_of["memcpy"], best_of["sequential"]),
        "memcpy_over_sequential_first": ratio(best_of["memcpy"], best_of["sequential_first"]),
        "scattered_whole_over_memory": ratio(best_of["scattered_whole"], from_memory),
        **narrow,
        "support_16x1000_s": in_memory,
    }


def narrow_rows(path: Path, rounds: int) -> dict[str, Any]:
    """Read global features, a kilobyte each: a support set at random, and all in order."""
    reader = Cache.open(path).rows("global")
    everything = np.arange(int(reader.present().sum()))
    vectors = reader.gather(everything)
    opened: list[ShardRows] = []

    def open_anew() -> ShardRows:
        opened[:] = [*opened[-1:], Cache.open(path).rows("global")]
        return opened[-1]

    best_of = alternate(
        {
            "scattered": lambda _, r: reader.gather(r),
            "scattered_first": lambda new, r: new.gather(r),
            "memory": lambda _, r: vectors[r],
            "sequential": lambda *_: reader.gather(everything),
            "sequential_first": lambda new, _: new.gather(everything),
            "memcpy": lambda *_: vectors.copy(),
        },
        open_anew,
        len(everything),
        rounds,
        SUPPORT,
    )
    return {
        **{f"narrow_{name}_s": found for name, found in best_of.items()},
        "narrow_scattered_over_memory": ratio(best_of["scattered"], best_of["memory"]),
        "narrow_scattered_first_over_memory": ratio(best_of["scattered_first"], best_of["memory"]),
        "narrow_sequential_first_over_memcpy": ratio(
            best_of["sequential_first"], best_of["memcpy"]
        ),
    }


def cold(cache: Cache) -> dict[str, Any]:
    """Read a few images that the system no longer holds in memory, and count what the disk gave."""
    counter = Path("/proc/self/io")
    if not counter.exists():
        return {}
    for line in cache.shards[COMPONENT]:
        with (cache.path / COMPONENT / line.file).open("rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    reader = cache.rows(COMPONENT)
    n = int(reader.present().sum())
    chosen = np.random.default_rng(2).permutation(n)[:COLD]
    before = disk_bytes(counter)
    found: list[np.ndarray[Any, Any]] = []
    seconds = timed(lambda: found.append(reader.gather(chosen)), 1)
    return {
        f"cold_{COLD}_scattered_s": seconds,
        "cold_bytes_read_over_wanted": round((disk_bytes(counter) - before) / found[0].nbytes, 2),
    }


def disk_bytes(counter: Path) -> int:
    """Return the bytes that this process had a disk read."""
    lines = counter.read_text().splitlines()
    return int(next(line for line in lines if line.startswith("read_bytes")).split()[1])


def one_row_a_chunk(slow: Path, chosen: Rows) -> None:
    """Read as tools with one patch a chunk do: image by image, a tenth of the images."""
    with h5py.File(slow, "r") as file:
        data = file["x"]
        for row in chosen[: TAKEN // TENTH]:
            data[row * PATCHES : (row + 1) * PATCHES]


def one_row_a_chunk_at_once(slow: Path, chosen: Rows) -> None:
    """Name all rows in one selection."""
    some = np.sort(chosen[: TAKEN // TENTH])
    with h5py.File(slow, "r") as file:
        file["x"][(some[:, None] * PATCHES + np.arange(PATCHES)).ravel()]


def build(folder: Path, images: int) -> None:
    """Make a cache of patch features, and of global ones for 1000 classes; and the rival's file."""
    rng = np.random.default_rng(0)
    patches = rng.standard_normal((images, PATCHES, DIM), dtype=np.float32).astype(np.float16)
    np.save(folder / PATCHES_FILE, patches)
    with h5py.File(folder / RIVAL, "w") as file:
        file.create_dataset("x", data=patches.reshape(-1, DIM), chunks=(1, DIM))
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
            cache.append(parse_component(COMPONENT), some, patches[some], {}, {})
        for first in range(0, count, 16 * SHARD):
            some = np.arange(first, min(first + 16 * SHARD, count))
            cache.append(parse_component("global"), some, vectors[some], {}, {})
    (folder / CACHE).write_text(str(cache.path))


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
    home = ["--cache", str(root)]
    run("cli.featcache.app", "extract", *photos, "--patches", "none", *home, "--quiet")
    task = ["--dataset", "photos", "--backbone", "tiny", "--shots", "4", *home]
    train = []
    for i in range(repeat):  # each into a folder of its own: what is there already is skipped
        own = ["--runs", str(folder / f"runs{i}"), "--quiet"]
        call = partial(run, "cli.heads.app", "train", "tip-adapter", *task, *own)
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


def alternate(
    calls: dict[str, Callable[[ShardRows, Rows], object]],
    open_anew: Callable[[], ShardRows],
    n: int,
    rounds: int,
    taken: int = TAKEN,
) -> dict[str, list[float]]:
    """Time calls in turns, in another order each round: best [seconds, CPU seconds] of each.

    Args:
        calls: By name; each gets a reader that was never used, and scattered rows.
        open_anew: Gives such a reader; it is not timed.
        n: Rows that there are.
        rounds: So often; one more goes first and does not count.
        taken: Scattered rows.
    """
    found: dict[str, list[list[float]]] = {name: [] for name in calls}
    rng = np.random.default_rng(1)
    for number in range(rounds + 1):
        chosen = rng.permutation(n)[:taken]
        for name in rng.permutation(list(calls)).tolist():
            reader = open_anew()
            start, cpu = time.perf_counter(), time.process_time()
            result = calls[name](reader, chosen)
            took = [time.perf_counter() - start, time.process_time() - cpu]
            del result  # giving memory back is not timed
            if number:
                found[name].append(took)
    return {name: best(columns) for name, columns in found.items()}


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
