"""Running a plan: read the episodes, choose and train heads, answer the queries, write records."""

import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np
import torch
from jaxtyping import Int, Int32

from featcache.backbones.devices import pick_device
from featcache.errors import FitWarning, UsageError
from featcache.progress import Report
from featcache.types import FeatureSet
from heads.certainty.measuring import measure as measure_answers
from heads.contract.method import AnyMethod, Together
from heads.contract.settings import hyper_values
from heads.episode import Episode, QuerySet
from heads.head import Head, fitted_head
from heads.protocols import calibrating
from heads.protocols.builder import EpisodeBuilder
from heads.protocols.plan import Plan, Run, splits_of
from heads.protocols.recording import (
    int32,
    reads_of,
    record,
    texts_read,
    training_reads,
    zero_shot_answers,
)
from heads.results.record import (
    ANSWERED,
    Predictions,
    Result,
    digest_ids,
)
from heads.selection.chosen import Chosen
from heads.selection.select import select

Answers: TypeAlias = Int32[np.ndarray, " n"]


@dataclass(frozen=True, kw_only=True)
class Trained:
    """The result of a plan: one record a query set, and the heads that it evaluates."""

    results: tuple[Result, ...]
    heads: tuple[tuple[Head, ...], ...]
    """Heads of each record, one a repetition; () where none are kept."""

    @property
    def result(self) -> Result:
        """Return the only record."""
        (result,) = self.results
        return result


def measure(plan: Plan, *, device: str = "auto", progress: Report | None = None) -> Trained:
    """Read the episodes of a plan, choose and train a head for each, and answer the queries.

    Args:
        plan: The plan of a protocol.
        device: auto, cpu, cuda, cuda:1, ...
        progress: Told of every finished run.
    """
    results: list[Result] = []
    heads: list[tuple[Head, ...]] = []
    for splits in plan.groups:
        for result, trained in _measured(plan, splits, pick_device(device), progress):
            results.append(result)
            heads.append(trained)
    order = {split: at for at, split in enumerate(plan.splits)}
    pairs = sorted(zip(results, heads, strict=True), key=lambda pair: order[pair[0].split])
    return Trained(
        results=tuple(result for result, _ in pairs), heads=tuple(trained for _, trained in pairs)
    )


