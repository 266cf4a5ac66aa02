"""Beside clip-retrieval's `inference`: the same weights, the same photographs, equal features.

clip-retrieval lives in an environment of its own, whose interpreter is the first argument:

    python3 -m venv RIVAL
    RIVAL/bin/pip install clip-retrieval && RIVAL/bin/pip install "setuptools<70"
    python benchmarks/rivals.py RIVAL/bin/python PHOTOGRAPHS --images 500

The weights are drawn once and written to a file that both load, so no network is needed. Loading,
warming up and listing count for neither side, nor do clip-retrieval's logging processes; reading,
decoding, encoding and writing count for both. The two take turns, and the best turn of each counts.
CPU time includes the processes that load images.
"""

import argparse
import json
import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import torch

from benchmarks.extract import end_to_end
from benchmarks.stages import Rate
from featcache.pipeline.run import Request
from featcache.store.cache import Cache
from featcache.threads import cpu_cores

ENDINGS = (".jpg", ".jpeg", ".png")

LEAST_COSINE = 0.999

CHILD = """
import json, os, sys, time
from importlib.metadata import version
from all_clip import load_clip
from clip_retrieval.clip_inference.main import main
from clip_retrieval.clip_inference.runner import Runner

a = json.loads(sys.argv[1])
size, model = a["batch_size"], a["clip_model"]
# As the runner asks for it, which keeps what it got: loading and warming up are done.
load_clip(clip_model=model, use_jit=False, warmup_batch_size=size, clip_cache_path=None)
work, spent = Runner.__call__, lambda: sum(os.times()[:4])

def timed(self, task):
    start, cpu = time.perf_counter(), spent()
    work(self, task)
    a.update(wall=time.perf_counter() - start, cpu=spent() - cpu)

Runner.__call__ = timed
main(use_jit=False, enable_text=False, **a)
names = ("clip-retrieval", "torch", "open_clip_torch")
versions = {name: version(name) for name in names}
print("\\n" + json.dumps({"wall": a["wall"], "cpu": a["cpu"], "versions": versions}))
"""


def main() -> None:
    """Measure both, compare the features, then print a table and one JSON line."""
    arguments = parse()
    with tempfile.TemporaryDirectory() as folder:
        figures = measure(arguments, Path(folder))
    for name, value in figures.items():
        print(f"{name:32} {value}")
    print(json.dumps(figures))
    if figures["cosine_min"] < LEAST_COSINE:
        raise SystemExit(f"The features differ: cosine {figures['cosine_min']}.")


def measure(arguments: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Let the two take turns over the same files."""
    chosen = gather(arguments.photographs, folder / "photographs", arguments.images)
    weights = folder / "weights.pt"
    torch.manual_seed(0)
    torch.save(open_clip.create_model(arguments.architecture).state_dict(), weights)
    request = Request(
        dataset=f"folder:{folder / 'photographs'}",
        backbone=arguments.architecture,
        weights=str(weights),
        patches=["none"],
        compute=arguments.compute,
        yes=True,
    )
    ours, rivals = [], []
    for turn in range(arguments.repeat):
        options = {
            "input_dataset": str(folder / "photographs" / "train"),
            "output_folder": str(folder / f"theirs{turn}"),
            "clip_model": f"open_clip:{arguments.architecture}/{weights}",
            "batch_size": arguments.batch_size,
            "num_prepro_workers": arguments.workers,
        }
        rivals.append(rival(arguments.interpreter, options))
        again = {**vars(request), "root": folder / f"ours{turn}"}
        ours.append(end_to_end(Request(**again)))
    summary, rate = max(ours, key=lambda run: run[1].a_second)
    theirs = min(rivals, key=lambda run: run["wall"])
    beside = Rate(chosen / theirs["wall"], 1e3 * theirs["cpu"] / chosen)
    cosine = cosines(Cache.open(summary.path), folder / "theirs0")
    if len(cosine) != chosen:
        raise SystemExit(f"{len(cosine)} of {chosen} photographs have features on both sides.")
    return {
        "architecture": arguments.architecture,
        "images": chosen,
        "machine": f"{platform.machine()}, {cpu_cores()} cores, {torch.get_num_threads()} threads",
        "device": "cuda" if torch.cuda.is_available() else "cpu",
        "load_average": round(os.getloadavg()[0], 1),
        "compute": arguments.compute,
        "batch_size_of_clip_retrieval": arguments.batch_size,
        "workers_of_clip_retrieval": arguments.workers,
        "versions_of_clip_retrieval": theirs["versions"],
        "torch": torch.__version__,
        "clip_retrieval_per_s": round(beside.a_second, 2),
        "ours_per_s": round(rate.a_second, 2),
        "clip_retrieval_cpu_ms": round(beside.cpu_ms, 2),
        "ours_cpu_ms": round(rate.cpu_ms, 2),
        "cosine_mean": round(float(cosine.mean()), 7),
        "cosine_min": round(float(cosine.min()), 7),
        "ratio": round(rate.a_second / beside.a_second, 3),
        "ratio_cpu": round(beside.cpu_ms / rate.cpu_ms, 3),
    }


def gather(photographs: Path, folder: Path, most: int) -> int:
    """Copy photographs into a folder per class, as a data set of ours; return how many."""
    found = sorted(p for p in photographs.rglob("*") if p.suffix.lower() in ENDINGS)[:most]
    if len(found) < 2:
        raise SystemExit(f"Under {photographs} are no photographs ({', '.join(ENDINGS)}).")
    for i, path in enumerate(found):
        place = folder / "train" / ("odd" if i % 2 else "even") / f"{i:06d}{path.suffix.lower()}"
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, place)
    return len(found)


def rival(interpreter: Path, options: dict[str, Any]) -> dict[str, Any]:
    """Run clip-retrieval once; return what its process said of time and versions."""
    call = [str(interpreter), "-c", CHILD, json.dumps(options)]
    offline = {**os.environ, "HF_HUB_OFFLINE": "1"}
    offline.pop("PYTHONPATH", None)
    done = subprocess.run(call, capture_output=True, text=True, env=offline, check=False)
    if done.returncode:
        raise SystemExit(f"clip-retrieval failed:\n{done.stdout[-2000:]}{done.stderr[-4000:]}")
    said: Sequence[str] = [s for s in done.stdout.splitlines() if s.startswith('{"wall"')]
    figures: dict[str, Any] = json.loads(said[-1])
    return figures


def cosines(cache: Cache, theirs: Path) -> np.ndarray[Any, Any]:
    """Compare features file by file: clip-retrieval writes them in the order of the names."""
    rows = [np.load(p) for p in sorted((theirs / "img_emb").glob("*.npy"))]
    found = np.concatenate(rows).astype(np.float64)
    features = cache.feature_set()
    order = np.argsort([str(Path(i).relative_to("train")) for i in features.listing.ids])
    ours = features.unit("global", order).double().numpy()
    found /= np.linalg.norm(found, axis=1, keepdims=True)
    cosine: np.ndarray[Any, Any] = (ours * found).sum(1)
    return cosine


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("interpreter", type=Path, help="python of clip-retrieval's environment")
    parser.add_argument("photographs", type=Path)
    parser.add_argument("--images", type=int, default=500)
    parser.add_argument("--architecture", default="ViT-B-32")
    parser.add_argument("--compute", default="auto")
    parser.add_argument("--batch-size", type=int, default=256, help="of clip-retrieval")
    parser.add_argument("--workers", type=int, default=4, help="of clip-retrieval")
    parser.add_argument("--repeat", type=int, default=1, help="turns of each; the best counts")
    return parser.parse_args()


if __name__ == "__main__":
    main()
