"""Change single bytes all over the files of a small cache and count those that verify finds.

Example: python benchmarks/flips.py --trials 10000
"""

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tests.reliability.faults import World
from tests.reliability.flips import flips


def main() -> None:
    """Flip, then print one JSON object; exit code 1 where a change was missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    begin = time.monotonic()
    with (
        tempfile.TemporaryDirectory() as folder,
        World(Path(folder), rows=16).stand_in() as world,
    ):
        path = world.sound(Path(folder) / "flipped")
        sizes = [p.stat().st_size for p in path.rglob("*") if p.is_file()]
        missed = []
        for flip in flips(path, options.trials, options.seed):
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


if __name__ == "__main__":
    main()
