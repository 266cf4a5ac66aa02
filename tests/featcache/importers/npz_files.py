"""Small .npz files of features for tests."""

from pathlib import Path
from typing import Any

import numpy as np

from featcache.importers.npz import import_npz
from featcache.wording import Part, in_python


def unit(n: int, d: int = 6, seed: int = 0) -> Any:
    rows = np.random.default_rng(seed).standard_normal((n, d))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float16)


def arrays(**changes: Any) -> dict[str, Any]:
    made = {
        "classnames": np.array(["ant", "bee", "wasp"]),
        "text_features": unit(3, seed=9),
        "train1_features": unit(3, seed=1),
        "train1_labels": np.array([0, 1, 2]),
        "train4_features": unit(12, seed=2),
        "train4_labels": np.repeat([0, 1, 2], 4),
        "val_features": unit(4, seed=3),
        "val_labels": np.array([0, 1, 2, 2]),
        "test_features": unit(5, seed=4),
        "test_labels": np.array([0, 0, 1, 2, 2]),
        "test_paths": np.array(["a.jpg", "b.jpg", "a.jpg", "c.jpg", "d.jpg"]),
    }
    return {k: v for k, v in {**made, **changes}.items() if v is not None}


def save(path: Path, content: dict[str, Any]) -> Path:
    np.savez(path, **content)
    return path


def bring(tmp_path: Path, **changes: Any) -> Any:
    path = save(tmp_path / "features.npz", arrays(**changes))
    return import_npz(path, tmp_path / "root", "insects", "ViT-B/32")


def again(tmp_path: Path) -> list[str]:
    said: list[Part] = []
    import_npz(tmp_path / "features.npz", tmp_path / "root", "insects", "ViT-B/32", say=said.append)
    texts = [in_python([message]) for message in said]
    return [text for text in texts if "wide, but features of" not in text]  # has its own test


def files(folder: Path) -> dict[str, bytes]:
    """Return every shard and text by name."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*.h5")}
