"""The GPU table, in one command: images a second, share of the bf16 ceiling, and what binds.

    python benchmarks/gpu.py

For ViT-B/32, B/16 and L/14 with random weights, without and with clearclip patches, over drawn
photographs of 512 x 384: decode (what the decoding threads of the pass do, on all cores), device
(the encoder alone on pixels that are there, at the micro-batch of the pass) and disk (the same
shards written again), each alone, and the whole pass. `ratio` is the pass over the slowest of the
three. `cut` is what a GPU does besides: to take whole pictures and cut their windows. The ceiling
is a bf16 matrix product of the same run; shares of it count the floating-point operations of the
image tower. The first line also says how fast the GPU itself decodes JPEG files (nvJPEG through
torchvision, which the pass does not use) and how many grey levels its pictures are off. One JSON
line a row comes as soon as the row is measured, the table at the end. Without a GPU the rows say
so; `--device cpu --backbones ViT-B/32 --images 64` tries the script anyway.
"""

import argparse
import gc
import json
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torchvision.io import ImageReadMode, decode_jpeg

from benchmarks.extract import draw_photographs, end_to_end, plain_loop
from benchmarks.stages import Rate, on_all_cores, write_only
from featcache.backbones.registry import load_backbone
from featcache.encoding.device_crops import Cutter
from featcache.encoding.encoder import Encoder, micro_batch_for, preprocessing
from featcache.imaging.decode import MAX_PIXELS
from featcache.imaging.decode import decode as decode_file
from featcache.imaging.loader import ImageLoader, Job, file_sources
from featcache.imaging.views import CENTRAL
from featcache.pipeline.run import Request
from featcache.places import FilePlace
from featcache.store.cache import Cache
from featcache.threads import cpu_cores

BACKBONES = ("ViT-B/32", "ViT-B/16", "ViT-L/14")
PATCHES = ("none", "clearclip")
DRAWN = 256
"""Photographs that are drawn; the data set repeats them."""

SIDE = {"cuda": 8192, "cpu": 1024}
"""Side of the square matrices whose product is the ceiling."""

QUEUED = 8
"""Batches or products between two looks at the clock."""

COLUMNS = (
    ("backbone", "backbone"),
    ("patches", "patches"),
    ("images_per_s", "images/s"),
    ("ratio", "of the slowest"),
    ("binds", "binds"),
    ("decode_per_s", "decode"),
    ("cut_per_s", "cut"),
    ("device_per_s", "device"),
    ("disk_per_s", "disk"),
    ("share_of_ceiling", "of the ceiling"),
    ("device_share_of_ceiling", "device alone"),
    ("ratio_to_plain_loop", "plain loop"),
)


def main() -> None:
    """Measure every row, then print the table."""
    arguments = parse()
    rows = [(b, p) for b in arguments.backbones for p in PATCHES]
    if arguments.device == "cuda" and not torch.cuda.is_available():
        measured = [{"backbone": b, "patches": p, "images_per_s": "not measured"} for b, p in rows]
        print(json.dumps({"device": "no GPU here", "rows": measured}))
    else:
        with tempfile.TemporaryDirectory() as folder:
            measured = list(measure(arguments, rows, Path(folder)))
    print("| " + " | ".join(title for _, title in COLUMNS) + " |")
    print("|" + "---|" * len(COLUMNS))
    for row in measured:
        print("| " + " | ".join(str(row.get(key, "")) for key, _ in COLUMNS) + " |")


