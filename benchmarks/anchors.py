"""Do the semantic anchors of 1000 classes fit in memory, and how long does the search take?

The support has 16 images of each class in 4 views of 196 patches of width 512, which are 12.5
million vectors, 12.8 GB of float16. A process of its own finds the 10 patches closest to each of
1000 class texts, as `heads train cc-cdfsl --set anchors=corpus` does before training.

Rows are drawn. A cache of `--stored` images is written as an extraction writes it; the support
walks over them again and again, and each time the numbers of a vector are rotated further, so that
no vector comes twice. All rows are read from the shards, converted and normalised each time, but
they are compared with their checksums once. `--stored 16000` puts all of them on the disk.

The peak is VmHWM, which counts the pages of mapped files too. The clock is spoilt by a busy
machine; CPU seconds stand beside it, and as a bound the time of the products alone: texts times a
block of patches in memory, as often as the corpus has blocks.

Example: python benchmarks/anchors.py --classes 100
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from featcache.keys import FeatureKey, Listing, parse_component
from featcache.store.cache import Cache
from heads.contract.method import Need
from heads.patch_corpus import COMPARED, closest_patches, parts_of
from heads.reading import MappedRows, read_rows

SHOTS, VIEWS, PATCHES, DIM, K = 16, 3, 196, 512, 10
"""Views beside the clean image."""
CLEAN, VIEWED = "patches.clearclip", f"view_patches.clearclip.cdfsl-{VIEWS}"
SHARD_BYTES = 128 * 2**20
TEXTS = 7
"""Seed of the class texts."""


def main() -> None:
    """Write the cache, search it in a process of its own, and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--classes", type=int, default=1000)
    parser.add_argument("--stored", type=int, default=800, help="images on the disk")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--folder", type=Path, help="for the cache; else a temporary folder")
    parser.add_argument("--check", action="store_true", help="compare with brute force in float64")
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    if arguments.child:
        figures = search(arguments.child, arguments.classes, arguments.stored, arguments.check)
        print(json.dumps(figures))
        return
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        started = time.perf_counter()
        path = build(Path(folder), arguments.stored)
        written = time.perf_counter() - started
        call = [sys.executable, __file__, "--child", str(path), "--classes", str(arguments.classes)]
        call += ["--threads", str(arguments.threads), "--stored", str(arguments.stored)]
        call += ["--check"] if arguments.check else []
        done = subprocess.run(call, check=True, stdout=subprocess.PIPE, text=True)
        figures = {"written_s": round(written, 1), **json.loads(done.stdout)}
    for name, value in figures.items():
        print(f"{name:24} {value}")
    print(json.dumps(figures))


def class_texts(classes: int) -> np.ndarray:
    """Draw unit texts [c d]."""
    rows = np.random.default_rng(TEXTS).standard_normal((classes, DIM), dtype=np.float32)
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True))


