"""A head asked about caches and photographs: the same answers with a cache and without one."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from featcache import embedding
from featcache.embedding import Embedder, embed
from featcache.errors import HeadError, SourceError, UnknownNameError, UsageError
from featcache.pipeline.run import Request, extract
from featcache.store.cache import Cache
from featcache.types import FeatureSet
from heads.answering import encoded_by
from heads.api import fit
from heads.estimator import Estimator
from heads.head import Head
from tests.heads.photographs import BATCH, extracted

pytestmark = pytest.mark.long


@pytest.fixture(scope="module", autouse=True)
def small_batches() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(embedding, "micro_batch_for", lambda *_: BATCH)
        yield


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> FeatureSet:
    """Photographs of two classes through a real pass with the embedded model, with crops."""
    splits = {"train": 4, "val": 2, "test": 5}
    home = tmp_path_factory.mktemp("world")
    return extracted(home, ("ant", "bee"), splits, torn=True, crops=("4:lazsl@all",))


def paths(cache: FeatureSet, split: str) -> list[Path]:
    return [Path(cache.listing.root) / cache.listing.ids[r] for r in cache.listing.rows(split)]


@pytest.fixture(scope="module", params=["ridge", "tip-adapter", "lazsl"])
def head(request: pytest.FixtureRequest, cache: FeatureSet) -> Head:
    return fit(request.param, cache, shots=2, selection="none", device="cpu")


def test_a_photograph_answers_the_same_with_a_cache_and_without(
    cache: FeatureSet, head: Head, tmp_path: Path
) -> None:
    stored = head.logits(cache, split="val")
    files = paths(cache, "val")
    assert stored.shape == (4, 2)
    given: list[Any] = [
        files,
        [str(path) for path in files],
        (path.read_bytes() for path in files),
        Embedder("tiny", components=head.reads).embed(files),
    ]
    for images in given:
        assert torch.equal(head.logits(images), stored)
    assert torch.equal(head.predict(files), head.predict(cache, split="val"))
    assert torch.equal(head.probabilities(files), head.probabilities(cache, split="val"))
    again = Head.load(head.save(tmp_path / "kept.head"))
    assert torch.equal(again.logits(files), stored)
    one = again.logits(files[0])
    assert one.shape == (1, 2)
    assert torch.allclose(one, stored[:1], atol=1e-4)


def test_pixels_answer_as_their_file(cache: FeatureSet) -> None:
    head = fit("ridge", cache, shots=2, selection="none", device="cpu")
    files = paths(cache, "val")
    images = [Image.open(path) for path in files]
    expected = head.logits(cache, split="val")
    assert torch.equal(head.logits(images), expected)
    assert torch.equal(head.logits([np.asarray(image) for image in images]), expected)


def test_only_usable_rows_of_a_split_are_answered(cache: FeatureSet, head: Head) -> None:
    usable = cache.usable("test")
    assert len(usable) == 10
    assert torch.equal(head.logits(cache), head.logits(cache, split="test"))
    files = [Path(cache.listing.root) / cache.listing.ids[r] for r in usable]
    assert torch.equal(head.logits(files), head.logits(cache))
    with pytest.raises(UnknownNameError, match="nowhere"):
        head.predict(cache, split="nowhere")


def test_an_unreadable_image_is_an_error_unless_asked(cache: FeatureSet, head: Head) -> None:
    files = paths(cache, "test")
    torn = [i for i, path in enumerate(files) if path.name == "torn.jpg"]
    assert len(torn) == 1
    for call in (head.predict, head.logits, head.probabilities):
        with pytest.raises(
            SourceError, match=r"1 of 11 images cannot be used: .*torn\.jpg .*strict"
        ):
            call(files)
    labels = head.predict(files, strict=False)
    logits = head.logits(files, strict=False)
    assert labels[torn].tolist() == [-1]
    assert torch.isnan(logits[torn]).all()
    sound = [i for i in range(len(files)) if i not in torn]
    assert torch.equal(logits[sound], head.logits(cache))
    assert torch.equal(labels[sound], head.predict(cache))
    assert head.predict([b"nothing"], strict=False).tolist() == [-1]
    assert torch.isnan(head.logits([b"nothing"], strict=False)).all()
    assert head.predict([]).shape == (0,)
    assert head.probabilities([]).shape == (0, 2)


def test_features_of_another_kind_are_refused(cache: FeatureSet, head: Head) -> None:
    other = replace(cache.key, weights="1" * 64)
    with pytest.raises(HeadError, match="has key"):
        head.predict(replace(cache, key=other))
    changed = replace(head, key=other)
    with pytest.raises(HeadError, match="backbone tiny as it is here has key"):
        changed.predict(paths(cache, "val"))
    found = Embedder("tiny", components=head.reads).embed(paths(cache, "val"))
    with pytest.raises(HeadError, match="what was embedded has key"):
        changed.predict(found)


def test_the_key_is_checked_before_images_are_read(
    cache: FeatureSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    head = fit("ridge", cache, shots=2, selection="none", device="cpu")

    def read(*_: object, **__: object) -> None:
        raise AssertionError("an image was read")

    monkeypatch.setattr(embedding.Embedder, "embed", read)
    with pytest.raises(HeadError, match="has key"):
        replace(head, key=replace(cache.key, weights="1" * 64)).predict(paths(cache, "val"))


def test_the_weights_of_training_are_taken(
    cache: FeatureSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    head = fit("ridge", cache, shots=2, selection="none", device="cpu")
    other = replace(head, about={**head.about, "weights": "random"})
    with pytest.raises(HeadError, match=r"weights .* and random"):
        other.predict(paths(cache, "val"))


def test_images_are_encoded_at_the_size_of_training(cache: FeatureSet, tmp_path: Path) -> None:
    request = Request(
        dataset=f"folder:{cache.listing.root}",
        backbone="tiny",
        image_size=60,
        patches=("none",),
        root=tmp_path,
        micro_batch=BATCH,
        allow_bad=True,
    )
    large = Cache.open(extract(request).path).feature_set()
    head = fit("ridge", large, shots=2, selection="none", device="cpu")
    assert head.key is not None
    assert head.key.image_size == 60 != cache.key.image_size
    files = paths(large, "val")
    wanted = head.logits(large.rows("global", large.listing.rows("val")))
    assert torch.equal(head.logits(files), wanted)


def test_images_are_encoded_as_those_of_training(
    cache: FeatureSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Micro-batch and compute type decide the last bits, so a kept head records both."""
    head = fit("ridge", cache, shots=2, selection="none", device="cpu")
    files = paths(cache, "val")
    stored = head.logits(cache, split="val")
    compute = cache.encoding["compute"]
    assert head.about["encoding"] == {"micro_batch": str(BATCH), "compute": compute}

    def usual(*_: object) -> int:
        raise AssertionError("the micro-batch of a new pass was taken")

    monkeypatch.setattr(embedding, "micro_batch_for", usual)
    again = Head.load(head.save(tmp_path / "kept.head"))
    assert torch.equal(again.logits(files), stored)
    for encoding in ({"micro_batch": "-4", "compute": compute}, {"micro_batch": "4"}, "4", [4]):
        with pytest.raises(HeadError, match="with which micro-batch and compute type"):
            replace(head, about={**head.about, "encoding": encoding}).logits(files)


