"""Prediction beside the bare pass over the same images, in turns, and its memory.

Example: python benchmarks/predict.py --head last --images 2000

The bare pass is `Embedder.stream` with the backbone, components and micro-batch of the head, whose
features are thrown away; prediction answers them and writes csv to nowhere. Both are loaded before
the clock starts. Without --photos, drawn photographs of the size given are used, written once.
`ratio` divides images a second, by medians over the turns; `ratio_cpu` CPU time, which counts work
and not what other processes do meanwhile. `rss_grown_mb` is by how much the largest memory of the
process grew while ten times as many images were predicted as in the turns.
"""

import argparse
import json
import os
import platform
import resource
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import cycle, islice
from pathlib import Path
from statistics import median

import numpy as np
import torch
from PIL import Image

from cli.heads.answers import Columns, Csv
from featcache.sources.queries.opening import open_queries
from featcache.threads import cpu_cores
from heads.api import load
from heads.predicting import Predictor

LOT = 64


def main() -> None:
    """Measure and print one JSON line."""
    arguments = _arguments()
    predictor = Predictor(load(arguments.head), device=arguments.device)
    with tempfile.TemporaryDirectory() as folder:
        photos = arguments.photos or _drawn(Path(folder), arguments.images, arguments.side)
        found = open_queries(str(photos), Path(folder)).images
        paths = [str(q.place) for q in islice(found, arguments.images)]
        print(json.dumps(_measured(predictor, paths, arguments)))


def _measured(
    predictor: Predictor, paths: list[str], arguments: argparse.Namespace
) -> dict[str, object]:
    embedder, n = predictor.embedder, len(paths)

    def bare() -> None:
        for _ in embedder.stream(iter(paths)):
            pass

    def predict(images: Iterator[str]) -> None:
        written = Csv(lambda _: None, Columns(predictor.top))
        stream = predictor.images(images)
        while lot := list(islice(stream, LOT)):
            written.write(lot)

    predict(iter(paths))  # what is allocated once
    turns: dict[str, list[tuple[float, float]]] = {"bare": [], "predict": []}
    for _ in range(arguments.repeat):
        turns["bare"].append(_clocked(bare))
        turns["predict"].append(_clocked(lambda: predict(iter(paths))))
    before = _peak_mb()
    if arguments.memory:
        predict(islice(cycle(paths), 10 * n))
    wall = {name: median(w for w, _ in times) for name, times in turns.items()}
    cpu = {name: median(c for _, c in times) for name, times in turns.items()}
    return {
        "method": predictor.head.method.name,
        "backbone": predictor.head.backbone,
        "device": str(embedder.backbone.device),
        "machine": f"{platform.machine()}, {cpu_cores()} cores, {torch.get_num_threads()} threads",
        "load_average": round(os.getloadavg()[0], 1),
        "images": n,
        "repeat": arguments.repeat,
        "bare_per_s": round(n / wall["bare"], 1),
        "predict_per_s": round(n / wall["predict"], 1),
        "ratio": round(wall["bare"] / wall["predict"], 3),
        "ratio_cpu": round(cpu["bare"] / cpu["predict"], 3),
        "rss_mb": round(before),
        "rss_grown_mb": round(_peak_mb() - before) if arguments.memory else None,
    }


def _clocked(work: Callable[[], None]) -> tuple[float, float]:
    """Return seconds by the clock and of CPU time of all threads."""
    start, cpu = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - start, time.process_time() - cpu


def _peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _drawn(folder: Path, count: int, side: int) -> Path:
    """Write photographs of noise over a gradient, which compress like real ones."""
    rng = np.random.default_rng(0)
    ramp = np.linspace(0, 160, side, dtype=np.float32)[:, None, None]
    for i in range(count):
        coarse = rng.integers(0, 96, (side // 8 + 1, side // 8 + 1, 3))
        pixels = np.kron(coarse, np.ones((8, 8, 1)))[:side, :side] + ramp
        Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{i:06}.jpg", quality=85)
    return folder


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--head", default="last", help="a run, a file or last")
    parser.add_argument("--photos", help="folder of images; drawn ones otherwise")
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--side", type=int, default=256, help="pixels of drawn images")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--memory", action="store_true", help="measure memory, too")
    return parser.parse_args()


if __name__ == "__main__":
    main()
