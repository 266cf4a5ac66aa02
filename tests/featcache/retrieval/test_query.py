"""What is searched for and where: told apart, found by name, refused by a sentence."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from featcache.errors import FeatcacheError, UnknownNameError, UsageError
from featcache.keys import Listing
from featcache.retrieval.query import (
    check_count,
    check_encodable,
    label_of,
    one_query,
    open_caches,
    row_of,
)
from featcache.store.cache import Cache


def listing(name: str, *classes: str, ids: tuple[str, ...] = ("a/1.jpg", "b/2.jpg")) -> Listing:
    return Listing(
        dataset=name,
        root="/photos",
        classes=classes,
        ids=ids,
        hashes=("00" * 32,) * len(ids),
        labels=np.zeros(len(ids), dtype=np.int64),
        splits={"train": np.arange(len(ids))},
    )


BIRDS = listing("birds", "owl", "crane", "7", "owl")
TOOLS = listing("tools", "crane", "saw", ids=("b/2.jpg", "c/3.jpg"))


def test_a_file_is_an_image_and_all_else_a_text(tmp_path: Path) -> None:
    (file := tmp_path / "owl").touch()
    assert one_query(str(file)).kind == "image"
    assert one_query("owl").kind == "text"
    assert one_query("x" * 1000).kind == "text"  # too long for a path
    assert one_query("a\0b").kind == "text"
    assert one_query("~nobody-of-this-name/x").kind == "text"
    assert one_query(file).kind == "image"
    assert one_query(text=str(file)).kind == "text"
    assert one_query(image=str(file)).kind == "image"
    assert one_query(class_name=0).kind == "class"


@pytest.mark.parametrize(
    "given", [{}, {"text": "a", "row": "b"}, {"query": "a", "class_name": 0}, {"text": " "}]
)
def test_one_query_is_needed(given: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=r"one query|is empty"):
        one_query(**given)


def test_a_missing_image_is_no_text(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such file"):
        one_query(str(tmp_path / "owl.jpg"))
    assert one_query(text="owl.jpg").kind == "text"


def test_an_image_that_is_no_file_is_refused(tmp_path: Path) -> None:
    for given in (tmp_path / "owl.jpg", str(tmp_path / "owl"), tmp_path):
        with pytest.raises(UsageError, match=r"no image file .* Check the path, .* with text\."):
            one_query(image=given)
    with pytest.raises(UsageError, match="no image file"):
        one_query(tmp_path / "owl.jpg")


def test_a_long_text_is_refused() -> None:
    with pytest.raises(UsageError, match="at most 2000 characters"):
        one_query(text="a" * 2001)


@pytest.mark.parametrize("k", [0, -1, 10_001])
def test_k_has_bounds(k: int) -> None:
    with pytest.raises(UsageError, match=f"k must be 1 to 10000 .* got {k}"):
        check_count(k)


@pytest.mark.parametrize(
    ("wanted", "place"),
    [("crane", (0, 1)), ("saw", (1, 1)), ("7", (0, 2)), ("3", (0, 3)), (3, (0, 3)), ("1", (0, 1))],
)
def test_classes_by_name_then_by_label(wanted: str | int, place: tuple[int, int]) -> None:
    assert label_of(wanted, [BIRDS, TOOLS]) == place


def test_classes_that_are_not_there() -> None:
    with pytest.raises(UsageError, match=r"2 classes of birds .* class_name=0 or class_name=3"):
        label_of("owl", [BIRDS])
    with pytest.raises(UnknownNameError, match="did you mean 'crane'"):
        label_of("crnae", [BIRDS])
    for label in (4, "4", -1):
        with pytest.raises(UsageError, match="go from 0 to 3"):
            label_of(label, [BIRDS])


def test_rows_by_their_id() -> None:
    assert row_of("a/1.jpg", [BIRDS, TOOLS]) == (0, 0)
    assert row_of("c/3.jpg", [BIRDS, TOOLS]) == (1, 1)
    with pytest.raises(UsageError, match=r"several caches .* birds, tools"):
        row_of("b/2.jpg", [BIRDS, TOOLS])


def test_a_similar_id_is_suggested_among_many() -> None:
    many = listing("many", "x", ids=tuple(f"x/{i:05}.jpg" for i in range(3000)))
    with pytest.raises(UnknownNameError, match=r"did you mean 'x/02500.jpg'"):
        row_of("y/02500.jpg", [many])


def test_imported_features_have_no_encoder() -> None:
    check_encodable("text", False, "birds")
    with pytest.raises(FeatcacheError, match=r"no text can be encoded .* class_name or row"):
        check_encodable("text", True, "birds")


def test_names_of_caches(zoo_home: Path) -> None:
    (path,) = (zoo_home / "zoo").glob("fake-*")
    assert [c.dataset for c in open_caches([], zoo_home)] == ["other"]  # the newest
    assert [c.path for c in open_caches(["zoo"], zoo_home)] == [path]
    assert [c.path for c in open_caches(["zoo/fake"], zoo_home)] == [path]
    assert [c.dataset for c in open_caches(["zoo", "other"], zoo_home)] == ["zoo", "other"]
    with pytest.raises(UnknownNameError, match="zoo"):
        open_caches(["zo"], zoo_home)
    with pytest.raises(UnknownNameError, match="fake"):
        open_caches(["zoo/fkae"], zoo_home)
    with pytest.raises(UnknownNameError, match="zoo"):
        open_caches(["other", "zo"], zoo_home)
    with pytest.raises(UsageError, match="named twice"):
        open_caches(["zoo", "zoo"], zoo_home)
    with pytest.raises(UsageError, match="without its data set"):
        open_caches(["/fake"], zoo_home)
    with pytest.raises(UnknownNameError, match="key"):
        open_caches(["zoo"], zoo_home, "zz")


def test_the_second_cache_has_the_key_of_the_first(zoo_home: Path, tmp_path: Path) -> None:
    root = tmp_path / "cache"
    shutil.copytree(zoo_home, root)
    (kept,) = (root / "other").glob("fake-*")
    opened = Cache.open(kept)
    listing = opened.listing()
    assert listing is not None
    newer = Cache.create(root, "other", "fake", replace(opened.key, weights="random-1"))
    newer.put_listing(listing)
    newer.finish(components=[], images=0, seconds=0.0, complete=True)
    assert open_caches(["other"], root, newer.key.digest())[0].path == newer.path
    assert open_caches(["zoo", "other"], root)[1].path == kept
