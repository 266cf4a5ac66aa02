"""From tasks to the one record: fit, answer every query, measure, write down how it came about."""

import platform
import time
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from importlib import metadata
from typing import Any, TypeAlias

import numpy as np
import torch
from jaxtyping import Int32

from featcache.caution import caution
from featcache.errors import ConvergenceWarning, UsageError
from featcache.types import FeatureSet, TextBank
from heads.contract import AnyMethod, Rows, TaskView, hyper_values
from heads.episode import Episode, QuerySet
from heads.head import Head, fitted_head
from heads.protocols.builder import EpisodeBuilder
from heads.protocols.plan import Plan, Run, splits_of
from heads.reading import pick_device
from heads.results.metrics import evaluate
from heads.results.record import (
    ANSWERED,
    QUERY_SET,
    IntervalOf,
    Predictions,
    Result,
    digest_ids,
    digest_labels,
    new_run_id,
    now,
)
from heads.selection.select import Chosen, Progress, select

Answers: TypeAlias = Int32[np.ndarray, " n"]
_ROWS = 8192
"""Query rows that zero-shot answers at a time."""


ONE_DRAW = (
    "One draw of the shots: the interval is over the queries and says what holds of these heads, "
    "not of the method. As a claim about the method, a difference over one draw was wrong in up to "
    "74 % of comparisons at one shot, in simulations (docs/benchmarks.md#coverage)."
)


@dataclass(frozen=True, kw_only=True)
class Trained:
    """What came of a plan: one record a query set, and the heads behind them."""

    results: tuple[Result, ...]
    heads: tuple[tuple[Head, ...], ...]
    """Of each record its heads, one a repetition; () where none are kept."""

    @property
    def result(self) -> Result:
        """Return the only record."""
        (result,) = self.results
        return result


def measure(plan: Plan, *, device: str = "auto", progress: Progress | None = None) -> Trained:
    """Read the episodes of a plan, choose and train a head for each, and answer the queries.

    Args:
        plan: Of a protocol.
        device: auto, cpu, cuda, cuda:1, ...
        progress: Told of every finished run.
    """
    results: list[Result] = []
    heads: list[tuple[Head, ...]] = []
    for splits in plan.groups:
        for result, own in _measured(plan, splits, pick_device(device), progress):
            results.append(result)
            heads.append(own)
    order = {split: at for at, split in enumerate(plan.splits)}
    both = sorted(zip(results, heads, strict=True), key=lambda pair: order[pair[0].split])
    return Trained(results=tuple(result for result, _ in both), heads=tuple(own for _, own in both))


def fit(plan: Plan, *, device: str = "auto", progress: Progress | None = None) -> tuple[Head, ...]:
    """Train the heads of a plan and judge them on nothing.

    Args:
        plan: Of a protocol; its query sets are not read.
        device: auto, cpu, cuda, cuda:1, ...
        progress: Told of every finished run.

    Raises:
        UsageError: If training or selection would have to see the queries.
    """
    if len(plan.groups) > 1 or plan.run.method.transductive or plan.run.selection == "oracle":
        raise UsageError(
            f"Training '{plan.run.method.name}' with selection '{plan.run.selection}' sees the "
            f"queries, so there is no head without them; evaluate it instead."
        )
    return _trained(plan, (), pick_device(device), progress)[1]


def _measured(
    plan: Plan, splits: tuple[str, ...], device: torch.device, progress: Progress | None
) -> Iterator[tuple[Result, tuple[Head, ...]]]:
    """Train once and judge on some query sets."""
    episodes, heads = _trained(plan, splits, device, progress)
    for split in splits:
        queries = [episode.queries[split] for episode in episodes]
        yield _judged(plan, split, queries, heads, progress), heads