def fit(plan: Plan, *, device: str = "auto", progress: Report | None = None) -> tuple[Head, ...]:
    """Train the heads of a plan without evaluating them.

    Args:
        plan: The plan; its query sets are not read.
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
    plan: Plan, splits: tuple[str, ...], device: torch.device, progress: Report | None
) -> Iterator[tuple[Result, tuple[Head, ...]]]:
    """Train once and evaluate on some query sets."""
    episodes, heads = _trained(plan, splits, device, progress)
    for split in splits:
        queries = [episode.queries[split] for episode in episodes]
        yield _judged(plan, split, queries, heads, progress), heads


def _trained(
    plan: Plan, splits: tuple[str, ...], device: torch.device, progress: Report | None
) -> tuple[list[Episode], tuple[Head, ...]]:
    """Choose and train a head for every episode."""
    run, started = plan.run, time.perf_counter()
    builder = EpisodeBuilder(
        features=run.features,
        needs=run.needs,
        text=getattr(run.settings.config, "text", None),
        retrieved=None if run.augmented is None else run.augmented.retrieved,
        device=device,
        splits=splits_of(run.features, splits),
        class_weights=plan.class_weights,
        strict_shots=plan.strict_shots,
        scopes=plan.scopes,
    )
    episodes = plan.episodes(builder)
    for query in builder.queries.values():
        check_size(len(episodes), len(query.index))
    calibrating.check(plan, episodes)
    with captured_warnings() as unconverged:
        chosen = select(run.method, run.settings, episodes, run.selection, progress=progress)
        sure, told = calibrating.calibrated(plan, builder, episodes, chosen)
    synchronise()
    seconds = time.perf_counter() - started
    notes = [
        *(n for e in episodes for n in e.notes),
        *training_notes(run.method, chosen),
        *unconverged,
        *told,
    ]
    facts = {"notes": notes, "seconds": seconds, "reads": list(training_reads(episodes[0].view))}
    heads = zip(heads_of(run, episodes, chosen, facts), sure, strict=True)
    return episodes, tuple(
        replace(head, temperature=one.temperature, calibration=one.calibration)
        for head, one in heads
    )


def judge(
    plan: Plan,
    heads: Sequence[Head],
    split: str,
    *,
    device: str = "auto",
    progress: Report | None = None,
) -> Result:
    """Evaluate kept heads on a query set, without training again.

    Args:
        plan: The plan that the heads were trained by.
        heads: One a repetition, in the order of the plan's seeds.
        split: The query set.
        device: auto, cpu, cuda, cuda:1, ...
        progress: Told of every repetition.

    Raises:
        HeadError: If a head was trained on other features.
    """
    run, target = plan.run, pick_device(device)
    for head in heads:
        head.check_key(run.features.key, f"the cache {run.features.path}")
    builder = EpisodeBuilder(
        features=run.features,
        needs=run.method.needs(run.settings.config),
        text=getattr(run.settings.config, "text", None),
        device=target,
        splits=splits_of(run.features, (split,)),
    )
    queries = [
        replace(builder.queries[split], notes=notes) for notes in plan.query_notes(builder, split)
    ]
    return _judged(plan, split, queries, [head.to(target) for head in heads], progress)


def _judged(
    plan: Plan,
    split: str,
    queries: Sequence[QuerySet],
    heads: Sequence[Head],
    progress: Report | None,
) -> Result:
    """Answer a query set and write the record."""
    run, started, predicted, measured = plan.run, time.perf_counter(), [], []
    known = calibrating.overlaps(run.features, queries[0].index, heads)
    for done, (head, query) in enumerate(zip(heads, queries, strict=True)):
        if progress is not None:
            progress("evaluating", done, len(queries))
        if calibrating.is_calibrated(head) and not known:
            one = measure_answers(head.fitted, query.rows, head.temperature, head.calibration)
            measured.append(one)
            predicted.append(int32(one.predicted))
        else:
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
        notes=[
            *run.notes,
            *(note for query in queries for note in query.notes),
            *facts["notes"],
            *([calibrating.KNOWN] if known else []),
            *cautions(run.method, [int32(queries[0].rows.y)], len(run.features.classes)),
        ],
    )
    certainty = calibrating.certainty_of(heads, measured)
    return replace(result, spec=spec.digest(), fit=spec.fit.digest(), certainty=certainty)


def training_notes(method: AnyMethod, chosen: Sequence[Chosen]) -> list[str]:
    """Return notes on how heads were chosen and trained."""
    failed = [f"Left out of the search: {why}." for one in chosen for why in one.failed]
    members = [note for one in chosen for note in one.notes]
    return failed + members + method.notes([one.watch for one in chosen])


def cautions(
    method: AnyMethod, batches: Sequence[Int[np.ndarray, " _"]], classes: int
) -> list[str]:
    """Return what a reader must know of the queries that a method answered together.

    Args:
        method: The method; others than transductive ones have nothing to say.
        batches: Labels of the queries of each call.
        classes: Classes of the task.
    """
    if not method.transductive:
        return []
    rows = float(np.mean([len(labels) for labels in batches]))
    present = float(np.mean([len(np.unique(labels)) for labels in batches]))
    said = method.caution(Together(rows=rows, present=present, classes=classes))
    return [said] if said else []


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
    """Make the head of each repetition, with what is needed to use it later."""
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
                **({} if run.augmented is None else {"augment": run.augmented.use.spec}),
                "weights": features.weights,
                "encoding": dict(features.encoding),
                "static": list(one.static),
                "learned": dict(one.learned),
                "validation": one.accuracy,
                **facts,
            },
        )


@contextmanager
def captured_warnings() -> Iterator[list[str]]:
    """Collect FitWarnings for the record."""
    messages: list[str] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", FitWarning)
        yield messages
    for one in caught:
        if issubclass(one.category, FitWarning):
            messages.append(str(one.message))
        else:
            warnings.warn_explicit(one.message, one.category, one.filename, one.lineno)


def chosen_values(head: Head) -> dict[str, float]:
    """Return the hyper-parameters of a head, and what else was chosen."""
    static = {name: getattr(head.fitted.config, name) for name in head.about.get("static", ())}
    learned = {name: float(value) for name, value in head.about.get("learned", {}).items()}
    return hyper_values(head.fitted.hyper) | static | learned


def check_size(repetitions: int, queries: int) -> None:
    """Refuse more answers than a record holds, before training.

    Raises:
        UsageError: If there would be too many answers.
    """
    if repetitions * queries > ANSWERED:
        raise UsageError(
            f"{repetitions} repetitions of {queries} queries are more answers than a run keeps "
            f"({ANSWERED}). Take fewer seeds or episodes."
        )


def synchronise() -> None:
    """Wait for the device, so that a clock read afterwards includes its work."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
