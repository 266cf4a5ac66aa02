"""Our solvers beside the usual ones on the same rows, in turns, in one process.

Example: OMP_NUM_THREADS=1 python benchmarks/solvers.py --features features

FOLDER holds caltech50_vitb32.npz, imagenet256_vitb32.npz and oxford_flowers_vitb32.npz; without it
drawn rows stand in. Prints the tables of docs/benchmarks.md in Markdown; seconds are the best of
--repeat. Needs the extra `dev` (scikit-learn, faiss).
"""

import argparse
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import torch
from sklearn.linear_model import LogisticRegression, Ridge
from torch import Tensor
from torch.nn import functional as F

from featcache.neighbours import nearest
from heads.contract.rows import Rows, TaskView
from heads.contract.settings import Nothing
from heads.methods import ridge
from heads.ops.logistic import logistic_regression

FILES = (
    ("caltech50_vitb32", "train16"),
    ("oxford_flowers_vitb32", "train16"),
    ("imagenet256_vitb32", "train"),
)
STRENGTHS = (1.0, 10.0, 100.0, 1e4)
TOLERANCES = (1e-4, 1e-5, 1e-6, 1e-7, 1e-8)
"""Tolerances of scikit-learn, whose default is the first."""
SAME = 1e-6
"""How far above ours, relatively, an objective may lie to count as the same."""


@dataclass(frozen=True, kw_only=True)
class Data:
    """Unit rows."""

    name: str
    x: Tensor
    y: Tensor
    queries: Tensor

    @property
    def classes(self) -> int:
        """Number of classes."""
        return int(self.y.max()) + 1


