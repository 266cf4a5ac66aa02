"""A seeded toy world in memory: class means on the sphere, texts near them, a few rows around."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from featcache.store.library import cache_root
from featcache.types import FeatureKey, FeatureSet, Listing, TextBank
from tests.heads.toys import make_toy, make_view, toy, toy_two  # noqa: F401  (fixtures)

SHARED = Path(__file__).parents[3] / "shared" / "data"


@dataclass
class MemoryRows:
    """Rows of one component, in memory."""

    values: Tensor
    covered: np.ndarray
    shape: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        self.shape = tuple(self.values.shape[1:])

    def present(self) -> np.ndarray:
        return self.covered

    def take(self, rows: np.ndarray) -> Tensor:
        return self.values[torch.from_numpy(np.asarray(rows))]


def make_world(
    *,
    classes: int = 5,
    counts: Mapping[str, int | tuple[int, ...]] | None = None,
    d: int = 16,
    noise: float = 0.35,
    text_noise: float = 0.3,
    views: int = 0,
    also: Mapping[str, tuple[int, ...]] | None = None,
    descriptions: bool = False,
    seed: int = 0,
    text: bool = True,
    draws: str = "sampled",
    image_size: int = 64,
) -> FeatureSet:
    """Build a FeatureSet.

    `counts` are images a class, split by split, or one number for all; `also` are more components
    of every row, name -> shape without d; `descriptions` gives class i two and i % 3 more.
    """
    rng = np.random.default_rng(seed)
    counts = counts or {"train": 12, "val": 4, "test": 10}
    means = _unit(rng.normal(size=(classes, d)))
    labels: list[int] = []
    splits: dict[str, np.ndarray] = {}
    for split, each in counts.items():
        per_class = (each,) * classes if isinstance(each, int) else each
        start = len(labels)
        labels += [c for c, n in enumerate(per_class) for _ in range(n)]
        splits[split] = np.arange(start, len(labels))
    y = np.array(labels, dtype=np.int64)
    n = len(y)
    clean = _unit(means[y] + noise * rng.normal(size=(n, d)))
    lengths = rng.uniform(8, 12, size=(n, 1))
    components = {"global": MemoryRows(_half(clean * lengths), np.ones(n, dtype=bool))}
    if views:
        jitter = 0.1 * rng.normal(size=(n, views, d))
        many = _unit(clean[:, None] + jitter) * lengths[:, None]
        components[f"views.rrc50-{views}"] = MemoryRows(_half(many), np.ones(n, dtype=bool))
    more = np.random.default_rng([seed, 1])
    for name, shape in (also or {}).items():
        middle = clean.reshape(n, *(1 for _ in shape), d)
        near = _unit(middle + 0.2 * more.normal(size=(n, *shape, d)))
        components[name] = MemoryRows(_half(10 * near), np.ones(n, dtype=bool))
    names = tuple(f"class {c}" for c in range(classes))
    listing = Listing(
        dataset="toy",
        root="",
        classes=names,
        ids=[f"{i:05d}.jpg" for i in range(n)],
        hashes=[f"{i:064x}" for i in range(n)],
        labels=y,
        splits=splits,
        draws=draws,
    )
    rows = 10 * _unit(means + text_noise * rng.normal(size=(classes, d)))
    bank = TextBank(
        classes=names,
        names=None,
        templates=("a drawing of a {}.",),
        template_rows=torch.from_numpy(rows[:, None]).float(),
        logit_scale=50.0,
    )
    if descriptions:
        owner = np.repeat(np.arange(classes), [2 + c % 3 for c in range(classes)])
        told = 10 * _unit(means[owner] + text_noise * more.normal(size=(len(owner), d)))
        bank = replace(
            bank,
            descriptions=tuple(f"description {i}" for i in range(len(owner))),
            description_rows=torch.from_numpy(told).float(),
            owner=torch.from_numpy(owner),
        )
    return FeatureSet(
        path=cache_root(None) / "toy" / "tiny-0",
        backbone="tiny",
        key=FeatureKey(
            architecture="tiny",
            weights="0" * 64,
            activation="gelu",
            image_size=image_size,
            preprocessing="none",
        ),
        listing=listing,
        components=components,
        ok=np.ones(n, dtype=bool),
        text=bank if text else None,
    )


def _unit(rows: np.ndarray) -> np.ndarray:
    return np.asarray(rows / np.linalg.norm(rows, axis=-1, keepdims=True))


def _half(rows: np.ndarray) -> Tensor:
    return torch.from_numpy(rows).half()


@pytest.fixture(scope="session")
def world() -> Callable[..., FeatureSet]:
    """Return the factory of toy worlds."""
    return make_world


@pytest.fixture(scope="session")
def shared() -> Callable[[str], Path]:
    """Return a finder of measurement data; it skips the test where there are none."""

    def find(name: str) -> Path:
        path = SHARED / name
        if not path.exists():
            pytest.skip(f"{path} is not on this machine")
        return path

    return find
