"""How often the intervals hold: coverage and false claims where the truth is known.

Example: python benchmarks/coverage.py --simulations 5000

Two methods are equal by construction: nearest mean on two halves of the features that share the
class means and half of the noise, so each simulation draws their heads and queries from one and the
same distribution. A claim is false where the interval of their paired difference leaves out 0.
Coverage is that of the mean over all simulations of the cell. All seeds of a simulation are judged
on the same queries, as in `heads train`; cells of few seeds or queries are the first of those of
many. Prints the tables of docs/benchmarks.md in Markdown, and the cells that miss the aims.
"""

import argparse
import math
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.special import betaincinv, stdtrit
from torch import Tensor

from heads.results import statistics
from heads.results.metrics import Counts

CLASSES, DIMENSIONS = 20, 16
SHOTS, SEEDS, QUERIES = (1, 4, 16), (1, 2, 3, 5, 10), (200, 3000)
METHODS = 19
"""Methods in a table whose words are corrected by Holm, besides the reference."""
AT_ONCE = 20
"""Simulations that are drawn together."""
MOST_FALSE, LEAST_COVERED = 0.08, 0.92
"""The aims: of the upper bound of false claims and of coverage, from two seeds on."""


@dataclass(frozen=True, kw_only=True)
class World:
    """Queries of 20 classes around means that stay."""

    name: str
    noise: float
    tail: float
    """Ratio of the queries of the most frequent class to those of the rarest."""

    def draw(
        self, shots: int, methods: int, queries: int, generator: torch.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        """Draw heads and queries, and answer.

        Returns:
            Answers [m s r n] and labels [s n] of s simulations.
        """
        s, r, c, d, n = AT_ONCE, max(SEEDS), CLASSES, DIMENSIONS, queries
        means = torch.randn(c, d, generator=torch.Generator().manual_seed(0))
        frequency = self.tail ** -(torch.arange(c) / (c - 1))
        y = torch.multinomial(frequency, s * n, replacement=True, generator=generator).view(s, n)
        own = self.noise * math.sqrt(0.5)
        x = means[y] + own * torch.randn(s, n, d, generator=generator)
        # the mean of the shots is drawn at once
        centres = means + own / math.sqrt(shots) * torch.randn(s, r, c, d, generator=generator)
        answers = []
        for _ in range(methods):
            seen = x + own * torch.randn(s, n, d, generator=generator)
            learned = own / math.sqrt(shots) * torch.randn(s, r, c, d, generator=generator)
            answers.append(_nearest(seen, centres + learned).numpy())
        return np.stack(answers), y.numpy()


WORLDS = (
    World(name="equal classes", noise=1.0, tail=1),
    World(name="rarest class 1/20", noise=1.0, tail=20),
    World(name="near the ceiling", noise=0.7, tail=1),
)


def _nearest(x: Tensor, centres: Tensor) -> Tensor:
    """Return the nearest centre [s r n] of rows [s n d] among [s r c d]."""
    s, r, c, d = centres.shape
    flat = centres.view(s, r * c, d)
    half = -0.5 * flat.square().sum(-1, keepdim=True)
    score = torch.baddbmm(half, flat, x.transpose(1, 2)).view(s, r, c, -1)
    best = score[:, :, 0].clone()
    found = torch.zeros(best.shape, dtype=torch.uint8)
    for i in range(1, c):  # torch's argmax over a middle axis is slower
        found.masked_fill_(score[:, :, i] > best, i)
        torch.maximum(best, score[:, :, i], out=best)
    return found


@dataclass(frozen=True, kw_only=True)
class Rate:
    """How often something came of n simulations."""

    hits: int
    n: int

    @property
    def upper(self) -> float:
        """Return the upper end of Clopper and Pearson's 95 % interval."""
        return 1.0 if self.hits == self.n else self._quantile(self.hits + 1, 0.975)

    @property
    def lower(self) -> float:
        """Return its lower end."""
        return 0.0 if self.hits == 0 else self._quantile(self.hits, 0.025)

    def _quantile(self, a: int, level: float) -> float:
        return float(betaincinv(a, self.n - a + 1, level))


@dataclass(frozen=True, kw_only=True)
class Cell:
    """What came of one number of queries, shots and seeds in one world."""

    queries: int
    seeds: int
    claims: Rate
    """False claims from the interval of the paired difference that `heads compare` prints."""
    by_t: Rate | None
    """The same by Student's t over the seeds alone."""
    covered: dict[str, Rate]
    """Measure -> its mean was in its interval."""

    def misses(self) -> list[str]:
        """Say which aims are not met."""
        told = []
        if self.claims.upper > MOST_FALSE:
            told.append(f"false claims {100 * self.claims.hits / self.claims.n:.1f} %")
        for name, rate in self.covered.items():
            if rate.hits < LEAST_COVERED * rate.n:
                told.append(f"{name} covered {100 * rate.hits / rate.n:.1f} %")
        return told


def cells(world: World, shots: int, simulations: int) -> tuple[list[Cell], Rate]:
    """Simulate two equal methods.

    Returns:
        The cells, and how often one seed's interval over 200 queries holds the accuracy of that
        head on the other queries (their own error allowed for).
    """
    generator = torch.Generator().manual_seed(1)
    found: dict[tuple[int, int], list[np.ndarray]] = {}
    of_head: list[np.ndarray] = []
    for _ in range(simulations // AT_ONCE):
        answers, labels = world.draw(shots, 2, max(QUERIES), generator)
        hits = (answers == labels[None, :, None]).astype(np.float32)
        of_head.append(_of_head(hits[0, :, 0]))
        for n in QUERIES:
            counts = _counted(answers[0, ..., :n], labels[:, :n])
            pseudo = {
                name: values.reshape(AT_ONCE, max(SEEDS), n)
                for name, values in counts.pseudo_values().items()
            }
            size = counts.class_size[:: max(SEEDS)]
            difference = hits[0, ..., :n] - hits[1, ..., :n]
            for r in SEEDS:
                kept = [*_difference(difference[:, :r])]
                for name, values in pseudo.items():
                    width = statistics.of_queries(
                        values[:, :r], size=float(n) if name == "top1" else size
                    )
                    kept += [width.mean, width.half]
                found.setdefault((n, r), []).append(np.stack(kept))
    names = ("top-1", "macro F1", "balanced accuracy")
    out = []
    truth = {n: np.concatenate(found[n, max(SEEDS)], axis=1)[2::2].mean(axis=1) for n in QUERIES}
    for (n, r), parts in found.items():
        values = np.concatenate(parts, axis=1)
        inside = np.abs(values[2::2] - truth[n][:, None]) <= values[3::2]
        out.append(
            Cell(
                queries=n,
                seeds=r,
                claims=_rate(values[0]),
                by_t=None if r == 1 else _rate(values[1]),
                covered={name: _rate(row) for name, row in zip(names, inside, strict=True)},
            )
        )
    return out, _rate(np.concatenate(of_head))


def _counted(answers: np.ndarray, labels: np.ndarray) -> Counts:
    many = np.broadcast_to(labels[:, None], answers.shape)
    n = labels.shape[1]
    return Counts.of(answers.reshape(-1, n), many.reshape(-1, n), CLASSES)


def _difference(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Tell whether 0 is left out, by the rule of the product and by t over the seeds."""
    estimate = statistics.of_queries(values, outcomes=statistics.DIFFERENCES)
    r = values.shape[1]
    by_t = np.zeros(len(values))
    if r > 1:
        rows = values.mean(axis=-1, dtype=np.float64)
        half = stdtrit(r - 1, 0.975) * rows.std(axis=1, ddof=1) / math.sqrt(r)
        by_t = (np.abs(rows.mean(axis=1)) > half).astype(float)
    return (np.abs(estimate.mean) > estimate.half).astype(float), by_t


def _of_head(hits: np.ndarray) -> np.ndarray:
    """Tell whether the interval of the first queries holds the accuracy on the others."""
    first, rest = hits[:, None, : min(QUERIES)], hits[:, min(QUERIES) :]
    estimate = statistics.of_queries(first)
    allowed = estimate.half * math.sqrt(1 + first.shape[2] / rest.shape[1])
    return np.asarray(np.abs(estimate.mean - rest.mean(axis=1, dtype=np.float64)) <= allowed)


def false_tables(world: World, shots: int, simulations: int) -> Iterator[tuple[int, int, Rate]]:
    """Count the tables of equal methods with a word, for each number of queries and seeds."""
    generator = torch.Generator().manual_seed(2)
    found: dict[tuple[int, int], list[bool]] = {}
    for _ in range(simulations // AT_ONCE):
        answers, labels = world.draw(shots, 1 + METHODS, max(QUERIES), generator)
        hits = (answers == labels[None, :, None]).astype(np.float32)
        for n in QUERIES:
            for r in SEEDS:
                gain = hits[1:, :, :r, :n] - hits[:1, :, :r, :n]
                p = statistics.of_queries(gain, outcomes=statistics.DIFFERENCES).p
                words = [min(statistics.holm(column)) < statistics.LEVEL for column in p.T]
                found.setdefault((n, r), []).extend(words)
    for (n, r), words in found.items():
        yield n, r, Rate(hits=sum(words), n=len(words))


def _rate(values: np.ndarray) -> Rate:
    return Rate(hits=int(values.sum()), n=len(values))


def main() -> None:
    """Simulate, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--simulations", type=int, default=5000)
    parser.add_argument("--tables", type=int, help="of Holm's part; a quarter where not given")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    missed = []
    head = ["world", "shots", "seeds"]
    for n in QUERIES:
        head += [f"{n}: false claims", "by t over seeds", "top-1", "macro F1", "balanced accuracy"]
    print(_line(head) + "\n" + _line(["---"] * len(head)))
    heads = []
    for world in WORLDS:
        for shots in SHOTS:
            found, of_head = cells(world, shots, arguments.simulations)
            heads.append((f"{world.name}, {shots} shots", of_head))
            for r in SEEDS:
                here = [cell for cell in found if cell.seeds == r]
                print(_line([world.name, str(shots), str(r), *(t for c in here for t in _told(c))]))
                missed += [
                    f"{world.name}, {shots} shots, {r} seeds, {c.queries} queries: {what}"
                    for c in here
                    if r > 1
                    for what in c.misses()
                ]
            print(f"{world.name} {shots}", file=sys.stderr, flush=True)
    print("\nOne head of one draw, 200 queries: its own accuracy is in its interval in")
    print(", ".join(f"{_percent(rate, rate.lower)} ({place})" for place, rate in heads))
    print(f"\n{_line(['shots', 'seeds', *(f'{n} queries' for n in QUERIES)])}")
    print(_line(["---"] * (2 + len(QUERIES))))
    for shots in SHOTS:
        many = arguments.tables or arguments.simulations // 4
        tables = list(false_tables(WORLDS[0], shots, many))
        for r in SEEDS:
            rates = {n: rate for n, seeds, rate in tables if seeds == r}
            told = [_percent(rate, rate.upper) for rate in rates.values()]
            print(_line([str(shots), str(r), *told]))
            missed += [
                f"tables of equal methods, {shots} shots, {r} seeds, {n} queries"
                for n, rate in rates.items()
                if r > 1 and rate.upper > MOST_FALSE
            ]
    print("\nCells of two seeds or more that miss the aims:\n")
    print("\n".join(f"- {cell}" for cell in missed) or "none")


def _told(cell: Cell) -> list[str]:
    return [
        _percent(cell.claims, cell.claims.upper),
        "-" if cell.by_t is None else _percent(cell.by_t),
        *(_percent(rate) for rate in cell.covered.values()),
    ]


def _percent(rate: Rate, bound: float | None = None) -> str:
    text = f"{100 * rate.hits / rate.n:.1f}"
    return text if bound is None else f"{text} ({100 * bound:.1f})"


def _line(values: Sequence[str]) -> str:
    return "| " + " | ".join(values) + " |"


if __name__ == "__main__":
    main()
