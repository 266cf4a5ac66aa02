"""Text sets of a cache: listed, chosen again without encoding, kept by later passes."""

from pathlib import Path
from typing import Any

import pytest

import featcache
from featcache.errors import UnknownNameError, UsageError
from featcache.pipeline.text_sets import stored_sets, use_texts
from featcache.store.cache import Cache


@pytest.fixture
def cache(ask: Any, tmp_path: Path) -> Cache:
    """Three text sets: of the data set, with cupl and waffle, and with other cupl."""
    ask(limit=3)
    file = tmp_path / "c.json"
    for text in ("a tail", "a nose"):
        file.write_text(f'{{"ant": ["{text}"], "bee": ["wings"], "cat": ["fur", "paws"]}}')
        path: Path = ask(cupl=file, waffle=0, limit=3).path
    return Cache.open(path)


def refuse(texts: object) -> Any:
    raise AssertionError(f"{texts} go through the tower")


def test_sets_are_listed_and_chosen_again(cache: Cache, ask: Any, backbone: Any) -> None:
    newest, middle, oldest = stored_sets(cache)
    assert [s.current for s in (newest, middle, oldest)] == [True, False, False]
    assert oldest.texts == {"name": 3, "template": 3}
    assert newest.texts == {"name": 3, "template": 3, "cupl": 4, "waffle": 90}
    bank = cache.text()
    assert bank is not None
    assert newest.digests == {kind: bank.digest(kind) for kind in bank.available()}
    assert newest.digests["cupl"] != middle.digests["cupl"]
    assert newest.usual == "template"
    waffle = cache.listing()
    assert waffle is not None
    chosen = use_texts(cache, middle.digest[:6])
    assert (chosen.digest, chosen.current) == (middle.digest, True)
    listing, bank = cache.listing(), cache.text()
    assert listing is not None
    assert bank is not None
    assert listing.sets["cupl"]["ant"] == ("a tail",)
    assert bank.sets["cupl"].texts == ("a tail", "wings", "fur", "paws")
    assert listing.waffle == waffle.waffle
    assert listing.own_texts == ("cupl", "waffle")
    backbone.encode_texts = refuse
    again = ask(limit=3)
    assert again.texts is None
    assert [s.digest for s in stored_sets(Cache.open(cache.path)) if s.current] == [middle.digest]
    use_texts(cache, oldest.digest)
    listing = cache.listing()
    assert listing is not None
    assert (listing.sets, listing.waffle, listing.own_texts) == ({}, (), ())
    assert ask(limit=3).texts is None
    # wrong digests
    with pytest.raises(UnknownNameError, match="text set 'zz'"):
        use_texts(cache, "zz")
    with pytest.raises(UsageError, match="3 text sets begin with ''"):
        use_texts(cache, "")
    # a damaged set is listed with its problem
    (cache.path / f"text.{newest.digest}" / "strings.json").write_text("{}")
    problem = next(s.problem for s in stored_sets(cache) if s.digest == newest.digest)
    assert "is not what was written" in problem


def test_prompts_go_and_come_back_with_their_set(cache: Cache, ask: Any, tmp_path: Path) -> None:
    lines = tmp_path / "p.txt"
    lines.write_text("a street.\n")
    cache = Cache.open(ask(prompts=lines, limit=3).path)
    with_prompts, *_, oldest = stored_sets(cache)
    bank = cache.text()
    assert bank is not None
    assert with_prompts.digests["prompt"] == bank.digest("prompt")
    use_texts(cache, oldest.digest)
    listing = cache.listing()
    assert listing is not None
    assert listing.prompts == ()
    use_texts(cache, with_prompts.digest)
    listing = cache.listing()
    assert listing is not None
    assert listing.prompts == ("a street.",)
    assert listing.own_texts == ("cupl", "prompts", "waffle")
    assert listing.count_texts()["prompt"] == 1
    assert ask(limit=3).texts is None


def test_a_stored_set_is_read_without_making_it_current(cache: Cache) -> None:
    newest, middle, oldest = (s.digest for s in stored_sets(cache))
    assert cache.feature_set().text_set == newest
    opened = featcache.open(cache.dataset, texts=middle[:6], root=cache.path.parents[1])
    assert opened.text is not None
    assert (opened.text_set, opened.text.sets["cupl"].texts[0]) == (middle, "a tail")
    assert opened.text.digest("cupl") == stored_sets(cache)[1].digests["cupl"]
    assert not getattr(cache.feature_set(oldest).text, "sets", None)
    assert [s.current for s in stored_sets(cache)] == [True, False, False]
    with pytest.raises(UnknownNameError) as unknown:
        cache.feature_set("zz")
    assert set(unknown.value.known) == {newest, middle, oldest}
    assert all(digest in str(unknown.value) for digest in (newest, middle, oldest))


def test_texts_of_other_classes_are_refused(
    cache: Cache, ask: Any, folder: Path, make_picture: Any
) -> None:
    (folder / "train" / "dog").mkdir()
    make_picture(77).save(folder / "train" / "dog" / "1.jpg")
    ask(limit=3)
    opened = Cache.open(cache.path)
    oldest = stored_sets(opened)[-1].digest
    for read in (lambda: use_texts(opened, oldest), lambda: opened.feature_set(oldest)):
        with pytest.raises(UsageError, match="are for 3 classes, and the data set now has 4"):
            read()
