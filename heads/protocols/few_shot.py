"""Few-shot learning: train on K images a class, select on a few more, evaluate on a whole split.

Seeds are repetitions where their draws differ; seeds with the same draw are one repetition, and
the interval then comes from the queries. An imbalanced support (`heads.protocols.imbalance`) is a
subset of the balanced draw of the same seed; validation images stay balanced.
"""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from jaxtyping import Int64

from featcache.draws import VAL_SHOTS, Draw, few_shot, thinned
from featcache.errors import TaskError, UsageError
from featcache.types import FeatureSet
from featcache.wording import Argument
from heads.contract.method import AnyMethod
from heads.episode import RowIndex
from heads.protocols.augment import augmented
from heads.protocols.builder import check_shots, query_rows
from heads.protocols.calibrating import selecting
from heads.protocols.imbalance import Profile, profile
from heads.protocols.plan import Plan, Request, Run
from heads.protocols.suggest import support_scope
from heads.results.compare.pairing import seeds_text
from heads.results.record import ANSWERED, CAME_WITH_DATA, FEW_SHOT, Support, digest_ids, shots_used
from heads.selection.members import reads_weights
from heads.selection.select import has_choice
from heads.selection.settings import Settings, configure

LAST_STEP = "The last step of training was kept: no validation could say which is best."


def plan(request: Request) -> Plan:
    """Plan K shots a class, a few validation images, and whole splits as queries.

    Raises:
        UnknownNameError: If the method, a setting or the selection is unknown.
        UsageError: If there is no seed.
        TaskError: If the data set allows no such task.
    """
    method, features = request.resolve(), request.features
    uneven = None if request.support is None else profile(request.support, features.classes)
    shots = request.shots if uneven is None else uneven.shots(request.shots)
    seeds = tuple(request.seeds)
    if not seeds:
        raise UsageError("seeds must name at least one seed, got none; the usual ones are 1 2 3.")
    configured = configure(method, request.settings, shots=shots)
    draws = _draws(features, shots, seeds, request, uneven)
    reads_pool = any(need.role == "pool" for need in method.needs(configured.config))
    for seed, draw in draws.items() if request.strict_shots else ():
        if uneven is None:
            check_shots(features, draw.train_rows, shots, strict=True)
        elif short := _short_of(features, uneven, shots, draw, seed):
            raise TaskError(short, " Lower ", Argument("shots"), " or the counts.")
    for split in request.splits:
        if len(draws) * (queries := len(query_rows(features, split))) > ANSWERED:
            raise TaskError(
                f"{len(draws)} seeds of {queries:,} queries are more answers than a run holds "
                f"({ANSWERED:,}). Lower ",
                Argument("seeds"),
                ".",
            )
    support = _support(features, shots, draws)
    configured = configure(method, request.settings, shots=shots_used(shots, support))
    mode, notes = _mode(request.selection, method, configured, features, draws)
    if not mode.endswith("-val"):
        draws = {seed: _without_val(draw) for seed, draw in draws.items()}
    pools = {seed: _pool(features, draw) if reads_pool else None for seed, draw in draws.items()}
    if reads_pool:
        notes.append(_read_without_labels(pools))
    if len(draws) < len(seeds):
        kept = seeds_text(tuple(draws))
        notes.append(
            f"{seeds_text(seeds).capitalize()} give the same draw; counted once ({kept})."
            if len(draws) == 1
            else f"Some seeds give the same draw; counted once each ({kept})."
        )
    if uneven is not None:
        notes += _uneven_notes(features, uneven, shots, draws)
    if features.listing.draws == "stored":
        notes.append(_stored(features, next(iter(draws.values()))))
    weights = request.class_weights
    weighs = reads_weights(method, configured)
    if weights is not None and not weighs:
        notes.append(f"Method '{method.name}' makes no use of class weights.")
    corpus = augmented(method, configured.config, features, request.augment, request.splits)
    if corpus is not None:
        notes += corpus.notes
    return Plan(
        run=Run(
            method=method,
            settings=configured,
            features=features,
            protocol=FEW_SHOT,
            selection=mode,
            shots=shots,
            seeds=tuple(draws),
            extra={} if weights is None else {"class_weights": _named(weights)},
            profile="" if uneven is None else uneven.text,
            support=support,
            draws=_digest(features, draws, pools),
            learns_from=("train", "val") if mode.endswith("-val") else ("train",),
            notes=tuple(notes),
            augmented=corpus,
        ),
        episodes=lambda builder: [
            builder.build(
                draw.train_rows,
                draw.val_rows,
                seed=seed,
                shots=shots if uneven is None else None,
                pool=pools[seed],
                oracle=mode == "oracle",
            )
            for seed, draw in draws.items()
        ],
        splits=request.splits,
        learned_rows=tuple((draw.train_rows, pools[seed]) for seed, draw in draws.items()),
        validation=tuple(draw.val_rows for draw in draws.values()),
        scopes={"support": support_scope(_there(shots, support), seeds)},
        class_weights=weights if weighs else None,
        strict_shots=request.strict_shots and uneven is None,
    )


