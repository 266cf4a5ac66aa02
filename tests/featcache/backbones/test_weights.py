import http.server
import pickle
import shutil
import socket
import threading
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import torch
from open_clip import pretrained
from safetensors.torch import save_file
from torch import nn

from featcache.backbones import hub, weights
from featcache.backbones.registry import load_backbone
from featcache.backbones.weights import OPENAI_FILES, fetch, read_weights
from featcache.errors import BackboneError, WeightsMissingError


class Trap:
    """Leaves a file behind if anything unpickles it."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return (Path.write_text, (self.mark, "run"))


def scripted(tensors: dict[str, torch.Tensor], path: Path, *, marked: bool = True) -> Path:
    """Write a TorchScript archive with these weights, as OpenAI's are laid out."""
    root = nn.Module()
    if marked:
        numbers = {"input_resolution": 32, "context_length": 16, "vocab_size": 49408}
        tensors = {**tensors, **{k: torch.tensor(v) for k, v in numbers.items()}}
    for name, value in tensors.items():
        *folders, leaf = name.split(".")
        module = root
        for folder in folders:
            if folder not in module._modules:
                module.add_module(folder, nn.Module())
            module = module.get_submodule(folder)
        module.register_buffer(leaf, value)
    torch.jit.script(root).save(str(path))  # type: ignore[no-untyped-call]
    return path


def test_safetensors_and_torch_files_hold_the_same(saved: tuple[Any, Path], tmp_path: Path) -> None:
    model, pt = saved
    st = tmp_path / "toy.bin"  # the content tells the kind, not the name
    save_file(model.state_dict(), st)
    one, two = read_weights(pt), read_weights(st)
    assert one.tensors.keys() == two.tensors.keys() == model.state_dict().keys()
    assert all(torch.equal(one.tensors[k], two.tensors[k]) for k in one.tensors)
    assert one.sha256 != two.sha256
    assert one.openai is two.openai is None


@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod."])
@pytest.mark.parametrize("wrapped", [True, False])
@pytest.mark.parametrize("legacy", [True, False])
def test_wrappings_of_training_are_taken_off(
    tmp_path: Path, prefix: str, wrapped: bool, legacy: bool
) -> None:
    state: dict[str, Any] = {f"{prefix}a.weight": torch.arange(3.0), f"{prefix}b": torch.ones(1)}
    path = tmp_path / "checkpoint.pt"
    content = {"epoch": 3, "state_dict": state} if wrapped else state
    torch.save(content, path, _use_new_zipfile_serialization=not legacy)
    assert sorted(read_weights(path).tensors) == ["a.weight", "b"]


@pytest.mark.parametrize("legacy", [True, False])
def test_pickle_with_code_is_refused_and_not_run(tmp_path: Path, legacy: bool) -> None:
    path, mark = tmp_path / "trap.pt", tmp_path / "mark"
    torch.save(
        {"a": torch.ones(1), "trap": Trap(mark)}, path, _use_new_zipfile_serialization=not legacy
    )
    with pytest.raises(BackboneError, match="more than tensors; nothing in it was run"):
        read_weights(path)
    assert not mark.exists()


