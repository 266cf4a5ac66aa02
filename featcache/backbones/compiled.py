"""An image tower compiled with torch.compile, once for each kind of batch, reproducibly.

Inductor generates code for fixed shapes and a fixed number of threads. A call that differs would
recompile without our settings and without our lock. So every kind of batch has its own function,
compiled under one lock at its first call. Kernels are never chosen by timing, so that another
process with empty caches computes the same bytes.
"""

import logging
import threading
import time
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from types import FunctionType, MethodType
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from featcache.backbones.devices import lacks_memory
from featcache.backbones.patches import Features
from featcache.errors import BackboneError
from featcache.wording import Argument

SETTINGS = {
    "freezing": True,  # treat weights as constants and pack them once
    "deterministic": True,  # never choose between kernels by timing
    "max_autotune": False,
    "max_autotune_pointwise": False,
    "max_autotune_gemm": False,
    "coordinate_descent_tuning": False,
    "benchmark_fusion": False,
    "triton.cudagraphs": False,  # the next batch would overwrite their outputs
}
"""Settings of inductor during compilation; they override environment variables."""

Tower = Callable[[Float[Tensor, "b 3 s s"], tuple[str, ...]], Features]

_COMPILING = threading.Lock()
"""Dynamo's state and, in older torch, inductor's settings are global to the process."""


class CompiledTower:
    """An image tower, compiled at the first call with a shape, patch variants and thread count."""

    def __init__(self, tower: Tower, name: str, device: torch.device) -> None:
        """Check that torch.compile works on this device, which takes some seconds.

        Args:
            tower: Maps pixels to features that are not normalised; its weights must not change.
            name: Name of the backbone, for messages.
            device: Device of the pixels.

        Raises:
            BackboneError: If torch.compile does not work for this device.
        """
        self._tower = tower
        self._name = name
        self._compiled: dict[Hashable, Tower] = {}
        self._failure: BackboneError | None = None
        self.seconds = 0.0
        """Total duration of the first calls, which compile."""
        check_compiler(device)

    def __call__(self, pixels: Float[Tensor, "b 3 s s"], variants: Sequence[str]) -> Features:
        """Run the tower; the first batch of a kind takes many seconds and blocks other threads.

        Call it in inference mode and outside of autocast.

        Raises:
            BackboneError: If the tower cannot be compiled.
        """
        requested = tuple(variants)
        # All that torch's guards check: equal kinds never trigger a recompilation.
        kind = (
            requested,
            pixels.shape,
            pixels.stride(),
            pixels.dtype,
            pixels.is_inference(),
            torch.get_num_threads(),
        )
        compiled = self._compiled.get(kind)
        if compiled is not None:
            return compiled(pixels, requested)
        with _COMPILING:
            if self._failure is not None:
                raise self._failure
            if kind in self._compiled:
                return self._compiled[kind](pixels, requested)
            tower: Tower = torch.compile(_own_code(self._tower), fullgraph=True, dynamic=False)
            begin = time.perf_counter()
            try:
                with _inductor_settings():
                    features = tower(pixels, requested)
                self.seconds += time.perf_counter() - begin
            except (RuntimeError, OSError, ImportError) as error:
                if lacks_memory(error):
                    raise
                self._failure = BackboneError(
                    f"The image tower of {self._name} could not be compiled ({_reason(error)}). "
                    "Leave ",
                    Argument("compiled"),
                    " out.",
                )
                raise self._failure from error
            self._compiled[kind] = tower
            return features


def check_compiler(device: torch.device) -> None:
    """Compile one line for a device to check that torch.compile works there.

    Raises:
        BackboneError: If it does not.
    """
    if device.type != "cpu" and "deterministic" not in _options():
        raise BackboneError(
            f"torch {torch.__version__} cannot be told to compile for {device.type} without timing "
            f"its kernels, which would change the last bits from run to run. Take a newer torch, "
            "or leave ",
            Argument("compiled"),
            " out.",
        )
    try:
        with _COMPILING, _inductor_settings():
            line = torch.compile(_own_code(_line), fullgraph=True, dynamic=False)
            is_compiled = bool(line(torch.ones(8, device=device)).sum() == 16)
    except (RuntimeError, OSError, ImportError) as error:
        what = "a C++ compiler (CXX, else g++)" if device.type == "cpu" else "Triton and a compiler"
        raise BackboneError(
            f"torch.compile cannot build code for {device.type} here ({_reason(error)}). Install "
            f"{what}, or leave ",
            Argument("compiled"),
            " out.",
        ) from error
    if not is_compiled:
        raise BackboneError(
            "torch.compile is switched off here (TORCHDYNAMO_DISABLE or TORCH_COMPILE_DISABLE). "
            "Switch it on, or leave ",
            Argument("compiled"),
            " out.",
        )


def _line(x: Tensor) -> Tensor:
    return x + 1 if torch.compiler.is_compiling() else x


def _own_code(function: Callable[..., Any]) -> Callable[..., Any]:
    """Copy a function and its code object, to which torch attaches compilations and their count."""
    if isinstance(function, MethodType):
        return MethodType(_own_code(function.__func__), function.__self__)
    plain: Any = function
    return FunctionType(
        plain.__code__.replace(),
        plain.__globals__,
        plain.__name__,
        plain.__defaults__,
        plain.__closure__,
    )


@contextmanager
def _inductor_settings() -> Iterator[None]:
    """Apply `SETTINGS`, and silence torch's remarks on the machine."""
    import torch._inductor.config as config  # takes seconds

    known = _options()
    remarks = logging.getLogger("torch.utils.cpp_extension")
    level = remarks.level
    remarks.setLevel(logging.ERROR)
    try:
        with config.patch({name: value for name, value in SETTINGS.items() if name in known}):
            yield
    finally:
        remarks.setLevel(level)


def _options() -> frozenset[str]:
    return frozenset(torch._inductor.list_options())


def _reason(error: BaseException) -> str:
    """Return the first line of an error that is not blank."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0][:200] if lines else type(error).__name__
