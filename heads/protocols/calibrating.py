"""Which labelled images calibrate a head, and calibrating it with them.

auto        validation images that neither train nor select: those that few-shot-val left over, or,
            where nothing was selected, all of them. Under full-val none are left, and the
            temperature is fitted on those that selected
half-val   of full-val too: validation is cut in two at random, one half selects
folds       the support, by heads that are trained again without each fold
none        none

Queries, and images of the support, the pool and the corpus, are left out.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from featcache.draws import VAL_SHOTS, cut, labelled
from featcache.errors import MissingComponentError, TaskError, UsageError
from featcache.types import FeatureSet
from featcache.wording import Argument
from heads.certainty.calibration import Calibration
from heads.certainty.fitting import by_folds, by_rows, check_folds
from heads.certainty.measuring import COVERAGE, RULE, Measured
from heads.contract.rows import Rows
from heads.episode import Episode, RowIndex
from heads.head import Head
from heads.protocols.builder import EpisodeBuilder
from heads.protocols.plan import Held, Plan
from heads.results.record import Certainty
from heads.selection.chosen import Chosen

LACKING = (
    "No prediction sets: what the method reads of an image is not cached for the validation images "
    "that could calibrate it."
)
KNOWN = "Some queries are images that calibrated the heads, so calibration is not measured on them."
ROWS = 10_000
"""Calibration rows at most: the standard deviation of a coverage of 0.9 is 0.003 then."""


@dataclass(frozen=True, kw_only=True)
class Calibrated:
    """What calibrates the head of one repetition."""

    temperature: float = 1.0
    calibration: Calibration | None = None


def selecting(features: FeatureSet, seed: int, calibrate_on: str) -> RowIndex:
    """Return the rows of `full-val`: all labelled validation rows, or half of them."""
    rows = labelled(features.listing, "val", features.ok)
    return cut(rows, len(rows) // 2, seed)[0] if calibrate_on == "half-val" else rows


def with_held(plan: Plan, calibrate_on: str) -> Plan:
    """Return a plan with the rows that calibrate its heads.

    Args:
        plan: The plan of a protocol.
        calibrate_on: One of `CALIBRATIONS`; nothing calibrates a transductive method, or heads that
            are chosen on the queries.

    Raises:
        TaskError: If validation images are asked for and none are left.
        UsageError: If more than `auto` is asked for where nothing calibrates.
    """
    run, features = plan.run, plan.run.features
    if run.method.transductive or run.selection == "oracle":
        if calibrate_on in ("auto", "none"):
            return replace(plan, calibrate_on="auto")
        is_oracle = run.selection == "oracle"
        why = "is chosen on the queries" if is_oracle else "answers the queries together"
        raise UsageError(
            f"{run.method.name} {why}, so other images cannot say how sure its answers to them "
            f"are. Leave out ",
            Argument("calibrate_on"),
            ".",
        )
    held: tuple[Held, ...] = ()
    if calibrate_on in ("auto", "half-val"):
        selected = plan.validation or tuple(np.zeros(0, np.int64) for _ in run.seeds)
        parts = zip(run.seeds, plan.learned_rows, selected, strict=True)
        queries = [features.listing.splits[s] for s in plan.splits if s in features.listing.splits]
        held = tuple(_held(features, seed, learned, val, queries) for seed, learned, val in parts)
    if calibrate_on == "half-val" and not all(len(one.rest) for one in held):
        raise TaskError(
            f"Data set '{features.listing.dataset}' has no labelled val images that are left to "
            f"calibrate on. Use ",
            Argument("calibrate_on", "folds"),
            " (the head is trained again without each fold of its images).",
        )
    if calibrate_on == "half-val" and run.selection == "full-val":  # half of them selected
        run = replace(run, extra={**run.extra, "calibrate_on": calibrate_on})
    return replace(plan, run=run, calibrate_on=calibrate_on, held=held)


def _held(
    features: FeatureSet,
    seed: int,
    learned: Sequence[RowIndex | None],
    selected: RowIndex,
    queries: Sequence[RowIndex],
) -> Held:
    """Return the validation rows that are no other rows, in two parts."""
    val, hashes = labelled(features.listing, "val", features.ok), features.listing.hashes
    known = np.concatenate([selected, *(rows for rows in learned if rows is not None)])
    rest = val[~np.isin(val, np.concatenate([known, *queries]))]
    contents = {hashes[r] for r in known.tolist()}
    rest = rest[np.array([hashes[r] not in contents for r in rest.tolist()], dtype=bool)]
    warm = selected
    if not len(selected):  # nothing selected: some of the rows fit the temperature
        warm, rest = cut(rest, min(VAL_SHOTS * len(features.classes), len(rest) // 2), seed)
    return Held(warm=warm, rest=cut(rest, ROWS, seed)[0])


def check(plan: Plan, episodes: Sequence[Episode]) -> None:
    """Refuse folds that cannot be trained, before anything is.

    Raises:
        TaskError: As `check_folds`.
    """
    if plan.calibrate_on == "folds":
        for episode in episodes:
            check_folds(plan.run.method, plan.run.settings.config, episode.view)


def calibrated(
    plan: Plan, builder: EpisodeBuilder, episodes: Sequence[Episode], chosen: Sequence[Chosen]
) -> tuple[list[Calibrated], list[str]]:
    """Calibrate the head of each episode; return notes as well.

    Args:
        plan: The plan, as `with_held` returned it.
        builder: Reads rows.
        episodes: As they were trained on.
        chosen: Their heads.

    Raises:
        TrainingError: If a head could not be trained on folds.
    """
    heads = [one.head.kept() for one in chosen]
    if plan.calibrate_on == "folds":
        folds = [by_folds(head, one.view) for head, one in zip(heads, episodes, strict=True)]
        return [Calibrated(temperature=t, calibration=c) for t, c in folds], []
    if not plan.held:
        return [Calibrated() for _ in heads], []
    made: list[Calibrated] = []
    lacking = False
    for head, episode, held in zip(heads, episodes, plan.held, strict=True):
        try:
            warm = episode.val if episode.val is not None else _read(builder, held.warm)
            rest = _read(builder, held.rest)
        except MissingComponentError:  # nobody has to extract features that only calibrate
            warm, rest, lacking = episode.val, None, True
        temperature, calibration = by_rows(head, warm, rest)
        made.append(Calibrated(temperature=temperature, calibration=calibration))
    return made, [LACKING] if lacking else []


def _read(builder: EpisodeBuilder, index: RowIndex) -> Rows | None:
    """Read rows without the images of the corpus; None where there are none.

    Raises:
        MissingComponentError: If the cache lacks what the method reads of them.
    """
    if not len(index):
        return None
    rows = builder.read("query", index)
    if builder.retrieved is not None:
        own = torch.nonzero(~builder.retrieved.holds(rows, index))[:, 0]
        rows = rows.take(own.to(rows.x.device), read=False)
    return rows if len(rows) else None


def overlaps(features: FeatureSet, queries: RowIndex, heads: Sequence[Head]) -> bool:
    """Tell whether queries may be among the validation images that calibrated a head."""

    def on_validation(head: Head) -> bool:
        calibration = head.calibration
        return is_calibrated(head) and (calibration is None or calibration.kind == "split")

    if not any(map(on_validation, heads)):
        return False
    used = labelled(features.listing, "val", features.ok)
    return bool(np.isin(queries, used).any())


def is_calibrated(head: Head) -> bool:
    """Tell whether anything calibrated a head."""
    return head.temperature != 1 or head.calibration is not None


def certainty_of(heads: Sequence[Head], measured: Sequence[Measured]) -> Certainty | None:
    """Return what a record states of calibrated heads; None unless every one was measured."""
    if len(measured) < len(heads):
        return None
    parts = [head.calibration for head in heads if head.calibration is not None]
    covered = [one.covered for one in measured if one.covered is not None]
    size = [one.size for one in measured if one.size is not None]
    is_whole = len(parts) == len(covered) == len(measured)
    return Certainty(
        kind=parts[0].kind if is_whole else "",
        rows=min(part.rows for part in parts) if is_whole else 0,
        temperature=tuple(head.temperature for head in heads),
        ece_before=tuple(one.error_before for one in measured),
        ece=tuple(one.error for one in measured),
        rule=RULE if is_whole else "",
        asked=COVERAGE if is_whole else 0.0,
        covered=tuple(covered) if is_whole else (),
        size=tuple(size) if is_whole else (),
    )
