"""Texts of a cache over several passes: added, kept, replaced, and never at an image's cost."""

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from featcache.errors import CacheError, TextsMissingError
from featcache.pipeline import texts
from featcache.pipeline.texts import missing_texts
from featcache.pipeline.timeline import UNTIMED
from featcache.sources.base import Dataset
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


def test_prompts_are_added_kept_replaced_and_stay_where_classes_change(
    ask: Any, tmp_path: Path, folder: Path, make_picture: Any, seen: list[str]
) -> None:
    lines = tmp_path / "prompts.txt"
    lines.write_text("# of no class\na street.\n\n  a hat. \na street.\n")
    ask()
    seen.clear()
    added = ask(prompts=lines)
    assert seen == ["a street.", "a hat."]
    assert added.texts == {"prompt": 2}
    held = bank_of(added)
    assert held.sets["prompt"].texts == ("a street.", "a hat.")
    assert held.available() == ("name", "template")
    assert not ask().text
    (folder / "train" / "dog").mkdir()
    make_picture(77).save(folder / "train" / "dog" / "1.jpg")
    assert bank_of(ask()).sets["prompt"].texts == ("a street.", "a hat.")
    lines.write_text("a hat.\na tree.\n")
    seen.clear()
    replaced = bank_of(ask(prompts=lines))
    assert seen == ["a tree."]
    assert replaced.sets["prompt"].texts == ("a hat.", "a tree.")
    assert torch.equal(replaced.sets["prompt"].rows[0], held.sets["prompt"].rows[1])


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
    assert "No CuPL sentences for 'dog'; extract with some." in said


