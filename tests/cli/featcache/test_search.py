"""`featcache search`: tables, JSON and sheets of what is nearest."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from featcache.store.cache import Cache

Run = Callable[..., Any]


def hits(answer: Any) -> list[dict[str, Any]]:
    assert answer.code == 0, answer.err
    return [json.loads(line) for line in answer.out.splitlines()]


def test_a_row_finds_its_neighbours(featcache: Run, home: Path, photos: Path) -> None:
    found = hits(featcache("search", "--row", "lime/3.png", "-k", "5", "--json", "--quiet"))
    assert [hit["rank"] for hit in found] == [1, 2, 3, 4, 5]
    assert "lime/3.png" not in {hit["id"] for hit in found}
    assert {hit["dataset"] for hit in found} == {"blobs"}
    cosines = [hit["cosine"] for hit in found]
    assert cosines == sorted(cosines, reverse=True)
    (path,) = (home / "blobs").glob("tiny-*")
    cache = Cache.open(path).feature_set()
    every = cache.unit("global", np.arange(len(cache.listing)))
    best = (every @ every[cache.listing.ids.index("lime/3.png")]).sort(descending=True)
    assert [hit["row"] for hit in found] == best.indices[1:6].tolist()


def test_an_image_finds_itself_and_a_table_says_so(
    featcache: Run, home: Path, photos: Path
) -> None:
    answer = featcache("search", str(photos / "rust" / "2.png"), "-k", "2")
    head, first, _ = (line.split("\t") for line in answer.out.splitlines())
    assert head == ["", "cosine", "id", "class", "split"]
    assert first[:4] == ["1", "1.0000", "rust/2.png", "rust"]
    assert "2 nearest to the image " in answer.err
    assert "of 30 images of blobs with tiny, exact search; the newest cache, --in" in answer.err


def test_a_class_is_said_by_its_name(featcache: Run, home: Path) -> None:
    answer = featcache("search", "--class", "0", "-k", "2", "--in", "blobs")
    name = Cache.open(next((home / "blobs").glob("tiny-*"))).feature_set().classes[0]
    assert f"2 nearest to the class '{name}' of 30 images of blobs with tiny, exact search." in (
        answer.err
    )


def test_patches_and_a_sheet(featcache: Run, home: Path, tmp_path: Path) -> None:
    for name in ("a.html", "a.png"):
        sheet = tmp_path / name
        sheet.write_text("old")
        answer = featcache("search", "--class", "1", "--patches", "-k", "3", "--sheet", str(sheet))
        assert answer.code == 0, answer.err
        assert "old" not in sheet.read_bytes()[:8].decode("latin1")
        assert str(sheet) in answer.err
    assert (tmp_path / "a.html").read_text().count('class="box"') == 3
    found = hits(featcache("search", "--class", "lime", "--patches", "-k", "3", "--json"))
    for hit in found:
        left, top, right, bottom = hit["box"]
        assert 0 <= left < right <= 48
        assert 0 <= top < bottom <= 40
        assert (hit["patch"]["row"], hit["patch"]["column"]) == divmod(
            hit["patch"]["number"], hit["patch"]["grid"]
        )


def test_more_than_there_are_is_said(featcache: Run, home: Path) -> None:
    answer = featcache("search", "a photo of a plum.", "-k", "500", "--in", "blobs/tiny")
    assert len(answer.out.splitlines()) == 31
    assert "Fewer than --k 500" in answer.err


@pytest.mark.parametrize("given", [(), ("a", "--class", "lime"), ("--row", "x", "--text", "y")])
def test_one_query_is_needed(featcache: Run, home: Path, given: tuple[str, ...]) -> None:
    answer = featcache("search", *given)
    assert (answer.code, answer.out) == (2, "")
    assert "--class or --row" in answer.err
