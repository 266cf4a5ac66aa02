"""Backbones whose texts need more than this machine has, and those that have it all."""

import io
import sys
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from open_clip import factory

from featcache.backbones.registry import load_backbone
from featcache.errors import BackboneError, TextsMissingError, UsageError

VISION = {"image_size": 32, "patch_size": 8, "width": 64, "head_width": 16, "layers": 2}
TEXT = {"context_length": 8, "vocab_size": 60, "width": 32, "heads": 2, "layers": 1}
SIGLIP = {
    "hf_tokenizer_name": "timm/ViT-B-16-SigLIP2-256",
    "tokenizer_kwargs": {"clean": "canonicalize"},
    "no_causal_mask": True,
    "pool_type": "last",
}


@pytest.fixture(autouse=True)
def toys(monkeypatch: pytest.MonkeyPatch) -> None:
    """A SigLIP2 and a multilingual model in small, and no network."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda *_: None)
    base = {"embed_dim": 24, "vision_cfg": VISION, "custom_text": True}
    for name, text in {
        "Toy-SigLIP2": {**TEXT, **SIGLIP},
        "Toy-xlm": {"hf_model_name": "nobody/xlm", "hf_tokenizer_name": "nobody/xlm"},
    }.items():
        config = {**base, "text_cfg": text, "init_logit_bias": -10}
        monkeypatch.setitem(factory._MODEL_CONFIGS, name, config)


@pytest.fixture
def spiece(tmp_path: Path) -> Path:
    import sentencepiece

    out = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(["a photo of a red fox", "an owl at night", "newts in mud"] * 20),
        model_writer=out,
        vocab_size=60,
        pad_id=0,
        eos_id=1,
        unk_id=2,
        bos_id=-1,
        hard_vocab_limit=False,
        minloglevel=2,
    )
    path = tmp_path / "spiece.model"
    path.write_bytes(out.getvalue())
    return path


def load(name: str, **more: Any) -> Any:
    return load_backbone(name, weights="random", device="cpu", compute="fp32", **more)


@pytest.mark.parametrize("installed", [True, False])
@pytest.mark.parametrize("name", ["Toy-SigLIP2", "Toy-xlm"])
def test_images_are_encoded_where_texts_cannot_be(
    name: str, installed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not installed:
        monkeypatch.setitem(sys.modules, "transformers", None)
        monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    backbone = load(name)
    rows, patches = backbone.encode_images(torch.randn(2, 3, 32, 32), ["clearclip"])
    assert rows.shape == (2, 24)
    assert patches["clearclip"].shape == (2, 16, 24)
    assert isinstance(backbone.lacks_texts, TextsMissingError)
    for call in (backbone.encode_texts, backbone.truncated):
        with pytest.raises(TextsMissingError) as caught:
            call(["a fox"])
        assert "pip install 'featcache[hf]'" in str(caught.value)
        assert "tokenizer=PATH" in str(caught.value)
        assert "linear-probe" in str(caught.value)


def test_image_side_alone_is_the_same_as_with_its_texts(spiece: Path) -> None:
    """Texts that come later must fit the images of the cache."""
    without, with_texts = load("Toy-SigLIP2"), load("Toy-SigLIP2", tokenizer=spiece)
    pixels = torch.randn(2, 3, 32, 32)
    assert torch.equal(without.encode_images(pixels)[0], with_texts.encode_images(pixels)[0])
    assert without.key == with_texts.key
    assert (without.logit_scale, without.logit_bias) == (
        with_texts.logit_scale,
        with_texts.logit_bias,
    )
    assert with_texts.logit_bias == -10
    assert with_texts.lacks_texts is None
    assert without.tokenizer == ""
    assert len(with_texts.tokenizer) == 64


def test_weights_with_a_text_side_load_into_the_image_side_alone(tmp_path: Path) -> None:
    """The file of a multilingual model, where its text model cannot be built."""
    whole = open_clip.model.CustomTextCLIP(24, VISION, TEXT, init_logit_bias=-3)
    path = tmp_path / "whole.pt"
    torch.save(whole.state_dict(), path)
    backbone = load_backbone("Toy-xlm", weights=str(path), device="cpu", compute="fp32")
    pixels = torch.randn(2, 3, 32, 32)
    expected = whole.eval().encode_image(pixels)
    torch.testing.assert_close(backbone.encode_images(pixels)[0], expected, atol=1e-5, rtol=1e-5)
    assert backbone.logit_bias == -3
    state = whole.state_dict()
    del state["visual.proj"]
    torch.save(state, path)
    with pytest.raises(BackboneError, match=r"'visual.proj' is missing"):
        load_backbone("Toy-xlm", weights=str(path), device="cpu")


def test_texts_through_own_files_are_the_towers(spiece: Path) -> None:
    """Cleaned as SigLIP wants: capitals and punctuation change nothing."""
    backbone = load("Toy-SigLIP2", tokenizer=spiece)
    rows = backbone.encode_texts(["A red Fox.", "a red fox", "an owl"])
    assert rows.shape == (3, 24)
    assert torch.equal(rows[0], rows[1])
    assert not torch.allclose(rows[1], rows[2])
    assert backbone.truncated(["a fox", "a red fox and an owl at night in mud"]) == 1
    import sentencepiece

    ids = sentencepiece.SentencePieceProcessor(model_file=str(spiece)).EncodeAsIds("an owl")
    ids = torch.tensor([[*ids, 1, *[0] * (7 - len(ids))]])
    torch.testing.assert_close(rows[2:], backbone._model.encode_text(ids))


def test_a_tokenizer_for_a_model_that_has_its_own_is_refused(spiece: Path) -> None:
    for name in ("tiny", "ViT-S-32"):
        with pytest.raises(UsageError, match="CLIP's own tokenizer"):
            load(name, tokenizer=spiece)


@pytest.mark.parametrize(
    ("name", "context"), [("ViT-B-32-SigLIP2-256", 64), ("ViT-B-16-SigLIP", 64)]
)
def test_siglip_is_cleaned_squashed_and_short(name: str, context: int) -> None:
    """Without the cleaning SigLIP2 loses twelve points."""
    from featcache.backbones import names

    choice = names.choose(name, None)
    text = choice.config["text_cfg"]
    assert text["tokenizer_kwargs"] == {"clean": "canonicalize"}
    assert text["context_length"] == context
    assert names.preprocess_of(choice.entry)["resize_mode"] == "squash"
