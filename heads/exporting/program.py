"""A head as one program: rows of any length -> logits and probabilities.

    x = features / |features|    logits = head(x)    probabilities = softmax(logits / temperature)

A linear head is folded into W and b before it is traced; of any other the method's own equations
are traced by `torch.export`, with the number of rows left open. With the image tower the program
takes the pixels that the tower takes.
"""

import re
import warnings
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from featcache.errors import HeadError
from heads.contract.linear import Linear
from heads.contract.rows import Rows, Tensors
from heads.contract.settings import hyper_values, with_values
from heads.fitted import Fitted
from heads.head import Head

FEATURES, PIXELS = "features", "pixels"
"""Names of the input: rows [n d], or pixels [n 3 s s] after preprocessing."""
LOGITS, PROBABILITIES = "logits", "probabilities"
"""Names of the outputs, [n c] each."""
TRACED_ROWS = 3
"""Rows of the example that is traced; 0 and 1 would be taken for constants."""


@dataclass(frozen=True, kw_only=True)
class Program:
    """A traced head."""

    exported: torch.export.ExportedProgram
    input: str
    """FEATURES or PIXELS."""
    shape: tuple[int, ...]
    """Shape of one input row: [d], or [3 s s]."""
    linear: Linear | None
    """The matrix and the vector that answer, where the head is linear."""


class LinearAnswer(nn.Module):
    """The logits x W^T + b of a folded head."""

    weight: Tensor
    bias: Tensor

    def __init__(self, linear: Linear) -> None:
        super().__init__()
        self.register_buffer("weight", linear.weight)
        self.register_buffer("bias", linear.bias)

    def forward(self, x: Float[Tensor, "n d"]) -> Float[Tensor, "n c"]:
        """Return the logits of unit rows."""
        return F.linear(x, self.weight, self.bias)


class FittedAnswer(nn.Module):
    """The logits of a method by its own equations, its tensors as buffers."""

    def __init__(self, fitted: Fitted) -> None:
        super().__init__()
        self._fitted = fitted
        self._names = {
            part: {name: self._keep(f"{part}_{name}", t) for name, t in tensors.items()}
            for part, tensors in (("params", fitted.params), ("fixed", fitted.fixed))
        }
        numbers = hyper_values(fitted.hyper)
        self._numbers = {
            name: self._keep(f"hyper_{name}", torch.tensor(float(value)))
            for name, value in numbers.items()
        }

    def _keep(self, name: str, tensor: Tensor) -> str:
        """Register a tensor under a name that Python allows and nothing else has."""
        plain = re.sub(r"\W", "_", name)
        while hasattr(self, plain):
            plain += "_"
        self.register_buffer(plain, tensor)
        return plain

    def _part(self, part: str) -> Tensors:
        return {name: getattr(self, own) for name, own in self._names[part].items()}

    def forward(self, x: Float[Tensor, "n d"]) -> Float[Tensor, "n c"]:
        """Return the logits of unit rows."""
        fitted, method = self._fitted, self._fitted.method
        hyper = with_values(fitted.hyper, {n: getattr(self, b) for n, b in self._numbers.items()})
        fixed = self._part("fixed")
        rows = Rows(x=x, norms=torch.ones_like(x[:, 0]))
        found = method.terms(self._part("params"), fixed, rows, fitted.config, hyper)
        logits: Tensor = method.combine(found, fixed, fitted.config, hyper)
        return logits


class Answers(nn.Module):
    """Rows of any length, or pixels behind a tower, -> logits and probabilities."""

    def __init__(self, head: nn.Module, temperature: float, tower: nn.Module | None) -> None:
        super().__init__()
        self.head, self.tower = head, tower
        self._temperature = temperature

    def forward(self, rows: Float[Tensor, "n ..."]) -> tuple[Tensor, Tensor]:
        """Return logits and probabilities [n c]."""
        features = rows if self.tower is None else self.tower(rows)
        logits = self.head(F.normalize(features, dim=-1))
        return logits, torch.softmax(logits / self._temperature, dim=-1)


def program_of(head: Head, width: int, tower: nn.Module | None = None, side: int = 0) -> Program:
    """Trace a head in float32.

    Args:
        head: On the CPU; one that `heads.exporting.refusals` lets pass.
        width: Length d of its rows.
        tower: The image tower in float32 on the CPU: pixels [n 3 s s] -> features [n d].
        side: Side s of its input in pixels.

    Raises:
        HeadError: If torch cannot trace it.
    """
    fitted = _in_float32(head.fitted)
    linear = fitted.linear()
    answer = FittedAnswer(fitted) if linear is None else LinearAnswer(linear)
    shape = (width,) if tower is None else (3, side, side)
    model = Answers(answer, head.temperature, _contiguous(tower)).eval()
    example = torch.linspace(-1, 1, TRACED_ROWS * _size(shape)).reshape(TRACED_ROWS, *shape)
    try:
        exported = _traced(model, example)
    except Exception as error:  # torch.export has no single error for what it cannot trace
        raise HeadError(
            f"The answers of {head.method.name} cannot be written as one program: torch.export "
            f"says {' '.join(str(error).split())[:300]}."
        ) from error
    return Program(
        exported=exported,
        input=FEATURES if tower is None else PIXELS,
        shape=shape,
        linear=linear,
    )


def _contiguous(tower: nn.Module | None) -> nn.Module | None:
    """Copy a tower with its tensors as files store them; views of others would be traced."""
    copied = deepcopy(tower)
    if copied is not None:
        for tensor in (*copied.parameters(), *copied.buffers()):
            tensor.data = tensor.data.contiguous()
    return copied


def _traced(model: nn.Module, example: Tensor) -> torch.export.ExportedProgram:
    rows = torch.export.Dim("n")
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        exported: torch.export.ExportedProgram = torch.export.export(
            model, (example,), dynamic_shapes=({0: rows},), strict=False
        )
        # without nested graphs, as autocast leaves them
        flat: torch.export.ExportedProgram = exported.run_decompositions({})
        return flat


def _in_float32(fitted: Fitted) -> Fitted:
    def lowered(tensors: Tensors) -> Tensors:
        return {n: t.float() if t.is_floating_point() else t for n, t in tensors.items()}

    parts: dict[str, Any] = {"params": lowered(fitted.params), "fixed": lowered(fitted.fixed)}
    return Fitted(method=fitted.method, config=fitted.config, hyper=fitted.hyper, **parts)


def _size(shape: tuple[int, ...]) -> int:
    return torch.Size(shape).numel()
