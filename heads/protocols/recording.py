"""Making the record of a run: its figures, and everything else that it states."""

import platform
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict

import numpy as np
import torch
from jaxtyping import Int32

from featcache.caution import caution
from featcache.store.provenance import versions_of
from featcache.types import FeatureSet, TextBank
from heads.contract.method import AnyMethod
from heads.contract.rows import Rows, TaskView
from heads.protocols.plan import Run
from heads.results.metrics import evaluate, fraction
from heads.results.record import (
    LISTS,
    QUERY_ORDER,
    QUERY_SET,
    SUPPORT,
    TEXT_SET,
    IntervalOf,
    Predictions,
    Result,
    digest_labels,
    new_run_id,
    now,
    shots_used,
)

_ROWS = 8192
"""Query rows that zero-shot answers at a time."""


ONE_DRAW = (
    "One draw of the shots: the interval is over the queries and says what holds of these heads, "
    "not of the method (docs/benchmarks.md#coverage)."
)
AT_ONE_SHOT = (
    "In simulations at one shot and one draw, 16 to 74 % of the differences between equal methods "
    "were called real: most with 3,000 queries and a rare class (docs/benchmarks.md#coverage)."
)
"""What was simulated holds at this number of shots; with more there are fewer false claims."""


def training_reads(view: TaskView) -> Iterator[str]:
    """Yield what training reads beyond its images' global features: pool, corpus, components."""
    if view.pool is not None:
        yield "pool"
    if view.corpus is not None or view.retrieved:
        yield "corpus"
    for role, rows in (("support", view.support), ("pool", view.pool)):
        yield from (f"{role} {kind}" for kind in (rows.kinds if rows else ()))


def reads_of(method: AnyMethod, training: Iterable[str], query: Rows) -> tuple[str, ...]:
    """Return what a method reads beyond global features.

    Args:
        method: The method.
        training: What its training reads.
        query: The queries.
    """
    named = (*training, *(f"query {kind}" for kind in query.kinds))
    if not method.transductive:
        return named
    return (*named, QUERY_SET, QUERY_ORDER) if method.online else (*named, QUERY_SET)


def texts_read(bank: TextBank | None, kind: str | None) -> str:
    """Return the digest of the zero-shot texts, and after a colon that of another kind read."""
    if bank is None or not bank.available():
        return ""
    usual = bank.usual_kind()
    return ":".join(bank.digest(k) for k in dict.fromkeys((usual, kind or usual)))


def zero_shot_answers(text: TextBank | None, query: Rows) -> Int32[np.ndarray, " n"] | None:
    """Answer the query by the data set's default texts; None where it has none."""
    if text is None or not text.available():
        return None
    anchors = text.classifier(text.usual_kind()).to(query.x)
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
    """Make the record of a run.

    Args:
        run: Method, settings and data of the run.
        chosen: Hyper-parameters of each repetition.
        predictions: Answers to the queries.
        split: Where the queries came from.
        ids: `digest_ids` of the queries; the digest of their labels is added here.
        seconds: Wall-clock seconds of fit and evaluate.
        reads: Result of `reads_of`.
        notes: Notes on the episodes and on training.
        over: What the repetitions are: seeds (`repetitions`), or `episodes`, `batches`, `streams`.
    """
    features, method = run.features, run.method
    stated = [*notes, *_unreadable(features, run, split)]
    stated += filter(None, [caution(features.key, features.listing.root)])
    if method.transductive:
        stated.append(_together(method, over))
    of_list = over in LISTS.values()
    if len(chosen) == 1 and not of_list and run.shots != 0:
        stated.append(ONE_DRAW)
        if shots_used(run.shots, run.support) == 1:
            stated.append(AT_ONE_SHOT)
    points = [dict(values) for values in chosen]
    if of_list and all(p == points[0] for p in points):
        points = points[:1]
    zero_shot = predictions.zero_shot
    labels = predictions.labels
    right = [] if zero_shot is None else fraction(zero_shot == labels, labels).tolist()
    name, use = method.name, None if run.augmented is None else run.augmented.use
    extra = {**run.extra, **({} if use is None else {"augment": use.augment})}
    return Result(
        method=name,
        variant=" ".join(
            filter(None, [run.settings.variant, *(f"{k}={v}" for k, v in extra.items())])
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
            **extra,
            **run.stated,
            **({TEXT_SET: features.text_set} if features.text_set else {}),
            **({SUPPORT: run.profile} if run.profile else {}),
        },
        chosen=tuple(points),
        metrics=evaluate(predictions, len(features.classes), over),
        zero_shot_top1=None if not right else float(np.mean(right if of_list else right[0])),
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
        notes=tuple(dict.fromkeys(stated)),
        support=run.support,
        corpus=use,
        draws=run.draws,
        version=method.version,
        unreadable=unreadable(features, split),
        predictions=predictions,
    )


def _together(method: AnyMethod, over: IntervalOf) -> str:
    """Say which queries a transductive method answered together."""
    if method.online:
        return "Online: each query was answered after those before it; not ranked with others."
    together = "the queries of a batch" if over in ("batches", "streams") else "all queries"
    return f"Transductive: {together} were answered together; not ranked with others."


def unreadable(features: FeatureSet, split: str) -> int:
    """Count the labelled images of a split that could not be read; a missing split has none."""
    if split not in features.listing.splits:
        return 0
    rows = features.listing.rows(split)
    return int((~features.ok[rows] & (features.labels[rows] >= 0)).sum())


def _unreadable(features: FeatureSet, run: Run, queries: str) -> Iterator[str]:
    """Yield a note on the unreadable images of each split."""
    # An unreadable query says nothing about a method. Counted as wrong it would lower all methods
    # by the number of broken files, so it is left out and noted.
    if lost := unreadable(features, queries):
        total = len(features.listing.rows(queries))
        yield f"{lost} of {total} images of '{queries}' could not be read: no query, not counted."
    for split in dict.fromkeys(s for s in run.learns_from if s != queries):
        if lost := unreadable(features, split):
            total = len(features.listing.rows(split))
            yield f"{lost} of {total} images of '{split}' could not be read and were not used."


def versions() -> dict[str, str]:
    """Return the versions that could change a figure."""
    packages = ("featcache", "torch", "numpy")
    unknown = dict.fromkeys(packages, "unknown")
    return {"python": platform.python_version()} | unknown | versions_of(*packages)


def int32(values: torch.Tensor) -> Int32[np.ndarray, " n"]:
    """Return whole numbers as the record keeps them."""
    whole: Int32[np.ndarray, " n"] = values.cpu().numpy().astype(np.int32)
    return whole
