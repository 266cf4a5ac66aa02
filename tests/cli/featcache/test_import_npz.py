"""`featcache import npz`: what it says."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

Run = Callable[..., Any]


def write_features(folder: Path) -> str:
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(12, 8)).astype(np.float32)
    labels = np.arange(12) % 3
    np.savez(
        folder / "f.npz", train_features=rows, train_labels=labels,
        test_features=rows, test_labels=labels, classnames=np.array(["a", "b", "c"]),
    )  # fmt: skip
    return str(folder / "f.npz")


def test_import_npz(featcache: Run, empty_home: Path, tmp_path: Path) -> None:
    file = write_features(tmp_path)
    answer = featcache("import", "npz", file, "--name", "mine", "--backbone", "ViT-B/32")
    assert answer.code == 0
    assert "train 12, test 12" in answer.out
    doubt = "The features are 8 wide"
    assert doubt in answer.err
    assert doubt not in answer.out
