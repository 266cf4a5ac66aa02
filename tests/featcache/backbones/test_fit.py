from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from featcache.backbones.base import Backbone
from featcache.backbones.fit import fit_weights
from featcache.backbones.models import build_model
from featcache.backbones.registry import load_backbone
from featcache.backbones.weights import Weights
from featcache.errors import BackboneError


def load(path: Path, name: str = "Toy-B-8") -> Backbone:
    return load_backbone(name, weights=str(path), device="cpu", compute="fp32")


@pytest.mark.parametrize("kind", ["safetensors", "pt", "half"])
def test_file_gives_the_models_own_outputs(
    toy_names: None, tmp_path: Path, make_clip: Callable[..., Any], kind: str
) -> None:
    model, path = make_clip(seed=3), tmp_path / f"toy.{kind}"
    if kind == "safetensors":
        save_file(model.state_dict(), path)
    else:
        model = model.half().float() if kind == "half" else model
        state = {k: v.half() if kind == "half" else v for k, v in model.state_dict().items()}
        torch.save(state, path)
    backbone = load(path)
    pixels = torch.randn(2, 3, 32, 32)
    assert torch.allclose(backbone.encode_images(pixels)[0], model.encode_image(pixels), atol=1e-5)
    assert not torch.allclose(
        backbone.encode_images(pixels)[0],
        load_backbone("Toy-B-8", weights="random").encode_images(pixels)[0],
        atol=1e-2,
    )


def change(saved: tuple[Any, Path], edit: Callable[[dict[str, Any]], object]) -> Path:
    state = dict(saved[0].state_dict())
    edit(state)
    torch.save(state, saved[1])
    return saved[1]


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda s: s.pop("visual.proj"), "'visual.proj' is missing (1 such"),
        (lambda s: s.update(extra=torch.ones(1)), "'extra' is unknown there (1 such"),
        (
            lambda s: s.update({"visual.proj": torch.ones(64, 7)}),
            "'visual.proj' is [64, 7], expected [64, 24] (1 such",
        ),
        (lambda s: [s.pop(k) for k in list(s) if "visual" in k], "such tensors"),
    ],
)
def test_foreign_weights_are_named(
    toy_names: None, saved: tuple[Any, Path], edit: Callable[[dict[str, Any]], object], message: str
) -> None:
    with pytest.raises(BackboneError) as caught:
        load(change(saved, edit))
    assert message in str(caught.value)
    assert "are not those of Toy-B-8" in str(caught.value)
    assert "Give the backbone that they were trained for" in str(caught.value)


def test_other_image_size_names_the_cure(toy_names: None, saved: tuple[Any, Path]) -> None:
    with pytest.raises(
        BackboneError, match=r"trained on 32 px images and Toy-B-8-48 takes 48 px.*17 rows, not 37"
    ):
        load(saved[1], "Toy-B-8-48")


def test_other_image_size_of_a_resnet_names_the_cure(toy_config: dict[str, Any]) -> None:
    tower = {"layers": [1, 1, 1, 1], "width": 16, "image_size": 64, "patch_size": None}
    model = build_model({**toy_config, "vision_cfg": tower}, seed=0)
    state = model.state_dict()
    key = "visual.attnpool.positional_embedding"
    state[key] = torch.zeros(10 * 10 + 1, state[key].shape[1])
    weights = Weights(path=Path("rn.pt"), sha256="", tensors=state, openai=None)
    with pytest.raises(BackboneError, match="trained on 320 px images and RN takes 64 px"):
        fit_weights(model, weights, name="RN")


def test_every_number_of_a_loaded_model_comes_from_the_file(
    toy_names: None, saved: tuple[Any, Path]
) -> None:
    loaded = load(saved[1])._model  # type: ignore[attr-defined]
    expected = saved[0].state_dict()
    assert all(torch.equal(v, expected[k]) for k, v in loaded.state_dict().items())
    assert torch.equal(loaded.attn_mask, saved[0].attn_mask)


def test_scalar_scale_of_either_shape_fits(toy_names: None, saved: tuple[Any, Path]) -> None:
    path = change(saved, lambda s: s.update(logit_scale=torch.tensor([2.0])))
    assert load(path).logit_scale == pytest.approx(7.389, abs=1e-3)
