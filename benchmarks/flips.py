"""Change single bytes all over the files of a small cache, or run, and count what verify finds.

Example: python benchmarks/flips.py --trials 10000
Example: python benchmarks/flips.py --trials 10000 --runs
"""

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from heads.results.store import save
from tests.fuzz.targets import toy_run
from tests.reliability.faults import World
from tests.reliability.flips import Check, flips, of_cache, of_runs


def main() -> None:
    """Flip, then print one JSON object; exit code 1 where a change was missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--runs", action="store_true", help="of a run instead of a cache")
    options = parser.parse_args()
    begin = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        path, check = (_run if options.runs else _cache)(Path(folder))
        sizes = [p.stat().st_size for p in path.rglob("*") if p.is_file()]
        missed = []
        for flip in flips(path, options.trials, options.seed, check):
            if not flip.problems:
                missed.append([flip.file, flip.place, flip.mask])
                print(f"missed: {flip}", file=sys.stderr)
    figures = {
        "trials": options.trials,
        "found": options.trials - len(missed),
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


if __name__ == "__main__":
    main()
