"""Which backbone and which cache is meant where the command leaves it open."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

Run = Callable[..., Any]
MOTHS = "tiny was trained on drawn moths only"


def extract(featcache: Run, photos: Path, *more: str) -> Any:
    return featcache(
        "extract", "--dataset", f"folder:{photos}", "--patches", "none", "--limit", "3", *more
    )


@pytest.mark.long
def test_photographs_take_the_backbone_and_weights_of_their_cache(
    featcache: Run, empty_home: Path, photos: Path
) -> None:
    first = extract(featcache, photos, "--weights", "random-5", "--json")
    assert MOTHS not in first.err  # random weights know nothing at all
    again = extract(featcache, photos, "--json")
    assert json.loads(again.out)["key"] == json.loads(first.out)["key"]
    assert "No --backbone was named: tiny with random-5, as in the cache of blobs." in again.err
    other = extract(featcache, photos, "--backbone", "tiny", "--weights", "random-6", "--json")
    assert json.loads(other.out)["key"] != json.loads(first.out)["key"]
    asked = extract(featcache, photos)
    assert asked.code == 2
    assert "--backbone tiny --weights random-5; --backbone tiny --weights random-6" in asked.err


def test_the_embedded_model_says_what_it_knows(
    featcache: Run, heads: Run, empty_home: Path, photos: Path
) -> None:
    made = featcache("extract", "--dataset", f"folder:{photos}", "--patches", "none")
    assert made.err.count(MOTHS) == 1
    trained = heads("train", "nearest-mean", "--shots", "1", "--json")
    assert trained.err.count(MOTHS) == 1
    assert any(MOTHS in note for note in json.loads(trained.out)["notes"])


def imported(featcache: Run, folder: Path, seed: int) -> None:
    rows = np.random.default_rng(seed).normal(size=(12, 8)).astype(np.float32)
    labels = np.arange(12) % 3
    np.savez(
        folder / f"clip{seed}.npz", train_features=rows, train_labels=labels,
        test_features=rows, test_labels=labels, classnames=np.array(["a", "b", "c"]),
    )  # fmt: skip
    made = featcache(
        "import", "npz", str(folder / f"clip{seed}.npz"), "--name", "mine", "--backbone", "B"
    )
    assert made.code == 0


def test_two_imports_under_one_name_are_asked_about(
    featcache: Run, heads: Run, empty_home: Path, tmp_path: Path
) -> None:
    imported(featcache, tmp_path, 1)
    only = heads("train", "knn", "--shots", "1", "--json")
    first = json.loads(only.out)["key"]
    assert f"Using the cache of mine with B (file clip1.npz, key {first}), finished" in only.err
    imported(featcache, tmp_path, 2)
    keys = {}
    for line in featcache("ls", "--json").out.splitlines():
        found = json.loads(line)
        keys[found["weights"]] = found["key"]
    assert list(keys) == ["file clip2.npz", "file clip1.npz"]
    asked = heads("train", "knn", "--shots", "1")
    assert asked.code == 2
    assert all(f"--key {key} ({name}, 20" in asked.err for name, key in keys.items())
    for key in keys.values():
        assert heads("train", "knn", "--shots", "1", "--key", key[:6], "--quiet").code == 0
    titles = [line for line in heads("compare").out.splitlines() if line.startswith("mine, B")]
    assert len(set(titles)) == 2
    assert all(any(f"(key {key})" in title for title in titles) for key in keys.values())
    assert "1 more cache fits: --key " in featcache("info", "mine").err


def test_caches_of_other_names_are_no_rivals(
    featcache: Run, heads: Run, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "home"
    shutil.copytree(home / "blobs", root / "blobs")
    monkeypatch.setenv("FEATCACHE_HOME", str(root))
    imported(featcache, tmp_path, 1)
    answer = heads("train", "knn", "--shots", "1", "--dataset", "blobs")
    assert answer.code == 0, answer.err
    assert "Using the cache of blobs with tiny (random-0 weights, key " in answer.err
    assert "of mine with B (file clip1.npz, key " in heads("train", "knn", "--shots", "1").err
