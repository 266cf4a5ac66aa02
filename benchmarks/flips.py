"""Change single bytes all over the files of a small cache, or run, and count what verify finds.

With --read: those that a reader finds who never ran verify, in the shards of every component and
in the checksums beside them.

Example: python benchmarks/flips.py --trials 10000
Example: python benchmarks/flips.py --trials 10000 --runs
Example: python benchmarks/flips.py --trials 10000 --read
"""

import argparse
import json
import sys
import tempfile
import time
from collections import defaultdict
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from heads.results.store import save
from tests.fuzz.run_targets import toy_run
from tests.reliability.faults import World
from tests.reliability.flips import Check, flips, of_cache, of_runs, read_flips


def main() -> None:
    """Flip, then print one JSON object; exit code 1 where a change was missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--runs", action="store_true", help="of a run instead of a cache")
    parser.add_argument("--read", action="store_true", help="read instead of verifying")
    options = parser.parse_args()
    begin = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        path, check = (_run if options.runs else _cache)(Path(folder))
        sizes = [p.stat().st_size for p in path.rglob("*") if p.is_file()]
        count = read if options.read else partial(verified, check=check)
        figures, missed = count(path, options.trials, options.seed)
    figures |= {
        "files": sum(size > 0 for size in sizes),
        "bytes": sum(sizes),
        "seed": options.seed,
        "seconds": round(time.monotonic() - begin, 1),
    }
    print(json.dumps(figures))
    sys.exit(1 if missed else 0)


def _cache(folder: Path) -> tuple[Path, Check]:
    with World(folder, rows=16).stand_in() as world:
        return world.sound(folder / "flipped"), of_cache


def _run(folder: Path) -> tuple[Path, Check]:
    save(toy_run("cmm", "one"), folder / "runs")
    return folder / "runs", of_runs


def verified(path: Path, trials: int, seed: int, check: Check) -> tuple[dict[str, Any], int]:
    """Count the changes that `verify` found, and those that it missed."""
    missed = 0
    for flip in flips(path, trials, seed, check):
        if not flip.problems:
            missed += 1
            print(f"missed: {flip}", file=sys.stderr)
    return {"trials": trials, "found": trials - missed}, missed


def read(path: Path, trials: int, seed: int) -> tuple[dict[str, Any], int]:
    """Count what a reader made of the changes, by component."""
    missed = 0
    components: defaultdict[str, list[int]] = defaultdict(lambda: [0, 0])
    elsewhere = {"changes": 0, "told": 0, "read_right": 0}
    for flip in read_flips(path, trials, seed):
        if flip.is_missed:
            missed += 1
            print(f"missed: {flip}", file=sys.stderr)
        if flip.is_in_rows:
            components[flip.component][0] += 1
            components[flip.component][1] += bool(flip.told)
        else:
            elsewhere["changes"] += 1
            elsewhere["told"] += bool(flip.told)
            elsewhere["read_right"] += flip.is_right
    rows = [sum(column) for column in zip(*components.values(), strict=True)]
    return {
        "trials": trials,
        "in_features": rows[0],
        "found": rows[1],
        "by_component": {name: f"{b} of {a}" for name, (a, b) in sorted(components.items())},
        "elsewhere": elsewhere,
        "missed": missed,
    }, missed


if __name__ == "__main__":
    main()
