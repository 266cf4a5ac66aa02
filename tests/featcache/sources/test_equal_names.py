"""A class is its label: a data set with two classes of one name goes the whole way."""

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import heads
from featcache.pipeline.opening import open_request
from featcache.pipeline.run import Request, extract
from featcache.store.cache import Cache
from tests.tiers import quick

NAMES = ("missile", "missile", "moth")


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    base = tmp_path_factory.mktemp("equal")
    for label in range(len(NAMES)):
        (base / "photos" / f"class {label}").mkdir(parents=True)
        for i in range(10):
            noise = np.random.default_rng(100 * label + i).integers(0, 60, (32, 32, 3))
            data = io.BytesIO()
            Image.fromarray((noise + 60 * label).astype(np.uint8)).save(data, format="PNG")
            (base / "photos" / f"class {label}" / f"{i}.png").write_bytes(data.getvalue())
    opened = open_request(
        Request(dataset=f"folder:{base / 'photos'}", backbone="tiny", root=base, patches=["none"])
    )
    words = {"missile": ("long and thin.",), "moth": ("wide wings.",)}
    named = replace(opened.dataset, classes=NAMES, descriptions=words)
    return extract(replace(opened, dataset=named)).path


def test_texts_and_images_of_both_are_there(cache: Path) -> None:
    features = Cache.open(cache).feature_set()
    assert features.classes == NAMES
    assert np.bincount(features.labels).tolist() == [10, 10, 10]
    texts = features.text
    assert texts is not None
    for kind in ("name", "template", "description"):
        anchors = texts.anchors(kind)
        assert len(anchors) == 3
        assert (anchors[0] == anchors[1]).all()  # the words are the same, the classes are not


@pytest.mark.parametrize("method", quick(["ridge", "cmm"], 1))
def test_heads_tell_both_apart(cache: Path, method: str, tmp_path: Path) -> None:
    features = Cache.open(cache).feature_set()
    result = heads.evaluate(method, features, shots=2, seeds=1, root=tmp_path)
    assert result.metrics["top1"].mean > 0
