"""`featcache import FORMAT`: a miniature of every format through the real command."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from featcache.store.cache import Cache
from featcache.store.repair.verify import verify
from tests.featcache.importers.miniatures import FORMATS, NEED_PYARROW

Run = Callable[..., Any]
NAMES = ("--name", "toys", "--backbone", "my model")


def imported(featcache: Run, *arguments: str) -> Cache:
    answer = featcache("import", *arguments, "--json")
    assert answer.code == 0, answer.err
    return Cache.open(Path(json.loads(answer.out)["path"]))


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_arrives_as_it_was(
    featcache: Run, empty_home: Path, tmp_path: Path, name: str
) -> None:
    if name in NEED_PYARROW:
        pytest.importorskip("pyarrow")
    made = FORMATS[name](tmp_path / "theirs")
    cache = imported(featcache, *made.arguments, *NAMES)
    features = cache.feature_set()
    listing = features.listing
    assert set(listing.splits) == set(made.rows)
    for split, x in made.rows.items():
        index = listing.rows(split)
        stored = features.rows("global", index).numpy()
        assert stored.dtype == x.dtype
        np.testing.assert_allclose(stored, x, atol=1e-3 if name == "transclip-views" else 0)
        assert listing.labels[index].tolist() == made.labels[split].tolist()
        if split in made.ids and split.partition("@")[0] != "train":
            assert [listing.ids[i] for i in index] == made.ids[split]
    assert listing.draws == made.draws
    assert len(listing.classes) == 3
    is_raw = name in ("lpclip", "cross-modal")
    assert cache.key.norms == ("raw" if is_raw else "unit")
    assert verify(cache.path, full=True).is_sound
    before = (cache.path / "manifest.jsonl").read_bytes()
    assert imported(featcache, *made.arguments, *NAMES).path == cache.path
    assert (cache.path / "manifest.jsonl").read_bytes() == before


@pytest.mark.parametrize("name", ["tip-adapter", "lpclip"])
def test_what_was_imported_trains(
    featcache: Run, heads: Run, empty_home: Path, tmp_path: Path, name: str
) -> None:
    """Stored few-shot sets are read by their number; a whole train split is drawn from by seed."""
    made = FORMATS[name](tmp_path / "theirs")
    texts = tmp_path / "texts.npy"
    np.save(texts, made.rows["test"][:3])
    assert featcache("import", *made.arguments, *NAMES, "--texts", str(texts)).code == 0
    answer = heads("train", "tip-adapter", "--shots", "2", "--seeds", "2", "--json")
    assert answer.code == 0, answer.err
    told = json.loads(answer.out)
    assert told["shots"] == 2
    assert ("train@2" in answer.err + answer.out) == (name == "tip-adapter")


def test_class_names_of_words_are_kept(featcache: Run, empty_home: Path, tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    for name in ("parquet", "clip-retrieval"):
        made = FORMATS[name](tmp_path / name)
        cache = imported(featcache, *made.arguments, "--name", name, "--backbone", "my model")
        assert cache.feature_set().classes == ("ant", "bee", "wasp")


def test_a_name_is_needed_and_the_named_data_set_is_one(
    featcache: Run, empty_home: Path, tmp_path: Path
) -> None:
    made = FORMATS["tip-adapter"](tmp_path / "theirs")
    answer = featcache("import", *made.arguments, "--backbone", "x")
    assert answer.code == 2
    assert "--name" in answer.err
    answer = featcache("import", *made.arguments, "--backbone", "x", "--dataset", "nosuch")
    assert answer.code == 2
    assert "Unknown data set 'nosuch'" in answer.err
