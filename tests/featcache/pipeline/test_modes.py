"""`tiny` in every way of computing: near to open_clip's features, resumed to the same bytes.

Passes through torch.compile are in `test_compiled.py`.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from open_clip.transform import image_transform
from PIL import Image

from featcache.backbones.registry import load_backbone
from featcache.encoding.encoder import Encoder
from featcache.pipeline import extraction, plan, update
from featcache.store.cache import Cache

FLOORS = {"fp32": 0.99999, "bf16": 0.999}
"""Least cosine."""


def cutting(*arguments: Any) -> Encoder:
    encoder = Encoder(*arguments)
    encoder.cuts = True
    return encoder


@pytest.fixture(params=[("fp32", False), ("bf16", False), ("fp32", True), ("bf16", True)], ids=str)
def tiny(request: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The embedded model; its windows cut by threads, or where an accelerator would do it."""
    compute, cuts = request.param
    backbone = load_backbone("tiny", device="cpu", compute=compute)
    monkeypatch.setattr(extraction, "load_backbone", lambda *_, **__: backbone)
    monkeypatch.setattr(plan, "shard_rows_for", lambda *_: 8)
    if cuts:
        monkeypatch.setattr(update, "Encoder", cutting)
    return backbone


REQUEST: dict[str, Any] = {
    "backbone": "tiny",
    "patches": ["clearclip"],
    "views": ["3", "2:strong"],
    "crops": ["5"],
}


@pytest.mark.long
@pytest.mark.parametrize("at", [1, 5, 12])
def test_an_interrupted_pass_goes_on_and_leaves_the_same_bytes(
    ask: Any, ask_twice: Any, shards: Any, tiny: Any, tmp_path: Path, at: int
) -> None:
    whole = ask(root=tmp_path / "whole", **REQUEST)
    assert shards(ask_twice(tiny, at, **REQUEST).path) == shards(whole.path)


@pytest.mark.long
def test_rows_are_near_to_open_clips_own(ask: Any, tiny: Any) -> None:
    features = Cache.open(ask(**REQUEST).path).feature_set()
    transform = image_transform(tiny.image_size, is_train=False, mean=tiny.mean, std=tiny.std)
    root = Path(features.listing.root)
    pixels = torch.stack([transform(Image.open(root / name)) for name in features.listing.ids])
    exact = load_backbone("tiny", device="cpu", compute="fp32")
    expected = exact.encode_images(pixels)[0].double()
    rows = features.rows("global", np.arange(len(pixels))).double()
    cosine = torch.cosine_similarity(rows, expected)
    compute = "fp32" if tiny.compute_dtype is torch.float32 else "bf16"
    assert cosine.min() >= FLOORS[compute]
