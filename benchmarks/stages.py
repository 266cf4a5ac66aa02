"""The parts of an extraction alone: decoding, transforms, the forward pass, writing."""

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch

from featcache.imaging.decode import MAX_PIXELS, read_image
from featcache.imaging.randomness import view_stream
from featcache.imaging.views import central_view, draw_view
from featcache.imaging.windows import Preprocess
from featcache.keys import parse_component
from featcache.pipeline.run import Summary
from featcache.places import FilePlace
from featcache.store.cache import Cache
from featcache.threads import cpu_cores, in_order

HELD = 64
"""Decoded pictures in memory while the transforms are timed."""

RECIPE = "rrc50"


@dataclass(frozen=True)
class Rate:
    """Pictures a second by the clock, and milliseconds of CPU time a picture."""

    a_second: float
    cpu_ms: float


@torch.inference_mode()
def forward(
    backbone: Any, micro_batch: int, turns: Sequence[Sequence[str]], seconds: float, loops: int
) -> Rate:
    """Time the encoder alone on pixels that are there already, in one or several loops.

    Args:
        backbone: What encodes.
        micro_batch: Pictures at once.
        turns: Patch variants of one batch after the other, round and round.
        seconds: For how long.
        loops: With one, all threads share each product; else every loop has one of its own.
    """
    kept, done = torch.get_num_threads(), [0] * loops
    begin = threading.Barrier(loops + 1)
    end = threading.Barrier(loops + 1)
    stop = threading.Event()

    def loop(i: int) -> None:
        torch.set_num_threads(kept if loops == 1 else 1)
        side = backbone.image_size
        pixels = torch.randn(micro_batch, 3, side, side, device=backbone.device)
        pixels = pixels.to(memory_format=torch.channels_last)
        for _ in range(2):
            run(pixels, turns[0])
        begin.wait()
        for variants in cycle(turns):
            if stop.is_set():
                break
            run(pixels, variants)
            done[i] += micro_batch
        end.wait()

    def run(pixels: torch.Tensor, variants: Sequence[str]) -> None:
        backbone.encode_images(pixels, variants)
        if backbone.device.type == "cuda":
            torch.cuda.synchronize()

    threads = [threading.Thread(target=loop, args=(i,)) for i in range(loops)]
    for thread in threads:
        thread.start()
    begin.wait()
    start, cpu = time.perf_counter(), time.process_time()
    stop.wait(seconds)
    stop.set()
    end.wait()
    rate = sum(done) / (time.perf_counter() - start)
    spent = 1e3 * (time.process_time() - cpu) / sum(done)
    for thread in threads:
        thread.join()
    torch.set_num_threads(kept)
    return Rate(rate, spent)


def fastest(batches: Sequence[int], rate_of: Callable[[int], Rate]) -> int:
    """Return the micro-batch with the highest rate; each has three tries, in turns."""
    tries = [(rate_of(batch).a_second, batch) for _ in range(3) for batch in batches]
    return max(tries)[1]


def typical(rates: Sequence[Rate]) -> Rate:
    """Return the medians."""
    return Rate(median(r.a_second for r in rates), median(r.cpu_ms for r in rates))


def on_all_cores(count: int, work: Callable[[int], object], seconds: float, each: int) -> Rate:
    """Time numbered pieces of work of `each` pictures on as many threads as there are cores."""
    start, cpu, done, threads = time.perf_counter(), time.process_time(), 0, cpu_cores()
    while not done or time.perf_counter() - start < seconds:
        for _ in in_order(range(count), work, threads=threads, ahead=4 * threads):
            done += each
            if time.perf_counter() - start > seconds:
                break
    wall, spent = time.perf_counter() - start, time.process_time() - cpu
    return Rate(done / wall, 1e3 * spent / done)


def decode_only(paths: Sequence[Path], hashes: Sequence[str], views: int, seconds: float) -> Rate:
    """Time reading, hashing and decoding; one decode serves all pictures of an image."""

    def work(i: int) -> None:
        read_image(FilePlace(paths[i]), hashes[i], max_pixels=MAX_PIXELS)

    return on_all_cores(len(paths), work, seconds, 1 + views)


def transforms_only(
    paths: Sequence[Path],
    hashes: Sequence[str],
    preprocess: Preprocess,
    views: int,
    seconds: float,
) -> Rate:
    """Time resizing, cropping and drawing views of images that are decoded already."""
    chosen = np.linspace(0, len(paths) - 1, min(HELD, len(paths))).round().astype(int).tolist()
    images = [read_image(FilePlace(paths[i]), hashes[i], max_pixels=MAX_PIXELS) for i in chosen]

    def work(i: int) -> None:
        central_view(images[i], preprocess)
        for view in range(views):
            stream = view_stream(0, RECIPE, hashes[chosen[i]], view)
            draw_view(images[i], preprocess, RECIPE, view, stream)

    return on_all_cores(len(images), work, seconds, 1 + views)


def write_only(summary: Summary, root: Path, each: int) -> Rate:
    """Time writing the same shards, in the same sizes, into another cache."""
    made = Cache.open(summary.path)
    listing = made.listing()
    if listing is None:
        raise SystemExit(f"{summary.path} has no listing.")
    again = Cache.create(root, made.dataset, made.backbone, made.key)
    shards = []
    for component in made.shards.values():
        for line in component:
            rows = np.concatenate([np.arange(a, b) for a, b in line.rows])
            shards.append((line, rows, made.rows(line.component).take(rows).numpy()))
    with again.lock():
        again.put_listing(listing)
        start, cpu = time.perf_counter(), time.process_time()
        for line, rows, values in shards:
            again.append(parse_component(line.component), rows, values, {}, line.provenance)
    wall, spent = time.perf_counter() - start, time.process_time() - cpu
    pictures = summary.passed * each
    return Rate(pictures / wall, 1e3 * spent / pictures)