def _trained(
    plan: Plan, splits: tuple[str, ...], device: torch.device, progress: Progress | None
) -> tuple[list[Episode], tuple[Head, ...]]:
    """Choose and train a head for every episode."""
    run, started = plan.run, time.perf_counter()
    builder = EpisodeBuilder(
        features=run.features,
        needs=run.method.needs(run.settings.config),
        device=device,
        splits=splits_of(run.features, splits),
        class_weights=plan.class_weights,
        strict_shots=plan.strict_shots,
        scopes=plan.scopes,
    )
    episodes = plan.episodes(builder)
    for query in builder.queries.values():
        check_size(len(episodes), len(query.index))
    with early_stops() as early:
        chosen = select(run.method, run.settings, episodes, run.selection, progress=progress)
    synchronise()
    seconds = time.perf_counter() - started
    notes = [*(n for e in episodes for n in e.notes), *training_notes(run.method, chosen), *early]
    facts = {"notes": notes, "seconds": seconds, "reads": list(training_reads(episodes[0].view))}
    return episodes, tuple(heads_of(run, episodes, chosen, facts))


def judge(
    plan: Plan,
    heads: Sequence[Head],
    split: str,
    *,
    device: str = "auto",
    progress: Progress | None = None,
) -> Result:
    """Answer a query set by heads that are kept, without training them again.

    Args:
        plan: The plan that the heads were trained by.
        heads: One a repetition, in the order of the plan's seeds.
        split: The query set.
        device: auto, cpu, cuda, cuda:1, ...
        progress: Told of every repetition.

    Raises:
        HeadError: If a head was trained on other features.
    """
    run, place = plan.run, pick_device(device)
    for head in heads:
        head.check_key(run.features.key, f"the cache {run.features.path}")
    builder = EpisodeBuilder(
        features=run.features,
        needs=run.method.needs(run.settings.config),
        device=place,
        splits=splits_of(run.features, (split,)),
    )
    queries = [
        replace(builder.queries[split], notes=notes) for notes in plan.query_notes(builder, split)
    ]
    return _judged(plan, split, queries, [head.to(place) for head in heads], progress)


def _judged(
    plan: Plan,
    split: str,
    queries: Sequence[QuerySet],
    heads: Sequence[Head],
    progress: Progress | None,
) -> Result:
    """Answer a query set and write the record."""
    run, started, predicted = plan.run, time.perf_counter(), []
    for done, (head, query) in enumerate(zip(heads, queries, strict=True)):
        if progress is not None:
            progress("evaluating", done, len(queries))
        predicted.append(int32(head.fitted.predict(query.rows)))
    spec, facts = plan.spec(split), heads[0].about
    result = record(
        run,
        [chosen_values(head) for head in heads],
        _predictions(run.features, predicted, queries),
        split=split,
        ids=digest_ids(run.features.listing.ids[int(r)] for r in queries[0].index),
        seconds={"fit": float(facts["seconds"]), "evaluate": time.perf_counter() - started},
        reads=reads_of(run.method, facts["reads"], queries[0].rows),
        notes=[*run.notes, *(note for query in queries for note in query.notes), *facts["notes"]],
    )
    return replace(result, spec=spec.digest(), fit=spec.fit.digest())


def training_notes(method: AnyMethod, chosen: Sequence[Chosen]) -> list[str]:
    """Say what a reader must know of how some heads were chosen and trained."""
    left = [f"Left out of the search: {why}." for one in chosen for why in one.failed]
    return left + method.notes([one.watch for one in chosen])


def _predictions(
    features: FeatureSet, predicted: Sequence[Answers], queries: Sequence[QuerySet]
) -> Predictions:
    labels = np.stack([int32(query.rows.y) for query in queries])
    zero_shot = zero_shot_answers(features.text, queries[0].rows)
    ids = features.listing.ids
    return Predictions(
        predicted=np.stack(predicted),
        labels=labels,
        zero_shot=None if zero_shot is None else np.stack([zero_shot] * len(queries)),
        images=np.tile(np.arange(labels.shape[1], dtype=np.int32), (len(queries), 1)),
        ids=tuple(ids[int(r)] for r in queries[0].index),
        classes=tuple(features.classes),
    )


