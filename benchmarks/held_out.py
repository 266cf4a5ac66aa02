"""Rows of a data set that may choose a default: no test rows, and none that a head has read."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from featcache.draws import few_shot_rows, labelled
from featcache.keys import Listing
from featcache.types import FeatureSet

SEEDS = (1, 2, 3)
"""Draws on drawn worlds; imported shots are stored, so there every seed gives the same."""
HELD_OUT = "held-out"
FOLDS = 4
"""Parts of a training set of which each is held out once, where validation rows are few."""


def development(features: FeatureSet, *, from_train: bool = True) -> dict[str, list[FeatureSet]]:
    """Leave out the test rows, and hold out rows that neither training nor selection reads.

    Held out are every second validation row of a class and, where shots are drawn by seed, the
    training rows that no draw of SEEDS takes. Where a class has fewer than two validation rows,
    every training row is held out once in FOLDS folds; for shots that need all training rows,
    every validation row is.

    Args:
        features: A cache.
        from_train: Whether training rows that no draw takes may be held out.

    Returns:
        What is held out, better first -> the same rows with the splits train or `train@K`, val and
        held-out, under another name, once or once a fold.
    """
    listing, ok = features.listing, features.ok
    train_sets = {n: rows for n, rows in listing.splits.items() if n.partition("@")[0] == "train"}
    val = labelled(listing, "val", ok)
    if int(np.bincount(listing.labels[val]).min()) >= 2:
        held = _ranks(listing.labels[val]) % 2 == 1
        queries = [val[held]]
        if listing.draws == "sampled" and from_train:
            train = labelled(listing, "train", ok)
            drawn = few_shot_rows(listing, 16, SEEDS, usable=ok)
            queries.append(train[~np.isin(train, drawn)])
        splits = train_sets | {"val": val[~held], HELD_OUT: np.sort(np.concatenate(queries))}
        return {"val" if len(queries) == 1 else "val, train": [_renamed(features, "held", splits)]}
    train = max(train_sets.values(), key=len)
    ranks = _ranks(listing.labels[train])
    parts: dict[str, list[FeatureSet]] = {"train": [], "val": []}
    for fold in range(FOLDS):
        held = np.arange(len(val)) % FOLDS == fold
        splits = train_sets | {"val": val[~held], HELD_OUT: val[held]}
        parts["val"].append(_renamed(features, f"val-{fold}", splits))
        held = ranks % FOLDS == fold
        left = int(np.bincount(listing.labels[train[~held]]).max())
        splits = {f"train@{left}": train[~held], "val": val, HELD_OUT: train[held]}
        parts["train"].append(_renamed(features, f"train-{fold}", splits))
    return parts


def _renamed(
    features: FeatureSet, name: str, splits: Mapping[str, np.ndarray[Any, Any]]
) -> FeatureSet:
    listing = features.listing
    listing = replace(listing, dataset=f"{listing.dataset}-{name}", splits=splits)
    return replace(features, listing=listing)


def has_shots(listing: Listing, shots: int) -> bool:
    """Tell whether a class has so many training images."""
    sets = [rows for name, rows in listing.splits.items() if name.partition("@")[0] == "train"]
    return shots <= max(int(np.bincount(listing.labels[rows]).max()) for rows in sets)


def _ranks(labels: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Number the rows of each class from 0, in their order."""
    seen: Counter[int] = Counter()
    ranks = []
    for label in labels.tolist():
        ranks.append(seen[label])
        seen[label] += 1
    return np.asarray(ranks, dtype=np.int64)
