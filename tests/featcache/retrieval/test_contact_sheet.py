"""Sheets of what was found: the listed images, or the reason why one is missing."""

import hashlib
import re
import shutil
import tracemalloc
import zipfile
from base64 import b64decode
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from featcache.errors import UsageError
from featcache.imaging.decode import UnreadableImageError
from featcache.pages.sheet import to_html
from featcache.retrieval import contact_sheet
from featcache.retrieval.originals import Originals
from featcache.retrieval.search import search
from featcache.store.cache import Cache
from featcache.types import FeatureSet


@pytest.fixture
def own(zoo: FeatureSet, tmp_path: Path) -> FeatureSet:
    """The cache beside a copy of its images, which this test may change."""
    shutil.copytree(zoo.listing.root, tmp_path / "copy")
    return replace(zoo, listing=replace(zoo.listing, root=str(tmp_path / "copy")))


def test_tiles_are_what_was_found(zoo: FeatureSet) -> None:
    found = search(class_name=0, caches=zoo, k=4)
    sheet = found.sheet()
    assert [t.id for t in sheet.tiles] == [hit.id for hit in found.hits]
    assert (sheet.kind, sheet.title) == ("Class", "ant")
    for tile in sheet.tiles:
        assert tile.thumbnail is not None
        with Image.open(Path(zoo.listing.root) / tile.id) as image:
            original = np.asarray(image.convert("RGB"), dtype=float)
        assert (tile.thumbnail.height, tile.thumbnail.width) == original.shape[:2]
        shown = np.asarray(Image.open(BytesIO(tile.thumbnail.jpeg)), dtype=float)
        assert np.abs(shown - original).mean() < 12


def test_patches_of_an_image_share_a_tile(zoo: FeatureSet) -> None:
    found = search(class_name=0, caches=zoo, k=12, patches=True)
    tiles = found.sheet().tiles
    assert sorted(rank for tile in tiles for rank in tile.ranks) == list(range(1, 13))
    assert len({tile.id for tile in tiles}) == len(tiles)
    for tile in tiles:
        assert [mark.rank for mark in tile.marks] == list(tile.ranks)
        for mark in tile.marks:
            hit = found.hits[mark.rank - 1]
            assert hit.patch is not None
            assert mark.box == hit.patch.box
    assert to_html(found.sheet()).count('class="box"') == 12


def test_the_query_is_on_top(zoo: FeatureSet, tmp_path: Path) -> None:
    sheet = search(row=zoo.listing.ids[0], caches=zoo, k=2).sheet()
    assert sheet.thumbnail is not None
    page = search(row=zoo.listing.ids[0], caches=zoo, k=2).save_sheet(tmp_path / "a.html")
    uris = re.findall(r'src="data:image/jpeg;base64,([^"]+)"', page.read_text())
    assert len(uris) == 3
    assert b64decode(uris[0]) == sheet.thumbnail.jpeg


def test_images_in_an_archive_are_shown(ask: Any, folder: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "zoo.zip", "w") as archive:
        for file in sorted(folder.rglob("*.*")):
            archive.write(file, file.relative_to(folder))
    cache = Cache.open(ask(dataset=f"zip:{tmp_path}/zoo.zip", name="zipped").path).feature_set()
    tiles = search(class_name=0, caches=cache, k=3).sheet().tiles
    assert all(tile.thumbnail for tile in tiles)


@pytest.mark.long
def test_images_of_a_list_are_shown(ask: Any, folder: Path, tmp_path: Path) -> None:
    files = sorted(folder.rglob("*.jpg"))
    (tmp_path / "list.csv").write_text(
        "path,label\n" + "".join(f"{f},{f.parent.name}\n" for f in files)
    )
    cache = Cache.open(ask(dataset=f"csv:{tmp_path}/list.csv", name="listed").path).feature_set()
    assert cache.listing.spec
    assert all(tile.thumbnail for tile in search(class_name=0, caches=cache, k=3).sheet().tiles)


def test_other_bytes_are_never_shown(zoo: FeatureSet, tmp_path: Path) -> None:
    """A cache of a stranger may name any file; only what was listed may go into a page."""
    secret = tmp_path / "secret"
    (secret / "test" / "ant").mkdir(parents=True)
    Image.new("RGB", (50, 50), "red").save(secret / "test" / "ant" / "0.jpg")
    row = zoo.listing.ids.index("test/ant/0.jpg")
    lying = replace(zoo, listing=replace(zoo.listing, root=str(secret)))
    with pytest.raises(UnreadableImageError, match="has changed"):
        Originals([lying]).pixels(0, row)
    outside = list(zoo.listing.ids)
    outside[row] = "../zoo/test/ant/0.jpg"
    lying = replace(zoo, listing=replace(zoo.listing, root=str(secret), ids=outside))
    with pytest.raises(UnreadableImageError, match="no longer in"):
        Originals([lying]).pixels(0, row)


def test_missing_images_leave_a_reason(own: FeatureSet) -> None:
    everything = search(class_name=0, caches=own, k=200, patches=True)
    first, second = list(dict.fromkeys(hit.id for hit in everything.hits))[:2]
    (Path(own.listing.root) / first).unlink()
    (Path(own.listing.root) / second).write_bytes(b"changed")
    found = search(class_name=0, caches=own, k=200, patches=True)
    problems = {tile.id: tile.problem for tile in found.sheet().tiles if tile.problem}
    assert problems.keys() == {first, second}
    assert "is no longer in" in problems[first]
    assert "has changed" in problems[second]
    lost = [hit.patch for hit in found.hits if hit.id == first]
    assert len(lost) == 4
    assert all(p is not None and p.box is None and "no longer" in p.problem for p in lost)


def test_a_root_that_is_gone_leaves_a_reason(own: FeatureSet) -> None:
    shutil.rmtree(own.listing.root)
    sheet = search(row=own.listing.ids[0], caches=own, k=2).sheet()
    assert sheet.thumbnail is None
    assert all("which is gone" in tile.problem for tile in sheet.tiles)
    assert "which is gone" in to_html(sheet)


def test_imported_features_have_no_images(zoo: FeatureSet) -> None:
    imported = replace(zoo, key=replace(zoo.key, image_size=0))
    (tile, _) = search(row=zoo.listing.ids[0], caches=imported, k=2).sheet().tiles
    assert "only its features" in tile.problem


def test_a_sheet_has_bounds(zoo: FeatureSet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contact_sheet, "MOST", 3)
    with pytest.raises(UsageError, match=r"at most 3 images, and 4 were found. Lower k"):
        search(class_name=0, caches=zoo, k=4).sheet()


def test_an_image_bomb_is_named_and_not_unpacked(own: FeatureSet) -> None:
    """A cache of a stranger may list a file that would fill the memory, with its right hash."""
    row = own.listing.ids.index("test/ant/0.jpg")
    place = Path(own.listing.root) / own.listing.ids[row]
    Image.new("1", (30_000, 30_000)).save(place, "PNG")
    hashes = list(own.listing.hashes)
    hashes[row] = hashlib.sha256(place.read_bytes()).hexdigest()
    listed = replace(own, listing=replace(own.listing, hashes=hashes))
    tracemalloc.start()
    try:
        sheet = search(class_name=0, caches=listed, k=200).sheet()
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    (tile,) = [tile for tile in sheet.tiles if tile.id == listed.listing.ids[row]]
    assert tile.thumbnail is None
    assert "pixels" in tile.problem
    assert sum(t.thumbnail is not None for t in sheet.tiles) == len(sheet.tiles) - 1
    assert most < 64 * 2**20
