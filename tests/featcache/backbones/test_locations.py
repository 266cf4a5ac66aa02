"""Models named by where they are: folders and hub repositories."""

import json
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from open_clip import factory, pretrained
from safetensors.torch import save_file

from featcache.backbones import hub, names
from featcache.backbones.registry import load_backbone
from featcache.errors import BackboneError, UnknownNameError, UsageError, WeightsMissingError

PREPROCESS = {
    "size": 32,
    "mean": [0.5, 0.4, 0.3],
    "std": [0.3, 0.2, 0.1],
    "interpolation": "bilinear",
    "resize_mode": "squash",
}


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


@pytest.fixture
def publish(
    tmp_path: Path, toy_config: dict[str, Any], make_clip: Callable[..., Any]
) -> Callable[..., Path]:
    """Write a model as open_clip publishes it; keyword arguments change its config."""

    def write(name: str = "model", weights: str = "open_clip_model.safetensors") -> Path:
        folder = tmp_path / name
        folder.mkdir(exist_ok=True)
        content = {"model_cfg": toy_config, "preprocess_cfg": PREPROCESS}
        (folder / "open_clip_config.json").write_text(json.dumps(content))
        state = make_clip(seed=len(weights)).state_dict()
        if weights.endswith("safetensors"):
            save_file(state, folder / weights)
        else:
            torch.save(state, folder / weights)
        return folder

    return write


def load(name: str, **more: Any) -> Any:
    return load_backbone(name, device="cpu", compute="fp32", **more)


