"""Grey levels -> raw fp16 rows, in batches of one fixed size.

The last bits of a row depend on the size of the batch it was computed in, and not on its
neighbours; so every batch is filled up to the same size, and a resumed pass gives equal bytes.
"""

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float16, Int64, UInt8
from torch import Tensor

from featcache.backbones.base import Backbone
from featcache.errors import BackboneError

GFLOPS_A_BATCH = {"cpu": 250.0, "cuda": 10_000.0, "mps": 1_000.0}
"""Work in one micro-batch by kind of device: well under a second, so that Ctrl-C is prompt."""

LIMITS = {"cpu": (8, 256), "cuda": (32, 512), "mps": (8, 256)}
"""Smallest and largest micro-batch by kind of device."""


def micro_batch_for(gflops: float, kind: str) -> int:
    """Choose the batch size from the work of one image and the kind of device, never by timing."""
    budget = GFLOPS_A_BATCH.get(kind, GFLOPS_A_BATCH["cpu"])
    low, high = LIMITS.get(kind, LIMITS["cpu"])
    images = max(1, int(budget / max(gflops, 1e-3)))
    return min(max(1 << (images.bit_length() - 1), low), high)


class Encoder:
    """A backbone behind fixed batches: uint8 pictures in, fp16 arrays out."""

    def __init__(self, backbone: Backbone, micro_batch: int) -> None:
        self.backbone = backbone
        self.micro_batch = micro_batch
        shape = (1, 3, 1, 1)
        self._mean = torch.tensor(backbone.mean, device=backbone.device).view(shape)
        self._std = torch.tensor(backbone.std, device=backbone.device).view(shape)

    @torch.inference_mode()
    def start(
        self, pictures: Sequence[UInt8[np.ndarray, "s s 3"]], variants: Sequence[str]
    ) -> "Started":
        """Encode up to a batch of pictures; on an accelerator this returns before it is done.

        Raises:
            BackboneError: If a batch does not fit into the accelerator's memory.
        """
        count = len(pictures)
        batch = np.zeros((self.micro_batch, *pictures[0].shape), dtype=np.uint8)
        np.stack(pictures, out=batch[:count])
        levels = torch.from_numpy(batch)
        if self.backbone.device.type == "cuda":
            levels = levels.pin_memory()
        try:
            levels = levels.to(self.backbone.device, non_blocking=True).permute(0, 3, 1, 2)
            pixels = (levels.float() / 255 - self._mean) / self._std
            rows, patches = self.backbone.encode_images(pixels, variants)
        except torch.OutOfMemoryError as error:
            raise BackboneError(
                f"{self.micro_batch} images at once do not fit into the memory of "
                f"{self.backbone.device}. Take fewer with --micro-batch "
                f"{max(1, self.micro_batch // 2)}; a cache that holds rows keeps its own, so give "
                f"another --cache then."
            ) from error
        wide = {"global": rows[:count], **{v: patches[v][:count] for v in variants}}
        return Started({name: _copy_out(values.half()) for name, values in wide.items()})


class Started:
    """Rows that an accelerator may still be computing."""

    def __init__(self, values: Mapping[str, Tensor]) -> None:
        self._values = values
        self._done: torch.cuda.Event | None = None
        if any(v.is_pinned() for v in values.values() if torch.cuda.is_available()):
            self._done = torch.cuda.Event()  # type: ignore[no-untyped-call]
            self._done.record()

    def wait(self) -> dict[str, Float16[np.ndarray, "b ..."]]:
        """Return `global` and each patch variant once they are computed."""
        if self._done is not None:
            self._done.synchronize()
        return {name: values.numpy() for name, values in self._values.items()}


@dataclass
class _Flight:
    started: Started
    positions: list[int]


class Lane:
    """Collects pictures into full batches and puts the rows where they belong.

    Pictures of one lane go through the encoder together: the central views, or the augmented views
    of one component, flattened over images and views.
    """

    def __init__(
        self,
        encoder: Encoder,
        rows: Int64[np.ndarray, " r"],
        variants: Sequence[str] = (),
        views: int = 1,
    ) -> None:
        """Open room for the rows of one shard, zero where an image turns out unreadable.

        Args:
            encoder: What they go through.
            rows: Of the listing, ascending.
            variants: Patch features wanted beside the global ones.
            views: Pictures of each row, one behind the other.
        """
        backbone = encoder.backbone
        self.rows = rows
        self._encoder = encoder
        self._variants = tuple(variants)
        self._depth = 1 if backbone.device.type == "cuda" else 0
        self._first = {int(row): i * views for i, row in enumerate(rows)}
        self._pictures: list[UInt8[np.ndarray, "s s 3"]] = []
        self._positions: list[int] = []
        self._flights: deque[_Flight] = deque()
        count = len(rows) * views
        self._out = {"global": np.zeros((count, backbone.dim), dtype=np.float16)}
        for variant in self._variants:
            shape = (count, backbone.patches, backbone.dim)
            self._out[variant] = np.zeros(shape, dtype=np.float16)

    def add(self, row: int, pictures: Sequence[UInt8[np.ndarray, "s s 3"]]) -> None:
        """Take the pictures of one row; full batches are encoded."""
        for i, picture in enumerate(pictures):
            self._pictures.append(picture)
            self._positions.append(self._first[row] + i)
            if len(self._pictures) == self._encoder.micro_batch:
                self._start()

    def end(self) -> dict[str, Float16[np.ndarray, "r ..."]]:
        """Encode what is left, padded to a full batch, and return the shard's rows."""
        if self._pictures:
            self._start()
        self._land(0)
        return self._out

    def _start(self) -> None:
        started = self._encoder.start(self._pictures, self._variants)
        self._flights.append(_Flight(started, self._positions))
        self._pictures, self._positions = [], []
        self._land(self._depth)

    def _land(self, keep: int) -> None:
        while len(self._flights) > keep:
            flight = self._flights.popleft()
            for name, values in flight.started.wait().items():
                self._out[name][flight.positions] = values


def _copy_out(values: Tensor) -> Tensor:
    if values.device.type != "cuda":
        return values.cpu()
    room = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
    return room.copy_(values, non_blocking=True)
