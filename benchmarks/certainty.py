"""How far probabilities, prediction sets and rejections of trained heads can be trusted.

Example: python benchmarks/certainty.py --features features

The folder holds imagenet256_vitb32.npz and caltech50_vitb32.npz; without it the drawn worlds alone
are measured. Prints the tables of docs/benchmarks.md in Markdown.

Coverage: a head is trained once, its temperature fitted on the images that selected it. The
validation images that are left over and the queries are cut at random 20 times, into as many
calibration images as were left over and the others, which are asked about. So both are
exchangeable, and the number of covered queries is beta-binomial. Empty sets of lac stay empty here;
heads give their answer instead.
"""

import argparse
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy import stats
from torch import Tensor

import heads
from benchmarks.accuracy import Bench
from featcache.draws import cut
from featcache.store.library import cache_root
from featcache.types import FeatureSet, TextBank
from heads.contract.rows import Rows
from heads.head import Head
from heads.ops.conformal import class_scores, rank, smaller, within
from heads.ops.novelty import auroc
from heads.ops.score_names import MEASURES, RULES
from heads.protocols import training
from heads.protocols.evaluation import measure
from heads.protocols.plan import Request
from heads.reading import read_rows

METHODS = ("zero-shot", "tip-adapter", "gda", "cmm", "linear-probe")
DRAWS, COVERAGE, SHARE = 20, 0.9, 0.05


@dataclass(frozen=True, kw_only=True)
class Case:
    """A data set, and how its heads are chosen and calibrated."""

    dataset: str
    shots: int
    seeds: tuple[int, ...] = (1,)
    selection: str = "few-shot-val"
    calibrate_on: str = "auto"

    def request(self, method: str, features: FeatureSet) -> Request:
        """Return the request of a method."""
        return Request(
            method=method,
            features=features,
            shots=self.shots,
            seeds=self.seeds,
            selection=self.selection,
            calibrate_on=self.calibrate_on,
        )


WORLDS = (
    Case(dataset="fieldguide", shots=16, seeds=(1, 2, 3)),
    Case(dataset="fieldguide-2", shots=16, seeds=(1, 2, 3)),
)
# one validation image a class: few-shot-val would leave none to calibrate
IMPORTED = (
    Case(dataset="caltech50", shots=16),
    Case(dataset="imagenet256", shots=4, selection="full-val", calibrate_on="half-val"),
)


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--features", type=Path, help="folder with the .npz files")
    parser.add_argument("--home", type=Path, help="caches; else as FEATCACHE_HOME says")
    parser.add_argument("--methods", nargs="*", default=METHODS)
    arguments = parser.parse_args()
    bench = Bench(cache_root(arguments.home), arguments.features, arguments.methods)
    cases = WORLDS + (IMPORTED if arguments.features else ())
    for title, table in (
        ("Calibration error and sets of a run", calibration(bench, cases)),
        (f"Coverage over {DRAWS} draws", coverage(bench, cases)),
        ("Images of other classes", novelty(bench, bool(arguments.features))),
    ):
        print(f"### {title}\n", flush=True)
        for line in table:
            print(line, flush=True)
        print()


def calibration(bench: Bench, cases: Sequence[Case]) -> Iterator[str]:
    """Write the calibration error before and after, and the sets of the record."""
    yield from _head("data", "method", "T", "ECE before %", "ECE %", "coverage %", "set size")
    for case in cases:
        for method in bench.methods:
            request = case.request(method, bench.features(case.dataset))
            sure = measure(training.plan(request)).result.certainty
            if sure is None:
                continue
            t = " ".join(f"{value:.2f}" for value in sure.temperature)
            shares = (sure.ece_before, sure.ece, sure.covered)
            cells = [f"{100 * np.mean(s):.1f}" if s else "-" for s in shares]
            size = f"{np.mean(sure.size):.2f}" if sure.size else "-"
            yield _line(case.dataset, method, t, *cells, size)


def coverage(bench: Bench, cases: Sequence[Case]) -> Iterator[str]:
    """Write coverage and size of sets where calibration rows and queries are exchangeable."""
    yield from _head("data", "method", "rows", f"band of the mean of {DRAWS} %", *RULES)
    for case in cases:
        features = bench.features(case.dataset)
        for method in bench.methods:
            plan = training.plan(replace(case.request(method, features), seeds=(1,)))
            (head,) = measure(plan).heads[0]
            rest = plan.held[0].rest
            rows = _rows(head, features, np.concatenate([rest, features.usable("test")]))
            m, n = len(rest), len(rows) - len(rest)
            law = stats.betabinom(n, rank(m, COVERAGE), m + 1 - rank(m, COVERAGE))
            half = 1.96 * law.std() / math.sqrt(DRAWS)
            band = f"{100 * (law.mean() - half) / n:.1f} to {100 * (law.mean() + half) / n:.1f}"
            cells = [_drawn(head, rows, m, rule, law) for rule in RULES]
            yield _line(case.dataset, method, str(m), band, *cells)


