"""From tasks to the one record: fit, answer every query, measure, write down how it came about."""

import platform
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from importlib import metadata

import numpy as np
import torch
from jaxtyping import Int32

from featcache.caution import caution
from featcache.errors import ConvergenceWarning, UsageError
from featcache.types import FeatureSet, TextBank
from heads.contract import AnyMethod, Rows
from heads.protocols.tasks import Task
from heads.results.metrics import evaluate
from heads.results.record import (
    ANSWERED,
    QUERY_SET,
    IntervalOf,
    Predictions,
    Result,
    Support,
    digest_ids,
    digest_labels,
    new_run_id,
    now,
)
from heads.selection.select import Chosen, Progress, select
from heads.selection.settings import Settings

_ROWS = 8192
"""Query rows that zero-shot answers at a time."""


ONE_DRAW = (
    "One draw of the shots: the interval is over the queries and says what holds of these heads, "
    "not of the method. As a claim about the method, a difference over one draw was wrong in up to "
    "74 % of comparisons at one shot, in simulations (docs/benchmarks.md#coverage)."
)


@dataclass(frozen=True, kw_only=True)
class Run:
    """Everything about a run that the record states besides its figures."""

    method: AnyMethod
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
    stated: Mapping[str, int] = field(default_factory=dict)
    """What the protocol always states in the record."""
    support: Support | None = None
    """What is really learned from; None where nothing labelled is."""
    draws: str = ""
    """Digest of the images that each repetition learns from and chooses by."""
    learns_from: tuple[str, ...] = ()
    """The splits that it learns from or chooses by, in which unreadable images are missing."""


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
    check_size(len(built), len(built[0].query_rows))
    with early_stops() as early:
        chosen = select(run.method, run.settings, built, run.selection, progress=progress)
    synchronise()
    fitted = time.perf_counter()
    predicted = []
    for done, (task, one) in enumerate(zip(built, chosen, strict=True)):
        if progress is not None:
            progress("evaluating", done, len(built))
        predicted.append(int32(one.head.predict(task.query)))
    evaluated = time.perf_counter()
    labels = np.stack([int32(_labels(task.query)) for task in built])
    zero_shot = zero_shot_answers(run.features.text, built[0].query)
    ids = run.features.listing.ids
    predictions = Predictions(
        predicted=np.stack(predicted),
        labels=labels,
        zero_shot=None if zero_shot is None else np.stack([zero_shot] * len(built)),
        images=np.tile(np.arange(labels.shape[1], dtype=np.int32), (len(built), 1)),
        ids=tuple(ids[int(r)] for r in built[0].query_rows),
        classes=tuple(run.features.classes),
    )
    result = record(
        run,
        chosen,
        predictions,
        ids=digest_ids(ids[int(r)] for r in built[0].query_rows),
        seconds={"fit": fitted - started, "evaluate": evaluated - fitted},
        reads=more_than_global(
            run.method, built[0].view.support, built[0].query, built[0].view.pool
        ),
        notes=[note for task in built for note in task.notes],
        warned=early,
    )
    return Trained(result=result, chosen=tuple(chosen))


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


def more_than_global(
    method: AnyMethod, support: Rows, query: Rows, pool: Rows | None
) -> tuple[str, ...]:
    """Name what a method reads beyond one feature an image; optional needs where they are met."""
    roles = {"support": support, "pool": pool, "query": query}
    named = ["pool"] if pool is not None else []
    named += [f"{role} {kind}" for role, rows in roles.items() if rows for kind in rows.kinds]
    return (*named, QUERY_SET) if method.transductive else tuple(named)


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
    chosen: Sequence[Chosen],
    predictions: Predictions,
    *,
    ids: str,
    seconds: Mapping[str, float],
    reads: tuple[str, ...] = (),
    notes: Iterable[str] = (),
    warned: Iterable[str] = (),
    over: IntervalOf = "repetitions",
) -> Result:
    """Write down what came of a run.

    Args:
        run: What was asked for.
        chosen: The head of each repetition.
        predictions: What they answered.
        ids: `digest_ids` of what was asked; the labels are added here.
        seconds: fit and evaluate, wall clock.
        reads: As `more_than_global` says.
        notes: What a reader must know of the tasks.
        warned: What solvers warned of.
        over: What the repetitions are called.
    """
    features, method = run.features, run.method
    told = [*notes, *_unreadable(features, run)]
    told += filter(None, [caution(features.key, features.listing.root)])
    for one in chosen:
        told += [f"Left out of the search: {reason}." for reason in one.failed]
    if method.transductive:
        told.append("Transductive: all queries were answered together; not ranked with others.")
    told += method.notes([one.watch for one in chosen])
    of_episodes = over == "episodes"
    if len(chosen) == 1 and not of_episodes and run.shots != 0:
        told.append(ONE_DRAW)
    points = [one.values for one in chosen]
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
        split=run.split,
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
        notes=tuple(dict.fromkeys([*told, *warned])),
        support=run.support,
        draws=run.draws,
        unreadable=unreadable(features, run.split),
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


def _unreadable(features: FeatureSet, run: Run) -> Iterator[str]:
    """Say which images are missing, and what that means."""
    # A query that nobody could look at says nothing of a method: counted as a miss it would lower
    # every method alike, and by how many files are broken. So it is left out, and said.
    if lost := unreadable(features, run.split):
        total = len(features.listing.rows(run.split))
        yield f"{lost} of {total} images of '{run.split}' could not be read: no query, not counted."
    for split in dict.fromkeys(s for s in run.learns_from if s != run.split):
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


def _labels(rows: Rows) -> torch.Tensor:
    assert rows.labels is not None
    return rows.labels


def int32(values: torch.Tensor) -> Int32[np.ndarray, " n"]:
    """Return whole numbers as the record keeps them."""
    whole: Int32[np.ndarray, " n"] = values.cpu().numpy().astype(np.int32)
    return whole


def synchronise() -> None:
    """Wait for the device, so that a clock read next tells the truth."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
