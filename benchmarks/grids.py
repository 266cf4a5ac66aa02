"""Cost of a search over a post grid beside one evaluation, on a task as large as ImageNet.

Example: python benchmarks/grids.py

Drawn features: 1000 classes, 16 shots, 512-d, 4 validation rows a class (few-shot-val), 50,000
queries. Times are CPU seconds of one thread with the wall clock beside them: on a busy machine a
clock measures the others. The plain walk over all points is timed on the first rows and scaled; on
the same rows the hits at every point are compared. Exits with 1 if the search costs more than half
an evaluation and SECONDS, or if another point is chosen.
"""

import argparse
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.nn import functional as F

from featcache.types import TextBank
from heads import registry
from heads.contract.rows import Rows, TaskView
from heads.episode import Episode
from heads.selection import scoring
from heads.selection.select import select
from heads.selection.settings import configure

SECONDS = 5.0
NOISE = 1.2
"""Length of what sets a row apart from its class; of what sets classes apart it is 0.5."""

Result = TypeVar("Result")


@dataclass(frozen=True, kw_only=True)
class Took:
    """CPU and wall seconds."""

    cpu: float
    wall: float

    def __str__(self) -> str:
        return f"{self.cpu:.1f} s ({self.wall:.1f})"


def main() -> int:
    """Measure, print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--methods", nargs="*", default=["tip-adapter", "tip-adapter-f", "ape"])
    parser.add_argument("--classes", type=int, default=1000)
    parser.add_argument("--shots", type=int, default=16)
    parser.add_argument("--val", type=int, default=4, help="validation rows a class")
    parser.add_argument("--queries", type=int, default=50_000)
    parser.add_argument("--walked", type=int, default=100, help="rows of the plain walk")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    one = task(arguments.classes, arguments.shots, arguments.val, arguments.queries)
    head: tuple[str, ...] = (
        "method",
        "points",
        "evaluation",
        "search",
        "search / evaluation",
        "plain walk, scaled",
    )
    head += ("hits that differ", "same choice")
    print(f"torch {torch.__version__}, one thread, CPU seconds (wall)\n")
    print(f"| {' | '.join(head)} |\n|{'---|' * len(head)}", flush=True)
    missed = 0
    for name in arguments.methods:
        row, met = measured(name, one, arguments.walked)
        missed += not met
        print(f"| {' | '.join(row)} |", flush=True)
    return 1 if missed else 0


def measured(name: str, task: Episode, walked: int) -> tuple[tuple[str, ...], bool]:
    """Return one row of the table, and whether it keeps the bounds."""
    method: Any = registry.get(name)
    settings = configure(method, {"epochs": 0} if hasattr(method.config(), "epochs") else {})
    search, (chosen,) = clocked(lambda: select(method, settings, [task], "few-shot-val"))
    evaluation, _ = clocked(lambda: chosen.head.predict(task.query))
    assert task.val is not None
    assert task.val.labels is not None
    some = replace(
        task.val,
        x=task.val.x[:walked],
        norms=task.val.norms[:walked],
        labels=task.val.labels[:walked],
    )
    grid = settings.post_grid
    by_curves = scoring.correct_on_grid(chosen.head, some, grid)
    walk, by_walk = clocked(lambda: scoring._correct_by_points(chosen.head, some, grid))
    best = int(by_curves.argmax()) == int(by_walk.argmax())
    scale = len(task.val.x) / len(some.x)
    share = search.cpu / evaluation.cpu
    row = (
        name,
        str(len(grid)),
        str(evaluation),
        str(search),
        f"{share:.2f}",
        str(Took(cpu=scale * walk.cpu, wall=scale * walk.wall)),
        f"{int((by_curves != by_walk).sum())} of {len(grid)}",
        "yes" if best else "no",
    )
    return row, best and search.cpu <= 0.5 * evaluation.cpu + SECONDS


def clocked(work: Callable[[], Result]) -> tuple[Took, Result]:
    """Run something and time it."""
    wall, cpu = time.perf_counter(), time.process_time()
    result = work()
    return Took(cpu=time.process_time() - cpu, wall=time.perf_counter() - wall), result


def task(classes: int, shots: int, val: int, queries: int) -> Episode:
    """Draw rows around the centres of their classes, and texts near the centres."""
    rng = torch.Generator().manual_seed(0)
    d = 512
    common = torch.randn(d, generator=rng) / d**0.5
    centres = common + 0.5 * torch.randn(classes, d, generator=rng) / d**0.5

    def near(labels: Tensor) -> Tensor:
        noise = NOISE * torch.randn(len(labels), d, generator=rng) / d**0.5
        return F.normalize(centres[labels] + noise, dim=-1)

    def rows(n: int) -> Rows:
        labels = torch.randperm(n, generator=rng) % classes
        return Rows(x=near(labels), norms=torch.ones(n), labels=labels)

    names = tuple(f"class {c}" for c in range(classes))
    texts = near(torch.arange(classes))
    bank = TextBank(classes=names, names=texts, templates=(), template_rows=None, default="name")
    support = rows(classes * shots)
    return Episode.of(
        view=TaskView(support=support, pool=None, text=bank, classes=names, seed=0),
        val=rows(classes * val),
        query=rows(queries),
    )


if __name__ == "__main__":
    sys.exit(main())
