"""Caches of random vectors around the anchors of a few classes."""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from featcache.store.cache import Cache
from featcache.types import ComponentKey, FeatureKey, FeatureSet, Listing, TextBank

KEY = FeatureKey(
    architecture="toy", weights="0" * 64, activation="gelu", image_size=32, preprocessing="none"
)
HERE = {"featcache": "0"}
CLASSES = ("ant", "bee", "cat")
D = 16


def centres() -> np.ndarray:
    return np.random.default_rng(1).normal(size=(len(CLASSES), D)).astype(np.float32)


def near_centres(seed: int, n: int, noise: float = 0.9) -> tuple[np.ndarray, np.ndarray]:
    """Return n vectors near the class anchors, and whose they are."""
    rng = np.random.default_rng(seed)
    labels = np.arange(n, dtype=np.int64) % len(CLASSES)
    values = centres()[labels] + noise * rng.normal(size=(n, D))
    return (3 * values).astype(np.float16), labels


def bank() -> TextBank:
    """Return texts whose anchors are the centres; bee has two descriptions."""
    rows = torch.from_numpy(centres())
    described = torch.cat([rows, rows[1:2] + 0.5 * rows[2:]])
    return TextBank(
        classes=CLASSES,
        names=rows,
        templates=("a {}",),
        template_rows=rows[:, None].clone(),
        descriptions=("small", "striped", "furry", "loud"),
        description_rows=described,
        owner=torch.tensor([0, 1, 2, 1]),
        logit_scale=100.0,
    )


def hashed(dataset: str, n: int) -> list[str]:
    return [hashlib.sha256(f"{dataset}{i}".encode()).hexdigest() for i in range(n)]


def make_cache(
    root: Path,
    dataset: str,
    values: np.ndarray,
    labels: np.ndarray,
    splits: Mapping[str, Sequence[int]],
    *,
    hashes: Sequence[str] | None = None,
    texts: TextBank | None = None,
    more: Mapping[str, np.ndarray] | None = None,
    key: FeatureKey = KEY,
    limit: int | None = None,
    **listing: Any,
) -> FeatureSet:
    """Store a cache; `more` are further components, and `limit` rows have global features."""
    cache = Cache.create(root, dataset, "toy", key)
    n = len(values)
    fields: dict[str, Any] = {
        "dataset": dataset, "root": "photos", "classes": CLASSES,
        "ids": tuple(f"{i}.jpg" for i in range(n)),
        "hashes": tuple(hashes or hashed(dataset, n)), "labels": labels,
        "splits": {name: np.array(rows, dtype=np.int64) for name, rows in splits.items()},
    }  # fmt: skip
    cache.put_listing(Listing(**{**fields, **listing}))
    rows = np.arange(n, dtype=np.int64)
    encoded = rows[: len(rows) if limit is None else limit]
    cache.append(ComponentKey(kind="global"), encoded, values[encoded], {}, HERE)
    for name, extra in (more or {}).items():
        kind, _, count = name.partition("-")
        kind, _, middle = kind.partition(".")
        is_patches = kind == "patches"
        component = ComponentKey(
            kind=kind,
            recipe="" if is_patches else middle,
            variant=middle if is_patches else "",
            count=int(count or 0),
        )
        cache.append(component, rows, extra, {}, HERE)
    if texts is not None:
        cache.put_text(texts, HERE)
    cache.finish(components=["global"], images=n, seconds=1.0, complete=True)
    return Cache.open(cache.path).feature_set()


def views_of(values: np.ndarray, seed: int = 5, noise: float = 0.1) -> np.ndarray:
    """Return two augmented copies of every row."""
    rng = np.random.default_rng(seed)
    copies = values[:, None].astype(np.float32) + noise * rng.normal(size=(len(values), 2, D))
    return copies.astype(np.float16)


def target_in(root: Path, *, with_views: bool = True, n: int = 60) -> FeatureSet:
    """Return the cache of the data set `toys`: a third of the rows each in train, val and test."""
    values, labels = near_centres(11, n)
    splits = {
        "train": range(n // 3),
        "val": range(n // 3, 2 * n // 3),
        "test": range(2 * n // 3, n),
    }
    more = {"views.rrc50-2": views_of(values)} if with_views else {}
    return make_cache(root, "toys", values, labels, splits, texts=bank(), more=more)


def wild_in(root: Path, n: int = 300, **options: Any) -> FeatureSet:
    """Return the cache of an unlabelled data set `wild` with images like those of `toys`."""
    values, labels = near_centres(12, n, noise=1.2)
    return make_cache(
        root, "wild", values, np.full_like(labels, -1), {"train": range(n)}, **options
    )