def heads_of(
    run: Run, episodes: Sequence[Episode], chosen: Sequence[Chosen], facts: Mapping[str, Any]
) -> Iterator[Head]:
    """Make a head of what was chosen for each repetition, with what it must know to be used."""
    features = run.features
    needs = [need for need in run.method.needs(run.settings.config) if need.role == "query"]
    fitting = [features.fitting(n.kind, n.recipe, n.at_least) for n in needs if n.kind != "global"]
    for episode, one in zip(episodes, chosen, strict=True):
        yield fitted_head(
            one.head,
            tuple(features.classes),
            width=episode.view.support.x.shape[1],
            key=features.key,
            dataset=features.listing.dataset,
            backbone=features.backbone,
            texts=texts_read(features.text, getattr(run.settings.config, "text", None)),
            reads=tuple(sorted(names[0] for names in fitting if names)),
            about={
                "protocol": run.protocol,
                "shots": "all" if run.shots is None else run.shots,
                "seed": episode.view.seed,
                "selection": run.selection,
                "weights": features.weights,
                "static": list(one.static),
                "validation": one.accuracy,
                **facts,
            },
        )


@contextmanager
def early_stops() -> Iterator[list[str]]:
    """Collect what solvers warn of, for the record: a line on a screen is gone tomorrow."""
    messages: list[str] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", ConvergenceWarning)
        yield messages
    for one in caught:
        if issubclass(one.category, ConvergenceWarning):
            messages.append(str(one.message))
        else:
            warnings.warn_explicit(one.message, one.category, one.filename, one.lineno)


def training_reads(view: TaskView) -> Iterator[str]:
    """Name what training reads beyond one feature an image; optional needs where they are met."""
    if view.pool is not None:
        yield "pool"
    for role, rows in (("support", view.support), ("pool", view.pool)):
        yield from (f"{role} {kind}" for kind in (rows.kinds if rows else ()))


def reads_of(method: AnyMethod, training: Iterable[str], query: Rows) -> tuple[str, ...]:
    """Name what a method reads beyond one feature an image.

    Args:
        method: The method.
        training: What its training reads.
        query: The queries.
    """
    named = (*training, *(f"query {kind}" for kind in query.kinds))
    return (*named, QUERY_SET) if method.transductive else named


def chosen_values(head: Head) -> dict[str, float]:
    """Return the hyper-parameters of a head, and the fields of Config that were chosen too."""
    static = {name: getattr(head.fitted.config, name) for name in head.about.get("static", ())}
    return hyper_values(head.fitted.hyper) | static


def texts_read(bank: TextBank | None, kind: str | None) -> str:
    """Digest the sentences behind zero-shot and, where others are set, those of that kind."""
    if bank is None or not bank.available():
        return ""
    usual = usual_kind(bank)
    return ":".join(bank.digest(k) for k in dict.fromkeys((usual, kind or usual)))


def usual_kind(bank: TextBank) -> str:
    """Return the kind of text that zero-shot answers by."""
    have = bank.available()
    return bank.default if bank.default in have else have[0]


def zero_shot_answers(text: TextBank | None, query: Rows) -> Int32[np.ndarray, " n"] | None:
    """Answer the query by the data set's default texts; None where it has none."""
    if text is None or not text.available():
        return None
    anchors = text.classifier(usual_kind(text)).to(query.x)
    x = query.x
    parts = [(x[i : i + _ROWS] @ anchors.T).argmax(-1) for i in range(0, len(x), _ROWS)]
    return int32(torch.cat(parts))


