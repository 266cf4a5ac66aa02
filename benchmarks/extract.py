"""Every stage of an extraction alone, all together, and beside the loop that people write.

Example: python benchmarks/extract.py --backbone ViT-B/32 --weights random --dataset folder:photos

Rates are pictures a second: an image with two views is three pictures for the encoder. The bare
forward pass has its pixels ready, in the dtype of the pass, with the same patches and as many
threads; it is measured in two arrangements, each at its best micro-batch. End to end against them:

    ratio_to_forward       one loop, whose products share torch's threads: as torch runs a model
    ratio_to_best_forward  the faster of that and one loop a thread, which is how `Encoder`
                           computes on a CPU: never above the first, and what decoding costs

A ratio above 1 says that our arrangement is faster than torch's, not that decoding costs nothing.
Those that end in `_cpu` divide CPU time a picture instead: it counts work, not cores that stand
idle. The micro-batches are found first; then extraction and both forward passes take turns
(`--repeat`), and the medians count. An accelerator has one arrangement.

With --compile the end-to-end figures contain the compilation, seconds to minutes of it.
"""

import argparse
import json
import os
import platform
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from open_clip.transform import image_transform
from PIL import Image
from torch.utils.data import DataLoader

from benchmarks.stages import (
    RECIPE,
    Rate,
    decode_only,
    fastest,
    forward,
    transforms_only,
    typical,
    write_only,
)
from featcache.backbones.registry import load_backbone
from featcache.encoding.encoder import micro_batch_for, preprocessing
from featcache.pipeline.run import Request, Summary, extract
from featcache.store.cache import Cache
from featcache.threads import cpu_cores

PLAIN_BATCH = 64
"""Batch of the plain loop."""


def main() -> None:
    """Measure, then print a table and one JSON line."""
    arguments = parse()
    with tempfile.TemporaryDirectory() as folder:
        if arguments.drawn:
            arguments.dataset = (
                f"folder:{draw_photographs(Path(folder) / 'drawn', arguments.drawn)}"
            )
        figures = measure(arguments, Path(folder))
    if not arguments.json:
        for name, value in figures.items():
            print(f"{name:32} {value}")
    print(json.dumps(figures))


def measure(arguments: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Run every part; those that are divided by each other in turns."""
    request = Request(
        dataset=arguments.dataset,
        backbone=arguments.backbone,
        weights=arguments.weights,
        patches=[arguments.patches],
        views=[f"{arguments.views}:{RECIPE}@all"] if arguments.views else (),
        limit=arguments.limit,
        device=arguments.device,
        compute=arguments.compute,
        compiled=arguments.compile,
        micro_batch=arguments.micro_batch,
        yes=True,
    )
    backbone: Any = load_backbone(
        arguments.backbone,
        weights=arguments.weights,
        device=arguments.device,
        compute=arguments.compute,
        compiled=arguments.compile,
    )
    summary, _ = end_to_end(replace(request, root=folder / "first"))
    features = Cache.open(summary.path).feature_set()
    names = [n.partition(".")[2] for n in features.components if n.startswith("patches.")]
    rows = np.flatnonzero(features.components["global"].present() & features.ok)
    paths = [Path(features.listing.root) / features.listing.ids[r] for r in rows.tolist()]
    hashes = [features.listing.hashes[r] for r in rows.tolist()]
    preprocess = preprocessing(backbone)
    views = arguments.views
    rule = arguments.micro_batch or micro_batch_for(backbone.gflops, backbone.device.type)
    sizes = (0.5, 1, 2, 4, 8) if not arguments.compile else (1,)  # each would be compiled
    batches = sorted({max(1, int(rule * size)) for size in sizes})
    limit = arguments.seconds
    turns = [names, *[()] * views]  # views are encoded without patches
    streams = torch.get_num_threads() if backbone.device.type == "cpu" else 1
    best_one = fastest(batches, lambda b: forward(backbone, b, turns, limit / 2, 1))
    best_each = fastest(batches, lambda b: forward(backbone, b, turns, limit / 2, streams))
    wholes, ones, eaches = [], [], []
    for i in range(arguments.repeat):  # in turns: a machine that is slower for a while, is to all
        wholes.append(end_to_end(replace(request, root=folder / str(i)))[1])
        ones.append(forward(backbone, best_one, turns, limit, 1))
        eaches.append(forward(backbone, best_each, turns, limit, streams))
    whole, one_loop, each = typical(wholes), typical(ones), typical(eaches)
    bare = max(one_loop, each, key=lambda rate: rate.a_second)
    decode = decode_only(paths, hashes, views, limit)
    stages = {
        "decode_only": decode,
        "transforms_only": transforms_only(paths, hashes, preprocess, views, limit),
        "forward": bare,
        "write_only": write_only(summary, folder / "again", 1 + views),
    }
    slowest = min(stages, key=lambda name: stages[name].a_second)
    plain, theirs = plain_loop(arguments, paths)
    ours = features.unit("global", rows[: len(theirs)]).double().numpy()
    cosine = (theirs * ours).sum(1)
    return {
        "backbone": backbone.name,
        "weights": arguments.weights or "",
        "device": str(backbone.device),
        "machine": f"{platform.machine()}, {cpu_cores()} cores, {torch.get_num_threads()} threads",
        "load_average": round(os.getloadavg()[0], 1),
        "torch": torch.__version__,
        "compute": str(backbone.compute_dtype).removeprefix("torch."),
        "compiled": backbone.compiled,
        "micro_batch": rule,
        "images": summary.passed,
        "views": views,
        "components": ", ".join(summary.encoded),
        **{f"{name}_per_s": round(rate.a_second, 1) for name, rate in stages.items()},
        "forward_one_loop_per_s": round(one_loop.a_second, 1),
        "forward_one_loop_micro_batch": best_one,
        "forward_loop_a_thread_per_s": round(each.a_second, 1),
        "forward_loop_a_thread_micro_batch": best_each,
        "end_to_end_per_s": round(whole.a_second, 1),
        "plain_loop_per_s": round(plain.a_second, 1),
        "cpu_ms": {
            **{name: round(rate.cpu_ms, 3) for name, rate in stages.items()},
            "forward_one_loop": round(one_loop.cpu_ms, 3),
            "forward_loop_a_thread": round(each.cpu_ms, 3),
            "end_to_end": round(whole.cpu_ms, 3),
            "plain_loop": round(plain.cpu_ms, 3),
        },
        "waited_s": {k: round(v, 2) for k, v in summary.seconds.items()},
        "megabytes": round(summary.bytes / 1e6, 1),
        "slowest_stage": slowest,
        "cosine_to_plain_mean": round(float(cosine.mean()), 7),
        "cosine_to_plain_min": round(float(cosine.min()), 7),
        "compared": len(cosine),
        "ratio_to_slowest_stage": round(whole.a_second / stages[slowest].a_second, 3),
        "ratio_to_forward": round(whole.a_second / one_loop.a_second, 3),
        "ratio_to_forward_cpu": round(one_loop.cpu_ms / whole.cpu_ms, 3),
        "ratio_to_best_forward": round(whole.a_second / bare.a_second, 3),
        "ratio_to_best_forward_cpu": round(bare.cpu_ms / whole.cpu_ms, 3),
        "ratio_to_plain_loop": round(whole.a_second / plain.a_second / (1 + views), 3),
        "ratio_to_plain_loop_cpu": round(plain.cpu_ms / whole.cpu_ms / (1 + views), 3),
    }


def end_to_end(request: Request) -> tuple[Summary, Rate]:
    """Extract into an empty cache; its rate is that of the pass, without loading and listing."""
    summary = extract(request)
    pictures = summary.passed * (1 + sum(int(v.partition(":")[0]) for v in request.views))
    spent = summary.seconds["cpu"]
    return summary, Rate(pictures / summary.seconds["pass"], 1e3 * spent / pictures)


class Photographs(torch.utils.data.Dataset[torch.Tensor]):
    """Files through open_clip's own transform, as a DataLoader wants them."""

    def __init__(self, paths: Sequence[Path], transform: Any) -> None:
        self.paths = paths
        self.transform = transform

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, i: int) -> torch.Tensor:
        with Image.open(self.paths[i]) as image:
            pixels: torch.Tensor = self.transform(image)
        return pixels


