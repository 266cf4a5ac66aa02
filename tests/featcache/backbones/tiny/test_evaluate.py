from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from featcache.backbones.tiny import evaluate
from featcache.backbones.tiny.evaluate import (
    Encoder,
    accuracy,
    few_shot,
    linear_probe,
    measure_words,
    measure_world,
)
from featcache.backbones.tiny.train import build_model, export
from featcache.sources.fieldguide.world import open_world


@pytest.fixture
def encoder(tmp_path: Path) -> Encoder:
    torch.manual_seed(0)
    export(build_model().state_dict(), tmp_path / "weights.safetensors")
    return Encoder(tmp_path / "weights.safetensors")


def clusters(number: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Three unit clusters along the first three axes of eight."""
    noise = torch.Generator().manual_seed(seed)
    labels = torch.arange(number) % 3
    rows = F.one_hot(labels, 8).float() + 0.1 * torch.randn(number, 8, generator=noise)
    return F.normalize(rows, dim=-1), labels


def test_accuracy_counts_the_largest_logit() -> None:
    logits = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0], [0.2, 0.1]])
    assert accuracy(logits, torch.tensor([0, 1, 1, 1])) == 0.5


def test_probe_separates_clusters_and_not_shuffled_labels() -> None:
    support, val, test = clusters(60, 1), clusters(30, 2), clusters(90, 3)
    assert linear_probe(support, val, {"test": test}, classes=3)["test"] > 0.98
    turned = (test[0], (test[1] + 1) % 3)
    assert linear_probe(support, val, {"test": turned}, classes=3)["test"] < 0.02


def test_every_head_gets_every_seed() -> None:
    rows = {name: clusters(90, 4) for name in ("train", "val", "test", "sketch", "night", "scan")}
    found = few_shot(rows, F.one_hot(torch.arange(3), 8).float(), 10.0)
    assert set(found) == {"1", "4", "16", "60"}
    assert len(found["4"]["nearest mean"]) == 3
    assert min(min(scores) for scores in found["16"].values()) > 0.9


def test_encoder_encodes_files_and_images_alike(encoder: Encoder, tmp_path: Path) -> None:
    image = Image.effect_noise((128, 128), 60).convert("RGB")
    image.save(tmp_path / "noise.png")
    features = encoder.images([image, tmp_path / "noise.png"])
    assert features.shape == (2, 128)
    assert torch.allclose(features[0], features[1], atol=1e-6)
    assert features.norm(dim=-1).tolist() == pytest.approx([1, 1], abs=1e-5)


@pytest.mark.long
def test_untrained_weights_stay_near_chance(
    encoder: Encoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = measure_words(encoder, number=128)
    assert words["attributes"]["forewing"] < 0.4
    assert words["retrieval"]["image to text R@1"] < 0.1
    monkeypatch.setattr(evaluate, "few_shot", lambda *_: {})  # has its own test
    counts = dict.fromkeys(("train", "val", "test", "sketch", "night", "scan"), 1)
    data = open_world("fieldguide", tmp_path, counts=counts)
    found = measure_world(encoder, data)["zero_shot"]
    assert set(found) == {"name", "template", "description"}
    assert found["description"]["test"] <= 0.25
