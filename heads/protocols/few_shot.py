"""Few-shot learning: K labelled images a class train, a few more select, the whole split judges.

Seeds are repetitions where their draws differ; seeds with the same draw are one repetition, and
the interval then comes from the queries.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from featcache.draws import VAL_SHOTS, Draw, few_shot
from featcache.errors import TaskError, UnknownNameError, UsageError
from featcache.types import FeatureSet
from heads.core import registry
from heads.core.contract import Method, reads_weights
from heads.core.cure import support_scope
from heads.core.selection import MODES, Progress, has_choice
from heads.core.settings import Settings, configure
from heads.core.tasks import RowIndex, Task, TaskBuilder, labelled, pick_device, query_rows
from heads.protocols import unsupervised, zero_shot
from heads.protocols.evaluation import Run, Trained, measure
from heads.results.pairing import seeds_text
from heads.results.record import (
    ANSWERED,
    CAME_WITH_DATA,
    FEW_SHOT,
    Result,
    Support,
    digest_ids,
    shots_used,
)

DEFAULT_SEEDS = (1, 2, 3)
LAST_STEP = "The last step of training was kept: no validation could say which is best."


def run(method_name: str, **arguments: Any) -> Result:
    """Train a method and return the record; arguments as `train`."""
    return train(method_name, **arguments).result


def train(
    method_name: str,
    *,
    feature_set: FeatureSet,
    shots: int | None,
    seeds: Sequence[int] = DEFAULT_SEEDS,
    split: str = "test",
    selection: str = "few-shot-val",
    settings: Mapping[str, Any] | None = None,
    strict_shots: bool = False,
    class_weights: str | Sequence[float] | None = None,
    device: str = "auto",
    progress: Progress | None = None,
) -> Trained:
    """Train a method on K shots a class and evaluate it.

    Args:
        method_name: A method's name.
        feature_set: The cache, opened.
        shots: Images a class; None takes all of `train`.
        seeds: One draw each.
        split: Where the queries come from.
        selection: How hyper-parameters are chosen, one of `selection.MODES`.
        settings: Fields of the method's Config and Hyper; several values make a grid.
        strict_shots: Refuse classes with fewer than `shots` images.
        class_weights: None, `balanced`, or one number a class.
        device: auto, cpu, cuda, cuda:1, ...
        progress: Told of every finished run.

    Returns:
        The record, and the trained heads, one a repetition.

    Raises:
        UnknownNameError: If the method, split, setting or selection is unknown.
        TaskError: If the data set allows no such task.
        MissingComponentError: If the cache lacks what the method needs.
        TrainingError: If no grid point could be trained.
    """
    method = registry.get(method_name)
    if selection not in MODES:
        raise UnknownNameError("selection", selection, MODES)
    if not seeds:
        raise UsageError("seeds must name at least one seed, got none; the usual ones are 1 2 3.")
    configured = configure(method, settings, shots=shots)
    needs = method.needs(configured.config)
    roles = {need.role for need in needs}
    if "support" not in roles:
        elsewhere: dict[str, Any] = {
            "feature_set": feature_set,
            "split": split,
            "settings": settings,
            "device": device,
            "progress": progress,
        }
        if "pool" not in roles:
            return zero_shot.train(method_name, **elsewhere)
        return unsupervised.train(method_name, seed=seeds[0], selection=selection, **elsewhere)
    draws = _draws(feature_set, shots, seeds, selection)
    if len(draws) * (queries := len(query_rows(feature_set, split))) > ANSWERED:
        raise TaskError(
            f"{len(draws)} seeds of {queries:,} queries are more answers than a run holds "
            f"({ANSWERED:,}). Lower --seeds."
        )
    support = _support(feature_set, shots, draws)
    configured = configure(method, settings, shots=shots_used(shots, support))
    mode, notes = _mode(selection, method, configured, feature_set, draws)
    if not mode.endswith("-val"):
        draws = {seed: _without_val(draw) for seed, draw in draws.items()}
    if len(draws) < len(seeds):
        kept = seeds_text(tuple(draws))
        notes.append(
            f"{seeds_text(seeds).capitalize()} give the same draw; counted once ({kept})."
            if len(draws) == 1
            else f"Some seeds give the same draw; counted once each ({kept})."
        )
    if feature_set.listing.draws == "stored":
        notes.append(_stored(feature_set, next(iter(draws.values()))))
    extra = {"class_weights": _named(class_weights)} if class_weights is not None else {}
    if class_weights is not None and not reads_weights(method, configured.config):
        notes.append(f"Method '{method_name}' makes no use of class weights.")
    description = Run(
        method=method,
        settings=configured,
        features=feature_set,
        protocol=FEW_SHOT,
        selection=mode,
        split=split,
        shots=shots,
        seeds=tuple(draws),
        extra=extra,
        support=support,
        draws=_digest(feature_set, draws.values()),
        learns_from=("train", "val") if mode.endswith("-val") else ("train",),
    )

    def tasks() -> list[Task]:
        builder = TaskBuilder(
            features=feature_set,
            needs=needs,
            device=pick_device(device),
            text=getattr(configured.config, "text", None),
            query_rows=query_rows(feature_set, split),
            class_weights=class_weights,
            strict_shots=strict_shots,
            scopes={"support": support_scope(shots, seeds)},
            notes=notes,
        )
        return [
            builder.build(
                draw.train_rows,
                draw.val_rows,
                seed=seed,
                shots=shots,
                oracle=mode == "oracle",
            )
            for seed, draw in draws.items()
        ]

    return measure(description, tasks, progress)


def _draws(
    features: FeatureSet, shots: int | None, seeds: Sequence[int], selection: str
) -> dict[int, Draw]:
    """Draw for every seed; of equal draws the first stays."""
    val_shots = {"k-shot-val": shots, "full-val": shots}.get(
        selection, VAL_SHOTS if shots is None else min(shots, VAL_SHOTS)
    )
    draws: dict[int, Draw] = {}
    seen: set[bytes] = set()
    for seed in seeds:
        drawn = few_shot(features.listing, shots, seed, val_shots=val_shots, usable=features.ok)
        if not len(drawn.train_rows):
            raise TaskError(
                f"None of the labelled training images of data set '{features.listing.dataset}' "
                f"could be read; `featcache info {features.listing.dataset}` says why. Repair "
                f"them and extract again."
            )
        if selection == "full-val":
            drawn = _with_val(drawn, labelled(features, "val"))
        support = np.sort(drawn.train_rows).tobytes()
        if support not in seen:
            seen.add(support)
            draws[seed] = drawn
    return draws


def _support(features: FeatureSet, shots: int | None, draws: Mapping[int, Draw]) -> Support:
    """Count what the repetitions really learn from."""
    classes, listing = len(features.classes), features.listing
    each = [np.bincount(features.labels[d.train_rows], minlength=classes) for d in draws.values()]
    everything = few_shot(listing, None, 0, usable=features.ok).train_rows
    return Support(
        smallest=int(min(counts.min() for counts in each)),
        largest=int(max(counts.max() for counts in each)),
        whole=all(len(d.train_rows) == len(everything) for d in draws.values()),
        stored=listing.draws == "stored",
    )


def _digest(features: FeatureSet, draws: Iterable[Draw]) -> str:
    """Return a digest of what each repetition learns from and chooses by, in whatever order."""

    def named(rows: RowIndex) -> str:
        ids, labels = features.listing.ids, features.labels
        return digest_ids(sorted(f"{labels[r]} {ids[r]}" for r in rows.tolist()))

    return digest_ids(named(rows) for d in draws for rows in (d.train_rows, d.val_rows))


def _stored(features: FeatureSet, draw: Draw) -> str:
    """Say which of the sets that came with the data the shots are."""
    splits, chosen = features.listing.splits, set(draw.train_rows.tolist())
    name = next(n for n in splits if n.startswith("train") and chosen <= set(splits[n].tolist()))
    most = int(np.bincount(features.labels[draw.train_rows]).max())
    return f"{CAME_WITH_DATA}: the first {most} a class of '{name}', whatever the seed."


def _with_val(draw: Draw, rows: RowIndex) -> Draw:
    return Draw(train_rows=draw.train_rows, val_rows=rows, short=draw.short)


def _without_val(draw: Draw) -> Draw:
    return _with_val(draw, draw.val_rows[:0])


def _mode(
    asked: str,
    method: Method,
    settings: Settings,
    features: FeatureSet,
    draws: Mapping[int, Draw],
) -> tuple[str, list[str]]:
    """Return the selection that really happens, and what to tell of it."""
    if not has_choice(method, settings, asked):
        kept = asked == "cv" and has_choice(method, settings, "few-shot-val")
        return "none", [LAST_STEP] if kept else []
    if not asked.endswith("-val") or all(len(d.val_rows) for d in draws.values()):
        return asked, []
    dataset = features.listing.dataset
    if asked != "few-shot-val":
        raise TaskError(
            f"Data set '{dataset}' has no labelled val images, so --selection {asked} cannot "
            f"work. Use --selection cv (folds of the support) or none (the defaults)."
        )
    most = max(int(np.bincount(features.labels[d.train_rows]).max()) for d in draws.values())
    none = f"Data set '{dataset}' has no labelled val images"
    if not has_choice(method, settings, "cv"):
        return "none", [f"{none}. {LAST_STEP}"]
    if most < 2:
        return "none", [f"{none}; with one shot a class the default hyper-parameters were taken."]
    return "cv", [f"{none}; hyper-parameters were chosen by folds of the support."]


def _named(class_weights: str | Sequence[float]) -> str:
    if isinstance(class_weights, str):
        return class_weights
    return ",".join(f"{w:g}" for w in class_weights)
