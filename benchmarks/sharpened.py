"""Changed defaults, before and after: paired differences on held-out rows and on test rows.

Example: python benchmarks/sharpened.py --features features --rows held-out

A default is chosen on `--rows held-out`, validation and training rows that neither training nor
selection reads; test rows cannot be reached there. `--rows test` is for the report. Prints the
tables of docs/benchmarks.md in Markdown. Runs go beside --home, so that what was measured before a
kill is not measured again. Intervals are not adjusted for how many rows a table has; the words are
(Holm). `benchmarks/pairs.py` has the changes.
"""

import argparse
import math
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.held_out import HELD_OUT, SEEDS, development, has_shots
from benchmarks.imported import FILES, imported
from benchmarks.pairs import PAIRS, Pair
from featcache.store.library import cache_root, find_cache
from featcache.types import FeatureSet
from heads.protocols.plan import Request
from heads.protocols.sweep import sweep
from heads.results.compare.pairing import Difference, paired_difference, words
from heads.results.record import Result


@dataclass(frozen=True, kw_only=True)
class Measured:
    """A pair on one data set at some shots and some queries."""

    dataset: str
    shots: int
    queries: str
    """Where the queries come from."""
    before: Result
    after: Result

    @property
    def difference(self) -> Difference:
        """Return top-1 after minus before."""
        return paired_difference(self.after, self.before)

    @property
    def gains(self) -> np.ndarray[Any, Any]:
        """Return what each query gains, on average over the draws [n]."""
        after, before = _correct(self.after), _correct(self.before)
        gains: np.ndarray[Any, Any] = after.mean(0) - before.mean(0)
        return gains

    @property
    def top1(self) -> tuple[float, float]:
        """Return top-1 before and after."""
        return float(_correct(self.before).mean()), float(_correct(self.after).mean())


def _correct(result: Result) -> np.ndarray[Any, Any]:
    assert result.predictions is not None
    correct: np.ndarray[Any, Any] = result.predictions.predicted == result.predictions.labels
    return correct


def main() -> None:
    """Measure every pair, and print one table for each."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--features", type=Path, help="folder with the .npz files")
    parser.add_argument("--home", type=Path, help="caches; else as FEATCACHE_HOME says")
    parser.add_argument("--rows", choices=(HELD_OUT, "test"), default=HELD_OUT)
    parser.add_argument("--only", nargs="*", default=[], help="parts of the names of pairs")
    parser.add_argument("--datasets", nargs="*", help="data sets, at the shots of each pair")
    parser.add_argument("--shots", nargs="*", type=int, help="of the shots of each pair only these")
    parser.add_argument("--on", help="measure on this cache of drawn images instead of fieldguide")
    parser.add_argument("--text", help="class texts of both sides; else those of the data set")
    arguments = parser.parse_args()
    bench = Bench(cache_root(arguments.home), arguments.features)
    for pair in PAIRS:
        if arguments.only and not any(part in pair.name for part in arguments.only):
            continue
        if arguments.on is not None:
            pair = replace(pair, shots={arguments.on: pair.shots.get("fieldguide", ())})
        if arguments.text is not None:
            text = {"text": arguments.text}
            pair = replace(pair, before={**pair.before, **text}, after={**pair.after, **text})
        if arguments.shots is not None:
            chosen = {d: [k for k in of if k in arguments.shots] for d, of in pair.shots.items()}
            pair = replace(pair, shots=chosen)
        measured = list(bench.measure(pair, arguments.rows, arguments.datasets))
        if measured:
            print(f"#### {pair.name}, {arguments.rows}\n\n{table(measured)}", flush=True)


class Bench:
    """Trains both sides of pairs; a data set is imported where it is not yet."""

    def __init__(self, root: Path, folder: Path | None) -> None:
        self.root, self.folder = root, folder
        self.runs = root.with_name(f"{root.name}-sharpened")
        """What was measured before a kill is not measured again; delete it to begin anew."""
        self._opened: dict[str, FeatureSet] = {}

    def measure(
        self, pair: Pair, rows: str, datasets: Sequence[str] | None = None
    ) -> Iterator[Measured]:
        """Train both sides on every data set at all shots.

        Args:
            pair: The change.
            rows: `held-out`, or `test` for the query sets of the pair.
            datasets: Only these; None takes all of the pair.
        """
        for dataset, all_shots in pair.shots.items():
            missing = dataset in FILES and self.folder is None
            if missing or (datasets is not None and dataset not in datasets):
                continue
            parts = {"test": [self.features(dataset)]}
            if rows == HELD_OUT:
                parts = development(self.features(dataset), from_train=not pair.reads_train)
            for shots in all_shots:
                fitting = (n for n, folds in parts.items() if has_shots(folds[0].listing, shots))
                part = next(fitting, None)
                if part is None:
                    continue
                there = parts[part][0].listing.splits
                splits = (HELD_OUT,) if rows == HELD_OUT else pair.splits
                splits = tuple(split for split in splits if split in there)
                other = pair.other or pair.method
                before = self.side(parts[part], other, pair.before, shots, splits)
                after = self.side(parts[part], pair.method, pair.after, shots, splits)
                for split in splits:
                    yield Measured(
                        dataset=dataset,
                        shots=shots,
                        queries=part if rows == HELD_OUT else split,
                        before=before[split],
                        after=after[split],
                    )

    def side(
        self,
        all_folds: Sequence[FeatureSet],
        method: str,
        settings: Mapping[str, Any],
        shots: int,
        splits: tuple[str, ...],
    ) -> dict[str, Result]:
        """Train one side of a pair on every fold; split -> record of all folds."""
        trained = [self.train(fold, method, settings, shots, splits) for fold in all_folds]
        return {split: merged([fold[split] for fold in trained]) for split in splits}

    def train(
        self,
        features: FeatureSet,
        method: str,
        settings: Mapping[str, Any],
        shots: int,
        splits: tuple[str, ...],
    ) -> dict[str, Result]:
        """Train once and evaluate on query sets; split -> record.

        Raises:
            RuntimeError: If a run failed.
        """
        request = Request(
            method=method,
            features=features,
            shots=shots,
            seeds=SEEDS,
            splits=splits,
            settings=settings,
        )
        found = {}
        for entry in sweep([request], root=self.runs):
            if entry.result is None:
                raise RuntimeError(f"{method} on {features.listing.dataset}: {entry.error}")
            result = found[entry.result.split] = entry.result
            told = " ".join(f"{key}={value}" for key, value in settings.items())
            print(
                f"{method} {told} {result.dataset} {shots} {result.split}: "
                f"{100 * result.metrics['top1'].mean:.2f}, {sum(result.seconds.values()):.1f} s",
                file=sys.stderr,
                flush=True,
            )
        return found

    def features(self, dataset: str) -> FeatureSet:
        """Open a data set's features."""
        if dataset not in self._opened:
            if dataset in FILES:
                self._opened[dataset] = imported(dataset, self.folder, self.root)
            else:
                self._opened[dataset] = find_cache(self.root, dataset, "tiny").feature_set()
        return self._opened[dataset]


