"""`featcache repair`: what is mended, what is left alone."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

Run = Callable[..., Any]
TINY = ("--backbone", "tiny", "--weights", "random")


@pytest.mark.long
def test_verify_finds_one_changed_byte_and_repair_mends_it(
    featcache: Run, empty_home: Path, photos: Path
) -> None:
    command = ("extract", *TINY, "--dataset", f"folder:{photos}", "--quiet", "--json")
    path = Path(json.loads(featcache(*command).out)["path"])
    shard = next((path / "global").glob("*.h5"))
    whole = shard.read_bytes()
    shard.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    found = featcache("verify", "--quiet")
    assert found.code == 1
    assert "DAMAGED" in found.out
    assert str(shard) in found.out
    mended = featcache("repair", "--quiet")
    assert mended.code == 0
    assert "encoded again: global 30 rows" in mended.out
    assert json.loads(featcache(*command).out)["encoded"] == {}
    assert featcache("verify", "--quiet", "--full").out.startswith("sound")
    assert next((path / "global").glob("*.h5")).read_bytes() == whole


def test_repair_leaves_sound_imported_features_alone(
    featcache: Run, empty_home: Path, tmp_path: Path
) -> None:
    rows = np.random.default_rng(0).normal(size=(12, 16)).astype(np.float32)
    labels = np.arange(12) % 2
    np.savez(
        tmp_path / "bare.npz", train_features=rows[:8], train_labels=labels[:8],
        test_features=rows[8:], test_labels=labels[8:], classnames=np.array(["a", "b"]),
    )  # fmt: skip
    featcache("import", "npz", str(tmp_path / "bare.npz"), "--name", "bare", "--backbone", "X")
    answer = featcache("repair", "--quiet")
    assert answer.code == 0
    assert answer.out.startswith("sound: 1 shard,")
    assert answer.err == ""


def test_a_damaged_import_is_mended_by_the_same_file(
    featcache: Run, heads: Run, empty_home: Path, tmp_path: Path
) -> None:
    rows = np.random.default_rng(0).normal(size=(12, 16)).astype(np.float32)
    labels = np.arange(12) % 2
    np.savez(
        tmp_path / "f.npz", train4_features=rows[:8], train4_labels=labels[:8],
        test_features=rows[8:], test_labels=labels[8:], classnames=np.array(["a", "b"]),
    )  # fmt: skip
    again = ("import", "npz", str(tmp_path / "f.npz"), "--name", "my bugs", "--backbone", "X")
    first = featcache(*again)
    assert "(linear-probe, ridge, knn, nearest-mean)" in first.err
    assert "nothing was left to do" in featcache(*again, "--quiet").err
    cure = f"featcache import npz FILE --name 'my bugs' --backbone X --cache {empty_home}"
    (shard,) = empty_home.glob("*/*/global/*.h5")
    whole = shard.read_bytes()
    shard.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    found, taken = featcache("verify", "my bugs", "-q"), featcache("repair", "my bugs", "-q")
    trained = heads("train", "ridge", "--shots", "2", "--quiet")
    for answer in (found, taken, trained, featcache("verify", "--quiet")):
        assert answer.code == 1
        assert cure in answer.out + answer.err
        assert "featcache extract" not in answer.out + answer.err
    mended = featcache(*again, "--quiet", "--json")
    (said,) = json.loads(mended.out)["said"]
    assert "restored 12 rows" in said
    assert featcache("verify", "my bugs", "--quiet").code == 0
    assert shard.read_bytes() == whole
