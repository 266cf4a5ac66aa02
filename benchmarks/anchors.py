"""Do the semantic anchors of 1000 classes fit in memory, and how long does the search take?

A cache of drawn patches is written as an extraction writes it: 16 images of each class in 4 views
of 196 patches of width 512, which are 12.5 million vectors, 12.8 GB of float16. A process of its
own opens it and finds the 10 patches closest to each of 1000 class texts, as `heads train cc-cdfsl
--set anchors=corpus` does before training. Patches lie near the text of their class, so that the
closest ones change until the last image, as they do in a real corpus.

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
from torch.nn import functional as F

from featcache.keys import FeatureKey, Listing, parse_component
from featcache.store.cache import Cache
from heads.contract.method import Need
from heads.patch_corpus import COMPARED, closest_patches, parts_of
from heads.reading import read_rows

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
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--folder", type=Path, help="for the cache; else a temporary folder")
    parser.add_argument("--check", action="store_true", help="compare with brute force in float64")
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    if arguments.child:
        print(json.dumps(search(arguments.child, arguments.classes, check=arguments.check)))
        return
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        started = time.perf_counter()
        path = build(Path(folder), arguments.classes)
        written = time.perf_counter() - started
        call = [sys.executable, __file__, "--child", str(path), "--classes", str(arguments.classes)]
        call += ["--threads", str(arguments.threads), *(["--check"] if arguments.check else [])]
        done = subprocess.run(call, check=True, stdout=subprocess.PIPE, text=True)
        figures = {"written_s": round(written, 1), **json.loads(done.stdout)}
    for name, value in figures.items():
        print(f"{name:24} {value}")
    print(json.dumps(figures))


def class_texts(classes: int) -> np.ndarray:
    """Draw unit texts [c d]."""
    rows = np.random.default_rng(TEXTS).standard_normal((classes, DIM), dtype=np.float32)
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True))


def build(folder: Path, classes: int) -> Path:
    """Write the cache and return its path."""
    key = FeatureKey(
        architecture="toy", weights="0" * 64, activation="gelu", image_size=32, preprocessing="none"
    )
    n = classes * SHOTS
    cache = Cache.create(folder, "drawn", "toy", key)
    rng = np.random.default_rng(0)
    texts = class_texts(classes)
    with cache.lock():
        cache.put_listing(
            Listing(
                dataset="drawn",
                root="images",
                classes=tuple(f"class {i}" for i in range(classes)),
                ids=tuple(f"{i:08d}.jpg" for i in range(n)),
                hashes=tuple(f"{i:064x}" for i in range(n)),
                labels=np.arange(n) % classes,
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
                near = rng.uniform(0, 0.6, size=(len(rows), views * PATCHES, 1))
                values = near.astype(np.float32) * texts[rows % classes][:, None]
                values += noise[start : start + size].reshape(values.shape)
                shape = (len(rows), *((views,) if views > 1 else ()), PATCHES, DIM)
                halves = values.astype(np.float16).reshape(shape)
                cache.append(parse_component(name), rows, halves, {}, {})
    return Path(cache.path)


def search(path: Path, classes: int, *, check: bool) -> dict[str, Any]:
    """Find the anchors, as `prepare` of cc-cdfsl does, and measure."""
    features = Cache.open(path).feature_set()
    rows = np.arange(classes * SHOTS)
    needs = [
        Need(role="support", kind="patches", lazy=True),
        Need(role="support", kind="view_patches", recipe="cdfsl", lazy=True),
    ]
    support = read_rows(features, rows, "support", needs, torch.device("cpu"))
    texts = torch.from_numpy(class_texts(classes))
    parts = parts_of(support, "cdfsl", views=True)
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


def brute(part: Any) -> torch.Tensor:
    """Read all patches [n v*p d] of a part."""
    values = part.gather(torch.arange(part.shape[0]))
    return F.normalize(values.reshape(len(values), -1, DIM), dim=-1)


def products(texts: torch.Tensor, vectors: int) -> dict[str, float]:
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