def test_a_folder_is_open_clips_model(publish: Callable[..., Path]) -> None:
    folder = publish()
    backbone = load(f"local-dir:{folder}")
    expected, preprocess = open_clip.create_model_from_pretrained(f"local-dir:{folder}")
    pixels = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        images = expected.eval().encode_image(pixels)
        texts = expected.encode_text(open_clip.get_tokenizer(f"local-dir:{folder}")(["a fox"]))
    torch.testing.assert_close(backbone.encode_images(pixels)[0], images, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(backbone.encode_texts(["a fox"]), texts, atol=1e-5, rtol=1e-5)
    assert backbone.resize_mode == "squash"
    assert (backbone.interpolation, backbone.mean) == ("bilinear", (0.5, 0.4, 0.3))
    assert tuple(preprocess.transforms[-1].mean) == backbone.mean
    assert backbone.name == f"local-dir:{folder}"


def test_names_hold_from_other_folders(
    publish: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = publish()
    monkeypatch.chdir(folder.parent)
    assert load("local-dir:./model").name == f"local-dir:{folder}"


def test_safetensors_come_first(publish: Callable[..., Path]) -> None:
    """A torch file beside safetensors is not read."""
    publish(weights="open_clip_pytorch_model.bin")
    folder = publish(weights="model.safetensors")
    (folder / "open_clip_pytorch_model.bin").write_bytes(b"junk")
    assert names.choose(f"local-dir:{folder}", None).file == folder / "model.safetensors"
    (folder / "model.safetensors").unlink()
    with pytest.raises(BackboneError, match="neither safetensors nor a torch state dict"):
        load(f"local-dir:{folder}")


def test_a_known_config_has_its_name_and_any_other_its_digest(
    publish: Callable[..., Path], toy_config: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that two configs, or two ways to clean texts, never share a key."""
    folder = publish()
    unnamed = load(f"local-dir:{folder}").key
    assert unnamed.architecture.startswith("config-")
    changed = {"context_length": 12}, {"tokenizer_kwargs": {"clean": "canonicalize"}}
    keys = {unnamed.digest()}
    for change in changed:
        config = {**toy_config, "text_cfg": {**toy_config["text_cfg"], **change}}
        content = {"model_cfg": config, "preprocess_cfg": PREPROCESS}
        (folder / "open_clip_config.json").write_text(json.dumps(content))
        keys.add(load(f"local-dir:{folder}", weights="random").key.digest())
    (folder / "open_clip_config.json").write_text(
        json.dumps(
            {"model_cfg": config, "preprocess_cfg": {**PREPROCESS, "resize_mode": "longest"}}
        )
    )
    keys.add(load(f"local-dir:{folder}", weights="random").key.digest())
    assert len(keys) == 4
    monkeypatch.setitem(factory._MODEL_CONFIGS, "Toy-B-8", toy_config)
    publish()
    assert load(f"local-dir:{folder}").key.architecture == "Toy-B-8"


def test_a_repository_is_read_from_the_hubs_cache(
    publish: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = publish()

    def cached(repository: str, name: str) -> str | None:
        there = repository == "org/toy" and (folder / name).is_file()
        return str(folder / name) if there else None

    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", cached)
    there = load("hf-hub:org/toy")
    here = load(f"local-dir:{folder}")
    assert there.key == here.key
    assert there.name == "hf-hub:org/toy"
    with pytest.raises(
        WeightsMissingError,
        match=r"open_clip_config.json of org/other is not on this machine.*HF_HUB_OFFLINE is set.*"
        r"backbone=local-dir:PATH",
    ):
        load("hf-hub:org/other")
    (folder / "open_clip_model.safetensors").unlink()
    with pytest.raises(WeightsMissingError, match=r"huggingface.co/org/toy.*HF_HUB_OFFLINE"):
        load("hf-hub:org/toy")


def test_a_config_is_downloaded_where_it_is_not_here(
    publish: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = publish()
    monkeypatch.setattr(hub, "hub_file", lambda repository, name: None)
    monkeypatch.setattr(hub, "unreachable", lambda url: None)
    monkeypatch.setattr("huggingface_hub.hf_hub_download", lambda _, name: str(folder / name))
    assert names.choose("hf-hub:org/toy", "random").config["embed_dim"] == 24
    monkeypatch.setattr(hub, "unreachable", lambda url: "no network")
    with pytest.raises(WeightsMissingError, match="no network"):
        names.choose("hf-hub:org/toy", "random")


@pytest.mark.parametrize(
    ("name", "error", "message"),
    [
        ("local-dir:", UsageError, "named backbone=local-dir:PATH"),
        ("local-dir:none", WeightsMissingError, "There is no folder none"),
        ("local-dir:.", WeightsMissingError, "no open_clip_config.json in"),
        ("hf-hub:toy", UsageError, "backbone=hf-hub:ORG/REPO, got 'hf-hub:toy'"),
        ("hf-hub:../etc", UsageError, "backbone=hf-hub:ORG/REPO"),
    ],
)
@pytest.mark.parametrize("check", [names.check_known, names.choose])
def test_wrong_places_are_refused(
    name: str,
    error: type[Exception],
    message: str,
    check: Callable[..., Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(error, match=message):
        check(name, None)


def test_a_folder_without_weights_says_which_it_wants(publish: Callable[..., Path]) -> None:
    folder = publish()
    file = (folder / "open_clip_model.safetensors").rename(folder / "own.safetensors")
    with pytest.raises(WeightsMissingError, match=r"expected one of open_clip_model.safetensors"):
        load(f"local-dir:{folder}")
    assert load(f"local-dir:{folder}", weights=str(file)).dim == 24
    with pytest.raises(UnknownNameError, match="weights of local-dir"):
        load(f"local-dir:{folder}", weights="openai")


def edit(path: str, value: Any) -> Callable[[dict[str, Any]], None]:
    def change(content: dict[str, Any]) -> None:
        *parents, last = path.split(".")
        for name in parents:
            content = content.setdefault(name, {})
        content[last] = value

    return change


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("auto_map", {"AutoModel": "own.py"}),
        ("model_cfg.vision_cfg.width", 10**9),
        ("model_cfg.vision_cfg.width", True),
        ("model_cfg.vision_cfg.layers", [2, 2]),
        ("model_cfg.vision_cfg.image_size", [32, 64]),
        ("model_cfg.vision_cfg.mlp_ratio", float("nan")),
        ("model_cfg.vision_cfg.own", 1),
        ("model_cfg.vision_cfg.timm_model_name", "hf-hub:org/own"),
        ("model_cfg.vision_cfg.timm_model_name", "local-dir:/tmp/own"),
        ("model_cfg.vision_cfg.pool_type", ["tok"]),
        ("model_cfg.vision_cfg.attentional_pool", ["cascade"]),
        ("model_cfg.text_cfg.hf_model_name", "org/own"),
        ("model_cfg.text_cfg.hf_model_name", ["org/own"]),
        ("model_cfg.text_cfg.hf_tokenizer_name", "../own"),
        ("model_cfg.text_cfg.tokenizer_kwargs", {"trust_remote_code": True}),
        ("model_cfg.text_cfg.vocab_size", 10**12),
        ("model_cfg.text_cfg.norm_kwargs", {"elementwise_affine": False}),
        ("model_cfg.text_cfg", 3),
        ("model_cfg.vision_cfg", None),
        ("model_cfg.embed_dim", "24"),
        ("model_cfg", []),
        ("preprocess_cfg", [1]),
        ("preprocess_cfg.mean", [0.5, 0.5]),
        ("preprocess_cfg.std", [0.5, 0.5, 0]),
        ("preprocess_cfg.interpolation", "random"),
        ("preprocess_cfg.fill_color", 255),
        ("preprocess_cfg.size", 64),
    ],
)
def test_configs_are_checked(publish: Callable[..., Path], path: str, value: Any) -> None:
    folder = publish()
    file = folder / "open_clip_config.json"
    content = deepcopy(json.loads(file.read_text()))
    edit(path, value)(content)
    file.write_text(json.dumps(content))
    with pytest.raises(BackboneError, match=r"open_clip_config\.json"):
        load(f"local-dir:{folder}")


@pytest.mark.parametrize("text", ["", "{", "[" * 100_000, "\xff", "3"])
def test_what_is_no_config_is_refused(publish: Callable[..., Path], text: str) -> None:
    folder = publish()
    (folder / "open_clip_config.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(BackboneError, match=r"open_clip_config\.json"):
        load(f"local-dir:{folder}")


def test_a_model_far_larger_than_its_weights_is_not_built(publish: Callable[..., Path]) -> None:
    folder = publish()
    file = folder / "open_clip_config.json"
    content = json.loads(file.read_text())
    content["model_cfg"]["vision_cfg"] |= {"width": 16_384, "layers": 8, "head_width": 64}
    file.write_text(json.dumps(content))
    for weights in (None, "random"):
        with pytest.raises(BackboneError, match=r"describes a model of 103\d{9} bytes"):
            load(f"local-dir:{folder}", weights=weights)


def test_every_config_of_open_clip_passes(tmp_path: Path) -> None:
    from featcache.backbones.config_file import read_config

    file = tmp_path / "open_clip_config.json"
    for name in open_clip.list_models():
        config = open_clip.get_model_config(name)
        file.write_text(json.dumps({"model_cfg": config}))
        assert read_config(file)[0] == json.loads(json.dumps(config)), name


def test_every_name_and_tag_can_be_chosen_or_says_the_right_one() -> None:
    models = open_clip.list_models()
    assert len(models) >= 140
    for name, tag in open_clip.list_pretrained():
        quick = pretrained.get_pretrained_cfg(name, tag).get("quick_gelu", False)
        sibling = f"{name}-quickgelu"
        other = quick and not open_clip.get_model_config(name).get("quick_gelu")
        if other and sibling in models and name not in names.OPENAI:  # those take the sibling
            with pytest.raises(BackboneError, match=f"trained with QuickGELU.*{sibling}"):
                names.choose(name, tag)
            continue
        choice = names.choose(name, tag)
        assert choice.architecture == (sibling if other and sibling in models else name)
        assert choice.entry.get("hf_hub") or choice.entry.get("url")


@pytest.mark.parametrize(
    ("wrong", "near"),
    [
        ("ViT-B-16-SigLIP3", "ViT-B-16-SigLIP2"),
        ("mobileclip3-s0", "MobileCLIP2-S0"),
        ("pe-core-b-16", "PE-Core-B-16"),
        ("siglip2", "SigLIP2"),
        ("vit-b-32-world", "ViT-B-32"),
        ("convnext_huge", "convnext_"),
    ],
)
def test_unknown_names_list_near_ones(wrong: str, near: str) -> None:
    with pytest.raises(UnknownNameError) as caught:
        names.choose(wrong, None)
    assert near in str(caught.value)
