"""An image tower through torch.compile: one compilation for each kind of batch, and nothing timed.

Inductor writes code for fixed sizes and one number of threads; a call that differs would make it
compile again, without what held around the first time, while other threads run. So every kind of
batch has a function of its own, compiled under one lock at its first call. No kernel is chosen by
how fast it ran: another process, with empty caches, computes the same bytes.
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

SETTINGS = {
    "freezing": True,  # weights are constants, packed once
    "deterministic": True,  # of two kernels with other sums none is chosen by timing
    "max_autotune": False,
    "max_autotune_pointwise": False,
    "max_autotune_gemm": False,
    "coordinate_descent_tuning": False,
    "benchmark_fusion": False,
    "triton.cudagraphs": False,  # their results lie where the next batch writes
}
"""Settings of inductor while it compiles, whatever the environment's variables say."""

Tower = Callable[[Float[Tensor, "b 3 s s"], tuple[str, ...]], Features]

_COMPILING = threading.Lock()
"""Dynamo's state and, in older torch, inductor's settings belong to the whole process."""


class CompiledTower:
    """A tower that is compiled when it first meets a size of batch, patch variants and threads."""

    def __init__(self, tower: Tower, name: str, device: torch.device) -> None:
        """Make sure that something can be compiled at all; takes some seconds.

        Args:
            tower: Un-normalised features of pixels, its weights frozen for good.
            name: Of the backbone, for messages.
            device: Where the pixels will be.

        Raises:
            BackboneError: If nothing can be compiled for this device.
        """
        self._tower = tower
        self._name = name
        self._ready: dict[Hashable, Tower] = {}
        self._broken: BackboneError | None = None
        self.seconds = 0.0
        """Time of all first calls."""
        check_compiler(device)

    def __call__(self, pixels: Float[Tensor, "b 3 s s"], variants: Sequence[str]) -> Features:
        """Run the tower; the first batch of a kind takes many seconds, other threads wait for it.

        Call it in inference mode and outside of autocast.

        Raises:
            BackboneError: If the tower cannot be compiled.
        """
        wanted = tuple(variants)
        # What torch's own guards look at, so that they never find a difference.
        kind = (
            wanted,
            pixels.shape,
            pixels.stride(),
            pixels.dtype,
            pixels.is_inference(),
            torch.get_num_threads(),
        )
        ready = self._ready.get(kind)
        if ready is not None:
            return ready(pixels, wanted)
        with _COMPILING:
            if self._broken is not None:
                raise self._broken
            if kind in self._ready:
                return self._ready[kind](pixels, wanted)
            made: Tower = torch.compile(_own_code(self._tower), fullgraph=True, dynamic=False)
            begin = time.perf_counter()
            try:
                with _settled():
                    features = made(pixels, wanted)
                self.seconds += time.perf_counter() - begin
            except (RuntimeError, OSError, ImportError) as error:
                if lacks_memory(error):
                    raise
                self._broken = BackboneError(
                    f"The image tower of {self._name} could not be compiled ({_why(error)}). "
                    f"Leave --compile out."
                )
                raise self._broken from error
            self._ready[kind] = made
            return features


def check_compiler(device: torch.device) -> None:
    """Compile a line for a device, as a proof that larger things can be.

    Raises:
        BackboneError: If that fails.
    """
    if device.type != "cpu" and "deterministic" not in _options():
        raise BackboneError(
            f"torch {torch.__version__} cannot be told to compile for {device.type} without timing "
            f"its kernels, which would change the last bits from run to run. Take a newer torch, "
            f"or leave --compile out."
        )
    try:
        with _COMPILING, _settled():
            line = torch.compile(_own_code(_line), fullgraph=True, dynamic=False)
            is_compiled = bool(line(torch.ones(8, device=device)).sum() == 16)
    except (RuntimeError, OSError, ImportError) as error:
        what = "a C++ compiler (CXX, else g++)" if device.type == "cpu" else "Triton and a compiler"
        raise BackboneError(
            f"torch.compile cannot build code for {device.type} here ({_why(error)}). Install "
            f"{what}, or leave --compile out."
        ) from error
    if not is_compiled:
        raise BackboneError(
            "torch.compile is switched off here (TORCHDYNAMO_DISABLE or TORCH_COMPILE_DISABLE). "
            "Switch it on, or leave --compile out."
        )


def _line(x: Tensor) -> Tensor:
    return x + 1 if torch.compiler.is_compiling() else x


def _own_code(function: Callable[..., Any]) -> Callable[..., Any]:
    """Copy a function with its code, on which torch keeps what it compiled and counts how often."""
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
def _settled() -> Iterator[None]:
    """Put inductor's settings in force, and spare the user torch's remarks on the machine."""
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


def _why(error: BaseException) -> str:
    """Return the first line of an error that says something."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0][:200] if lines else type(error).__name__
