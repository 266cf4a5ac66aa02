import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import open_clip
import pytest
import torch

from featcache.backbones import devices, names, weights
from featcache.backbones.base import Backbone
from featcache.backbones.registry import backbones, load_backbone
from featcache.errors import BackboneError, UnknownNameError, UsageError, WeightsMissingError


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(weights, "find_cached", lambda config: None)


@pytest.mark.parametrize("name", names.EMBEDDED)
def test_an_embedded_model_is_a_backbone(name: str) -> None:
    backbone = load_backbone(name)
    assert isinstance(backbone, Backbone)
    assert (backbone.name, backbone.key.architecture) == (name, "tiny")
    rows, patches = backbone.encode_images(
        torch.randn(3, 3, backbone.image_size, backbone.image_size), backbone.variants
    )
    assert rows.shape == (3, backbone.dim)
    assert patches["clearclip"].shape == (3, backbone.patches, backbone.dim)
    assert backbone.encode_texts(["a moth", "a red moth"]).shape == (2, backbone.dim)


def test_random_is_by_name_and_seeded() -> None:
    one, same, other = (
        load_backbone("tiny", weights=w) for w in ("random", "random-0", "random-3")
    )
    texts = ["a moth"]
    assert torch.equal(one.encode_texts(texts), same.encode_texts(texts))
    assert not torch.equal(one.encode_texts(texts), other.encode_texts(texts))
    assert one.key == same.key
    assert other.key.weights == "random-3"
    assert one.key.digest() != other.key.digest()


def test_package_without_weights_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = Path(names.__file__).parent / "tiny" / "config.json"
    shutil.copy(source, tmp_path / "config.json")
    monkeypatch.setattr("importlib.resources.files", lambda package: tmp_path)
    for name in names.EMBEDDED:
        with pytest.raises(WeightsMissingError, match=f"weights of the embedded backbone '{name}'"):
            load_backbone(name)


def test_embedded_models_differ_in_weights_alone() -> None:
    tiny, local = (load_backbone(name).key for name in names.EMBEDDED)
    assert tiny != local
    assert replace(tiny, weights=local.weights) == local


@pytest.mark.parametrize(
    ("name", "weights", "architecture"),
    [
        ("ViT-B/16", None, "ViT-B-16-quickgelu"),
        ("ViT-B/16", "openai", "ViT-B-16-quickgelu"),
        ("ViT-B/16", "random", "ViT-B-16-quickgelu"),
        ("ViT-B/16", "laion2b-s34b-b88k", "ViT-B-16"),
        ("ViT-B/16", "metaclip_400m", "ViT-B-16-quickgelu"),
        ("ViT-L/14@336px", None, "ViT-L-14-336-quickgelu"),
        ("RN50", None, "RN50-quickgelu"),
        ("RN50", "cc12m", "RN50-quickgelu"),
        ("ViT-B-16-quickgelu", None, "ViT-B-16-quickgelu"),
        ("ViT-B-16", "datacomp_xl_s13b_b90k", "ViT-B-16"),
        ("ViT-H/14", "laion2b_s32b_b79k", "ViT-H-14"),
        ("ViT-B-16-SigLIP", None, "ViT-B-16-SigLIP"),
        ("roberta-ViT-B-32", None, "roberta-ViT-B-32"),
    ],
)
def test_names_stand_for(name: str, weights: str | None, architecture: str) -> None:
    choice = names.choose(name, weights)
    assert choice.architecture == architecture
    assert choice.seed == (0 if weights == "random" else None)


def test_every_listed_name_can_be_chosen() -> None:
    listed = backbones()
    assert [b.name for b in listed[:3]] == ["tiny", "tiny-local", "RN50"]
    assert [b.default for b in listed[:2]] == ["embedded", "embedded"]
    assert {"ViT-B/16", *open_clip.list_models()} <= {b.name for b in listed}
    for info in listed:
        for tag in info.weights if info.name in names.OPENAI else ():
            assert names.choose(info.name, tag).entry
    sizes = {b.name: (b.image_size, b.dim, b.default, b.patches) for b in listed}
    assert sizes["ViT-L/14@336px"] == (336, 768, "openai", True)
    assert sizes["ViT-B-16-SigLIP"] == (224, 768, "webli", True)
    assert sizes["ViT-B-16"] == (224, 512, "", True)