@pytest.mark.parametrize("content", [b"", b"not json\n", b'{"a": [1]}', b"\x89PNG\r\n"])
def test_what_is_no_weights_file_is_called_so(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "words.json"
    path.write_bytes(content)
    with pytest.raises(BackboneError, match="begins like neither"):
        read_weights(path)


def test_bare_pickle_is_refused_and_not_run(tmp_path: Path) -> None:
    path, mark = tmp_path / "trap.pkl", tmp_path / "mark"
    path.write_bytes(pickle.dumps(Trap(mark)))
    with pytest.raises(BackboneError, match=r"Give weights a file|nothing in it was run"):
        read_weights(path)
    assert not mark.exists()


def test_strangers_program_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = scripted({"a": torch.ones(2)}, tmp_path / "model.pt")
    monkeypatch.setattr(torch.jit, "load", lambda *_, **__: pytest.fail("it was loaded"))
    with pytest.raises(BackboneError, match=r"TorchScript program .* stranger's program is never"):
        read_weights(path)


def test_published_program_gives_its_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make_clip: Callable[..., Any], toy_names: None
) -> None:
    model = make_clip(quick_gelu=True)
    path = scripted(dict(model.state_dict()), tmp_path / "ViT-B-16.pt")
    with pytest.raises(BackboneError, match="stranger's program"):
        load_backbone("Toy-B-8-quickgelu", weights=str(path))
    monkeypatch.setitem(OPENAI_FILES, weights._sha256(path), "Toy-B-8-quickgelu")
    backbone = load_backbone("Toy-B-8-quickgelu", weights=str(path), device="cpu", compute="fp32")
    pixels = torch.randn(2, 3, 32, 32)
    assert torch.allclose(backbone.encode_images(pixels)[0], model.encode_image(pixels), atol=1e-5)
    assert backbone.key.activation == "quick_gelu"
    with pytest.raises(BackboneError, match="Use backbone='Toy-B-8-quickgelu'"):
        load_backbone("Toy-B-8", weights=str(path))
    with pytest.raises(BackboneError, match="They are OpenAI's Toy-B-8; name that one"):
        load_backbone("tiny", weights=str(path))


def test_openais_state_dict_is_known_by_its_marks(
    tmp_path: Path, make_clip: Callable[..., Any], toy_names: None
) -> None:
    numbers = {k: torch.tensor(1) for k in weights.OPENAI_MARKS}
    path = tmp_path / "resaved.pt"
    torch.save({**make_clip().state_dict(), **numbers}, path)
    with pytest.raises(BackboneError, match="trained with QuickGELU and Toy-B-8 computes GELU"):
        load_backbone("Toy-B-8", weights=str(path))
    assert load_backbone("Toy-B-8-quickgelu", weights=str(path)).key.activation == "quick_gelu"


def test_all_of_openais_archives_are_known() -> None:
    """The table is that of open_clip while it has one: its addresses have the digests."""
    listed = {
        pretrained.get_pretrained_url(model, "openai").split("/")[-2]: model
        for model in pretrained.list_pretrained_models_by_tag("openai")
        if model.endswith("-quickgelu")
    }
    assert listed == OPENAI_FILES
    assert len(OPENAI_FILES) == 9


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "neither safetensors nor a torch state dict"),
        (b"hello, this is text", "neither safetensors nor a torch|nothing in it was run"),
        (b"PK\x03\x04 cut", "neither safetensors nor a torch state dict"),
        (b"\x10\x00\x00\x00\x00\x00\x00\x00{", "cannot be read as one"),
    ],
)
def test_other_bytes_are_refused(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "weights.safetensors"
    path.write_bytes(content)
    with pytest.raises(BackboneError, match=message):
        read_weights(path)


def test_zip_that_is_no_checkpoint_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "photos.pt"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.txt", "hello")
    with pytest.raises(BackboneError, match="neither safetensors nor a torch state dict"):
        read_weights(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([1, 2], "holds list, expected a state dict"),
        ({}, "holds nothing, expected a state dict"),
        ({"epoch": 3}, "its entry 'epoch' is no named tensor"),
        ({"a": torch.tensor([1.0, float("nan")])}, "not finite, first in 'a'"),
    ],
)
def test_other_content_is_refused(tmp_path: Path, content: object, message: str) -> None:
    path = tmp_path / "odd.pt"
    torch.save(content, path)
    with pytest.raises(BackboneError, match=message):
        read_weights(path)


def test_unreadable_file_is_missing(tmp_path: Path) -> None:
    with pytest.raises(WeightsMissingError, match="cannot be read: No such file"):
        read_weights(tmp_path / "gone.pt")


# Fetching


ENTRY = {"hf_hub": "nobody/toy/", "url": "https://hub.invalid/toy.pt"}


@pytest.fixture
def hub_calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """No network, whoever asks; what was asked for is listed."""
    calls: list[str] = []

    def unreachable(url: str) -> str:
        calls.append(url)
        return "no network (said the test)"

    monkeypatch.setattr(hub, "_unanswered", unreachable)
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *_: None)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    return calls


