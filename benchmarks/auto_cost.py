"""What does `auto` take, member by member, with validation rows and with folds?

    OMP_NUM_THREADS=1 python -m benchmarks.auto_cost

Drawn rows of 100 classes, 512-d, with texts and 4 validation rows a class (`benchmarks/searches.py`
says how they are drawn). Each member is searched and trained as the only one of `auto`; what the
pool itself takes is nothing beside that. Processor seconds of one thread.
"""

import argparse
import time

import torch

from benchmarks.searches import drawn
from heads.contract.members import Member
from heads.episode import Episode
from heads.member_pool import members
from heads.methods.auto import METHOD, most_rows
from heads.selection.select import select
from heads.selection.settings import configure

CLASSES = 100
CASES = ((16, "few-shot-val"), (16, "cv"), (64, "few-shot-val"))


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--members", default=METHOD.config().members)
    parser.add_argument("--images", type=int, help="a class, with validation rows; else CASES")
    given = parser.parse_args()
    torch.set_num_threads(1)
    named = members(METHOD.config(members=given.members))
    cases = ((given.images, "few-shot-val"),) if given.images else CASES
    print(f"| images a class, selection | {' | '.join(m.name for m in named)} | together |")
    print("|---" * (len(named) + 2) + "|")
    for shots, mode in cases:
        task, took, cells = drawn(CLASSES, shots), 0.0, []
        for member in named:
            most = most_rows(METHOD.config(), member)
            if most is not None and CLASSES * shots > most:
                cells.append("left out")
                continue
            seconds = searched(member, task, mode)
            took += seconds
            cells.append(f"{seconds:.1f}")
        print(f"| {shots}, {mode} | {' | '.join(cells)} | {took:.0f} |", flush=True)


def searched(member: Member, task: Episode, mode: str) -> float:
    """Return the processor seconds of `auto` with one member."""
    started = time.process_time()
    select(METHOD, configure(METHOD, {"members": [member.text]}), [task], mode)
    return time.process_time() - started


if __name__ == "__main__":
    main()
