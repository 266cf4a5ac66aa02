"""A search finds what a brute-force search finds, from every kind of query."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from featcache.errors import (
    CacheError,
    CorruptCacheError,
    FeatcacheError,
    MissingComponentError,
    TextsMissingError,
    UnknownNameError,
    UsageError,
)
from featcache.imaging.decode import UnreadableImageError
from featcache.retrieval import encode
from featcache.retrieval.encode import QueryEncoder, stored_text
from featcache.retrieval.search import search
from featcache.types import FeatureSet
from featcache.wording import in_python


@pytest.fixture
def cache(zoo: FeatureSet, backbone: Any, monkeypatch: pytest.MonkeyPatch) -> FeatureSet:
    monkeypatch.setattr(encode, "load_backbone", lambda *_, **__: backbone)
    return zoo


def brute(cache: FeatureSet, query: torch.Tensor) -> torch.Tensor:
    return cache.unit("global", np.arange(len(cache.listing))) @ query


def test_a_class_is_its_anchor(cache: FeatureSet) -> None:
    assert cache.text is not None
    found = search(class_name="bee", caches=cache, k=5)
    expected = brute(cache, cache.text.anchors()[1]).sort(descending=True)
    assert [hit.row for hit in found.hits] == expected.indices[:5].tolist()
    assert [hit.cosine for hit in found.hits] == pytest.approx(expected.values[:5].tolist())
    for hit in found.hits:
        assert hit.id == cache.listing.ids[hit.row]
        assert hit.class_name == cache.classes[cache.labels[hit.row]]
        assert hit.row in cache.listing.rows(hit.split)
    assert search(class_name=1, caches=cache, k=5).hits == found.hits
    assert (found.searched, found.kind, found.query.value) == (22, "global", "bee")


def test_an_image_is_the_row_of_the_pass(cache: FeatureSet) -> None:
    for row in (0, 9, 21):
        path = Path(cache.listing.root) / cache.listing.ids[row]
        image = QueryEncoder(cache).image(path)
        assert torch.equal(image, cache.unit("global", np.array([row]))[0])
        for given in ({"query": str(path)}, {"image": path}, {"image": path.read_bytes()}):
            found = search(**given, caches=cache, k=2)
            assert found.hits[0].row == row
            assert found.hits[0].cosine == pytest.approx(1)


@pytest.mark.parametrize("patches", [False, True])
def test_a_row_is_left_out_itself(cache: FeatureSet, patches: bool) -> None:
    name = cache.listing.ids[4]
    every = len(cache.listing) * (4 if patches else 1)
    notes: list[Any] = []
    found = search(row=name, caches=cache, k=1000, patches=patches, say=notes.append)
    assert len(found) == every - (4 if patches else 1)
    assert 4 not in {hit.row for hit in found.hits}
    assert "Fewer than k=1000" in in_python(notes)
    cosines = [hit.cosine for hit in found.hits]
    assert cosines == sorted(cosines, reverse=True)
    if not patches:
        query = cache.unit("global", np.array([4]))[0]
        assert cosines == pytest.approx(
            brute(cache, query).sort(descending=True).values[1:].tolist()
        )


def test_patches_have_a_place_and_a_box(cache: FeatureSet) -> None:
    found = search(class_name=0, caches=cache, k=8, patches=True)
    assert found.searched == 4 * 22
    for hit in found.hits:
        assert hit.patch is not None
        number, box = hit.patch.number, hit.patch.box
        assert (hit.patch.row, hit.patch.column) == divmod(number, 2)
        unit = cache.unit("patches.clearclip", np.array([hit.row]))[0, number]
        assert cache.text is not None
        assert hit.cosine == pytest.approx(float(unit @ cache.text.anchors()[0]), abs=1e-6)
        with Image.open(Path(cache.listing.root) / hit.id) as image:
            width, height = image.size
        assert box is not None
        assert (box[0] >= width // 2 - 1) == (number % 2 == 1)
        assert (box[1] >= height // 2 - 1) == (number // 2 == 1)
        assert hit.to_json()["box"] == list(box)


def test_a_split_is_searched_alone(cache: FeatureSet) -> None:
    found = search(class_name=0, caches=cache, split="val", k=20)
    assert {hit.row for hit in found.hits} == set(cache.listing.rows("val").tolist())
    assert {hit.split for hit in found.hits} == {"val"}
    with pytest.raises(UnknownNameError, match="did you mean 'val'"):
        search(class_name=0, caches=cache, split="vla")


def test_stored_texts_need_no_tower(cache: FeatureSet, backbone: Any) -> None:
    bank = cache.text
    assert bank is not None
    template = bank.templates[0].replace("{}", "cat")
    for text in ("cat", template):
        stored = stored_text(bank, text)
        assert stored is not None
        fresh = torch.nn.functional.normalize(backbone.encode_texts([text])[0], dim=-1)
        assert torch.allclose(stored, fresh, atol=1e-6)
    assert stored_text(bank, "a photo of a dog.") is None
    backbone.lacks_texts = TextsMissingError("no tokenizer here")
    assert len(search(text=template, caches=cache)) == 20
    with pytest.raises(TextsMissingError, match="no tokenizer"):
        search(text="a photo of a dog.", caches=cache)


def test_other_texts_go_through_the_tower(cache: FeatureSet, backbone: Any) -> None:
    query = torch.nn.functional.normalize(backbone.encode_texts(["a dog"])[0], dim=-1)
    notes: list[Any] = []
    found = search("a dog", caches=cache, k=3, say=notes.append)
    best = brute(cache, query).sort(descending=True)
    assert [hit.row for hit in found.hits] == best.indices[:3].tolist()
    assert notes == []
    search("a dog" * 50, caches=cache, k=3, say=notes.append)
    assert "was cut" in in_python(notes)


def test_several_caches_are_one(cache: FeatureSet, zoo_home: Path) -> None:
    found = search(class_name=0, caches=["zoo", "other"], k=6, root=zoo_home)
    assert {hit.dataset for hit in found.hits} == {"zoo", "other"}
    assert [hit.cosine for hit in found.hits[::2]] == [hit.cosine for hit in found.hits[1::2]]
    with pytest.raises(UsageError, match="both"):
        search(class_name=0, caches=[cache, "other"])


def test_patches_of_one_variant_are_compared(cache: FeatureSet, zoo_home: Path) -> None:
    with pytest.raises(MissingComponentError, match="no patches of clearclip"):
        search(class_name=0, caches=["zoo", "other"], patches=True, root=zoo_home)


def test_other_weights_are_refused(cache: FeatureSet, backbone: Any) -> None:
    other = replace(cache, key=replace(cache.key, weights="random-1"))
    with pytest.raises(CacheError, match="one key"):
        search(class_name=0, caches=[cache, other])
    with pytest.raises(CacheError, match=r"other weights .* weights"):
        search("a dog", caches=other)


def test_another_tokenizer_is_refused(cache: FeatureSet, backbone: Any) -> None:
    backbone.tokenizer = "ab" * 32
    with pytest.raises(CacheError, match="another tokenizer"):
        search("a dog", caches=cache)


def test_imported_features_are_searched_by_row(cache: FeatureSet) -> None:
    imported = replace(cache, key=replace(cache.key, image_size=0), text=None)
    assert len(search(row=cache.listing.ids[0], caches=imported)) == 20
    with pytest.raises(FeatcacheError, match="imported features"):
        search("a dog", caches=imported)
    with pytest.raises(FeatcacheError, match="imported features"):
        search(image=b"GIF", caches=imported)
    with pytest.raises(MissingComponentError, match="has no texts"):
        search(class_name=0, caches=imported)


def test_a_cache_that_lies_about_its_encoder_is_refused(cache: FeatureSet) -> None:
    for encoding in (
        {"micro_batch": "4", "compute": "float8"},
        {"micro_batch": "-4", "compute": "float32"},
    ):
        with pytest.raises(CorruptCacheError, match="which no pass has"):
            search("a dog", caches=replace(cache, encoding=encoding))


def test_what_cannot_be_searched(cache: FeatureSet, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="k must be"):
        search(class_name=0, caches=cache, k=0)
    with pytest.raises(UnreadableImageError, match="no image of a known format"):
        search(image=b"no image", caches=cache)
    with pytest.raises(UsageError, match="no image file"):
        search(image=tmp_path / "none.jpg", caches=cache)
    ok = cache.ok.copy()
    ok[3] = False
    with pytest.raises(UsageError, match="could not be read when it was encoded"):
        search(row=cache.listing.ids[3], caches=replace(cache, ok=ok))
    with pytest.raises(UsageError, match="nothing to search"):
        search(class_name=0, caches=replace(cache, ok=np.zeros_like(ok)))
    bare = replace(cache, components={"global": cache.components["global"]})
    with pytest.raises(MissingComponentError, match="no patches"):
        search(class_name=0, caches=bare, patches=True)
