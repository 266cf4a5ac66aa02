"""Top-1 of every method with intervals: on the drawn worlds, and on imported CLIP features.

Example: python benchmarks/accuracy.py --features features

Prints the tables of docs/benchmarks.md in Markdown. Runs and caches go to --home, so that asking
again trains anew but encodes nothing.
"""

import argparse
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from featcache.importers.npz import import_npz
from featcache.pipeline.run import Request, extract
from featcache.store.library import cache_root, find_cache
from heads.protocols import few_shot
from heads.results import store, tables
from heads.results.record import Result
from heads.results.statistics import paired_difference

WORLDS = ("fieldguide", "fieldguide-2")
SHIFTS = ("sketch", "night", "scan")
IMPORTED = {"imagenet256": (4,), "caltech50": (1, 2, 4, 8, 16)}
SEEDS = (1, 2, 3)
METHODS = ("zero-shot", "linear-probe", "tip-adapter", "tip-adapter-f", "cmm", "dac")
"""Those that need no more than few-shot rows and views; benchmarks/methods.py has the others."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """One data set at some shots and one test split."""

    dataset: str
    backbone: str
    shots: int
    split: str = "test"


def main() -> None:
    """Train everything, then print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--features", type=Path, help="folder with imagenet256_vitb32.npz, ...")
    parser.add_argument("--home", type=Path, help="caches and runs; else as FEATCACHE_HOME says")
    parser.add_argument("--methods", nargs="*", default=list(METHODS))
    arguments = parser.parse_args()
    root = cache_root(arguments.home)
    runs = store.runs_root(None if arguments.home is None else arguments.home / "runs")
    results = []
    for case in cases(root, arguments.features):
        features = find_cache(root, case.dataset, case.backbone).feature_set()
        for method in arguments.methods:
            result = few_shot.run(
                method, feature_set=features, shots=case.shots, seeds=SEEDS, split=case.split
            )
            store.save(result, runs)
            results.append(result)
            top1 = result.metrics["top1"]
            print(f"{case} {method}: {top1.mean:.4f} ± {top1.ci95}", file=sys.stderr, flush=True)
    print(tables.to_markdown(tables.group(results)))
    print(against(results, "cmm", "tip-adapter"))


def cases(root: Path, features: Path | None) -> Iterator[Case]:
    """Bring the caches up to date and list what is measured on them."""
    for world in WORLDS:
        extract(Request(dataset=world, backbone="tiny", views=["10"], root=root))
        for shots in (1, 4, 16):
            yield Case(dataset=world, backbone="tiny", shots=shots)
        for split in SHIFTS:
            yield Case(dataset=world, backbone="tiny", shots=16, split=split)
    for name, all_shots in IMPORTED.items() if features else ():
        assert features is not None
        import_npz(features / f"{name}_vitb32.npz", root, name, "ViT-B/32")
        for shots in all_shots:
            yield Case(dataset=name, backbone="ViT-B/32", shots=shots)


def against(results: list[Result], ours: str, other: str) -> str:
    """Write the paired differences of one method to another as a table."""
    lines = [f"| data set | shots | split | {ours} - {other}, points | |", "|---|---|---|---|---|"]
    table = {(r.dataset, r.shots, r.split, r.method): r for r in results}
    for (dataset, shots, split, method), result in table.items():
        rival = table.get((dataset, shots, split, other))
        if method != ours or rival is None:
            continue
        d = paired_difference(result, rival)
        interval = f"{100 * d.mean:+.1f} [{100 * d.low:+.1f}, {100 * d.high:+.1f}]"
        lines.append(f"| {dataset} | {shots} | {split} | {interval} over {d.over} | {d.word} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