def record(
    run: Run,
    chosen: Sequence[Mapping[str, float]],
    predictions: Predictions,
    *,
    split: str,
    ids: str,
    seconds: Mapping[str, float],
    reads: tuple[str, ...] = (),
    notes: Iterable[str] = (),
    over: IntervalOf = "repetitions",
) -> Result:
    """Write down what came of a run.

    Args:
        run: What was asked for.
        chosen: Hyper-parameters of each repetition.
        predictions: What they answered.
        split: Where the queries came from.
        ids: `digest_ids` of what was asked; the labels are added here.
        seconds: fit and evaluate, wall clock.
        reads: As `reads_of` says.
        notes: What a reader must know of the episodes and of training.
        over: What the repetitions are called.
    """
    features, method = run.features, run.method
    told = [*notes, *_unreadable(features, run, split)]
    told += filter(None, [caution(features.key, features.listing.root)])
    if method.transductive:
        told.append("Transductive: all queries were answered together; not ranked with others.")
    of_episodes = over == "episodes"
    if len(chosen) == 1 and not of_episodes and run.shots != 0:
        told.append(ONE_DRAW)
    points = [dict(values) for values in chosen]
    if of_episodes and all(p == points[0] for p in points):
        points = points[:1]
    zero_shot = predictions.zero_shot
    right = [] if zero_shot is None else (zero_shot == predictions.labels).mean(axis=1).tolist()
    name = method.name
    return Result(
        method=name,
        variant=" ".join(
            filter(None, [run.settings.variant, *(f"{k}={v}" for k, v in run.extra.items())])
        ),
        dataset=features.listing.dataset,
        backbone=features.backbone,
        split=split,
        shots=run.shots,
        seeds=run.seeds,
        protocol=run.protocol,
        selection=run.selection,
        config={
            **run.settings.as_numbers(),
            **asdict(run.settings.config),
            **run.extra,
            **run.stated,
        },
        chosen=tuple(points),
        metrics=evaluate(predictions, len(features.classes), over),
        zero_shot_top1=None if not right else float(np.mean(right if of_episodes else right[0])),
        seconds=seconds,
        run=new_run_id(name),
        key=features.key.digest(),
        versions=versions(),
        classes=len(features.classes),
        queries=int(predictions.labels.shape[1]),
        ids=f"{ids}-{digest_labels(predictions.labels)}",
        created=now(),
        source=method.source,
        texts=texts_read(features.text, getattr(run.settings.config, "text", None)),
        reads=reads,
        notes=tuple(dict.fromkeys(told)),
        support=run.support,
        draws=run.draws,
        version=method.version,
        unreadable=unreadable(features, split),
        predictions=predictions,
    )


def check_size(repetitions: int, queries: int) -> None:
    """Refuse before training what no record holds.

    Raises:
        UsageError: If there would be too many answers.
    """
    if repetitions * queries > ANSWERED:
        raise UsageError(
            f"{repetitions} repetitions of {queries} queries are more answers than a run keeps "
            f"({ANSWERED}). Take fewer seeds or episodes."
        )


def unreadable(features: FeatureSet, split: str) -> int:
    """Count the labelled images of a split that could not be read; a missing split has none."""
    if split not in features.listing.splits:
        return 0
    rows = features.listing.rows(split)
    return int((~features.ok[rows] & (features.labels[rows] >= 0)).sum())


def _unreadable(features: FeatureSet, run: Run, queries: str) -> Iterator[str]:
    """Say which images are missing, and what that means."""
    # A query that nobody could look at says nothing of a method: counted as a miss it would lower
    # every method alike, and by how many files are broken. So it is left out, and said.
    if lost := unreadable(features, queries):
        total = len(features.listing.rows(queries))
        yield f"{lost} of {total} images of '{queries}' could not be read: no query, not counted."
    for split in dict.fromkeys(s for s in run.learns_from if s != queries):
        if lost := unreadable(features, split):
            total = len(features.listing.rows(split))
            yield f"{lost} of {total} images of '{split}' could not be read and were not used."


def versions() -> dict[str, str]:
    """Name the versions that could change a figure."""
    named = {"python": platform.python_version()}
    for package in ("featcache", "torch", "numpy"):
        try:
            named[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            named[package] = "unknown"
    return named


def int32(values: torch.Tensor) -> Int32[np.ndarray, " n"]:
    """Return whole numbers as the record keeps them."""
    whole: Int32[np.ndarray, " n"] = values.cpu().numpy().astype(np.int32)
    return whole


def synchronise() -> None:
    """Wait for the device, so that a clock read next tells the truth."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
