import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from featcache.backbones.tiny.train import CONFIG, train
from featcache.backbones.tiny_local import train as module
from featcache.backbones.tiny_local.evaluate import held_out
from featcache.backbones.tiny_local.train import Settings, Trainer, local_loss

SMALL = Settings(images=64, batch=16, warmup=2, every=2)


@pytest.fixture(autouse=True)
def few_drawings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "held_out", lambda name, _: held_out(name, 4))


def row_loss(logits: list[float], true: list[bool], false: list[bool]) -> float | None:
    rest = sum(math.exp(x) for x, f in zip(logits, false, strict=True) if f)
    terms = [math.log1p(rest / math.exp(x)) for x, t in zip(logits, true, strict=True) if t]
    return sum(terms) / len(terms) if terms and any(false) else None


def mean(values: list[float | None]) -> float:
    there = [v for v in values if v is not None]
    return sum(there) / len(there)


def test_loss_equals_naive_loops() -> None:
    torch.manual_seed(0)
    logits = torch.randn(9, 5)
    parts = torch.tensor([0, 0, 0, 0, 3, 3, 5, 6, 6], dtype=torch.int8)
    told = (torch.rand(9, 5) < 0.4) & (parts < 6)[:, None]
    denied = ~told & (torch.rand(9, 5) < 0.8)
    rows = [
        row_loss(x, t, d)
        for x, t, d in zip(logits.tolist(), told.tolist(), denied.tolist(), strict=True)
    ]
    by_patch = mean([mean(rows[:4]), mean(rows[4:6]), mean(rows[6:7])])
    columns = zip(logits.T.tolist(), told.T.tolist(), denied.T.tolist(), strict=True)
    by_sentence = mean([row_loss(x, t, d) for x, t, d in columns])
    found = local_loss(logits, parts, told, denied).item()
    assert found == pytest.approx((by_patch + by_sentence) / 2, rel=1e-5)


def test_a_batch_without_parts_has_a_loss_of_zero() -> None:
    nothing = torch.zeros(3, 5, dtype=torch.bool)
    background = torch.full((3,), 6, dtype=torch.int8)
    assert local_loss(torch.randn(3, 5), background, nothing, ~nothing).item() == 0.0


def test_it_starts_as_tiny() -> None:
    start = Trainer(SMALL).weights()
    stored = load_file(CONFIG.with_name("weights.safetensors"))
    assert start.keys() == stored.keys()
    assert all(torch.equal(start[name], stored[name]) for name in stored)


@pytest.mark.long
def test_a_few_steps_improve_the_patches_and_resumed_equals_uninterrupted(tmp_path: Path) -> None:
    straight = Trainer(SMALL)
    before = straight.measured()
    train(straight, tmp_path / "a", workers=0)
    assert straight.done == 4
    assert straight.best["step"] in (2, 4)
    after = straight.measured()
    assert after["clearclip"]["statement"] > before["clearclip"]["statement"]
    train(Trainer(SMALL), tmp_path / "b", stop=2, workers=0)
    resumed = Trainer.load(tmp_path / "b")
    assert isinstance(resumed, Trainer)
    assert (resumed.done, resumed.best["step"]) == (2, 2)
    train(resumed, tmp_path / "b", workers=0)
    ours, theirs = (load_file(tmp_path / x / "weights.safetensors") for x in "ab")
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
