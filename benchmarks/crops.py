"""What crops say of an image: how right each teacher of fair is, and which moth of two crops show.

Example: python benchmarks/crops.py

Reads the caches of fieldguide and fieldguide-pairs (`featcache extract --dataset fieldguide-pairs
--crops 60 --crops 16:fair --views 1:weak`), training and validation rows alone, and prints the
figures of docs/methods/fair.md and docs/methods/lazsl.md.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

import heads
from featcache.sources.fieldguide.pairs import sample_pair
from featcache.sources.fieldguide.species import PAIRS, species
from featcache.sources.fieldguide.world import picture_rng
from featcache.store.library import cache_root, find_cache
from featcache.types import FeatureSet
from heads.contract.rows import Kind, Rows
from heads.methods import fair
from heads.ops.neighbours import mean_of_neighbours

TEACHERS: tuple[fair.Teacher, ...] = ("neighbours", "weighted", "mean", "confidence")
SELECTIONS = ("paper", "all", "confidence")
SIZES = ((0.5, 0.67), (0.67, 0.76))
"""Size of the second moth over that of the first, from and to."""


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--home", type=Path, help="caches; else as FEATCACHE_HOME says")
    root = cache_root(parser.parse_args().home)
    for world in ("fieldguide", PAIRS):
        teachers(find_cache(root, world, "tiny").feature_set())
    second_moths(find_cache(root, PAIRS, "tiny").feature_set())


def of(features: FeatureSet, component: str, split: str) -> Tensor:
    """Read unit rows of a split."""
    return features.unit(component, features.usable(split))


def labels_of(features: FeatureSet, split: str) -> Int64[Tensor, " n"]:
    """Read the labels of a split."""
    return torch.from_numpy(features.labels[features.usable(split)].astype(np.int64))


def teachers(features: FeatureSet) -> None:
    """Tell how many images of train each teacher labels rightly."""
    assert features.text is not None
    anchors, y = features.text.anchors("description"), labels_of(features, "train")
    x, weak = of(features, "global", "train"), of(features, "views.weak-1", "train")[:, 0]
    crops = of(features, "crops.fair-16", "train")
    told = {"image": x}
    for teacher in TEACHERS:
        config = fair.Config(teacher=teacher)
        near = mean_of_neighbours(x, config.neighbours) if teacher == "neighbours" else None
        told[teacher] = fair.teach(crops, weak, anchors, near, config, fair.Hyper())
    for name, v in told.items():
        right = (v @ anchors.mT).argmax(-1) == y
        print(f"{features.listing.dataset} {name}: {_percent(right)} of {len(y)}")


def second_moths(features: FeatureSet) -> None:
    """Tell how often crops, and lazsl, take the second moth of a picture for the label."""
    assert features.text is not None
    rows, y = features.usable("val"), labels_of(features, "val")
    other, size = _second(features, rows)
    x, crops = of(features, "global", "val"), of(features, "crops.lazsl-60", "val")
    nearest = (crops @ features.text.anchors("description").mT).argmax(-1)
    first, second = (nearest == c[:, None] for c in (y, other))
    print(f"crops nearest to the first moth {_percent(first)}, to the second {_percent(second)}")
    seen = Rows.of(x, kinds={Kind("crops", "lazsl"): crops})
    for select in SELECTIONS:
        head = heads.fit("lazsl", features, selection="none", select=select)
        found = head.logits(seen).argmax(-1)
        print(f"lazsl {select}: right {_percent(found == y)}, second {_percent(found == other)}")
        for low, high in SIZES:
            some = (size >= low) & (size < high)
            told = _percent((found == other)[some])
            print(f"    second of {low} to {high} of the size: {told} of {int(some.sum())}")


def _second(
    features: FeatureSet, rows: np.ndarray
) -> tuple[Int64[Tensor, " n"], Float[Tensor, " n"]]:
    """Return the species of each picture's second moth, and its size over that of the first."""
    kinds, others, sizes = species(PAIRS), [], []
    for row in rows.tolist():
        split, _, file = features.listing.ids[row].split("/")
        label = int(features.labels[row])
        rng = picture_rng(PAIRS, split, kinds[label].name, int(Path(file).stem))
        pair = sample_pair(len(kinds), label, rng)
        others.append(pair.other)
        sizes.append(pair.small.scale / pair.large.scale)
    return torch.tensor(others), torch.tensor(sizes)


def _percent(right: Tensor) -> str:
    return f"{100 * float(right.float().mean()):.1f} %"


if __name__ == "__main__":
    main()