def test_heads_that_do_not_record_it_encode_as_a_new_pass(cache: FeatureSet) -> None:
    head = fit("ridge", cache, shots=2, selection="none", device="cpu")
    older = {name: value for name, value in head.about.items() if name != "encoding"}
    logits = replace(head, about=older).logits(paths(cache, "val"))
    assert torch.allclose(logits, head.logits(cache, split="val"), atol=1e-3)


def test_what_lacks_something_is_refused(cache: FeatureSet) -> None:
    lazsl = fit("lazsl", cache, shots=2, selection="none", device="cpu")
    assert lazsl.reads == ("crops.lazsl-4",)
    with pytest.raises(HeadError, match=r"reads crops\.lazsl of every image"):
        lazsl.predict(embed(paths(cache, "val")))
    plain = Estimator("ridge").fit(np.eye(4), [0, 0, 1, 1]).head_
    with pytest.raises(HeadError, match="trained on plain arrays, so nothing says how"):
        plain.predict(paths(cache, "val"))
    with pytest.raises(UsageError, match="split='val' is for a cache; got Tensor"):
        plain.predict(torch.eye(4), split="val")
    assert plain.predict(np.eye(4)).tolist() == [0, 0, 1, 1]


def test_a_backbone_of_another_architecture_is_refused_before_it_is_loaded(
    cache: FeatureSet,
) -> None:
    head = fit("ridge", cache, shots=2, selection="none", device="cpu")
    with pytest.raises(HeadError, match=r"features of tiny, and ViT-B/32 is ViT-B-32-quickgelu"):
        encoded_by(head, "ViT-B/32")