def _draws(
    features: FeatureSet,
    shots: int | None,
    seeds: Sequence[int],
    request: Request,
    uneven: Profile | None,
) -> dict[int, Draw]:
    """Draw for every seed; equal draws are kept once."""
    selection = request.selection
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
            drawn = _with_val(drawn, selecting(features, seed, request.calibrate_on))
        if uneven is not None:
            counts = _counts(features, uneven, shots, seed)
            drawn = thinned(drawn, features.labels, counts, seed)
        support = np.sort(drawn.train_rows).tobytes()
        if support not in seen:
            seen.add(support)
            draws[seed] = drawn
    return draws


def _counts(
    features: FeatureSet, uneven: Profile, shots: int | None, seed: int
) -> Int64[np.ndarray, " c"]:
    """Return how many images each class is to give."""
    if shots is None:  # the largest class gives all it has
        everything = few_shot(features.listing, None, 0, usable=features.ok).train_rows
        shots = int(np.bincount(features.labels[everything]).max())
    return uneven.counts(shots, len(features.classes), seed)


def _short_of(
    features: FeatureSet, uneven: Profile, shots: int | None, draw: Draw, seed: int
) -> str:
    """Say which classes have fewer images than they were to give; empty where none has."""
    wanted = _counts(features, uneven, shots, seed)
    there = np.bincount(features.labels[draw.train_rows], minlength=len(features.classes))
    short = np.flatnonzero(there < wanted)
    if not len(short):
        return ""
    named = [f"{features.classes[c]} {there[c]} of {wanted[c]}" for c in short[:8].tolist()]
    more = f" and {len(short) - 8} more" if len(short) > 8 else ""
    return (
        f"Seed {seed}: {len(short)} of {len(there)} classes have fewer training images than the "
        f"support was to have, and gave all: {', '.join(named)}{more}."
    )


def _uneven_notes(
    features: FeatureSet, uneven: Profile, shots: int | None, draws: Mapping[int, Draw]
) -> list[str]:
    """Say how large the classes of an imbalanced support are."""
    classes = len(features.classes)
    each = [np.bincount(features.labels[d.train_rows], minlength=classes) for d in draws.values()]
    sizes = sorted(int(n) for n in each[0])
    told = (
        f"Imbalanced support: {sizes[0]} to {sizes[-1]} images a class, median "
        f"{sizes[classes // 2]}, {sum(sizes)} in all; validation images are balanced."
    )
    short = (_short_of(features, uneven, shots, draw, seed) for seed, draw in draws.items())
    return [told, *filter(None, short)]


