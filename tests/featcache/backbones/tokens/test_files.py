"""Tokenizers from files, beside transformers and sentencepiece themselves."""

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from open_clip.tokenizer import HFTokenizer, canonicalize_text

from featcache.backbones.tokens.files import has_tokenizer, read_tokenizer
from featcache.errors import BackboneError, UsageError

WORDS = [
    "a photo of a red fox, which has a long tail.",
    "An OWL at night; it's quiet!",
    "newts under wet leaves",
    "the quick brown dog jumps over the lazy cat",
]
LONG = "a red fox and an owl and a newt and a dog and a cat " * 3
SENTENCES = [*WORDS, LONG, "", "under_score"]


def siglip(name: str, size: int, **more: Any) -> dict[str, Any]:
    return {
        "context_length": 16,
        "vocab_size": size,
        "hf_tokenizer_name": name,
        "tokenizer_kwargs": {"clean": "canonicalize"},
        **more,
    }


@pytest.fixture(scope="module")
def pieces() -> bytes:
    """A sentencepiece model with T5's special tokens: pad 0, end 1, unknown 2."""
    import sentencepiece

    out = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(WORDS * 20),
        model_writer=out,
        vocab_size=60,
        pad_id=0,
        eos_id=1,
        unk_id=2,
        bos_id=-1,
        hard_vocab_limit=False,
        minloglevel=2,
    )
    return out.getvalue()


@pytest.fixture
def make_json(tmp_path: Path) -> Callable[..., Path]:
    """Write a trained tokenizer as Hugging Face keeps it; its special tokens as asked."""

    def make(folder: str = "hf", config: dict[str, Any] | None = None) -> Path:
        from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers

        tokenizer = Tokenizer(models.BPE(unk_token="[UNK]"))
        tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
        special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
        trainer = trainers.BpeTrainer(vocab_size=120, special_tokens=special)
        tokenizer.train_from_iterator(WORDS * 5, trainer)
        tokenizer.post_processor = processors.TemplateProcessing(
            single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
        )
        place = tmp_path / folder
        place.mkdir()
        tokenizer.save(str(place / "tokenizer.json"))
        usual = {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "pad_token": "[PAD]",
            "unk_token": "[UNK]",
            "sep_token": "[SEP]",
            "cls_token": "[CLS]",
        }
        content = json.dumps(usual if config is None else config)
        (place / "tokenizer_config.json").write_text(content)
        return place

    return make


def bert(**settings: Any) -> dict[str, Any]:
    return {
        "context_length": 12,
        "vocab_size": 120,
        "hf_tokenizer_name": "bert-base-uncased",
        "tokenizer_kwargs": settings,
    }


@pytest.mark.parametrize("settings", [{}, {"strip_sep_token": True}, {"clean": "canonicalize"}])
@pytest.mark.parametrize("named", ["", "tokenizer.json"])
def test_ids_are_those_of_transformers(
    make_json: Callable[..., Path], settings: dict[str, Any], named: str
) -> None:
    folder = make_json()
    found = read_tokenizer(folder / named, bert(**settings))
    expected = HFTokenizer(str(folder), context_length=12, **settings)
    assert torch.equal(found(SENTENCES), expected(SENTENCES))
    assert found(SENTENCES).dtype is torch.int64
    counts = [len(expected.tokenizer(expected.clean_fn(s)).input_ids) for s in SENTENCES]
    assert [found.cuts(s) for s in SENTENCES] == [count > 12 for count in counts]
    assert any(found.cuts(s) for s in SENTENCES)
    assert not all(found.cuts(s) for s in SENTENCES)


@pytest.mark.parametrize(
    ("name", "pad"), [("timm/ViT-B-16-SigLIP", 1), ("timm/ViT-B-32-SigLIP2-256", 0)]
)
def test_sentencepiece_is_siglips(tmp_path: Path, pieces: bytes, name: str, pad: int) -> None:
    """Cleaned, cut, ended with 1; filled with 1 by SigLIP and with 0 by SigLIP2."""
    import sentencepiece

    file = tmp_path / "spiece.model"
    file.write_bytes(pieces)
    model = sentencepiece.SentencePieceProcessor(model_proto=pieces)
    found = read_tokenizer(tmp_path, siglip(name, model.GetPieceSize()))
    rows = found(SENTENCES)
    for sentence, row in zip(SENTENCES, rows.tolist(), strict=True):
        ids = [*model.EncodeAsIds(canonicalize_text(sentence))[:15], 1]
        assert row == ids + [pad] * (16 - len(ids))
    lengths = [len(model.EncodeAsIds(canonicalize_text(s))) + 1 for s in SENTENCES]
    assert [found.cuts(s) for s in SENTENCES] == [length > 16 for length in lengths]
    assert min(lengths) <= 16 < max(lengths)
    assert len(found.digest) == 64


