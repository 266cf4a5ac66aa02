"""A batch's way to the device and its features' way back.

On CUDA three queues work at once: one uploads a batch, one computes the batch before it, one copies
out the features of the batch before that. A queue waits for another through an event, and the host
waits for the last one only. What the host reads and writes lies in pinned memory, without which no
copy runs beside a computation; torch keeps such memory and hands it out again once no copy uses it.
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
"""Features on the device, of grey levels that are there."""


@runtime_checkable
class Landing(Protocol):
    """Features on their way to the host."""

    def done(self) -> bool:
        """Tell whether `wait` would return at once."""
        ...

    def wait(self) -> Features:
        """Return the features in the host's memory."""
        ...

    def span(self) -> tuple[float, float]:
        """Return when the device began and ended to compute, as `time.perf_counter` has it.

        To be asked after `wait`.
        """
        ...


@runtime_checkable
class Transfer(Protocol):
    """How batches reach one device."""

    def room(self, *shape: int) -> Levels:
        """Return memory for grey levels, not filled."""
        ...

    def upload(self, levels: Levels) -> Levels:
        """Return grey levels on the device; what is computed there next finds them complete."""
        ...

    def run(self, compute: Compute) -> Landing:
        """Compute on the device and begin to copy out what comes of it."""
        ...


def transfer_for(device: torch.device) -> Transfer:
    """Choose by the kind of device."""
    return Queued(device, torch.cuda) if device.type == "cuda" else Direct(device)


class Direct:
    """One thing after the other: for a CPU, and for accelerators whose copies wait anyway."""

    def __init__(self, device: torch.device) -> None:
        self._device = device

    def room(self, *shape: int) -> Levels:
        """Return memory for grey levels, not filled."""
        return torch.empty(shape, dtype=torch.uint8)

    def upload(self, levels: Levels) -> Levels:
        """Return grey levels on the device."""
        return levels.to(self._device)

    def run(self, compute: Compute) -> Landing:
        """Compute a batch; it has landed when this returns."""
        begin = time.perf_counter()
        values = {name: v.cpu() for name, v in compute().items()}
        return _Landed(values, (begin, time.perf_counter()))


class Queued:
    """Upload, computation and copy-out of different batches beside each other."""

    def __init__(self, device: torch.device, queues: Any) -> None:
        """Open the two queues for copies; computations go to the current one.

        Args:
            device: Of the queues.
            queues: `torch.cuda`, or what answers as it does.
        """
        self._device = device
        self._queues = queues
        self._pinned = queues is torch.cuda
        self._inward, self._outward = queues.Stream(device), queues.Stream(device)
        queues.synchronize(device)
        self._epoch, self._epoch_s = self._mark(queues.current_stream(device)), time.perf_counter()

    def room(self, *shape: int) -> Levels:
        """Return pinned memory for grey levels, not filled."""
        return torch.empty(shape, dtype=torch.uint8, pin_memory=self._pinned)

    def upload(self, levels: Levels) -> Levels:
        """Queue a copy; computations that are queued after this wait for it."""
        queues, main = self._queues, self._queues.current_stream(self._device)
        with queues.stream(self._inward):
            there = torch.empty_like(levels, device=self._device)
            there.copy_(levels, non_blocking=True)
            main.wait_event(self._mark(self._inward))
        if self._pinned:  # memory of one queue that another one reads: not to be used again before
            there.record_stream(main)
        return there

    def run(self, compute: Compute) -> Landing:
        """Queue a computation; this returns before anything of it is done."""
        queues, main = self._queues, self._queues.current_stream(self._device)
        begin = self._mark(main)
        values = compute()
        end = self._mark(main)
        self._outward.wait_event(end)
        with queues.stream(self._outward):
            here = {name: self._copy_out(v) for name, v in values.items()}
            copied = self._mark(self._outward)
        # What the outward queue reads is held until it has.
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
