"""`featcache datasets` and `featcache backbones`."""

import json
from collections.abc import Callable
from typing import Any

import pytest

Run = Callable[..., Any]


def test_lists_have_names(featcache: Run) -> None:
    named = [json.loads(line)["name"] for line in featcache("datasets", "--json").out.splitlines()]
    assert {"fieldguide", "fieldguide-2", "eurosat"} <= set(named)
    models = featcache("backbones", "ViT-B", "--json").out.splitlines()
    assert {"ViT-B/16", "ViT-B-32-quickgelu"} <= {json.loads(line)["name"] for line in models}
    assert {"tiny", "tiny-local"} <= set(featcache("backbones", "iny").out.split())


@pytest.mark.long
def test_one_backbone_is_described(featcache: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda *_: None)
    told = json.loads(featcache("backbones", "ViT-B-32-SigLIP2-256", "--json").out)
    assert (told["dim"], told["patches"], told["variants"]) == (768, 64, ["maskclip"])
    assert told["image_parameters"] == 94_552_320
    assert told["patch_bytes_an_image"] == 64 * 768 * 2
    assert told["resize_mode"] == "squash"
    (weights,) = told["weights"]
    assert (weights["tag"], weights["licence"]) == ("webli", "Apache-2.0 (Google)")
    assert weights["file"] is None
    page = featcache("backbones", "tiny").out
    assert "64 an image, as clearclip, vanilla, maskclip" in page
    assert "part of this installation" in page
    page = featcache("backbones", "ViT-B/32").out
    assert "8.82" in page
    assert "MIT (OpenAI)" in page
    assert "download about 605.1 MB" in page
