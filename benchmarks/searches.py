"""Whole default searches: what they cost on drawn rows, and what they choose on real ones.

Example: OMP_NUM_THREADS=1 python benchmarks/searches.py --features features
Example: OMP_NUM_THREADS=1 python benchmarks/searches.py --classes 100 --methods cmm lfa

Drawn rows: 196 classes of 16 shots unless --classes says otherwise, 512-d, 4 validation rows a
class. They lie around the centres of their classes with variances that fall along the axes as those
of CLIP features do, so that a linear probe is right in four of five cases: where classes are far
apart, solvers have an easy time. Seconds are CPU seconds of one thread, of the search and the
training of what it chose.

With --features each method is searched (few-shot-val) on the real features of the folder as well,
and top-1 on the validation rows and on test is printed: run it on two versions to compare them.
Exits with 1 if a search of the drawn rows takes more than SECONDS.
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from featcache.errors import MissingComponentError
from featcache.importers.npz import import_npz
from featcache.types import TextBank
from heads import registry
from heads.contract.rows import Rows, TaskView
from heads.episode import Episode
from heads.protocols import training
from heads.protocols.evaluation import chosen_values
from heads.selection.select import select
from heads.selection.settings import configure

SECONDS = 15.0
METHODS = ("linear-probe", "proker", "clip-adapter")
SHOTS, VAL, D = 16, 4, 512
COMMON, BETWEEN, WITHIN = 0.87, 0.33, 0.33
"""Lengths: of what all rows share, of what sets classes apart, of what sets their rows apart."""
FALL_BETWEEN, FALL_WITHIN = 1.8, 0.8
"""Powers by which the deviations fall along the axes."""
SHOTS_OF = {"dtd": (1,), "aid": (5,), "nwpu": (5,), "imagenet256": (1, 4)}
"""Shots of files that do not have 1, 4 and 16."""


def main() -> int:
    """Measure, print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--methods", nargs="*", default=METHODS)
    parser.add_argument("--classes", type=int, default=196, help="of the drawn rows")
    parser.add_argument("--features", type=Path, help="folder with .npz files")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    print(f"torch {torch.__version__}, one thread\n\n| method | CPU seconds | top-1 on val, % |")
    print("|---|---|---|", flush=True)
    one, slow = drawn(arguments.classes), False
    for name in arguments.methods:
        method: Any = registry.get(name)
        started = time.process_time()
        (chosen,) = select(method, configure(method, shots=SHOTS), [one], "few-shot-val")
        took = time.process_time() - started
        slow |= took > SECONDS
        print(f"| {name} | {took:.1f} | {100 * (chosen.accuracy or 0):.1f} |", flush=True)
    if arguments.features:
        real(arguments.features, arguments.methods)
    return 1 if slow else 0


def real(folder: Path, methods: list[str]) -> None:
    """Print what the searches choose on every file of a folder."""
    print("\n| method | data, shots | val, % | test, % | chosen | CPU seconds |")
    print("|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as root:
        for path in sorted(folder.glob("*.npz")):
            name = path.stem.split("_")[0]
            features = import_npz(path, Path(root), path.stem, "CLIP").feature_set()
            if "test" not in features.listing.splits:
                continue
            for shots in SHOTS_OF.get(name, (1, 4, 16)):
                for method in methods:
                    started = time.process_time()
                    try:
                        trained = training.train(method, features=features, shots=shots)
                    except MissingComponentError:  # no texts
                        continue
                    ((head,),) = trained.heads
                    values = " ".join(f"{k}={v:.4g}" for k, v in chosen_values(head).items())
                    top1 = trained.result.metrics["top1"].mean
                    accuracy = 100 * (head.about["validation"] or 0)
                    print(
                        f"| {method} | {name}, {shots} | {accuracy:.2f} | "
                        f"{100 * top1:.2f} | {values} | {time.process_time() - started:.1f} |",
                        flush=True,
                    )


def drawn(classes: int, shots: int = SHOTS) -> Episode:
    """Draw the rows, and texts near the centres."""
    rng = torch.Generator().manual_seed(0)
    axis = torch.arange(D) + 1.0

    def deviations(length: float, start: float, fall: float) -> Tensor:
        values = (axis + start) ** -fall
        scaled: Tensor = values * (length / values.norm())
        return scaled

    between = deviations(BETWEEN, 5, FALL_BETWEEN)
    within = deviations(WITHIN, 10, FALL_WITHIN)
    common = COMMON * F.normalize(torch.randn(D, generator=rng), dim=0)
    centres = common + between * torch.randn(classes, D, generator=rng)

    def rows(n: int) -> Rows:
        labels = torch.randperm(n, generator=rng) % classes
        x = centres[labels] + within * torch.randn(n, D, generator=rng)
        return Rows(x=F.normalize(x, dim=-1), norms=torch.ones(n), labels=labels)

    names = tuple(f"class {c}" for c in range(classes))
    texts = F.normalize(centres + 0.3 * between * torch.randn(classes, D, generator=rng), dim=-1)
    bank = TextBank(classes=names, names=texts, templates=(), template_rows=None, default="name")
    return Episode.of(
        view=TaskView(support=rows(classes * shots), pool=None, text=bank, classes=names, seed=0),
        val=rows(classes * VAL),
        query=rows(classes * VAL),
    )


if __name__ == "__main__":
    sys.exit(main())
