"""Methods that answer queries together or one after the other, under both of their protocols.

Batches of 64 that hold 1 to 4 classes, correlated streams, and random orders. Prints the tables of
docs/benchmarks.md: mean top-1 in %, of streams also that of the worst tenth (expected tail
accuracy), and the paired difference to zero-shot on the same queries with its 95 % interval over
batches or streams; the words are corrected by Holm for the rows of a table.

Example: python benchmarks/orders.py --features features --datasets fieldguide caltech50
"""

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.imported import FILES, imported
from featcache.store.library import cache_root, find_cache
from featcache.types import FeatureSet
from heads.protocols import online
from heads.results.compare.pairing import paired_difference, words
from heads.results.metrics import TAIL
from heads.results.record import Result

METHODS: Mapping[str, Mapping[str, Any]] = {
    "zero-shot": {},
    "transclip": {"mode": "zero-shot"},
    "stata": {},
    "tda": {},
    "dmn": {},
    "oga": {},
}
PROTOCOLS: Mapping[str, Mapping[str, Any]] = {
    "batches of 64, 1-4 classes": {"protocol": "batches"},
    "streams, correlation 0.01": {"protocol": "stream"},
    "streams, random order": {"protocol": "stream", "correlation": "none"},
}


def main() -> None:
    """Measure every method on every list, a table a list."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--features", type=Path, help="folder with the .npz files")
    parser.add_argument("--home", type=Path, help="caches; else as FEATCACHE_HOME says")
    parser.add_argument("--datasets", nargs="*", default=["fieldguide", "caltech50"])
    parser.add_argument("--methods", nargs="*", default=list(METHODS))
    parser.add_argument("--only", default="", help="lists whose name has this: batches, streams")
    parser.add_argument("--repeats", type=int, help="else 1000 batches and 100 streams")
    given = parser.parse_args()
    root = cache_root(given.home)
    for dataset in given.datasets:
        if dataset in FILES:
            features = imported(dataset, given.features, root)
        else:
            features = find_cache(root, dataset, "tiny").feature_set()
        for title, how in PROTOCOLS.items():
            if given.only not in title:
                continue
            if given.repeats is not None:
                how = {**how, "repeats": given.repeats}
            results = [measured(name, features, how) for name in given.methods]
            print(f"#### {dataset}, {title}\n\n{table(results)}\n", flush=True)


def measured(name: str, features: FeatureSet, how: Mapping[str, Any]) -> Result:
    """Answer the queries of one list by one method, on the CPU."""
    result = online.run(name, features=features, settings=METHODS[name], device="cpu", **how)
    seconds = sum(result.seconds.values())
    print(f"{name} {dict(how)}: {seconds:.1f} s", file=sys.stderr, flush=True)
    return result


def table(results: list[Result]) -> str:
    """Write one line a method; the first is what the others are compared with."""
    reference, *others = results
    differences = [paired_difference(one, reference) for one in others]
    told = zip(differences, words(differences), strict=True)
    points = [
        f"{100 * d.mean:+.1f} [{100 * d.low:+.1f}, {100 * d.high:+.1f}] | {word}"
        for d, word in told
    ]
    lines = ["| method | top-1 | worst tenth | minus zero-shot, points | | seconds |"]
    lines.append("|---|---:|---:|---|---|---:|")
    for one, said in zip(results, [" | ", *points], strict=True):
        tail = f"{100 * one.metrics[TAIL].mean:.1f}" if TAIL in one.metrics else ""
        top1, seconds = 100 * one.metrics["top1"].mean, sum(one.seconds.values())
        lines.append(f"| {one.method} | {top1:.1f} | {tail} | {said} | {seconds:.0f} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
