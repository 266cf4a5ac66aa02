"""Which methods should `auto` pool, and what does it lose to the best single method?

Every candidate is trained alone, its hyper-parameters chosen on validation rows, on drawn worlds
and imported CLIP features at few and many shots. What its heads answer to validation rows and
queries is stored in --work by the digest of its spec: the same command goes on after an
interruption, and trains anew what a new version of a method changes. Then the members are chosen,
and what pools of them lose is measured (`benchmarks/portfolio.py`).

    python -m benchmarks.auto --features features --work answers --home caches

Seconds are those of the processor, so that other programs beside it change them little; with
OMP_NUM_THREADS=1 they are those of one thread.
"""

import argparse
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file

import featcache
from benchmarks.portfolio import Answers, Draw, show
from featcache.draws import VAL_SHOTS, few_shot
from featcache.errors import CacheNotFoundError, MissingComponentError
from featcache.importers.npz import import_npz
from featcache.store.library import cache_root, find_cache
from featcache.types import FeatureSet
from heads.member_pool import members
from heads.methods.auto import METHOD
from heads.protocols import evaluation, training
from heads.protocols.plan import Request

WORLDS = ("fieldguide", "fieldguide-2")
IMPORTED = ("imagenet256", "caltech50", "oxford_flowers", "fgvc", "caltech101")
SHOTS: Mapping[str, Sequence[int]] = {"imagenet256": (1, 2, 4)}
USUAL_SHOTS = (1, 4, 16)
SEEDS = (1, 2, 3)
CANDIDATES = (
    "gda",
    "ridge",
    "proker",
    "tip-adapter",
    "timo",
    "cmm",
    "taskres",
    "lp++",
    "nearest-mean",
    "knn",
    "linear-probe",
    "lfa",
    "clap",
    "dac",
    "ape-t",
    "cross-modal-linear-probe",
    "tip-adapter-f",
)


def main() -> None:
    """Train what is not stored yet and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--features", type=Path, help="folder with imagenet256_vitb32.npz, ...")
    parser.add_argument("--home", type=Path, help="caches; else as FEATCACHE_HOME says")
    parser.add_argument("--work", type=Path, required=True, help="folder of stored answers")
    parser.add_argument("--methods", nargs="*", default=CANDIDATES)
    parser.add_argument(
        "--datasets", nargs="*", help="else the drawn worlds and, with --features, the imported"
    )
    parser.add_argument("--shots", nargs="*", type=int, default=(1, 2, 4, 16))
    parser.add_argument(
        "--shipped", nargs="*", default=[one.name for one in members(METHOD.config())]
    )
    parser.add_argument("--stored", action="store_true", help="train nothing: what is stored only")
    given = parser.parse_args()
    datasets = given.datasets or (*WORLDS, *(IMPORTED if given.features else ()))
    given.work.mkdir(parents=True, exist_ok=True)
    root = cache_root(given.home)
    caches = {name: opened(name, root, given.features) for name in datasets}
    wanted = [
        (method, name, shots)
        for method in given.methods
        for shots in given.shots
        for name in datasets
        if shots in SHOTS.get(name, USUAL_SHOTS)
    ]
    draws: dict[tuple[str, int, int], Draw] = {}
    for method, name, shots in wanted:
        for seed, answers in answered(caches[name], method, shots, given.work, given.stored):
            draw = draws.setdefault((name, shots, seed), labels_of(caches[name], shots, seed))
            draw.answers[method] = answers
    show(list(draws.values()), given.shipped)


def opened(name: str, root: Path, folder: Path | None) -> FeatureSet:
    """Open a cache, after encoding it, or importing it from a file, where that is to be done."""
    backbone = "tiny" if name in WORLDS else "ViT-B/32"
    if name not in WORLDS and folder is not None:
        import_npz(folder / f"{name}_vitb32.npz", root, name, backbone)
    try:
        return find_cache(root, name, backbone).feature_set()
    except CacheNotFoundError:
        if name not in WORLDS:
            raise
        return featcache.extract(name, backbone, views=["10"], root=root)


def labels_of(features: FeatureSet, shots: int, seed: int) -> Draw:
    """Return a repetition, without answers yet."""
    return Draw(
        dataset=features.listing.dataset,
        shots=shots,
        seed=seed,
        texts=features.text is not None,
        val_labels=torch.as_tensor(features.labels[val_rows(features, shots, seed)]).long(),
        test_labels=torch.as_tensor(features.labels[features.usable("test")]).long(),
    )


def val_rows(features: FeatureSet, shots: int, seed: int) -> np.ndarray:
    """Return the rows on which hyper-parameters are chosen."""
    drawn = few_shot(
        features.listing, shots, seed, val_shots=min(shots, VAL_SHOTS), usable=features.ok
    )
    return drawn.val_rows


def answered(
    features: FeatureSet, method: str, shots: int, work: Path, stored: bool
) -> Iterator[tuple[int, Answers]]:
    """Yield seeds and what heads answer; nothing where a method needs texts and there are none."""
    request = Request(
        method=method, features=features, shots=shots, seeds=SEEDS, calibrate_on="none"
    )
    plan = training.plan(request)
    path = work / f"{plan.fit_spec('test').digest()}.safetensors"
    missing = path.with_suffix(".json")
    if missing.exists() or (stored and not path.exists()):
        return
    if not path.exists():
        started = time.process_time()
        try:
            heads = evaluation.fit(plan)
        except MissingComponentError as error:
            missing.write_text(json.dumps(str(error)), encoding="utf-8")
            return
        seconds = (time.process_time() - started) / len(heads)
        tensors = {"seconds": torch.tensor(seconds)}
        for seed, head in zip(plan.run.seeds, heads, strict=True):
            for part, rows in (
                ("val", val_rows(features, shots, seed)),
                ("test", features.usable("test")),
            ):
                x = torch.as_tensor(features.unit("global", rows))
                tensors[f"{seed}/{part}"] = head.logits(x).contiguous()
        save_file(tensors, path)
        print(f"<!-- {method} {features.listing.dataset} {shots} {seconds:.1f} s -->", flush=True)
    kept = load_file(path)
    for seed in plan.run.seeds:
        yield (
            seed,
            Answers(
                val=kept[f"{seed}/val"],
                test=kept[f"{seed}/test"],
                seconds=float(kept["seconds"]),
            ),
        )


if __name__ == "__main__":
    main()