class Rotated:
    """Rows of a cache, walked over again and again; each time their numbers are rotated further."""

    def __init__(self, rows: MappedRows, count: int) -> None:
        self._rows, self._count = rows, count

    @property
    def shape(self) -> torch.Size:
        """Shape of all rows."""
        return torch.Size((self._count, *self._rows.shape[1:]))

    def gather(self, index: Tensor, pick: Tensor | None = None) -> Tensor:
        """Read rows and rotate each by its number of walks."""
        stored = self._rows.shape[0]
        rows = self._rows.gather(index % stored, pick)
        walks, counts = torch.unique_consecutive(index // stored, return_counts=True)
        parts = zip(torch.split(rows, counts.tolist()), walks.tolist(), strict=True)
        rotated = [part.roll(13 * walk, -1) if walk else part for part, walk in parts]
        return rotated[0] if len(rotated) == 1 else torch.cat(rotated)

    def release(self) -> None:
        """Unmap the files."""
        self._rows.release()


def build(folder: Path, n: int) -> Path:
    """Write a cache of n images and return its path."""
    key = FeatureKey(
        architecture="toy", weights="0" * 64, activation="gelu", image_size=32, preprocessing="none"
    )
    cache = Cache.create(folder, "drawn", "toy", key)
    rng = np.random.default_rng(0)
    with cache.lock():
        cache.put_listing(
            Listing(
                dataset="drawn",
                root="images",
                classes=("one", "other"),
                ids=tuple(f"{i:08d}.jpg" for i in range(n)),
                hashes=tuple(f"{i:064x}" for i in range(n)),
                labels=np.arange(n) % 2,
                splits={"train": np.arange(n)},
            )
        )
        glob = rng.standard_normal((n, DIM), dtype=np.float32)
        cache.append(parse_component("global"), np.arange(n), glob, {}, {})
        # Noise is drawn once and each shard takes it from another offset: drawing takes far longer
        # than searching.
        noise = rng.standard_normal(2**27, dtype=np.float32) / np.float32(np.sqrt(DIM))
        for name, views in ((CLEAN, 1), (VIEWED, VIEWS)):
            each = SHARD_BYTES // (2 * views * PATCHES * DIM)
            for first in range(0, n, each):
                rows = np.arange(first, min(first + each, n))
                size = len(rows) * views * PATCHES * DIM
                start = rng.integers(len(noise) - size)
                shape = (len(rows), *((views,) if views > 1 else ()), PATCHES, DIM)
                values = noise[start : start + size].astype(np.float16).reshape(shape)
                cache.append(parse_component(name), rows, values, {}, {})
    return Path(cache.path)


def search(path: Path, classes: int, stored: int, check: bool) -> dict[str, Any]:
    """Find the anchors, as `prepare` of cc-cdfsl does, and measure."""
    features = Cache.open(path).feature_set()
    needs = [
        Need(role="support", kind="patches", lazy=True),
        Need(role="support", kind="view_patches", recipe="cdfsl", lazy=True),
    ]
    support = read_rows(features, np.arange(stored), "support", needs, torch.device("cpu"))
    texts = torch.from_numpy(class_texts(classes))
    parts = [
        Rotated(part, classes * SHOTS)
        for part in parts_of(support, "cdfsl", views=True)
        if isinstance(part, MappedRows)
    ]
    before, cpu, clock = peak(), time.process_time(), time.perf_counter()
    found = closest_patches([parts], texts, K)
    figures = {
        "vectors": classes * SHOTS * (1 + VIEWS) * PATCHES,
        "seconds": round(time.perf_counter() - clock, 1),
        "cpu_s": round(time.process_time() - cpu, 1),
        "peak_mb": peak(),
        "peak_before_mb": before,
        "kept": int(found.once().sum()),
        "mean_cosine": round(float(found.cosines.mean()), 4),
        **products(texts, classes * SHOTS * (1 + VIEWS) * PATCHES),
        "threads": torch.get_num_threads(),
        "load_average": round(os.getloadavg()[0], 1),
    }
    if check:
        everything = torch.cat([brute(part) for part in parts], dim=1).flatten(0, 1)
        best = (everything.double() @ texts.double().mT).topk(K, dim=0).indices.mT
        figures["same_as_brute_force"] = bool((best == found.place).all())
    return figures


def brute(part: Rotated) -> Tensor:
    """Read all patches [n v*p d] of a part."""
    values = part.gather(torch.arange(part.shape[0]))
    return F.normalize(values.reshape(len(values), -1, DIM), dim=-1)


def products(texts: Tensor, vectors: int) -> dict[str, float]:
    """Time texts times a block of patches, scaled to all of them."""
    block, times = torch.randn(COMPARED, DIM), 50
    _ = texts @ block.mT
    cpu, clock = time.process_time(), time.perf_counter()
    for _ in range(times):
        _ = texts @ block.mT
    scale = vectors / (times * COMPARED)
    return {
        "products_s": round((time.perf_counter() - clock) * scale, 1),
        "products_cpu_s": round((time.process_time() - cpu) * scale, 1),
    }


def peak() -> int:
    """Return the largest memory of this process so far, VmHWM, in MB of 1e6 bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024 // 10**6
    raise OSError("This system does not tell VmHWM.")


if __name__ == "__main__":
    main()