def _support(features: FeatureSet, shots: int | None, draws: Mapping[int, Draw]) -> Support:
    """Count the images that the repetitions are trained on."""
    classes, listing = len(features.classes), features.listing
    each = [np.bincount(features.labels[d.train_rows], minlength=classes) for d in draws.values()]
    everything = few_shot(listing, None, 0, usable=features.ok).train_rows
    return Support(
        smallest=int(min(counts.min() for counts in each)),
        largest=int(max(counts.max() for counts in each)),
        whole=all(len(d.train_rows) == len(everything) for d in draws.values()),
        stored=listing.draws == "stored",
    )


def _there(shots: int | None, support: Support) -> int | None:
    """Return as many shots as there are: no class has more images than were drawn of the largest.

    Sets that came with the data are chosen by the number that was requested.
    """
    return shots if shots is None or support.stored else min(shots, support.largest)


def _pool(features: FeatureSet, draw: Draw) -> RowIndex:
    """Return the images of `train` that were not drawn: the method reads them without labels.

    Raises:
        TaskError: If every image was drawn.
    """
    rows = features.usable("train") if "train" in features.listing.splits else draw.val_rows[:0]
    drawn = np.concatenate([draw.train_rows, draw.val_rows])
    pool: RowIndex = rows[~np.isin(rows, drawn)]
    if not len(pool):
        raise TaskError(
            f"Every image of split 'train' of data set '{features.listing.dataset}' is a shot, so "
            f"there is no unlabelled pool. Lower ",
            Argument("shots"),
            ", or choose a setting that reads no pool.",
        )
    return pool


def _read_without_labels(pools: Mapping[int, RowIndex | None]) -> str:
    most = max(0 if pool is None else len(pool) for pool in pools.values())
    return f"The {most} images of train that are no shots were read without a look at their labels."


def _digest(
    features: FeatureSet, draws: Mapping[int, Draw], pools: Mapping[int, RowIndex | None]
) -> str:
    """Digest the images of each repetition, in any order: training, validation and the pool."""

    def named(rows: RowIndex) -> str:
        ids, labels = features.listing.ids, features.labels
        return digest_ids(sorted(f"{labels[r]} {ids[r]}" for r in rows.tolist()))

    def parts(seed: int) -> Iterator[str]:
        yield named(draws[seed].train_rows)
        yield named(draws[seed].val_rows)
        if (pool := pools[seed]) is not None:
            yield digest_ids(sorted(features.listing.ids[int(r)] for r in pool))

    return digest_ids(part for seed in draws for part in parts(seed))


def _stored(features: FeatureSet, draw: Draw) -> str:
    """Say which of the data set's own few-shot sets the shots are."""
    splits, chosen = features.listing.splits, set(draw.train_rows.tolist())
    name = next(n for n in splits if n.startswith("train") and chosen <= set(splits[n].tolist()))
    most = int(np.bincount(features.labels[draw.train_rows]).max())
    return f"{CAME_WITH_DATA}: the first {most} a class of '{name}', whatever the seed."


def _with_val(draw: Draw, rows: RowIndex) -> Draw:
    return Draw(train_rows=draw.train_rows, val_rows=rows)


def _without_val(draw: Draw) -> Draw:
    return _with_val(draw, draw.val_rows[:0])


def _mode(
    requested: str,
    method: AnyMethod,
    settings: Settings,
    features: FeatureSet,
    draws: Mapping[int, Draw],
) -> tuple[str, list[str]]:
    """Return the selection that is used, and notes on it."""
    if not has_choice(method, settings, requested):
        is_last = requested == "cv" and has_choice(method, settings, "few-shot-val")
        return "none", [LAST_STEP] if is_last else []
    if not requested.endswith("-val") or all(len(d.val_rows) for d in draws.values()):
        return requested, []
    dataset = features.listing.dataset
    if requested != "few-shot-val":
        raise TaskError(
            f"Data set '{dataset}' has no labelled val images, so ",
            Argument("selection", requested),
            " cannot work. Use ",
            Argument("selection", "cv"),
            " (folds of the support) or ",
            Argument("selection", "none"),
            " (the defaults).",
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
