import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from featcache.backbones.tiny.tokenizer import TinyTokenizer
from featcache.backbones.tiny.train import (
    CONFIG,
    Settings,
    Trainer,
    build_model,
    contrastive_loss,
    main,
    train,
)
from featcache.errors import UsageError

WEIGHTS = CONFIG.with_name("weights.safetensors")
SMALL = Settings(images=64, batch=16, warmup=2)


def gflops() -> float:
    """Image tower, 2 per multiply-add, from the shapes in the config."""
    vision = json.loads(CONFIG.read_text())["model_cfg"]["vision_cfg"]
    width, side = vision["width"], vision["image_size"] // vision["patch_size"]
    tokens = side * side + 1
    patches = 2 * side * side * 3 * vision["patch_size"] ** 2 * width
    blocks = 2 * tokens * 12 * width**2 + 4 * tokens**2 * width
    embed = 2 * width * json.loads(CONFIG.read_text())["model_cfg"]["embed_dim"]
    return float(patches + vision["layers"] * blocks + embed) / 1e9


def test_config_stays_small() -> None:
    assert 0.1 < gflops() <= 0.3
    parameters = sum(p.numel() for p in build_model().parameters())
    assert parameters * 4 <= 12e6


def test_loss_equals_naive_loops() -> None:
    torch.manual_seed(0)
    logits = torch.randn(5, 4, dtype=torch.float64).float()
    true = torch.rand(5, 4) < 0.4
    false = ~true & (torch.rand(5, 4) < 0.8)
    true[0], false[1] = False, False
    rows = []
    for s, t, f in zip(logits.double(), true, false, strict=True):
        terms = [-torch.log(e.exp() / (e.exp() + s[f].exp().sum())) for e in s[t]]
        if terms and f.any():
            rows.append(sum(terms) / len(terms))
    assert rows
    expected = sum(rows) / len(rows)
    assert contrastive_loss(logits, true, false).item() == pytest.approx(float(expected), rel=1e-5)


def test_loss_of_the_identity_is_cross_entropy() -> None:
    logits = torch.randn(6, 6)
    own = torch.eye(6, dtype=torch.bool)
    expected = torch.nn.functional.cross_entropy(logits, torch.arange(6))
    assert contrastive_loss(logits, own, ~own).item() == pytest.approx(expected.item(), rel=1e-5)


@pytest.mark.long
def test_resumed_training_equals_uninterrupted(tmp_path: Path) -> None:
    straight = Trainer(SMALL)
    train(straight, tmp_path / "a", workers=0)
    assert straight.done == 4
    train(Trainer(SMALL), tmp_path / "b", stop=2, workers=0)
    resumed = Trainer.load(tmp_path / "b")
    assert resumed.done == 2
    train(resumed, tmp_path / "b", workers=0)
    a, b = (
        load_file(tmp_path / "a/weights.safetensors"),
        load_file(tmp_path / "b/weights.safetensors"),
    )
    assert a.keys() == b.keys()
    fresh = Trainer(SMALL).model.state_dict()
    for name, value in a.items():
        assert torch.allclose(value, b[name], atol=1e-6), name
    assert not torch.allclose(a["visual.proj"], fresh["visual.proj"], atol=1e-6)
    entries = [json.loads(x) for x in (tmp_path / "b/log.jsonl").read_text().splitlines()]
    assert [e["step"] for e in entries] == [2, 4]


def test_resume_without_a_state_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="Start without --resume"):
        main(["--out", str(tmp_path), "--resume", "--threads", "1"])


def test_features_and_patch_tokens_as_of_any_vit() -> None:
    model = build_model().eval()
    pixels = torch.randn(2, 3, 96, 96)
    with torch.inference_mode():
        image = model.encode_image(pixels)  # type: ignore[operator]
        text = model.encode_text(TinyTokenizer()(["a moth", "red"]))  # type: ignore[operator]
        found = model.visual.forward_intermediates(  # type: ignore[operator, union-attr]
            pixels, indices=1, output_fmt="NLC", normalize_intermediates=True
        )
    assert image.shape == text.shape == (2, 128)
    assert found["image_intermediates"][0].shape == (2, 64, 128)
    assert model.visual.proj.shape == (128, 128)  # type: ignore[union-attr]


@pytest.mark.skipif(not WEIGHTS.is_file(), reason="no trained weights in this checkout")
def test_shipped_weights_fit_and_are_finite() -> None:
    weights = load_file(WEIGHTS)
    model = build_model()
    model.load_state_dict(weights, strict=True)
    assert WEIGHTS.stat().st_size <= 12e6
    assert all(torch.isfinite(w).all() for w in weights.values())
    assert 1.0 <= model.logit_scale.exp().item() <= 100.01  # type: ignore[operator]