def test_cleaning_matters_and_is_the_configs(tmp_path: Path, pieces: bytes) -> None:
    file = tmp_path / "own.model"
    file.write_bytes(pieces)
    clean = read_tokenizer(file, siglip("timm/ViT-B-16-SigLIP2", 60))
    raw = read_tokenizer(file, siglip("timm/ViT-B-16-SigLIP2", 60, tokenizer_kwargs=None))
    assert torch.equal(clean(["A red Fox."]), clean(["a red fox"]))
    assert not torch.equal(raw(["A red Fox."]), raw(["a red fox"]))


def test_special_tokens_may_stand_in_their_own_file(make_json: Callable[..., Path]) -> None:
    folder = make_json(config={})
    tokens = {"pad_token": {"content": "[PAD]", "lstrip": False}, "sep_token": "[SEP]"}
    (folder / "special_tokens_map.json").write_text(json.dumps(tokens))
    expected = read_tokenizer(make_json("other"), bert(strip_sep_token=True))
    assert torch.equal(
        read_tokenizer(folder, bert(strip_sep_token=True))(SENTENCES), expected(SENTENCES)
    )


def test_the_digest_is_that_of_the_files(make_json: Callable[..., Path]) -> None:
    one, same = (read_tokenizer(make_json(f), bert()).digest for f in ("one", "same"))
    other = make_json("other")
    (other / "special_tokens_map.json").write_text(json.dumps({"pad_token": "[UNK]"}))
    assert one == same != read_tokenizer(other, bert()).digest


def test_files_of_another_model_are_refused(make_json: Callable[..., Path], pieces: bytes) -> None:
    folder = make_json()
    with pytest.raises(BackboneError, match=r"1\d\d tokens and this backbone's text tower 30522"):
        read_tokenizer(folder, {**bert(), "vocab_size": 30522})
    (folder / "own.model").write_bytes(pieces)
    with pytest.raises(BackboneError, match="SigLIP and SigLIP2 only"):
        read_tokenizer(folder / "own.model", bert())
    with pytest.raises(UsageError, match="CLIP's own tokenizer, which is always there"):
        read_tokenizer(folder, {"context_length": 77, "vocab_size": 49408})
    small = read_tokenizer(folder, {**bert(), "vocab_size": 60})
    with pytest.raises(BackboneError, match=r"knows 60\. Give the tokenizer"):
        small(WORDS)


@pytest.mark.parametrize(
    "damage", ["", "{", "[]", '{"version": "1.0"}', "\x00\x01", '{"model": {"type": "Own"}}']
)
def test_what_is_no_tokenizer_is_refused(
    make_json: Callable[..., Path], tmp_path: Path, damage: str
) -> None:
    folder = make_json()
    (folder / "tokenizer.json").write_text(damage)
    with pytest.raises(BackboneError, match="cannot be read as a tokenizer"):
        read_tokenizer(folder, bert())
    (tmp_path / "own.model").write_text(damage)
    with pytest.raises(BackboneError, match="cannot be read as a tokenizer"):
        read_tokenizer(tmp_path / "own.model", siglip("timm/ViT-B-16-SigLIP", 60))


def test_without_a_padding_token_the_missing_file_is_named(make_json: Callable[..., Path]) -> None:
    folder = make_json(config={"auto_map": {"AutoTokenizer": ["own.Own", None]}})
    with pytest.raises(BackboneError, match=r"Put tokenizer_config.json of the model, which has"):
        read_tokenizer(folder, bert())
    (folder / "tokenizer_config.json").write_text("[1]")
    with pytest.raises(BackboneError, match="no JSON object"):
        read_tokenizer(folder, bert())


def test_nothing_there_is_said(tmp_path: Path) -> None:
    assert not has_tokenizer(tmp_path)
    for path in (tmp_path, tmp_path / "none.json"):
        with pytest.raises(UsageError, match=r"no tokenizer at .*after tokenizer\."):
            read_tokenizer(path, bert())