def main() -> None:
    """Print every table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--features", type=Path, help="folder with caltech50_vitb32.npz, ...")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--only", nargs="*", default=["linear-probe", "ridge", "knn"])
    arguments = parser.parse_args()
    sets = list(read(arguments.features) if arguments.features else drawn())
    tables = {"linear-probe": linear_probe, "ridge": ridge_table, "knn": knn}
    print(f"torch with {torch.get_num_threads()} threads, best of {arguments.repeat}")
    for name in arguments.only:
        tables[name](sets, arguments.repeat)


def read(folder: Path) -> Iterator[Data]:
    """Read the largest support of each file."""
    for name, support in FILES:
        with np.load(folder / f"{name}.npz") as file:
            x, queries = (
                F.normalize(torch.from_numpy(file[f"{part}_features"]).float(), dim=-1)
                for part in (support, "test")
            )
            y = torch.from_numpy(file[f"{support}_labels"]).long()
        yield Data(name=name.removesuffix("_vitb32"), x=x, y=y, queries=queries)


def drawn() -> Iterator[Data]:
    """Draw rows in the shapes of those files, with a common direction as CLIP's have."""
    rng = torch.Generator().manual_seed(0)
    for classes, shots in ((50, 16), (102, 16), (256, 4)):
        middle = torch.randn(classes, 512, generator=rng)
        common = 3 * torch.randn(512, generator=rng)

        def rows(each: int, middle: Tensor = middle, common: Tensor = common) -> Tensor:
            near = middle.repeat_interleave(each, 0)
            return F.normalize(near + 1.5 * torch.randn(near.shape, generator=rng) + common, dim=-1)

        y = torch.arange(classes).repeat_interleave(shots)
        name = f"drawn, {classes} classes"
        yield Data(name=name, x=rows(shots), y=y, queries=rows(2000 // classes))


def linear_probe(sets: list[Data], repeat: int) -> None:
    """Ours, scikit-learn as it comes, and scikit-learn at the tolerance that reaches ours."""
    header("data", "C", "ours s", "sklearn, default s", "above ours", "same objective s", "times")
    for data in sets:
        for strength in STRENGTHS:
            ours = turns([partial(logistic, data, strength)], repeat)[0]
            least = objective(data, strength, *ours[1])
            default = scikit(data, strength, TOLERANCES[0], repeat)
            above = objective(data, strength, *default[1]) / least - 1
            same, how = default, above
            for double in (False, True):
                for tolerance in TOLERANCES:
                    if how > SAME:
                        same = scikit(data, strength, tolerance, repeat=1, double=double)
                        how = objective(data, strength, *same[1]) / least - 1
            reached = f"{same[0]:.3f}" if how <= SAME else f"not in {same[0]:.1f}"
            times = f"{same[0] / ours[0]:.1f}"
            row(data.name, f"{strength:g}", ours[0], default[0], f"{above:.0e}", reached, times)


def logistic(data: Data, strength: float) -> tuple[Tensor, Tensor]:
    """Fit ours."""
    ones = torch.ones(len(data.x), dtype=torch.float64)
    weight, bias, _ = logistic_regression(data.x.double(), data.y, ones, data.classes, strength)
    return weight, bias


def scikit(
    data: Data, strength: float, tolerance: float, repeat: int, *, double: bool = False
) -> tuple[float, tuple[Tensor, Tensor]]:
    """Fit scikit-learn's; return seconds and weights."""
    x = (data.x.double() if double else data.x).numpy()
    model = LogisticRegression(C=strength, tol=tolerance, max_iter=10_000)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        seconds, _ = turns([lambda: model.fit(x, data.y.numpy())], repeat)[0]
    return seconds, (torch.from_numpy(model.coef_), torch.from_numpy(model.intercept_))


def objective(data: Data, strength: float, weight: Tensor, bias: Tensor) -> float:
    """Return the mean loss with its penalty, in float64."""
    weight = weight.double()
    fit = F.cross_entropy(data.x.double() @ weight.mT + bias.double(), data.y)
    return float(fit + weight.square().sum() / (2 * strength * len(data.x)))


def ridge_table(sets: list[Data], repeat: int) -> None:
    """All penalties of the grid: one decomposition, or scikit-learn once each."""
    header("data", "penalties", "ours s", "sklearn s", "times")
    lams = ridge.METHOD.post_grid.axes["lam"]
    for data in sets:
        y = F.one_hot(data.y).double().numpy()
        x, queries = data.x.double().numpy(), data.queries.double().numpy()
        ours, theirs = turns(
            [
                partial(ridge_ours, data),
                partial(ridge_theirs, x, y, queries),
            ],
            repeat,
        )
        row(data.name, len(lams), ours[0], theirs[0], f"{theirs[0] / ours[0]:.1f}")


def ridge_ours(data: Data) -> list[Tensor]:
    """Answer all queries at every penalty."""
    rows = Rows(x=data.x, norms=torch.ones(len(data.x)), labels=data.y)
    classes = tuple(map(str, range(data.classes)))
    task = TaskView(support=rows, pool=None, text=None, classes=classes, seed=0)
    config = Nothing()
    params, fixed = ridge.prepare(task, config, ridge.Hyper())
    terms = ridge.terms(params, fixed, Rows.of(data.queries), config, ridge.Hyper())
    grid = [ridge.Hyper(lam=float(lam)) for lam in ridge.METHOD.post_grid.axes["lam"]]
    return [ridge.combine(terms, fixed, config, hyper) for hyper in grid]


def ridge_theirs(x: Any, y: Any, queries: Any) -> list[Any]:
    """Answer all queries at every penalty by scikit-learn."""
    lams = ridge.METHOD.post_grid.axes["lam"]
    return [Ridge(alpha=lam).fit(x, y).predict(queries) for lam in lams]


def knn(sets: list[Data], repeat: int) -> None:
    """200 neighbours: ours in torch, ours through faiss, and a bare IndexFlatIP."""
    header("data", "queries x rows", "torch s", "through faiss s", "faiss alone s", "times")
    rng = torch.Generator().manual_seed(1)
    large, many = (F.normalize(torch.randn(n, 512, generator=rng), dim=-1) for n in (50_000, 1000))
    pairs = [(data.name, data.queries, data.x) for data in sets] + [("drawn", many, large)]
    for name, queries, keys in pairs:
        torch_, through, alone = turns(
            [
                partial(nearest, queries, keys, 200),
                partial(nearest, queries, keys, 200, index="faiss"),
                partial(bare_faiss, queries, keys),
            ],
            repeat,
        )
        size = f"{len(queries)} x {len(keys)}"
        times = f"{torch_[0] / alone[0]:.2f}"
        row(name, size, torch_[0], through[0], alone[0], times)


def bare_faiss(queries: Tensor, keys: Tensor) -> Any:
    """Build a flat index and search it."""
    index = faiss.IndexFlatIP(keys.shape[1])
    index.add(keys.numpy())
    return index.search(queries.numpy(), 200)


def turns(calls: list[Callable[[], Any]], repeat: int) -> list[tuple[float, Any]]:
    """Call each in turns; return the best seconds and the last result of each."""
    best: list[tuple[float, Any]] = [(float("inf"), None)] * len(calls)
    for _ in range(repeat):
        for i, call in enumerate(calls):
            start = time.perf_counter()
            result = call()
            best[i] = min(best[i][0], time.perf_counter() - start), result
    return best


def header(*names: str) -> None:
    """Print the head of a table."""
    print("\n| " + " | ".join(names) + " |\n|" + "---|" * len(names), flush=True)


def row(*values: object) -> None:
    """Print a row; numbers are seconds."""
    shown = [f"{v:.3f}" if isinstance(v, float) else str(v) for v in values]
    print("| " + " | ".join(shown) + " |", flush=True)


if __name__ == "__main__":
    main()