def test_missing_weights_say_what_from_where_how_much_and_the_cure(hub_calls: list[str]) -> None:
    with pytest.raises(WeightsMissingError) as caught:
        fetch(ENTRY, what="The weights 'own' of Toy", size="9 MB")
    assert str(caught.value) == (
        "The weights 'own' of Toy are not on this machine and could not be fetched from "
        "https://huggingface.co/nobody/toy (about 9 MB): no network (said the test). Run the "
        "command once with network, or give a local copy with weights=FILE (safetensors or a "
        "torch state dict)."
    )
    assert hub_calls == ["https://huggingface.co/nobody/toy"]


def test_offline_switch_asks_nobody(hub_calls: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(WeightsMissingError, match="HF_HUB_OFFLINE is set"):
        fetch(ENTRY, what="They")
    assert hub_calls == []


def test_failed_download_is_missing_weights(
    hub_calls: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(config: dict[str, Any]) -> str:
        raise FileNotFoundError("404\n at the hub")

    monkeypatch.setattr(hub, "_unanswered", lambda url: None)
    monkeypatch.setattr(pretrained, "download_pretrained", broken)
    with pytest.raises(WeightsMissingError, match="FileNotFoundError: 404 at the hub"):
        fetch(ENTRY, what="They")


def test_hubs_cache_is_taken_without_asking(
    hub_calls: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    here = {"open_clip_pytorch_model.bin": "/cache/toy.bin"}
    monkeypatch.setattr(
        huggingface_hub, "try_to_load_from_cache", lambda repository, name: here.get(name)
    )
    assert fetch(ENTRY, what="They") == Path("/cache/toy.bin")
    assert hub_calls == []


def test_openais_own_cache_is_taken_if_it_is_whole(
    hub_calls: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, saved: tuple[Any, Path]
) -> None:
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    archive = tmp_path / ".cache" / "clip" / "toy.pt"
    archive.parent.mkdir(parents=True)
    shutil.copy(saved[1], archive)
    url = f"https://openaipublic.invalid/{weights._sha256(archive)}/toy.pt"
    assert fetch({"hf_hub": "", "url": url}, what="They") == archive
    archive.write_bytes(archive.read_bytes()[:-1])
    with pytest.raises(WeightsMissingError):
        fetch({"hf_hub": "", "url": url}, what="They")


def test_tag_loads_what_was_fetched(
    toy_names: None,
    hub_calls: list[str],
    monkeypatch: pytest.MonkeyPatch,
    saved: tuple[Any, Path],
) -> None:
    monkeypatch.setattr(hub, "_unanswered", lambda url: None)
    monkeypatch.setattr(pretrained, "download_pretrained", lambda config: str(saved[1]))
    backbone = load_backbone("Toy-B-8", weights="plain", device="cpu", compute="fp32")
    pixels = torch.randn(2, 3, 32, 32)
    found, expected = backbone.encode_images(pixels)[0], saved[0].encode_image(pixels)
    assert torch.allclose(found, expected, atol=1e-5)
    assert backbone.key.weights == weights._sha256(saved[1])
    assert (backbone.resize_mode, backbone.interpolation) == ("squash", "bilinear")
    assert (backbone.mean, backbone.std) == ((0.5, 0.4, 0.3), (0.3, 0.2, 0.1))


class _Answer404(http.server.BaseHTTPRequestHandler):
    def do_HEAD(self) -> None:
        self.send_error(404)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@pytest.fixture
def server() -> Iterator[str]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Answer404) as httpd:
        threading.Thread(target=httpd.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{httpd.server_port}/toy"
        httpd.shutdown()


def test_host_that_answers_is_reachable(server: str) -> None:
    assert hub._unanswered(server) is None


def test_closed_port_is_no_network() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    assert "no network" in str(hub._unanswered(f"http://127.0.0.1:{port}"))


def test_silent_host_is_given_up_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    done = threading.Event()

    def silent(*_: object, **__: object) -> None:
        done.wait(5)
        raise OSError

    monkeypatch.setattr(hub, "PROBE_SECONDS", 0.2)
    monkeypatch.setattr("urllib.request.urlopen", silent)
    assert hub._unanswered("http://127.0.0.1:1") == "no network (no answer within seconds)"
    done.set()
