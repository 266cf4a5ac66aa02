"""How fast is an extraction beside the bare forward pass, and how near to open_clip's features?

Example: python benchmarks/extract.py --backbone ViT-B/32 --weights random --dataset folder:photos
"""

import argparse
import json
import platform
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from open_clip.transform import image_transform
from PIL import Image

from featcache.backbones.registry import load_backbone
from featcache.pipeline.decode import MAX_PIXELS, in_order, read_image
from featcache.pipeline.encode import micro_batch_for
from featcache.pipeline.plan import cpu_cores
from featcache.pipeline.run import Request, Summary, extract
from featcache.pipeline.views import Preprocess, central_view
from featcache.store.cache import Cache

SECONDS = 8.0
"""Of the bare forward pass and of decoding alone."""

COMPARED = 512
"""Photographs at most whose features are compared with open_clip's."""


def main() -> None:
    """Measure, then print a table and one JSON object."""
    arguments = parse()
    with tempfile.TemporaryDirectory() as folder:
        request = Request(
            dataset=arguments.dataset,
            backbone=arguments.backbone,
            weights=arguments.weights,
            patches=[arguments.patches] if arguments.patches else None,
            views=[str(arguments.views)] if arguments.views else (),
            limit=arguments.limit,
            device=arguments.device,
            compute=arguments.compute,
            micro_batch=arguments.micro_batch,
            root=Path(folder),
        )
        summary = extract(request, say=print)
        figures = measure(arguments, summary)
    for name, value in figures.items():
        print(f"{name:28} {value}")
    print(json.dumps(figures))


def measure(arguments: argparse.Namespace, summary: Summary) -> dict[str, Any]:
    """Compare one finished extraction with its parts."""
    backbone = load_backbone(
        arguments.backbone,
        weights=arguments.weights,
        device=arguments.device,
        compute=arguments.compute,
    )
    features = Cache.open(summary.path).feature_set()
    names = [n.partition(".")[2] for n in features.components if n.startswith("patches.")]
    micro_batch = arguments.micro_batch or micro_batch_for(backbone.gflops, backbone.device.type)
    bare = bare_forward(backbone, micro_batch, names)
    rows = np.flatnonzero(features.components["global"].present() & features.ok)
    paths = [Path(features.listing.root) / features.listing.ids[r] for r in rows.tolist()]
    hashes = [features.listing.hashes[r] for r in rows.tolist()]
    decode = decode_alone(paths, hashes, Preprocess.of(backbone))
    chosen = np.linspace(0, len(rows) - 1, min(COMPARED, len(rows))).round().astype(int)
    cosine = cosine_to_open_clip(
        arguments,
        [paths[i] for i in chosen],
        features.unit("global", rows[chosen]).double().numpy(),
    )
    rate = summary.images_per_s or 0.0
    return {
        "backbone": backbone.name,
        "device": str(backbone.device),
        "machine": f"{platform.machine()}, {cpu_cores()} cores, {torch.get_num_threads()} threads",
        "torch": torch.__version__,
        "compute": str(backbone.compute_dtype),
        "micro_batch": micro_batch,
        "images": summary.passed,
        "components": ", ".join(summary.encoded),
        "images_per_s": round(rate, 1),
        "bare_forward_images_per_s": round(bare, 1),
        "share_of_bare_forward": round(rate / bare, 3),
        "decode_alone_images_per_s": round(decode, 1),
        "seconds": {k: round(v, 2) for k, v in summary.seconds.items()},
        "megabytes": round(summary.bytes / 1e6, 1),
        "cosine_mean": round(float(cosine.mean()), 7),
        "cosine_min": round(float(cosine.min()), 7),
        "compared": len(cosine),
    }


@torch.inference_mode()
def bare_forward(backbone: Any, micro_batch: int, variants: list[str]) -> float:
    """Return images a second of the encoder alone on pixels that are there already."""
    side = backbone.image_size
    pixels = torch.randn(micro_batch, 3, side, side, device=backbone.device)
    pixels = pixels.to(memory_format=torch.channels_last)
    done, start = -2 * micro_batch, 0.0
    while done <= 0 or time.perf_counter() - start < SECONDS:
        if done == 0:
            start = time.perf_counter()
        backbone.encode_images(pixels, variants)
        if backbone.device.type == "cuda":
            torch.cuda.synchronize()
        done += micro_batch
    return done / (time.perf_counter() - start)


def decode_alone(paths: list[Path], hashes: list[str], preprocess: Preprocess) -> float:
    """Return images a second of reading, hashing, decoding and resizing on all cores."""

    def work(i: int) -> None:
        central_view(read_image(paths[i], hashes[i], max_pixels=MAX_PIXELS), preprocess)

    start, done = time.perf_counter(), 0
    threads = cpu_cores()
    for _ in in_order(range(len(paths)), work, threads=threads, ahead=4 * threads):
        done += 1
        if time.perf_counter() - start > SECONDS:
            break
    return done / (time.perf_counter() - start)


@torch.inference_mode()
def cosine_to_open_clip(
    arguments: argparse.Namespace, paths: list[Path], ours: np.ndarray[Any, Any]
) -> np.ndarray[Any, Any]:
    """Compare stored rows with open_clip's own preprocessing and `encode_image` in float32."""
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
    theirs = []
    for path in paths:
        with Image.open(path) as image:
            pixels = transform(image)[None].to(backbone.device)
        theirs.append(backbone._model.encode_image(pixels, normalize=True).cpu())
    return np.asarray((torch.cat(theirs).double().numpy() * ours).sum(1))


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backbone", default="tiny")
    parser.add_argument("--weights")
    parser.add_argument("--dataset", default="fieldguide")
    parser.add_argument("--patches", help="a variant, or none; default: the backbone's")
    parser.add_argument("--views", type=int, default=0)
    parser.add_argument("--limit", type=int)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--compute", default="auto")
    parser.add_argument("--micro-batch", type=int)
    return parser.parse_args()


if __name__ == "__main__":
    main()
