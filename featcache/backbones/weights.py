"""Read weights from a file or a published tag, without running code from the file.

A weights file is a safetensors file or a torch state dict. A TorchScript archive is a program; only
OpenAI's are loaded, and only if their sha256 is the published one.
"""

import hashlib
import pickle
import warnings
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from featcache.backbones.hub import address_of, hub_file, unreachable
from featcache.errors import BackboneError, WeightsMissingError
from featcache.limits import WEIGHTS
from featcache.paths import open_regular
from featcache.scarcity import lacking
from featcache.wording import Argument, Placeholder

OPENAI_MARKS = ("input_resolution", "context_length", "vocab_size")
"""Settings that OpenAI's archives store among their weights."""

RATIO = 4
"""Largest ratio of unpacked size to file size; torch does not compress, so more is a zip bomb."""

OPENAI_FILES = {
    "afeb0e10f9e5a86da6080e35cf09123aca3b358a0c3e3b6c78a7b63bc04b6762": "RN50-quickgelu",
    "8fa8567bab74a42d41c5915025a8e4538c3bdbe8804a470a72f30b0d94fab599": "RN101-quickgelu",
    "7e526bd135e493cef0776de27d5f42653e6b4c8bf9e0f653bb11773263205fdd": "RN50x4-quickgelu",
    "52378b407f34354e150460fe41077663dd5b39c54cd0bfd2b27167a4a06ec9aa": "RN50x16-quickgelu",
    "be1cfb55d75a9666199fb2206c106743da0f6468c9d327f3e0d0a543a9919d9c": "RN50x64-quickgelu",
    "40d365715913c9da98579312b702a82c18be219cc2a73407c4526f58eba950af": "ViT-B-32-quickgelu",
    "5806e77cd80f8b59890b7e101eabd078d9fb84e6937f9e85e4ecb61988df416f": "ViT-B-16-quickgelu",
    "b8cca3fd41ae0c99ba7e8951adf17d267cdb84cd88be6f7c2e0eca1737a03836": "ViT-L-14-quickgelu",
    "3035c92b350959924f9f00213499208652fc7ea050643e8b385c2dac08641f02": "ViT-L-14-336-quickgelu",
}
"""sha256 of each archive that OpenAI published -> open_clip's name of the model. Kept here because
open_clip 4 does not list the archives any more."""

_PREFIXES = ("module.", "_orig_mod.")  # left by DistributedDataParallel and torch.compile


@dataclass(frozen=True, kw_only=True)
class Weights:
    """The content of one weights file."""

    path: Path
    sha256: str
    """Hash of the file, 64 hex digits."""
    tensors: Mapping[str, Tensor]
    openai: str | None
    """open_clip's name of the OpenAI model, `""` for an unknown one; None for other weights."""


def read_weights(path: Path) -> Weights:
    """Read a weights file without running code from it.

    Raises:
        BackboneError: If it is neither safetensors nor a torch state dict, or contains a program.
        WeightsMissingError: If it cannot be read.
    """
    try:
        sha256 = _sha256(path)
        with open_regular(path) as file:
            head = file.read(9)
    except OSError as error:
        raise WeightsMissingError(
            f"The weights file {path} cannot be read: {error.strerror}. Give another path with ",
            Argument("weights", Placeholder("FILE")),
            ".",
        ) from error
    if head[8:] == b"{":
        raw = _read_safetensors(path)
    elif head[:2] == b"PK" and _is_program(path):
        raw = _read_program(path, sha256)
    elif head[:2] == b"PK" or head[:1] == pickle.PROTO:
        raw = _read_torch(path)
    else:
        raise BackboneError(
            f"{path} is neither safetensors nor a torch state dict: it begins like neither. Give ",
            Argument("weights"),
            " a file of one of these kinds.",
        )
    tensors = _plain(path, raw)
    marked = all(tensors.pop(name, None) is not None for name in OPENAI_MARKS)
    openai = OPENAI_FILES.get(sha256, "" if marked else None)
    return Weights(path=path, sha256=sha256, tensors=tensors, openai=openai)


def fetch(config: Mapping[str, Any], *, what: str, size: str = "") -> Path:
    """Return the file of a published tag from local caches, else download it from the hub.

    Args:
        config: open_clip's entry of the tag: hf_hub, url.
        what: Name of the weights and their model, for the error.
        size: Approximate size of the download, for the error: "605 MB".

    Raises:
        WeightsMissingError: If it is not on this machine and cannot be downloaded.
    """
    local = find_cached(config)
    if local is not None:
        return local
    from open_clip import pretrained

    repository = config.get("hf_hub", "").rstrip("/")
    source = address_of(repository) if repository else config.get("url", "")
    reason = unreachable(source)
    if reason is None:
        try:
            return Path(pretrained.download_pretrained(dict(config)))
        except Exception as error:  # client libraries fail in many ways
            reason = f"{type(error).__name__}: {' '.join(str(error).split())[:160]}"
    raise WeightsMissingError(
        f"{what} are not on this machine and could not be fetched from {source}"
        f"{f' (about {size})' if size else ''}: {reason}. Run the command once with network, or "
        "give a local copy with ",
        Argument("weights", Placeholder("FILE")),
        " (safetensors or a torch state dict).",
    )