def _drawn(head: Head, rows: Rows, m: int, rule: str, law: Any) -> str:
    """Return mean coverage, draws inside the 95 % band of one, and mean size."""
    p = (head.fitted.logits(rows).double() / head.temperature).softmax(-1)
    scores, labels = class_scores(p, rule), rows.y
    covered, sizes = [], []
    for draw in range(DRAWS):
        known, asked = (torch.from_numpy(part) for part in cut(np.arange(len(rows)), m, draw))
        at_label = scores[known].gather(1, labels[known, None])[:, 0].sort().values
        sets = within(smaller(at_label, scores[asked]), m, COVERAGE)
        covered.append(int(sets.gather(1, labels[asked, None]).sum()))
        sizes.append(float(sets.sum(1).double().mean()))
    low, high = law.ppf(0.025), law.ppf(0.975)
    inside = sum(low <= count <= high for count in covered)
    mean = 100 * np.mean(covered) / (len(rows) - m)
    return f"{mean:.1f}, {inside} of {DRAWS}, {np.mean(sizes):.2f}"


def novelty(bench: Bench, is_imported: bool) -> Iterator[str]:
    """Write how well images of other classes are told apart, and how many are rejected."""
    yield from _head(
        "classes", "other classes", "method", *(f"AUROC {m}" for m in MEASURES), "known rejected %",
        "others rejected %",
    )  # fmt: skip
    one, other = (bench.features(case.dataset) for case in WORLDS)
    pairs = [
        ("fieldguide", "fieldguide-2", one, _images(other)),
        ("fieldguide-2", "fieldguide", other, _images(one)),
    ]
    if is_imported:
        whole = bench.features("imagenet256")
        first, second = (_half(whole, at) for at in (0, 1))
        names = ("imagenet256, first half", "imagenet256, second half")
        pairs += [(*names, first, _images(second)), (*names[::-1], second, _images(first))]
    for known, others, features, images in pairs:
        shots, name = (4 if known.startswith("imagenet") else 16), features.listing.dataset
        by: dict[str, Any] = {}
        if name == "imagenet256":
            by = {"selection": "full-val", "calibrate_on": "half-val"}
        for method in bench.methods:
            head = heads.fit(method, features, shots=shots, **by)
            inside = _rows(head, features, _labelled(features)).x
            areas = [
                f"{auroc(head.novelty(inside, m), head.novelty(images, m)):.3f}" for m in MEASURES
            ]
            shares = [
                f"{100 * float(head.rejects(x, share=SHARE).double().mean()):.1f}"
                for x in (inside, images)
            ]
            yield _line(known, others, method, *areas, *shares)


def _half(features: FeatureSet, at: int) -> FeatureSet:
    """Return a data set of one half of the classes; images of the others have no label."""
    listing, n = features.listing, len(features.classes)
    chosen = np.arange(n)[: n // 2] if at == 0 else np.arange(n)[n // 2 :]
    place = np.full(n + 1, -1)
    place[chosen] = np.arange(len(chosen))
    classes = tuple(features.classes[c] for c in chosen)
    assert isinstance(features.text, TextBank)
    return replace(
        features,
        listing=replace(listing, classes=classes, labels=place[listing.labels]),
        text=features.text.of_classes(torch.from_numpy(chosen)),
    )


def _labelled(features: FeatureSet) -> np.ndarray:
    rows = features.usable("test")
    return np.asarray(rows[features.labels[rows] >= 0])


def _images(features: FeatureSet) -> Tensor:
    return features.unit("global", _labelled(features))


def _rows(head: Head, features: FeatureSet, index: np.ndarray) -> Rows:
    needs = [need for need in head.method.needs(head.fitted.config) if need.role == "query"]
    return read_rows(features, index, "query", needs, head.device)


def _head(*columns: str) -> Iterable[str]:
    return _line(*columns), _line(*["---"] * len(columns))


def _line(*values: str) -> str:
    return "| " + " | ".join(values) + " |"


if __name__ == "__main__":
    main()