def measure(
    arguments: argparse.Namespace, rows: Sequence[tuple[str, str]], folder: Path
) -> list[dict[str, Any]]:
    """Measure the ceiling, then one row after the other over the same photographs."""
    device = torch.device(arguments.device)
    ceiling = bf16_ceiling(device, arguments.seconds)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
    head = {
        "device": name,
        "cores": cpu_cores(),
        "torch": torch.__version__,
        "ceiling_tflops": round(ceiling / 1e3, 1),
        "images": arguments.images,
    }
    photographs = repeated(folder / "photographs", arguments.images)
    if device.type == "cuda":
        files = sorted(photographs.rglob("*.jpg"))[:DRAWN]
        head |= nvjpeg(files, device, arguments.seconds)
    print(json.dumps(head), flush=True)
    measured = []
    for backbone, patches in rows:
        row = measure_row(arguments, backbone, patches, photographs, folder / "row", ceiling)
        print(json.dumps(row), flush=True)
        measured.append(row)
        shutil.rmtree(folder / "row")
        gc.collect()
    return measured


def measure_row(
    arguments: argparse.Namespace,
    name: str,
    patches: str,
    photographs: Path,
    folder: Path,
    ceiling: float,
) -> dict[str, Any]:
    """Measure one backbone, with patches or without; `ceiling` in GFLOP/s."""
    request = Request(
        dataset=f"folder:{photographs}",
        backbone=name,
        weights="random",
        patches=[patches],
        device=arguments.device,
        compute="bf16",
        yes=True,
    )
    warm = max(1, arguments.images // 16)
    end_to_end(replace(request, root=folder / "warm", limit=warm))
    summary, whole = end_to_end(replace(request, root=folder / "cold"))
    features = Cache.open(summary.path).feature_set()
    listing = features.listing
    paths = [Path(listing.root) / name for name in listing.ids]
    places = dict(zip(listing.ids, map(FilePlace, paths), strict=True))
    sources = file_sources(listing.ids, listing.hashes, places)
    jobs = [Job(source, (CENTRAL,)) for source in sources.values()]
    backbone: Any = load_backbone(name, weights="random", device=arguments.device, compute="bf16")
    batch = micro_batch_for(backbone.gflops, backbone.device.type)
    variants = [] if patches == "none" else [patches]
    encoder = Encoder(backbone, batch)
    room = encoder.image_room if encoder.cuts else None
    drawer = ImageLoader(preprocess=preprocessing(backbone), max_pixels=MAX_PIXELS, room=room)
    stages = {
        "decode": decode(jobs, drawer, arguments.seconds),
        "device": device_alone(backbone, batch, variants, arguments.seconds),
        "disk": write_only(summary, folder / "again", 1).a_second,
    }
    binds = min(stages, key=lambda stage: stages[stage])
    row = {
        "backbone": name,
        "patches": patches,
        "micro_batch": batch,
        "images_per_s": round(whole.a_second, 1),
        **{f"{stage}_per_s": round(rate, 1) for stage, rate in stages.items()},
        "cut_per_s": round(cut_alone(jobs, encoder, arguments.seconds), 1) if room else "",
        "binds": binds,
        "ratio": round(whole.a_second / stages[binds], 3),
        "waited_s": {k: round(v, 2) for k, v in summary.seconds.items()},
        "megabytes_per_s": round(summary.bytes / 1e6 * whole.a_second / summary.passed, 1),
        "gflops": round(backbone.gflops, 2),
        "share_of_ceiling": round(backbone.gflops * whole.a_second / ceiling, 4),
        "device_share_of_ceiling": round(backbone.gflops * stages["device"] / ceiling, 4),
    }
    if patches == "none":
        few = argparse.Namespace(backbone=name, weights="random", device=arguments.device)
        rate, theirs = plain_loop(few, paths[: arguments.plain])
        cosine = (theirs * features.unit("global", np.arange(len(theirs))).double().numpy()).sum(1)
        row["plain_loop_per_s"] = round(rate.a_second, 1)
        row["ratio_to_plain_loop"] = round(whole.a_second / rate.a_second, 2)
        row["cosine_to_plain_min"] = round(float(cosine.min()), 6)
    return row


def bf16_ceiling(device: torch.device, seconds: float) -> float:
    """Return the GFLOP/s of a square bf16 matrix product on random numbers."""
    side = SIDE.get(device.type, SIDE["cpu"])
    a, b = (torch.randn(side, side, device=device).bfloat16() for _ in range(2))
    return 2e-9 * side**3 * repeat(lambda: a @ b, device, seconds)


def decode(jobs: Sequence[Job], drawer: ImageLoader, seconds: float) -> float:
    """Return the images a second that all cores read, hash, decode and, if they have to, cut."""
    rate: Rate = on_all_cores(len(jobs), lambda i: drawer(jobs[i]), seconds, 1)
    return rate.a_second


def nvjpeg(paths: Sequence[Path], device: torch.device, seconds: float) -> dict[str, object]:
    """Let the GPU decode files that are in memory: images a second, and how far off it is."""
    files = [torch.from_numpy(np.fromfile(path, dtype=np.uint8)) for path in paths]

    def work() -> list[torch.Tensor]:
        levels: list[torch.Tensor] = decode_jpeg(files, mode=ImageReadMode.RGB, device=device)
        return levels

    try:
        found = [levels.permute(1, 2, 0).cpu().numpy().astype(int) for levels in work()]
    except RuntimeError as error:  # a build of torchvision without it, or an old driver
        return {"nvjpeg": str(error).splitlines()[0]}
    off = [np.abs(a - decode_file(path.read_bytes())) for a, path in zip(found, paths, strict=True)]
    return {
        "nvjpeg_per_s": round(len(files) * repeat(work, device, seconds), 1),
        "nvjpeg_levels_off_mean": round(float(np.mean([o.mean() for o in off])), 3),
        "nvjpeg_levels_off_max": int(max(o.max() for o in off)),
    }


def cut_alone(jobs: Sequence[Job], encoder: Encoder, seconds: float) -> float:
    """Return the images a second that go up and are cut to their central view."""
    preprocess = preprocessing(encoder.backbone)
    drawer = ImageLoader(preprocess=preprocess, max_pixels=MAX_PIXELS, room=encoder.image_room)
    drawn = [drawer(job) for job in jobs[:DRAWN]]
    cutter = Cutter(encoder, preprocess)

    def work() -> None:
        for row, one in enumerate(drawn):
            for _ in cutter.add(row, one):
                pass
        for _ in cutter.flush():
            pass

    return len(drawn) * repeat(work, encoder.backbone.device, seconds)


@torch.inference_mode()
def device_alone(backbone: Any, batch: int, variants: Sequence[str], seconds: float) -> float:
    """Return the images a second of the encoder, its batches queued one behind the other."""
    side = backbone.image_size
    pixels = torch.randn(batch, 3, side, side, device=backbone.device)
    return batch * repeat(
        lambda: backbone.encode_images(pixels, variants), backbone.device, seconds
    )


def repeat(work: Callable[[], object], device: torch.device, seconds: float) -> float:
    """Return how often a second some work is done, after it has been done a few times."""

    def several() -> None:
        for _ in range(QUEUED):
            work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    several()
    start, times = time.perf_counter(), 0
    while time.perf_counter() - start < seconds:
        several()
        times += QUEUED
    return times / (time.perf_counter() - start)


def repeated(folder: Path, count: int) -> Path:
    """Draw photographs and copy them until there are `count`; return the folder."""
    draw_photographs(folder, min(DRAWN, count))
    drawn = sorted(folder.rglob("*.jpg"), key=lambda path: path.name)
    for i in range(len(drawn), count):
        source = drawn[i % len(drawn)]
        shutil.copyfile(source, source.parent / f"{i:06d}.jpg")
    return folder


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backbones", nargs="+", default=BACKBONES)
    parser.add_argument("--images", type=int, default=16_384)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--seconds", type=float, default=3.0, help="of each part measured alone")
    parser.add_argument("--plain", type=int, default=2_048, help="images of the plain loop")
    return parser.parse_args()


if __name__ == "__main__":
    main()
