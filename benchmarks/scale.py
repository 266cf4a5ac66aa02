"""Does an image cost the same in a pass over a thousand as in one over a million, and no memory?

The pass is the real one: reading, hashing, decoding, batches, shards, manifest. The encoder is one
small matrix, and a few drawn files serve every row, so that only what surrounds them is measured.

Example: python benchmarks/scale.py --images 1000 10000 100000
"""

import argparse
import hashlib
import json
import os
import tempfile
import threading
import time
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from featcache.encoding.components import component_specs
from featcache.encoding.encoder import Encoder
from featcache.errors import BackboneError
from featcache.imaging.loader import FileSource
from featcache.keys import FeatureKey, Listing
from featcache.last_block import LastBlock
from featcache.pipeline.filler import Filler
from featcache.pipeline.plan import make_plan
from featcache.places import FilePlace
from featcache.store.cache import Cache

FILES, SIDE, EVERY = 64, 32, 0.05


class Matrix:
    """A backbone of one matrix: pixels of a 4 x 4 grid, projected."""

    name = "matrix"
    image_size, dim, patches = SIDE, 64, 0
    variants: tuple[str, ...] = ()
    tokens: tuple[str, ...] = ()
    token_shape = (0, 0)
    mean, std = (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)
    resize_mode, interpolation = "shortest", "bicubic"
    logit_scale, logit_bias, gflops = 100.0, 0.0, 1.0
    device, compute_dtype = torch.device("cpu"), torch.float32
    compiled, compile_s = False, 0.0
    tokenizer: str = ""
    lacks_texts: BackboneError | None = None

    def __init__(self) -> None:
        self.key = FeatureKey(
            architecture="matrix",
            weights="random-0",
            activation="gelu",
            image_size=SIDE,
            preprocessing="shortest bicubic",
        )
        self.weight = torch.randn(48, 64, generator=torch.Generator().manual_seed(0))

    def encode_images(
        self, pixels: Tensor, variants: Sequence[str] = ()
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Project the means of a grid."""
        return torch.nn.functional.adaptive_avg_pool2d(pixels, 4).flatten(1) @ self.weight, {}

    def encode_texts(self, texts: Sequence[str]) -> Tensor:
        """Encode nothing: there are no texts here."""
        return torch.zeros(len(texts), self.dim)

    def truncated(self, texts: Sequence[str]) -> int:
        """Count none."""
        return 0

    def image_tower(self) -> torch.nn.Module:
        """Refuse: there is no module."""
        raise BackboneError("A matrix is no module.")

    def last_block(self) -> LastBlock:
        """Refuse: there are no tokens."""
        raise BackboneError("A matrix has no last block.")


def main() -> None:
    """Measure each size in turn, then print a table and one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, nargs="+", default=[1_000, 10_000, 100_000])
    figures = [measure(count) for count in [256, *parser.parse_args().images]][1:]
    print("images   ms/image (clock, CPU)   MiB before, at most in the pass   shards")
    for f in figures:
        print(
            f"{f['images']:<8} {f['ms']:.3f}, {f['cpu_ms']:.3f}            "
            f"{f['before_MiB']}, {f['most_MiB']}            {f['shards']}"
        )
    print(json.dumps(figures))


def measure(count: int) -> dict[str, Any]:
    """Fill a cache of so many rows."""
    backbone = Matrix()
    with tempfile.TemporaryDirectory() as folder:
        files = draw(Path(folder) / "images")
        ids = tuple(f"{i:08d}.jpg" for i in range(count))
        listing = Listing(
            dataset="repeated",
            root=str(Path(folder) / "images"),
            classes=("thing",),
            ids=ids,
            hashes=tuple(files[i % FILES][1] for i in range(count)),
            labels=np.zeros(count, dtype=np.int64),
            splits={"train": np.arange(count)},
        )
        sources = {
            i: FileSource(ids[i], FilePlace(files[i % FILES][0]), files[i % FILES][1])
            for i in range(count)
        }
        cache = Cache.create(Path(folder) / "caches", "repeated", backbone.name, backbone.key)
        with cache.lock():
            cache.put_listing(listing)
            specs, _ = component_specs(
                backbone, patches=["none"], views=(), crops=(), view_patches=(), seed=0
            )
            plan = make_plan(listing, backbone, specs, covered=cache.covered, micro_batch=256)
            encoder = Encoder(backbone, 256)
            filler = Filler(
                cache=cache, encoder=encoder, sources=sources, settings=None, max_pixels=10**6
            )
            before, most, stop = memory(), [0], threading.Event()
            watcher = threading.Thread(target=watch, args=(most, stop))
            watcher.start()
            start, cpu = time.perf_counter(), time.process_time()
            filler.encode(plan)
            wall, spent = time.perf_counter() - start, time.process_time() - cpu
            stop.set()
            watcher.join()
            shards = len(cache.shards["global"])
    return {
        "images": count,
        "ms": round(1e3 * wall / count, 4),
        "cpu_ms": round(1e3 * spent / count, 4),
        "before_MiB": before >> 20,
        "most_MiB": most[0] >> 20,
        "shards": shards,
        "load_average": round(os.getloadavg()[0], 1),
    }


def draw(folder: Path) -> list[tuple[Path, str]]:
    """Draw a few small JPEG files; return each with its sha256."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    files = []
    for i in range(FILES):
        buffer = BytesIO()
        coarse = rng.integers(0, 256, (4, 5, 3), dtype=np.uint8)
        Image.fromarray(coarse).resize((48, 40)).save(buffer, "JPEG")
        path = folder / f"{i}.jpg"
        path.write_bytes(buffer.getvalue())
        files.append((path, hashlib.sha256(buffer.getvalue()).hexdigest()))
    return files


def watch(most: list[int], stop: threading.Event) -> None:
    """Keep the most memory seen."""
    while not stop.wait(EVERY):
        most[0] = max(most[0], memory())


def memory() -> int:
    """Return the bytes of this process that no file backs; 0 where the system does not tell."""
    status = Path("/proc/self/status")
    if not status.exists():
        return 0
    line = next(s for s in status.read_text().splitlines() if s.startswith("RssAnon"))
    return int(line.split()[1]) << 10


if __name__ == "__main__":
    main()