@pytest.mark.parametrize(
    ("name", "gflops"), [("ViT-B/32", 8.82), ("ViT-B/16", 35.13), ("ViT-L/14", 162.03)]
)
def test_gflops_are_the_published_ones(name: str, gflops: float) -> None:
    found = {b.name: b.gflops for b in backbones()}
    assert found[name] == pytest.approx(gflops, abs=0.01)


def test_weights_are_known_by_their_size() -> None:
    with pytest.raises(
        WeightsMissingError, match=r"timm/vit_base_patch32_clip_224\.openai \(about 605 MB\)"
    ):
        load_backbone("ViT-B/32")


@pytest.mark.parametrize(
    ("name", "weights", "error", "message"),
    [
        ("ViT-B/17", None, UnknownNameError, "did you mean 'ViT-B/16'.*`featcache backbones`"),
        ("ViT-B/16", "openay", UnknownNameError, "did you mean 'openai'.*weights=FILE"),
        ("ViT-B-16", None, UsageError, "11 sets of weights, among them laion400m.*ViT-B/16"),
        ("ViT-S-16", None, UsageError, "Nobody has published weights for ViT-S-16"),
        ("ViT-B-16", "openai", BackboneError, "Use backbone='ViT-B-16-quickgelu'"),
        ("ViT-L-14-336", None, BackboneError, "Use backbone='ViT-L-14-336-quickgelu'"),
        ("ViT-B/16", "./none.pt", WeightsMissingError, "no weights file at ./none.pt"),
        ("ViT-B/16", "none.safetensors", WeightsMissingError, "no weights file at none"),
        ("ViT-B/16", "tests", WeightsMissingError, "is a folder, expected a file"),
        ("ViT-B/16", None, WeightsMissingError, "HF_HUB_OFFLINE is set"),
        ("tiny", "openai", UnknownNameError, "Unknown weights of tiny 'openai'"),
        ("tiny-local", "openai", UnknownNameError, "Unknown weights of tiny-local 'openai'"),
        ("tiny-lokal", None, UnknownNameError, "did you mean 'tiny-local'"),
    ],
)
def test_errors_name_the_cure(
    name: str,
    weights: str | None,
    error: type[Exception],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "tests").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(error, match=message) as caught:
        load_backbone(name, weights=weights)
    assert type(caught.value) is error


def test_devices_and_dtypes_are_checked() -> None:
    with pytest.raises(UsageError, match=r"Device 'gpu' cannot be used here.*device='auto'"):
        load_backbone("tiny", weights="random", device="gpu")
    with pytest.raises(UnknownNameError, match="compute dtype 'fp16'"):
        load_backbone("tiny", weights="random", compute="fp16")
    assert devices.pick_dtype("fp32", torch.device("cpu")) is torch.float32
    assert devices.pick_dtype("bf16", torch.device("cpu")) is torch.bfloat16


@pytest.mark.parametrize(("has_units", "dtype"), [(True, torch.bfloat16), (False, torch.float32)])
def test_auto_takes_bf16_where_there_are_units(
    monkeypatch: pytest.MonkeyPatch, has_units: bool, dtype: torch.dtype
) -> None:
    for probe in ("_is_amx_tile_supported", "_is_avx512_bf16_supported"):
        monkeypatch.setattr(torch.cpu, probe, lambda: has_units)
    assert devices.pick_dtype("auto", torch.device("cpu")) is dtype
    backbone = load_backbone("tiny", weights="random", device="cpu")
    assert backbone.compute_dtype is dtype
    assert backbone.key == load_backbone("tiny", weights="random", compute="fp32").key


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_absent_cuda_is_said() -> None:
    with pytest.raises(UsageError, match="Device 'cuda' cannot be used here"):
        load_backbone("tiny", weights="random", device="cuda")


def test_a_device_that_gives_no_numbers_back_is_refused() -> None:
    for device in ("quantum", "meta", "mps:99"):
        with pytest.raises(UsageError, match=f"Device '{device}' cannot be used here") as told:
            devices.pick_device(device)
        assert len(str(told.value)) < 400


def test_speaking_of_names_imports_no_models() -> None:
    program = (
        "import sys, featcache.backbones.registry as r; r.load_backbone; "
        "sys.exit(any(m in sys.modules for m in ('open_clip', 'PIL', 'h5py', 'torchvision')))"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
