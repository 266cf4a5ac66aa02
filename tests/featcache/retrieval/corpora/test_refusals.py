"""What no corpus is built from, and corpora that no longer fit their data set."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from featcache.errors import (
    CacheError,
    CorruptCacheError,
    MissingComponentError,
    TaskError,
    UnknownNameError,
    UsageError,
)
from featcache.retrieval.corpora.build import build_corpus
from featcache.retrieval.corpora.find import describe_corpus
from featcache.retrieval.corpora.origins import Origin, open_origins
from featcache.retrieval.corpora.read import read_corpus
from featcache.store.cache import Cache
from featcache.store.corpora import corpus_names
from featcache.types import FeatureSet
from tests.featcache.retrieval.corpora.worlds import (
    CLASSES,
    KEY,
    bank,
    make_cache,
    near_centres,
    target_in,
    wild_in,
)


@pytest.mark.parametrize(
    ("options", "error", "says"),
    [
        ({"by": "clas"}, UnknownNameError, "class"),
        ({"of": "patch"}, UnknownNameError, "patches"),
        ({"of": "crops"}, MissingComponentError, "no crops"),
        ({"recipe": "rrc50"}, UsageError, "recipe"),
        ({"k": 0}, UsageError, "at least 1"),
        ({"k": 295}, UsageError, "more than the 294"),
        ({"min_cosine": float("nan")}, UsageError, "min_cosine"),
        ({"margin": -1.0}, UsageError, "margin"),
        ({"text": "cupl"}, MissingComponentError, "no texts of kind 'cupl'"),
        ({"text": "nobody"}, UnknownNameError, "nobody"),
        ({"by": "image", "text": "name"}, UsageError, "no effect"),
        ({"by": "image", "seeds": ()}, UsageError, "one seed"),
        ({"by": "image", "shots": 0}, UsageError, "at least 1"),
        ({"name": "../x"}, UsageError, "name of a corpus"),
    ],
)
def test_wrong_arguments_are_refused(
    target: FeatureSet, wild: FeatureSet, options: Any, error: Any, says: str
) -> None:
    before = corpus_names(target.path)
    with pytest.raises(error, match=says):
        build_corpus(**{"name": "wrong", "target": target, "sources": [wild], "k": 5, **options})
    assert corpus_names(target.path) == before


def test_classes_without_texts_or_images_are_refused(tmp_path: Path, wild: FeatureSet) -> None:
    values, labels = near_centres(1, 20)
    labels[labels == 2] = 0
    splits = {"train": range(10), "test": range(10, 20)}
    bare = make_cache(tmp_path / "a", "bare", values, labels, splits)
    with pytest.raises(MissingComponentError, match=r"no texts.*by='image'"):
        build_corpus("x", bare, [wild], k=5)
    with pytest.raises(TaskError, match=r"cat.*by='class'"):
        build_corpus("x", bare, [wild], by="image", k=5)
    texts = bank()
    assert texts.owner is not None
    object.__setattr__(texts, "owner", torch.tensor([0, 1, 1, 1]))
    lacking = make_cache(tmp_path / "b", "bare", values, labels, splits, texts=texts)
    with pytest.raises(MissingComponentError, match=r"cat without any"):
        build_corpus("x", lacking, [wild], by="anchor", k=5)


def test_another_feature_key_is_refused(tmp_path: Path, target: FeatureSet) -> None:
    other = wild_in(tmp_path, key=replace(KEY, weights="1" * 64))
    with pytest.raises(CacheError, match="one key"):
        build_corpus("x", target, [other], k=5)


def test_a_damaged_source_is_told_and_nothing_is_stored(tmp_path: Path, target: FeatureSet) -> None:
    cache = Cache.open(wild_in(tmp_path).path)
    (line,) = cache.shards["global"]
    path = cache.path / "global" / line.file
    data = bytearray(path.read_bytes())
    data[line.facts.offset + 100] ^= 1
    path.write_bytes(data)
    damaged = Cache.open(cache.path).feature_set()
    with pytest.raises(CorruptCacheError, match=path.name):
        build_corpus("x", target, [damaged], k=5)
    assert "x" not in corpus_names(target.path)


def test_an_unlabelled_split_holds_no_query_images(tmp_path: Path) -> None:
    values, labels = near_centres(11, 60)
    labels[40:] = -1
    splits = {"train": range(20), "test": range(20, 40), "more": range(40, 60)}
    target = make_cache(tmp_path, "toys", values, labels, splits, texts=bank())
    report = build_corpus("x", target, [Origin(features=target, splits=("more",))], k=4)
    assert not report.leaks
    assert report.facts["equal_images"] == 0


def test_query_images_without_features_are_told(tmp_path: Path, wild: FeatureSet) -> None:
    splits = {"train": range(20), "test": range(20, 60)}
    part = make_cache(tmp_path, "toys", *near_centres(11, 60), splits, texts=bank(), limit=50)
    with pytest.raises(MissingComponentError, match=r"10 of 40 query.*featcache.extract"):
        build_corpus("x", part, [wild], k=4)


def test_sources_are_named(root: Path, target: FeatureSet, wild: FeatureSet) -> None:
    whole, part = open_origins(root, ["wild", "toys:train", "toys:val"], target)
    assert (whole.features.path, whole.splits) == (wild.path, ())
    assert part.splits == ("train", "val")
    assert part.guarded(target) == ("val",)
    with pytest.raises(UsageError, match="NAME:SPLIT"):
        open_origins(root, [":train"], target)
    with pytest.raises(UsageError, match="no data set"):
        open_origins(root, [], target)
    with pytest.raises(UnknownNameError, match="wild"):
        open_origins(root, ["wlid"], target)
    with pytest.raises(UsageError, match=r"after a colon.*Did you mean 'toys:train'"):
        open_origins(root, ["toys@train"], target)
    other = replace(target, key=replace(KEY, weights="1" * 64))
    with pytest.raises(CacheError, match=r"one key.*featcache.extract\(dataset='wild'"):
        open_origins(root, ["wild"], other)


def test_a_corpus_that_no_longer_fits_is_refused(tmp_path: Path, wild: FeatureSet) -> None:
    target = target_in(tmp_path)
    build_corpus("old", target, [wild], k=5)
    cache = Cache.open(target.path)
    listing = cache.listing()
    assert listing is not None
    cache.put_listing(replace(listing, classes=("ant", "cat", "bee")))
    with pytest.raises(
        CacheError, match=r"classes of toys have changed.*`featcache corpus build --again`"
    ):
        read_corpus(target.path, "old")
    rows = listing.splits["train"]
    cache.put_listing(replace(listing, splits={**listing.splits, "more": rows[:2]}))
    with pytest.raises(CacheError, match="query or validation images"):
        read_corpus(target.path, "old")


def test_a_corpus_by_image_is_refused_where_the_labels_of_its_shots_are_others(
    tmp_path: Path, wild: FeatureSet
) -> None:
    target = target_in(tmp_path)
    build_corpus("shots", target, [wild], by="image", shots=2, k=5)
    build_corpus("texts", target, [wild], k=5)
    listing = target.listing
    labels = listing.labels.copy()
    labels[listing.splits["train"]] = (labels[listing.splits["train"]] + 1) % len(CLASSES)
    Cache.open(target.path).put_listing(replace(listing, labels=labels))
    with pytest.raises(CacheError, match="labels have changed since the corpus 'shots'"):
        read_corpus(target.path, "shots")
    assert read_corpus(target.path, "texts").by == "class"  # reads no labels


def test_texts_that_changed_since_are_told(tmp_path: Path, wild: FeatureSet) -> None:
    target = target_in(tmp_path)
    build_corpus("words", target, [wild], k=5)
    root = wild.path.parent.parent
    told = "the texts of toys that chose its rows have changed"
    assert told not in describe_corpus(root, target.path, "words").changes
    other = bank()
    Cache.open(target.path).put_text(replace(other, templates=("one {}",)), {"featcache": "0"})
    assert told in describe_corpus(root, target.path, "words").changes
    assert read_corpus(target.path, "words").by == "class"