def find_cached(config: Mapping[str, Any]) -> Path | None:
    """Look in the caches of the hub's client and of OpenAI's package.

    Args:
        config: open_clip's entry of a tag: hf_hub, url.

    Returns:
        The file; None if it would have to be downloaded.
    """
    from open_clip.constants import HF_SAFE_WEIGHTS_NAME, HF_WEIGHTS_NAME

    repository, _, name = config.get("hf_hub", "").rpartition("/")
    names = [name] if name else [HF_SAFE_WEIGHTS_NAME, HF_WEIGHTS_NAME]
    if name.endswith((".bin", ".pth")):
        names.insert(0, name[:-4] + ".safetensors")
    for name in names if repository else ():
        if (cached := hub_file(repository, name)) is not None:
            return cached
    url = config.get("url", "")
    archive = Path.home() / ".cache" / "clip" / url.rpartition("/")[2]
    is_archive = "openaipublic" in url and archive.is_file()
    return archive if is_archive and _sha256(archive) == url.split("/")[-2] else None


def _sha256(path: Path) -> str:
    with open_regular(path, WEIGHTS) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _is_program(path: Path) -> bool:
    """Tell whether a zip file is a TorchScript archive: only those contain code.

    Raises:
        BackboneError: If the archive unpacks to far more than its size; torch does not compress.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
    except Exception:  # zipfile raises many kinds of errors; torch's reader reports the fault
        return False
    size = sum(m.file_size for m in members)
    if size > RATIO * path.stat().st_size:
        raise BackboneError(
            f"{path} unpacks to {size} bytes, more than {RATIO} times its own size, which no "
            f"weights do. Save them anew with torch.save(model.state_dict(), FILE)."
        )
    names = [m.filename for m in members]
    return any("/code/" in n or n.endswith("/constants.pkl") for n in names)


def _read_program(path: Path, sha256: str) -> Any:
    if sha256 not in OPENAI_FILES:
        raise BackboneError(
            f"{path} is a TorchScript program (sha256 {sha256[:12]}) and none that OpenAI "
            f"published; a stranger's program is never run. Save its weights alone, with "
            f"torch.save(model.state_dict(), FILE) or as safetensors, and give that file."
        )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # torch deprecates the format
        archive = torch.jit.load(str(path), map_location="cpu")  # type: ignore[no-untyped-call]
    return archive.state_dict()


def _read_safetensors(path: Path) -> Any:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError, MemoryError, RuntimeError) as error:
        _refuse_scarcity(path, error)
        raise BackboneError(
            f"{path} begins like a safetensors file and cannot be read as one ({error}). It is "
            f"probably cut short; copy or download it again."
        ) from error


def _read_torch(path: Path) -> Any:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise BackboneError(
            f"{path} is no safetensors file, and as a torch file it holds more than tensors; "
            f"nothing in it was run. Save its state dict alone, with torch.save(model.state_dict(),"
            f" FILE) or as safetensors, and give that file."
        ) from error
    except Exception as error:  # malformed files raise many kinds of errors
        _refuse_scarcity(path, error)
        raise BackboneError(
            f"{path} is neither safetensors nor a torch state dict "
            f"({type(error).__name__}: {' '.join(str(error).split())[:120]}). Give ",
            Argument("weights"),
            " a file of one of these kinds.",
        ) from error


def _refuse_scarcity(path: Path, error: Exception) -> None:
    """Report a lack of memory as such, not as a fault of the file.

    Raises:
        BackboneError: If memory or file descriptors ran out.
    """
    if lack := lacking(error):
        raise BackboneError(f"{path} could not be read. {lack}") from error


def _plain(path: Path, raw: Any) -> dict[str, Tensor]:
    """Unwrap {'state_dict': ...}, remove prefixes of training wrappers, and check every tensor."""
    if isinstance(raw, Mapping) and isinstance(raw.get("state_dict"), Mapping):
        raw = raw["state_dict"]
    if not isinstance(raw, Mapping) or not raw:
        raise BackboneError(
            f"{path} holds {'nothing' if isinstance(raw, Mapping) else type(raw).__name__}, "
            f"expected a state dict: names and tensors. Save one with torch.save("
            f"model.state_dict(), FILE)."
        )
    invalid = [k for k, v in raw.items() if not (isinstance(k, str) and isinstance(v, Tensor))]
    if invalid:
        raise BackboneError(
            f"{path} is no state dict: its entry '{invalid[0]}' is no named tensor. Save only "
            f"model.state_dict(), or {{'state_dict': model.state_dict()}}."
        )
    tensors = dict(raw)
    for prefix in _PREFIXES:
        if all(name.startswith(prefix) for name in tensors):
            tensors = {name.removeprefix(prefix): value for name, value in tensors.items()}
    incomplete = [k for k, v in tensors.items() if not _is_whole(v)]
    if incomplete:
        raise BackboneError(
            f"{path} holds '{incomplete[0]}' without all of its numbers (sparse, quantised, 8-bit, "
            f"stretched or none at all). Save dense tensors of 16 or 32 bits, each whole."
        )
    infinite = [k for k, v in tensors.items() if v.is_floating_point() and not v.isfinite().all()]
    if infinite:
        raise BackboneError(
            f"{path} has values that are not finite, first in '{infinite[0]}'. The training that "
            f"wrote it diverged or the file is damaged; give an earlier checkpoint."
        )
    return tensors


def _is_whole(tensor: Tensor) -> bool:
    """Tell whether a tensor is dense, of 16 bits or more, and stores each of its numbers.

    A stride of zero expands four bytes to a terabyte, which the check for finite values would
    allocate.
    """
    plain = tensor.layout is torch.strided and tensor.device.type == "cpu"
    if not plain or tensor.is_quantized or tensor.is_nested:
        return False
    if tensor.is_floating_point() and tensor.element_size() < 2:
        return False
    return tensor.nbytes <= tensor.untyped_storage().nbytes()
