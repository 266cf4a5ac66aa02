"""`featcache import npz`: what it says."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

Run = Callable[..., Any]


def test_import_npz(featcache: Run, empty_home: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(12, 8)).astype(np.float32)
    labels = np.arange(12) % 3
    np.savez(
        tmp_path / "f.npz", train_features=rows, train_labels=labels,
        test_features=rows, test_labels=labels, classnames=np.array(["a", "b", "c"]),
    )  # fmt: skip
    answer = featcache(
        "import", "npz", str(tmp_path / "f.npz"), "--name", "mine", "--backbone", "ViT-B/32"
    )
    assert answer.code == 0
    assert "train 12, test 12" in answer.out