def test_lost_texts_are_mended_with_their_sets(
    ask: Any, words: Path, backbone: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from featcache.pipeline import repair as mend
    from featcache.store.repair.verify import repair

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


@pytest.fixture
def seen(backbone: Any, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Distinct sentences of every batch that goes through the text tower."""
    seen: list[str] = []
    real = backbone.encode_texts

    def count(texts: Sequence[str]) -> Tensor:
        seen.extend(dict.fromkeys(texts))
        rows: Tensor = real(texts)
        return rows

    monkeypatch.setattr(backbone, "encode_texts", count)
    return seen


def test_each_sentence_is_encoded_once(ask: Any, words: Path, seen: list[str]) -> None:
    ask(descriptions=words, dclip=words, cupl=words, waffle=0)
    assert len(seen) == len(set(seen))
    assert sum("which has six legs." in text for text in seen) == 1


def test_only_sentences_that_changed_are_encoded(ask: Any, words: Path, seen: list[str]) -> None:
    first = bank_of(ask(cupl=words))
    words.write_text('{"ant": ["six legs"], "bee": ["wings", "It stings."], "cat": ["a tail"]}')
    seen.clear()
    told: list[str] = []
    changed = ask(cupl=words, say=told.append)
    assert seen == ["It stings."]
    assert changed.texts == {"cupl": 1}
    assert "To encode: texts (cupl 1); all image features are there already." in told
    second = bank_of(changed)
    assert second.sets["cupl"].texts == ("six legs", "wings", "It stings.", "a tail")
    kept = torch.tensor([0, 1, 3])
    assert torch.equal(second.sets["cupl"].rows[kept], first.sets["cupl"].rows[kept])
    assert first.names is not None
    assert second.names is not None
    assert torch.equal(second.names, first.names)


def test_texts_of_before_come_back_without_the_tower(
    ask: Any, words: Path, seen: list[str]
) -> None:
    before = words.read_text()
    first = ask(cupl=words)
    words.write_text('{"ant": ["antennae"], "bee": ["fur"], "cat": ["whiskers"]}')
    ask(cupl=words)
    words.write_text(before)
    seen.clear()
    again = ask(cupl=words)
    assert not seen
    assert again.texts == {}
    assert bank_of(again).sets["cupl"].texts == ("six legs", "wings", "It hums.", "a tail")
    assert len(Cache.open(first.path).texts) == 2


def test_rows_of_other_versions_or_devices_are_not_used_again(
    ask: Any, words: Path, seen: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    ask()
    seen.clear()
    monkeypatch.setattr(
        texts, "environment", lambda _: {"torch": "0.1", "device": "cpu of another machine"}
    )
    assert ask(cupl=words).texts == {"name": 3, "template": 3, "cupl": 4}
    assert "ant" in seen


def test_damaged_texts_of_before_are_encoded_again(ask: Any, words: Path, seen: list[str]) -> None:
    old = ask()
    damaged = Cache.open(old.path).texts[-1].component
    ask(cupl=words)
    words.write_text('{"ant": ["six legs"], "bee": ["wings"], "cat": ["paws"]}')
    (old.path / damaged / "rows.h5").write_bytes(b"not a shard")
    seen.clear()
    ask(cupl=words)
    assert seen == ["paws"]


def test_forecast_and_pass_say_that_only_texts_are_missing(ask: Any, words: Path) -> None:
    ask()
    plan = ask(cupl=words, dry_run=True)
    assert plan.texts == {"cupl": 4}
    assert plan.sentences()[0] == (
        "Would encode the texts of zoo (cupl 4); all image features are there."
    )
    said: list[str] = []
    done = ask(cupl=words, say=said.append)
    assert "To encode: texts (cupl 4); all image features are there already." in said
    assert not any("nothing to encode" in text for text in said)
    assert done.sentences()[0] == (
        "Encoded the texts of zoo (cupl 4); all image features were there."
    )
    assert done.to_json()["text"] is True
    again = ask(dry_run=True)
    assert again.to_json()["text"] is False
    assert again.sentences()[0].startswith("Nothing to encode")


def test_texts_are_named_beside_images(ask: Any, words: Path) -> None:
    told = ask(cupl=words, dry_run=True).sentences()
    assert told[0].startswith("Would encode: about ")
    assert "Would encode the texts of zoo (name 3, template 3, cupl 4)." in told
    said: list[str] = []
    told = ask(cupl=words, say=said.append).sentences()
    assert told[0].startswith("Encoded 22 images")
    assert told[1] == "Encoded the texts of zoo (name 3, template 3, cupl 4)."
    assert any(s.endswith(" Texts too (name 3, template 3, cupl 4).") for s in said)


def test_other_classes_templates_and_defaults_are_new_texts(
    ask: Any, tmp_path: Path, backbone: Any
) -> None:
    cache = Cache.open(ask().path)
    bank, listing = cache.text(), cache.listing()
    assert bank is not None
    assert listing is not None
    data = Dataset(
        name="zoo",
        root=tmp_path,
        classes=bank.classes,
        samples=(),
        templates=bank.templates,
        default_text=bank.default,
    )
    assert missing_texts(cache, data, backbone) is None
    assert missing_texts(cache, replace(data, default_text="name"), backbone) == {}
    assert missing_texts(cache, replace(data, templates=("a {}", "the {}")), backbone) == {
        "template": 6
    }
    other = replace(data, classes=("ant", "bee", "dog"), waffle=("{}, xyz",))
    assert missing_texts(cache, other, backbone) == {"name": 1, "template": 1, "waffle": 3}
    assert missing_texts(None, other, backbone) == {"name": 3, "template": 3, "waffle": 3}


def test_texts_of_another_tokenizer_are_all_missing(ask: Any, backbone: Any) -> None:
    ask()
    backbone.tokenizer = "ab" * 32
    assert ask(dry_run=True).texts == {"name": 3, "template": 3}
    bank = Cache.open(ask().path).text()
    assert bank is not None
    assert bank.tokenizer == backbone.tokenizer
    assert ask(dry_run=True).texts is None
    backbone.tokenizer = ""
    assert ask(dry_run=True).texts == {}  # the first ones are still stored


def test_images_are_encoded_without_texts_which_are_added_later(ask: Any, backbone: Any) -> None:
    said: list[str] = []
    backbone.lacks_texts = TextsMissingError("Texts cannot be encoded: no transformers.")
    first = ask(say=said.append)
    assert said.count("Texts cannot be encoded: no transformers.") == 1
    assert first.encoded["global"] == 22
    assert Cache.open(first.path).text() is None
    backbone.lacks_texts = None
    second = ask()
    assert second.encoded.get("global", 0) == 0
    assert second.texts == {"name": 3, "template": 3}
    backbone.lacks_texts = TextsMissingError("Texts cannot be encoded: no transformers.")
    said.clear()
    assert ask(say=said.append).texts is None  # those that are there stay
    assert not any("transformers" in text for text in said)
    assert Cache.open(first.path).text() is not None


def test_a_cache_that_cannot_be_written_must_hold_the_texts(
    ask: Any, words: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = ask(dclip=words).path
    access = os.access
    monkeypatch.setattr(os, "access", lambda p, mode: not mode & os.W_OK and access(p, mode))
    held = ask(dclip=words, profile=True)
    assert not held.text
    assert held.profile is None
    assert held.verdict == UNTIMED
    says = rf"{path} lacks cupl 3 texts, waffle 90 texts and cannot be written\. .* root\."
    with pytest.raises(CacheError, match=says):
        ask(cupl=words, waffle=0)
    with pytest.raises(CacheError, match=r"lacks views\.rrc50-2 \d+ rows, cupl 3 texts and"):
        ask(cupl=words, views=["2"])


def test_texts_that_are_cut_are_counted_by_kind(ask: Any, tmp_path: Path) -> None:
    long = tmp_path / "long.json"
    long.write_text(f'{{"ant": ["{"x" * 300}", "short"], "bee": ["{"y" * 300}"], "cat": ["z"]}}')
    said: list[str] = []
    ask(cupl=long, dclip=long, say=said.append)
    told = "4 of 14 texts are longer than fake reads and were cut: cupl 2, dclip 2."
    assert told in said
