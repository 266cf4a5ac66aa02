"""Texts of a cache over several passes: added, kept, replaced, and never at an image's cost."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor

from featcache.store.cache import Cache
from featcache.types import TextBank


def bank_of(summary: Any) -> TextBank:
    bank = Cache.open(summary.path).text()
    assert bank is not None
    return bank


@pytest.fixture
def words(tmp_path: Path) -> Path:
    path = tmp_path / "words.json"
    path.write_text('{"ant": ["six legs"], "bee": ["wings", "It hums."], "cat": ["a tail"]}')
    return path


def test_further_sets_are_added_kept_and_replaced(ask: Any, words: Path, backbone: Any) -> None:
    first = ask()
    images = len(backbone.batches)
    added = ask(cupl=words, waffle=0)
    assert added.text
    assert added.encoded == {}
    assert len(backbone.batches) == images
    held = bank_of(added)
    assert held.available() == ("name", "template", "cupl", "waffle")
    assert held.sets["cupl"].texts == ("six legs", "wings", "It hums.", "a tail")
    again = ask()
    assert not again.text
    more = ask(dclip=words)
    assert list(bank_of(more).sets) == ["cupl", "dclip", "waffle"]
    assert bank_of(more).sets["dclip"].texts[0] == "ant, which has six legs."
    assert bank_of(more).sets["waffle"].texts == held.sets["waffle"].texts
    assert not ask(waffle=0).text
    assert ask(waffle=1).text
    assert bank_of(more).sets["waffle"].texts != held.sets["waffle"].texts
    assert first.path == more.path


def test_a_new_class_is_in_the_waffle_and_missed_in_the_rest(
    ask: Any, words: Path, folder: Path, make_picture: Any
) -> None:
    ask(cupl=words, waffle=0)
    before = Cache.open(ask().path).listing()
    (folder / "train" / "dog").mkdir()
    make_picture(77).save(folder / "train" / "dog" / "1.jpg")
    said: list[str] = []
    summary = ask(say=said.append)
    listing = Cache.open(summary.path).listing()
    assert before is not None
    assert listing is not None
    assert listing.waffle == before.waffle
    assert bank_of(summary).available() == ("name", "template", "waffle")
    assert "No CuPL sentences for 'dog'; give some with --cupl." in said


def test_lost_texts_are_mended_with_their_sets(
    ask: Any, words: Path, backbone: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from featcache.pipeline import mend
    from featcache.store.verify import repair

    path = ask(dclip=words, waffle=2).path
    before = Cache.open(path).text()
    rows = next(path.glob("text.*/rows.h5"))
    rows.write_bytes(rows.read_bytes()[:-1])
    repair(path)
    monkeypatch.setattr(mend, "load_backbone", lambda *_, **__: backbone)
    assert mend.mend(path).text
    after = Cache.open(path).text()
    assert before is not None
    assert after is not None
    assert {k: s.texts for k, s in after.sets.items()} == {
        k: s.texts for k, s in before.sets.items()
    }


def test_each_sentence_is_encoded_once(
    ask: Any, words: Path, backbone: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []
    real = backbone.encode_texts

    def count(texts: Sequence[str]) -> Tensor:
        seen.extend(texts)
        rows: Tensor = real(texts)
        return rows

    monkeypatch.setattr(backbone, "encode_texts", count)
    ask(descriptions=words, dclip=words, cupl=words, waffle=0)
    assert len(seen) == len(set(seen))
    assert sum("which has six legs." in text for text in seen) == 1
