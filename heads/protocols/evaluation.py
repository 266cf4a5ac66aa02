"""From tasks to the one record: fit, answer every query, measure, write down how it came about."""

import platform
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from importlib import metadata

import numpy as np
import torch
from jaxtyping import Int32

from featcache.errors import ConvergenceWarning
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
    with _early_stops() as early:
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
    notes = dict.fromkeys([*record.notes, *early])
    return Trained(result=replace(record, notes=tuple(notes)), chosen=tuple(chosen))


@contextmanager
def _early_stops() -> Iterator[list[str]]:
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


def zero_shot_answers(text: TextBank | None, query: RoleRows) -> Int32[np.ndarray, " n"] | None:
    """Answer the query by the data set's default texts; None where it has none."""
    if text is None or not text.available():
        return None
    kind = text.default if text.default in text.available() else text.available()[0]
    anchors = text.anchors(kind).to(query.x)
    x = query.x
    parts = [(x[i : i + _ROWS] @ anchors.T).argmax(-1) for i in range(0, len(x), _ROWS)]
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
    if run.method.transductive:
        notes.append("Transductive: all queries were answered together; not ranked with others.")
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
        config={**run.settings.as_numbers(), **asdict(run.settings.config), **run.extra},
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


def _int32(values: torch.Tensor) -> Int32[np.ndarray, " n"]:
    whole: Int32[np.ndarray, " n"] = values.cpu().numpy().astype(np.int32)
    return whole


def _synchronise() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
