import json

import pytest
import torch

from featcache.backbones.tiny import tokenizer as module
from featcache.backbones.tiny.tokenizer import WORDS, TinyTokenizer
from featcache.backbones.tiny.train import CONFIG
from featcache.sources.fieldguide.species import DESCRIPTION_WORDS, WORLDS, species


def test_fits_the_config() -> None:
    text = json.loads(CONFIG.read_text())["model_cfg"]["text_cfg"]
    tokenizer = TinyTokenizer()
    assert tokenizer.context_length == text["context_length"]
    assert tokenizer.vocab_size == text["vocab_size"]


def test_every_word_of_a_description_is_one_token() -> None:
    assert set(WORDS) >= DESCRIPTION_WORDS
    tokenizer = TinyTokenizer()
    for word in DESCRIPTION_WORDS:
        assert len(tokenizer.encode(word)) == 3


@pytest.mark.parametrize(
    "text", ["", "Orvane Tellic", "zebra-striped 42", "Möwe", "蛾", "!?", "a\nb\tc", "🦋 moth"]
)
def test_any_text_has_tokens_within_the_table_and_ends(text: str) -> None:
    tokenizer = TinyTokenizer()
    rows = tokenizer(text)
    assert rows.shape == (1, 32)
    assert rows.dtype == torch.long
    assert rows.max() == tokenizer.end
    assert int((rows == tokenizer.end).sum()) == 1
    assert int(rows.min()) >= 0


def test_end_is_the_highest_number() -> None:
    tokenizer = TinyTokenizer()
    others = [t for word in WORDS for t in tokenizer.encode(f"{word} qz9")[:-1]]
    assert max(others) < tokenizer.end


def test_different_words_differ() -> None:
    tokenizer = TinyTokenizer()
    texts = ["a", "b", "ab", "a b", "ba", "moth", "moths", "蛾", "蝶", "tellic", "tellik"]
    assert len({tuple(tokenizer.encode(t)) for t in texts}) == len(texts)


def test_case_punctuation_and_accents_carry_nothing() -> None:
    tokenizer = TinyTokenizer()
    assert tokenizer.encode("The Body, is RED.") == tokenizer.encode("the body is red")
    assert tokenizer.encode("Tèllic") == tokenizer.encode("tellic")


def test_long_texts_keep_their_start_and_end() -> None:
    tokenizer = TinyTokenizer()
    row = tokenizer(["moth " * 100])[0]
    assert row[-1] == tokenizer.end
    assert len(tokenizer.encode("moth " * 100)) == 102
    assert torch.equal(row[:31], tokenizer(["moth " * 31])[0][:31])


def test_names_fit_into_templates() -> None:
    tokenizer = TinyTokenizer()
    for world in WORLDS:
        for kind in species(world):
            assert len(tokenizer.encode(f"a picture of the moth {kind.name}.")) <= 32


def test_words_are_sorted_and_unique() -> None:
    assert list(WORDS) == sorted(set(WORDS))
    assert len(module._ID) == len(module._PIECES)


def test_too_small_a_table_is_refused() -> None:
    with pytest.raises(ValueError, match="vocab_size must exceed"):
        TinyTokenizer(vocab_size=20)