def merged(folds: Sequence[Result]) -> Result:
    """Return the record of several folds, whose queries are put one behind the other."""
    answers = [r.predictions for r in folds if r.predictions is not None]
    one = replace(
        answers[0],
        predicted=np.concatenate([a.predicted for a in answers], axis=1),
        labels=np.concatenate([a.labels for a in answers], axis=1),
        zero_shot=None,
        images=None,
    )
    ids = "+".join(r.ids for r in folds)
    return replace(folds[0], predictions=one, ids=ids, queries=sum(r.queries for r in folds))


def table(measured: Sequence[Measured]) -> str:
    """Write both sides and their paired difference, and the mean over data sets."""
    differences = [one.difference for one in measured]
    head = ["data set", "shots", "queries", "before", "after", "points", ""]
    lines = [_line(head), _line(["---"] * len(head))]
    for one, d, word in zip(measured, differences, words(differences), strict=True):
        rows = f"{one.after.queries} {one.queries}"
        top1 = (f"{100 * value:.1f}" for value in one.top1)
        points = _points(d.mean, d.low, d.high)
        lines.append(_line([one.dataset, str(one.shots), rows, *top1, points, str(word)]))
    return "\n".join(lines) + f"\n\nMean over data sets: {_points(*pooled(measured))}.\n"


def pooled(measured: Sequence[Measured]) -> tuple[float, float, float]:
    """Return the mean of the data sets' mean differences and its 95 % interval.

    The interval is over the queries of each data set, whose gains are first averaged over shots and
    draws; it is about these draws of the shots.
    """
    means, variances = [], []
    for place in dict.fromkeys((one.dataset, one.queries) for one in measured):
        gains = np.mean([m.gains for m in measured if (m.dataset, m.queries) == place], axis=0)
        means.append(float(gains.mean()))
        variances.append(float(gains.var(ddof=1)) / len(gains))
    half = 1.96 * math.sqrt(sum(variances)) / len(means)
    mean = sum(means) / len(means)
    return mean, mean - half, mean + half


def _points(mean: float, low: float, high: float) -> str:
    return f"{100 * mean:+.1f} [{100 * low:+.1f}, {100 * high:+.1f}]"


def _line(values: Iterable[str]) -> str:
    return "| " + " | ".join(values) + " |"


if __name__ == "__main__":
    main()
