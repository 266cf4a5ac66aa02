"""Transfer batches to the device and features back.

On CUDA three streams work concurrently: upload, computation, and download of successive batches.
Streams wait for each other by events; the host waits for downloads only. Host memory is pinned,
without which copies do not overlap with computation. torch caches pinned memory and reuses it once
no copy needs it.
"""

import time
from collections.abc import Callable, Mapping
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float16, UInt8
from torch import Tensor

Levels = UInt8[Tensor, "..."]
Features = Mapping[str, Float16[Tensor, "b ..."]]
Compute = Callable[[], Features]
"""Computes features on the device."""


@runtime_checkable
class Landing(Protocol):
    """Features on their way to the host."""

    def done(self) -> bool:
        """Tell whether `wait` would return at once."""
        ...

    def wait(self) -> Features:
        """Wait, and return the features in host memory."""
        ...

    def span(self) -> tuple[float, float]:
        """Return begin and end of the computation on the clock of `time.perf_counter`.

        Call it after `wait`.
        """
        ...


@runtime_checkable
class Transfer(Protocol):
    """Transfer to and from one device."""

    def room(self, *shape: int) -> Levels:
        """Allocate uninitialised memory for pixels."""
        ...

    def upload(self, levels: Levels) -> Levels:
        """Return pixels on the device; later computations wait for the copy."""
        ...

    def run(self, compute: Compute) -> Landing:
        """Compute on the device and start the download of the features."""
        ...


def transfer_for(device: torch.device) -> Transfer:
    """Return the transfer for a device."""
    return Queued(device, torch.cuda) if device.type == "cuda" else Direct(device)


class Direct:
    """Synchronous transfer, for a CPU and for accelerators without asynchronous copies."""

    def __init__(self, device: torch.device) -> None:
        self._device = device

    def room(self, *shape: int) -> Levels:
        """Allocate uninitialised memory for pixels."""
        return torch.empty(shape, dtype=torch.uint8)

    def upload(self, levels: Levels) -> Levels:
        """Return pixels on the device."""
        return levels.to(self._device)

    def run(self, compute: Compute) -> Landing:
        """Compute a batch and wait for it."""
        begin = time.perf_counter()
        values = {name: v.cpu() for name, v in compute().items()}
        return _Landed(values, (begin, time.perf_counter()))


class Queued:
    """Overlaps upload, computation and download of successive batches."""

    def __init__(self, device: torch.device, queues: Any) -> None:
        """Create streams for the copies; computations use the current stream.

        Args:
            device: Device of the streams.
            queues: `torch.cuda`, or an object with the same interface.
        """
        self._device = device
        self._queues = queues
        self._pinned = queues is torch.cuda
        self._inward, self._outward = queues.Stream(device), queues.Stream(device)
        queues.synchronize(device)
        self._epoch, self._epoch_s = self._mark(queues.current_stream(device)), time.perf_counter()

    def room(self, *shape: int) -> Levels:
        """Allocate uninitialised pinned memory for pixels."""
        return torch.empty(shape, dtype=torch.uint8, pin_memory=self._pinned)

    def upload(self, levels: Levels) -> Levels:
        """Start a copy; computations that are queued later wait for it."""
        queues, main = self._queues, self._queues.current_stream(self._device)
        with queues.stream(self._inward):
            there = torch.empty_like(levels, device=self._device)
            there.copy_(levels, non_blocking=True)
            main.wait_event(self._mark(self._inward))
        if self._pinned:  # another stream reads this memory: do not reuse it before
            there.record_stream(main)
        return there

    def run(self, compute: Compute) -> Landing:
        """Queue a computation and its download, without waiting."""
        queues, main = self._queues, self._queues.current_stream(self._device)
        begin = self._mark(main)
        values = compute()
        end = self._mark(main)
        self._outward.wait_event(end)
        with queues.stream(self._outward):
            here = {name: self._copy_out(v) for name, v in values.items()}
            copied = self._mark(self._outward)
        # The landing keeps `values` alive until the download is done.
        return _Landing(here, copied, values, lambda: (self._when(begin), self._when(end)))

    def _copy_out(self, values: Tensor) -> Tensor:
        room = torch.empty(values.shape, dtype=values.dtype, pin_memory=self._pinned)
        return room.copy_(values, non_blocking=True)

    def _mark(self, queue: Any) -> Any:
        event = self._queues.Event(enable_timing=True)
        event.record(queue)
        return event

    def _when(self, event: Any) -> float:
        return self._epoch_s + 1e-3 * float(self._epoch.elapsed_time(event))


class _Landed:
    def __init__(self, values: Features, span: tuple[float, float]) -> None:
        self._values, self._span = values, span

    def done(self) -> bool:
        return True

    def wait(self) -> Features:
        return self._values

    def span(self) -> tuple[float, float]:
        return self._span


class _Landing:
    def __init__(
        self, values: Features, copied: Any, held: object, span: Callable[[], tuple[float, float]]
    ) -> None:
        self._values, self._copied, self._held = values, copied, held
        self._span = span

    def done(self) -> bool:
        return bool(self._copied.query())

    def wait(self) -> Features:
        self._copied.synchronize()
        self._held = None
        return self._values

    def span(self) -> tuple[float, float]:
        return self._span()
