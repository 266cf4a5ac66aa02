"""Weights files: torch's two formats, safetensors, and programs that must not be run."""

import io
from pathlib import Path
from typing import Any

import torch

from tests.fuzz.cases import Case
from tests.fuzz.guard import Target


def _weights(folder: Path) -> None:
    from featcache.backbones.weights import read_weights

    weights = read_weights(folder / "weights")
    for name, tensor in weights.tensors.items():
        assert isinstance(name, str)
        tensor.float().sum().item()


def _weights_seeds(folder: Path) -> list[Case]:
    from safetensors.torch import save

    plain = {"visual.conv": torch.ones(2, 3), "logit_scale": torch.tensor(4.0)}
    kinds: list[Any] = [
        plain,
        {"state_dict": {f"module.{k}": v for k, v in plain.items()}, "epoch": 3},
        {"a": torch.ones(2, dtype=torch.bfloat16), "b": torch.ones(2, dtype=torch.int64)},
        {"a": torch.ones(3).expand(2, 3), "b": torch.ones(4)[::2], "c": torch.zeros(0, 3)},
        {"a": torch.ones(2, dtype=torch.complex64), "b": torch.tensor(True)},
        {"a": torch.eye(2).to_sparse()},
        {"a": torch.nn.Parameter(torch.ones(2))},
        {"a": torch.ones(1).expand(10**13)},
        {"a": torch.quantize_per_tensor(torch.ones(2), 0.1, 0, torch.quint8)},
        {"a": torch.empty(2, device="meta")},
        {"a": torch.ones(2).to(torch.float8_e4m3fn)},
        {"input_resolution": torch.tensor(224), "context_length": 1, "vocab_size": 2},
        [1, 2],
    ]
    cases = []
    for kind in kinds:
        buffer = io.BytesIO()
        torch.save(kind, buffer)
        cases.append({"weights": buffer.getvalue()})
    buffer = io.BytesIO()
    torch.save(plain, buffer, _use_new_zipfile_serialization=False)
    program = folder / "program.pt"
    torch.jit.script(torch.nn.Linear(2, 2)).save(str(program))  # type: ignore[no-untyped-call]
    tensors = (plain, {"a": torch.ones(2, dtype=torch.bfloat16), "b": torch.zeros(0)})
    return [
        *cases,
        {"weights": buffer.getvalue()},
        {"weights": program.read_bytes()},
        *({"weights": save(t)} for t in tensors),
    ]


def _fit(folder: Path) -> None:
    from featcache.backbones.fit import fit_weights
    from featcache.backbones.weights import read_weights

    fit_weights(_model(), read_weights(folder / "weights"), name="tiny")


_MODELS: list[Any] = []


def _model() -> Any:
    if not _MODELS:
        from open_clip.model import CLIP

        vision = {"image_size": 8, "layers": 1, "width": 16, "head_width": 8, "patch_size": 4}
        text = {"context_length": 4, "vocab_size": 9, "width": 8, "heads": 1, "layers": 1}
        _MODELS.append(CLIP(4, vision, text))
    return _MODELS[0]


def _fit_seeds(_: Path) -> list[Case]:
    from safetensors.torch import save

    model = _model()
    tensors = {k: v.detach().clone() for k, v in model.state_dict().items()}
    other = dict(tensors)
    other["visual.positional_embedding"] = torch.zeros(10, 16)
    few = {k: v for k, v in tensors.items() if not k.startswith("transformer")}
    return [{"weights": save(t)} for t in (tensors, other, few)]


WEIGHTS_TARGETS = (
    Target(name="weights", run=_weights, seeds=_weights_seeds),
    Target(name="weights-fit", run=_fit, seeds=_fit_seeds),
)
