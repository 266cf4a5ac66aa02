"""Searches over grids and reading of rows in another tree of featcache beside this one, in turns.

Example: git worktree add /tmp/older 302af32 && python benchmarks/beside.py /tmp/older

Each tree has one process that runs its own benchmarks/grids.py and benchmarks/reading.py, on the
same drawn task and the same cache, which the other tree wrote. They measure once a turn, one after
the other; the one that goes first changes every turn. Figures are CPU seconds of one thread.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median
from typing import Any

METHODS = ("tip-adapter", "ape")
READINGS = (
    "scattered_s",
    "scattered_first_s",
    "scattered_whole_s",
    "sequential_s",
    "sequential_first_s",
    "narrow_scattered_s",
    "narrow_scattered_first_s",
    "narrow_sequential_s",
    "narrow_sequential_first_s",
    "support_16x1000_s",
)
BUILD = """
import sys
from pathlib import Path
from benchmarks import reading
reading.build(Path(sys.argv[1]), int(sys.argv[2]))
"""
CHILD = """
import json, shutil, sys
from pathlib import Path
import torch
import heads
from benchmarks import grids, reading

tree, folder, methods, readings, sizes, rounds = json.loads(sys.argv[1])
assert Path(heads.__file__).is_relative_to(tree), heads.__file__
torch.set_num_threads(1)
grids.Took.__str__ = lambda took: repr(took.cpu)
task = grids.task(*sizes)
for _ in sys.stdin:
    found = {}
    for name in methods:
        row, _ = grids.measured(name, task, 20)
        found[f"{name}: one evaluation"], found[f"{name}: search"] = float(row[2]), float(row[3])
    shutil.rmtree(Path(folder) / "without", ignore_errors=True)
    read = reading.rows(Path(folder), rounds)
    found |= {name: read[name][1] for name in readings}
    print(json.dumps(found), flush=True)
"""


def main() -> None:
    """Measure in turns, print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("other", type=Path, help="the other tree")
    parser.add_argument("--turns", type=int, default=7)
    parser.add_argument("--rounds", type=int, default=5, help="readings of a turn; the best counts")
    parser.add_argument("--images", type=int, default=1000, help="with patch features")
    parser.add_argument("--classes", type=int, default=200)
    parser.add_argument("--queries", type=int, default=5000)
    arguments = parser.parse_args()
    trees = (arguments.other.resolve(), Path(__file__).resolve().parents[1])
    sizes = (arguments.classes, 16, 4, arguments.queries)
    with tempfile.TemporaryDirectory() as folder:
        build = [sys.executable, "-c", BUILD, folder, str(arguments.images)]
        subprocess.run(build, check=True, cwd=trees[0], env=environment(trees[0]))
        children = [child(tree, folder, sizes, arguments.rounds) for tree in trees]
        turns: tuple[list[dict[str, float]], ...] = ([], [])
        for turn in range(arguments.turns + 1):
            for which in (0, 1) if turn % 2 else (1, 0):
                found = ask(children[which])
                if turn:  # the first one warms up
                    turns[which].append(found)
            print(f"turn {turn} of {arguments.turns}", file=sys.stderr, flush=True)
        for process in children:
            process.communicate()
    print("| CPU seconds | other tree | this tree | ratio of medians | of the least |")
    print("|---|---|---|---|---|")
    for name in turns[0][0]:
        other, this = ([found[name] for found in side] for side in turns)
        ratios = f"{median(this) / median(other):.3f} | {min(this) / min(other):.3f}"
        print(f"| {name} | {median(other):.4f} | {median(this):.4f} | {ratios} |")


def environment(tree: Path) -> dict[str, str]:
    """Return the environment of a process in which a tree is imported."""
    return {**os.environ, "PYTHONPATH": str(tree), "OMP_NUM_THREADS": "1"}


def child(tree: Path, folder: str, sizes: tuple[int, ...], rounds: int) -> "subprocess.Popen[str]":
    """Start the process of a tree."""
    given = json.dumps([str(tree), folder, METHODS, READINGS, sizes, rounds])
    return subprocess.Popen(
        [sys.executable, "-c", CHILD, given],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=tree,
        env=environment(tree),
    )


def ask(process: "subprocess.Popen[str]") -> dict[str, Any]:
    """Have a process measure once."""
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write("\n")
    process.stdin.flush()
    line = process.stdout.readline()
    if not line:
        raise SystemExit("A process ended before it answered; its words are above.")
    found: dict[str, Any] = json.loads(line)
    return found


if __name__ == "__main__":
    main()
