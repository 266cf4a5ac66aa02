"""Which heads stand an imbalanced support?

Every method is trained on the balanced draw of 16 shots a class and on a long tail of it, from 16
images of the largest class down to 1, on the same seeds; the queries are the same. The table has
balanced accuracy in % on both, the difference with its 95 % interval (paired over queries and
seeds), and the accuracy on the third of the classes with the most and with the fewest images. Which
classes these are differs from seed to seed.

Features are those of the embedded data set and backbone, encoded if they are not there.

Example: python benchmarks/imbalance.py --methods gda ridge tip-adapter
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np

import featcache
import heads
from featcache.types import FeatureSet
from heads.protocols.imbalance import profile
from heads.results.compare.pairing import paired_difference
from heads.results.record import Result

METHODS = (
    *("nearest-mean", "knn", "ridge", "linear-probe", "sim", "ss-text", "clap", "taskres"),
    *("tip-adapter", "tip-adapter-f", "gda", "timo", "proker", "lfa", "cmm", "dac", "ensemble"),
    "auto",
)
SUPPORT = "long-tail:0.0625"
SHOTS = 16


def main() -> None:
    """Train what is not stored yet and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--methods", nargs="*", default=METHODS)
    parser.add_argument("--dataset", default="fieldguide")
    parser.add_argument("--backbone", default="tiny")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--split", default="test")
    parser.add_argument("--support", default=SUPPORT)
    parser.add_argument("--cache", type=Path, help="folder of the caches")
    parser.add_argument("--runs", type=Path, help="folder of the runs")
    given = parser.parse_args()
    features = featcache.extract(given.dataset, given.backbone, root=given.cache)

    def trained(method: str, support: str | None) -> Result:
        result: Result = heads.evaluate(
            method,
            features,
            shots=SHOTS,
            seeds=given.seeds,
            split=given.split,
            support=support,
            root=given.runs,
            keep_heads=False,
        )
        return result

    print(f"| method | balanced support | {given.support} | difference | head third | tail third |")
    print("|---|---|---|---|---|---|")
    for method in given.methods:
        even, uneven = trained(method, None), trained(method, given.support)
        d = paired_difference(uneven, even, "balanced_accuracy")
        both = [100 * one.metrics["balanced_accuracy"].mean for one in (even, uneven)]
        thirds = [100 * value for value in head_and_tail(uneven, features, given.support)]
        print(
            f"| {method} | {both[0]:.1f} | {both[1]:.1f} | {100 * d.mean:+.1f} "
            f"[{100 * d.low:+.1f}, {100 * d.high:+.1f}] | {thirds[0]:.1f} | {thirds[1]:.1f} |",
            flush=True,
        )


def head_and_tail(result: Result, features: FeatureSet, support: str) -> Sequence[float]:
    """Return the accuracy on the third of classes with the most, and with the fewest images."""
    kept, classes = result.predictions, len(features.classes)
    assert kept is not None
    uneven = profile(support, features.classes)
    found = []
    for seed, predicted, labels in zip(result.seeds, kept.predicted, kept.labels, strict=True):
        order = np.argsort(-uneven.counts(SHOTS, classes, seed), kind="stable")
        parts = order[: classes // 3], order[-(classes // 3) :]
        found.append([float((predicted == labels)[np.isin(labels, part)].mean()) for part in parts])
    return np.mean(found, axis=0).tolist()  # type: ignore[no-any-return]


if __name__ == "__main__":
    main()
