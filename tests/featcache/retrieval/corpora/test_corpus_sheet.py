"""The contact sheet of a corpus: which images it shows, and what it says where they are others."""

import shutil
from pathlib import Path

import numpy as np

from featcache.pages.sheet import MOST
from featcache.retrieval.corpora.build import build_corpus
from featcache.retrieval.corpora.sheet import corpus_sheet
from featcache.store.cache import Cache
from featcache.store.corpora import put_corpus, read_corpus
from featcache.store.format.corpus_file import CorpusArrays, CorpusRecord
from tests.featcache.retrieval.corpora.worlds import (
    CLASSES,
    KEY,
    make_cache,
    near_centres,
    target_in,
    wild_in,
)


def test_rows_of_a_source_that_was_made_again_are_no_images_of_the_corpus(tmp_path: Path) -> None:
    target, wild = target_in(tmp_path), wild_in(tmp_path)
    build_corpus("old", target, [wild], k=4)
    sheet = corpus_sheet(tmp_path, target.path, "old")
    tiles = sheet.tiles
    assert [section.title for section in sheet.sections] == list(target.classes)
    assert {section.facts[0] for section in sheet.sections} == {"4 rows"}
    assert [tile.ranks for tile in tiles] == [(1,), (2,), (3,), (4,)] * len(CLASSES)
    assert all(tile.id.endswith(".jpg") for tile in tiles)
    shutil.rmtree(wild.path)
    values, labels = near_centres(77, 300)
    make_cache(tmp_path, "wild", values, labels, {"train": range(300)})
    tiles = corpus_sheet(tmp_path, target.path, "old").tiles
    assert {tile.problem for tile in tiles} == {
        "is no longer the image of this row: the cache was made again"
    }


def test_more_classes_than_a_sheet_holds_are_said(tmp_path: Path) -> None:
    target, wild = target_in(tmp_path), wild_in(tmp_path)
    build_corpus("few", target, [wild], k=2)
    few, _ = read_corpus(target.path, "few")
    n = MOST + 20
    fields = {**few.__dict__, "name": "many", "rows": n, "classes": n}
    arrays = CorpusArrays(
        values=np.ones((n, few.dim), dtype=few.dtype),
        labels=np.arange(n, dtype=np.int64)[::-1].copy(),
        cosines=np.ones(n, dtype=np.float32),
        source=np.zeros(n, dtype=np.int32),
        row=np.zeros(n, dtype=np.int64),
        part=np.zeros(n, dtype=np.int32),
    )
    put_corpus(Cache.open(target.path), CorpusRecord(**fields), arrays)
    sheet = corpus_sheet(tmp_path, target.path, "many")
    assert [tile.title for tile in sheet.tiles[3:6]] == ["class 3", "class 4", "class 5"]
    assert len(sheet.tiles) == MOST
    assert [section.title for section in sheet.sections] == [""]
    assert any(f"{MOST} of {n} classes" in fact for fact in sheet.facts)
    assert few.key == KEY.digest()