def plain_loop(
    arguments: argparse.Namespace, paths: Sequence[Path]
) -> tuple[Rate, np.ndarray[Any, Any]]:
    """Time DataLoader, `encode_image` in float32 and `np.save`: global features, no views."""
    backbone: Any = load_backbone(
        arguments.backbone, weights=arguments.weights, device=arguments.device, compute="fp32"
    )
    transform = image_transform(
        backbone.image_size,
        is_train=False,
        mean=backbone.mean,
        std=backbone.std,
        resize_mode=backbone.resize_mode,
        interpolation=backbone.interpolation,
    )
    loader = DataLoader(
        Photographs(paths, transform),
        batch_size=PLAIN_BATCH,
        num_workers=cpu_cores(),
        pin_memory=backbone.device.type == "cuda",
    )
    start, cpu = time.perf_counter(), cpu_seconds()
    rows = []
    with torch.no_grad(), tempfile.TemporaryDirectory() as folder:
        for pixels in loader:
            pixels = pixels.to(backbone.device, non_blocking=True)
            rows.append(backbone._model.encode_image(pixels, normalize=True).cpu())
        features = torch.cat(rows).numpy()
        np.save(Path(folder) / "features.npy", features)
    wall, spent = time.perf_counter() - start, cpu_seconds() - cpu
    return Rate(len(paths) / wall, 1e3 * spent / len(paths)), features.astype(np.float64)


def cpu_seconds() -> float:
    """Return the CPU time of this process and of its children that have ended."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def draw_photographs(folder: Path, count: int) -> Path:
    """Draw JPEG files of 512 x 384 with detail at all scales, in two classes; return the folder."""
    rng = np.random.default_rng(0)
    for i in range(count):
        picture = np.zeros((384, 512, 3), dtype=np.float64)
        for step in (4, 16, 64, 128):
            coarse = rng.integers(0, 256, (384 // step, 512 // step, 3), dtype=np.uint8)
            wide = Image.fromarray(coarse).resize((512, 384), Image.Resampling.BICUBIC)
            picture += np.asarray(wide, dtype=np.float64) * step / 212
        path = folder / "train" / ("odd" if i % 2 else "even") / f"{i:06d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture.clip(0, 255).astype(np.uint8)).save(path, quality=90)
    return folder


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backbone", default="tiny")
    parser.add_argument("--weights")
    parser.add_argument("--dataset", default="fieldguide")
    parser.add_argument("--drawn", type=int, help="draw that many photographs instead")
    parser.add_argument("--patches", default="none", help="a variant, or none")
    parser.add_argument("--views", type=int, default=0)
    parser.add_argument("--limit", type=int)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--compute", default="auto")
    parser.add_argument("--compile", action="store_true", help="our side through torch.compile")
    parser.add_argument("--micro-batch", type=int)
    parser.add_argument("--seconds", type=float, default=4.0, help="of each part measured alone")
    parser.add_argument("--repeat", type=int, default=3, help="rounds; the medians count")
    parser.add_argument("--json", action="store_true", help="the JSON line only")
    return parser.parse_args()


if __name__ == "__main__":
    main()
