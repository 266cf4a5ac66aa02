import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from featcache.store.cache import Cache
from featcache.types import ComponentKey, FeatureKey, Listing, TextBank

HERE = {"featcache": "0", "device": "cpu"}
KEY = FeatureKey(
    architecture="toy", weights="0" * 64, activation="gelu", image_size=32, preprocessing="none"
)


def _listing(n: int, **changes: Any) -> Listing:
    fields: dict[str, Any] = {
        "dataset": "toys",
        "root": "photos",
        "classes": ("ant", "bee"),
        "ids": tuple(f"train/ä {i}\n.jpg" for i in range(n)),
        "hashes": tuple(hashlib.sha256(str(i).encode()).hexdigest() for i in range(n)),
        "labels": np.arange(n, dtype=np.int64) % 2,
        "splits": {
            "train": np.arange(0, n // 2, dtype=np.int64),
            "test": np.arange(n // 2, n, dtype=np.int64),
        },
        "templates": ("a photo of a {}.",),
        "descriptions": {"bee": ("striped", "furry")},
        "notes": ("drawn by hand",),
    }
    return Listing(**{**fields, **changes})


def _values(rows: Any, width: int = 8) -> Any:
    """Values that say which row they belong to."""
    rows = np.asarray(rows)
    return (rows[:, None] + np.arange(width) / 64).astype(np.float16)


@pytest.fixture
def listing() -> Callable[..., Listing]:
    return _listing


@pytest.fixture
def values() -> Callable[..., Any]:
    return _values


@pytest.fixture
def key() -> FeatureKey:
    return KEY


@pytest.fixture
def plain() -> ComponentKey:
    return ComponentKey(kind="global")


@pytest.fixture
def bank() -> TextBank:
    rows = torch.linspace(-1, 1, 2 * 8 + 4 * 8 + 3 * 8).reshape(-1, 8) * 7
    return TextBank(
        classes=("ant", "bee"),
        names=rows[:2],
        templates=("a {}", "the {}"),
        template_rows=rows[2:6].reshape(2, 2, 8),
        descriptions=("red", "striped", "furry"),
        description_rows=rows[6:],
        owner=torch.tensor([0, 1, 1]),
        logit_scale=14.25,
        logit_bias=-3.5,
        default="description",
    )


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    """Twenty images, of which ten have features in two shards."""
    made = Cache.create(tmp_path / "root", "toys", "Toy/1", KEY)
    made.put_listing(_listing(20))
    for first in (0, 5):
        rows = np.arange(first, first + 5, dtype=np.int64)
        made.append(ComponentKey(kind="global"), rows, _values(rows), {}, HERE)
    made.finish(components=["global"], images=10, seconds=1.0, complete=True)
    return Cache.open(made.path)
