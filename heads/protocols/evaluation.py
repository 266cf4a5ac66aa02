"""From tasks to the one record: fit, answer every query, measure, write down how it came about."""

import platform
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib import metadata
from typing import Any

import numpy as np
import torch
from jaxtyping import Int32

from featcache.types import FeatureSet, TextBank
from heads.core import scoring
from heads.core.contract import Method, RoleRows
from heads.core.selection import Chosen, Progress, select
from heads.core.settings import Settings
from heads.core.tasks import Task
from heads.results.metrics import evaluate
from heads.results.record import Predictions, Result, digest_ids, new_run_id, now

_ROWS = 8192
"""Query rows that zero-shot answers at a time."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """Everything about a run that the record states besides its figures."""

    method: Method
    settings: Settings
    features: FeatureSet
    protocol: str
    selection: str
    split: str
    shots: int | None
    """Images a class; None is all, 0 is none."""
    seeds: tuple[int, ...]
    extra: Mapping[str, str]
    """Settings of the protocol that differ from its defaults; part of the variant."""


@dataclass(frozen=True, kw_only=True)
class Trained:
    """A record together with the heads behind it, for saving and explaining."""

    result: Result
    chosen: tuple[Chosen, ...]


def measure(
    run: Run,
    tasks: Callable[[], Sequence[Task]],
    progress: Progress | None,
) -> Trained:
    """Build the tasks, choose and train a head for each, and answer the query."""
    started = time.perf_counter()
    built = tasks()
    chosen = select(run.method, run.settings, built, run.selection, progress=progress)
    _synchronise()
    fitted = time.perf_counter()
    predicted = []
    for done, (task, one) in enumerate(zip(built, chosen, strict=True)):
        if progress is not None:
            progress("evaluating", done, len(built))
        predicted.append(_int32(scoring.predict(one.head, task.query)))
    evaluated = time.perf_counter()
    labels = np.stack([_int32(_labels(task.query)) for task in built])
    zero_shot = zero_shot_answers(run.features.text, built[0].query)
    predictions = Predictions(
        predicted=np.stack(predicted),
        labels=labels,
        zero_shot=None if zero_shot is None else np.stack([zero_shot] * len(built)),
    )
    record = _record(run, built, chosen, predictions, fitted - started, evaluated - fitted)
    return Trained(result=record, chosen=tuple(chosen))


def zero_shot_answers(text: TextBank | None, query: RoleRows) -> Int32[np.ndarray, " n"] | None:
    """Answer the query by the data set's default texts; None where it has none."""
    if text is None or not text.available():
        return None
    kind = text.default if text.default in text.available() else text.available()[0]
    anchors = text.anchors(kind).to(query.x)
    parts = [(rows @ anchors.T).argmax(-1) for rows in query.x.split(_ROWS)]
    return _int32(torch.cat(parts))


def _record(
    run: Run,
    tasks: Sequence[Task],
    chosen: Sequence[Chosen],
    predictions: Predictions,
    fit: float,
    evaluate_seconds: float,
) -> Result:
    features = run.features
    notes = list(dict.fromkeys(note for task in tasks for note in task.notes))
    for one in chosen:
        notes += [f"Left out of the search: {reason}." for reason in one.failed]
    zero_shot = predictions.zero_shot
    name = run.method.name
    ids = features.listing.ids
    return Result(
        method=name,
        variant=" ".join(
            filter(None, [run.settings.variant, *(f"{k}={v}" for k, v in run.extra.items())])
        ),
        dataset=features.listing.dataset,
        backbone=features.backbone,
        split=run.split,
        shots=run.shots,
        seeds=run.seeds,
        protocol=run.protocol,
        selection=run.selection,
        config={**asdict(run.settings.config), **dict(run.settings.given), **run.extra},
        chosen=tuple(one.values for one in chosen),
        metrics=evaluate(predictions, len(features.classes)),
        zero_shot_top1=(
            None if zero_shot is None else float((zero_shot[0] == predictions.labels[0]).mean())
        ),
        seconds={"fit": fit, "evaluate": evaluate_seconds},
        run=new_run_id(name),
        key=features.key.digest(),
        versions=versions(),
        classes=len(features.classes),
        queries=int(predictions.labels.shape[1]),
        ids=digest_ids(ids[int(r)] for r in tasks[0].query_rows),
        created=now(),
        notes=tuple(dict.fromkeys(notes)),
        predictions=predictions,
    )


def versions() -> dict[str, str]:
    """Name the versions that could change a figure."""
    named = {"python": platform.python_version()}
    for package in ("featcache", "torch", "numpy"):
        try:
            named[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            named[package] = "unknown"
    return named


def _labels(rows: RoleRows) -> torch.Tensor:
    assert rows.labels is not None
    return rows.labels


def _int32(values: torch.Tensor) -> Any:
    return values.cpu().numpy().astype(np.int32)


def _synchronise() -> None:
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        torch.cuda.synchronize()
