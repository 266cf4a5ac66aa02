"""Corpora in memory for the toy world."""

from typing import Any

import pytest
import torch
from torch.nn import functional as F

from featcache.retrieval.corpora.corpus import Corpus
from featcache.types import FeatureSet
from heads.protocols import augment


def corpus_of(features: FeatureSet, *, noise: float = 0.2, wrong: int = 7, **fields: Any) -> Corpus:
    """Return rows near those of train with their labels, every `wrong`-th of another class."""
    rows = features.usable("train")
    x = features.unit("global", rows)
    moved = x + noise * torch.randn(x.shape, generator=torch.Generator().manual_seed(7))
    labels = torch.from_numpy(features.labels[rows].astype("int64"))
    off = torch.arange(len(x)) % wrong == 0
    values: dict[str, Any] = {
        "name": "wild",
        "digest": "0123456789ab",
        "rows": F.normalize(moved, dim=-1),
        "norms": torch.full((len(x),), 9.0),
        "labels": torch.where(off, (labels + 1) % len(features.classes), labels),
        "weights": torch.ones(len(x)),
        "cosines": torch.ones(len(x)),
        "leaks": False,
        "by": "class",
        "facts": {},
    }
    return Corpus(**(values | fields))


def give(monkeypatch: pytest.MonkeyPatch, corpus: Corpus) -> None:
    """Let every run that asks for a corpus read this one."""
    monkeypatch.setattr(augment, "_read", lambda features, name: corpus)
