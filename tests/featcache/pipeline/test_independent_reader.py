"""The format is what docs/cache-format.md says: another program reads the same."""

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np

from featcache.store.cache import Cache

READER = Path(__file__).parents[1] / "store" / "independent_reader.py"


def test_another_program_reads_the_same(ask: Any, folder: Path) -> None:
    (folder / "train" / "ant" / "broken.jpg").write_bytes(b"no picture")
    wishes = {"patches": ["clearclip:int8@train"], "crops": ["3"], "view_patches": ["2@val"]}
    path = ask(**wishes).path
    cache = Cache.open(path)
    file = cache.shards["global"][0].file
    cache.drop("global", file)
    ask(**wishes)
    spec = importlib.util.spec_from_file_location("independent_reader", READER)
    assert spec is not None
    assert spec.loader is not None
    reader = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(reader)
    listing, components = reader.read(path)
    features = Cache.open(path).feature_set()
    assert listing["ids"] == list(features.listing.ids)
    assert listing["labels"] == features.labels.tolist()
    assert listing["classes"] == list(features.classes)
    assert set(components) == set(features.components)
    assert len(components) == 5
    for name, rows in components.items():
        present = np.flatnonzero(features.components[name].present())
        assert sorted(rows) == present.tolist()
        stored = features.rows(name, present).numpy()
        np.testing.assert_array_equal(np.stack([rows[r] for r in present.tolist()]), stored)
