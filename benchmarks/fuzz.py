"""Bend files until a reader breaks: guided by coverage, each target in a process of its own.

    python benchmarks/fuzz.py --minutes 10
    python benchmarks/fuzz.py --minutes 2 --target weights --seed 7 --out failures

Prints a line for each target and for each failure, and one JSON object at the end. Inputs that
failed lie below the folder given with --out. Exit code 1 where there was a failure.
"""

import argparse
import json
import os
import sys
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tests.fuzz.guard import Outcome, Target, fuzz
from tests.fuzz.indexes import INDEX_TARGETS
from tests.fuzz.stores import STORE_TARGETS
from tests.fuzz.targets import TARGETS

ALL = (*TARGETS, *STORE_TARGETS, *INDEX_TARGETS)


def main() -> int:
    """Run the targets and say what broke."""
    parser = argparse.ArgumentParser(description="Fuzz every reader of files from strangers.")
    parser.add_argument("--minutes", type=float, default=10.0, help="for all targets together")
    parser.add_argument("--cases", type=int, default=10**9, help="of each target, at most")
    parser.add_argument("--target", action="append", choices=[t.name for t in ALL])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("fuzz-failures"))
    options = parser.parse_args()
    chosen = [t for t in ALL if not options.target or t.name in options.target]
    start, failed = time.monotonic(), 0
    summary: dict[str, dict[str, object]] = {}
    for number, target in enumerate(chosen):
        left = 60 * options.minutes - (time.monotonic() - start)
        seconds = max(1.0, left / (len(chosen) - number))
        found = _run(target, options, seconds)
        summary[target.name] = {
            "cases": found.cases,
            "lines": found.lines,
            "failures": found.failures,
        }
        failed += len(found.failures)
    print(json.dumps({"seed": options.seed, "failures": failed, "targets": summary}))
    return 1 if failed else 0


def _run(target: Target, options: argparse.Namespace, seconds: float) -> Outcome:
    start = time.monotonic()
    found = fuzz(target, options.out, seed=options.seed, cases=options.cases, seconds=seconds)
    took = time.monotonic() - start
    print(
        f"{target.name:14} {found.cases:7} cases, corpus {found.corpus:4}, {found.lines:5} lines, "
        f"{took:5.1f} s, {len(found.failures)} failures",
        flush=True,
    )
    for kind, failure in found.failures.items():
        print(f"    {kind}\n        {failure['message']}\n        {failure['input']}", flush=True)
    return found


if __name__ == "__main__":
    sys.exit(main())
