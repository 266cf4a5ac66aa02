"""Small records."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from heads.results.metrics import evaluate
from heads.results.record import Predictions, Result


@pytest.fixture(scope="session")
def answers() -> Callable[..., Predictions]:
    """Return a factory of answers that are right with a given chance."""

    def make(
        seed: int = 0, *, r: int = 1, n: int = 40, c: int = 4, right: float = 0.8, zero: float = 0.5
    ) -> Predictions:
        rng = np.random.default_rng(seed)
        labels = np.tile(np.arange(n) % c, (r, 1)).astype(np.int32)

        def answered(chance: float) -> np.ndarray:
            wrong = (labels + rng.integers(1, c, labels.shape)) % c
            return np.where(rng.random(labels.shape) < chance, labels, wrong).astype(np.int32)

        return Predictions(predicted=answered(right), labels=labels, zero_shot=answered(zero))

    return make


@pytest.fixture(scope="session")
def record(answers: Callable[..., Predictions]) -> Callable[..., Result]:
    """Return a factory of records; keywords replace fields."""

    def make(seed: int = 0, r: int = 1, **fields: Any) -> Result:
        kept = fields.pop("predictions", answers(seed, r=r))
        values: dict[str, Any] = {
            "method": "cmm",
            "dataset": "toy",
            "backbone": "ViT-B/32",
            "split": "test",
            "shots": 16,
            "seeds": tuple(range(1, r + 1)),
            "protocol": "few_shot",
            "selection": "few-shot-val",
            "config": {"text": None, "steps": 200, "triplet": True, "lr": 0.1},
            "chosen": ({"lr": 0.1, "alpha": 1 / 3},) * r,
            "seconds": {"fit": 1.25, "evaluate": 0.1},
            "run": f"20260101T000000-cmm-{seed:06x}",
            "key": "0123456789ab",
            "versions": {"torch": "2.15.0"},
            "classes": 4,
            "ids": "feedfacefeedface",
            "created": f"2026-01-01T00:00:{seed % 60:02d}+00:00",
            "notes": ("Größe: „klein“",),
            "predictions": kept,
        }
        if kept is not None:
            values["metrics"] = evaluate(kept, 4)
            values["queries"] = kept.labels.shape[1]
        if kept is not None and kept.zero_shot is not None:
            values["zero_shot_top1"] = float((kept.zero_shot == kept.labels)[0].mean())
        return Result(**(values | fields))

    return make
