"""Encode uint8 views into raw float16 rows in batches of a fixed size.

The last bits of a row depend on the batch size, but not on the other rows. So every batch is padded
to the same size, and a resumed pass gives equal bytes. On a CPU every batch is computed by one
thread, with as many batches at once as torch has threads: cores do not wait for each other inside a
product, and the bytes do not depend on the number of threads. An accelerator queues batches itself;
`featcache.encoding.transfer` overlaps its copies with computation.
"""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float16, Int64, UInt8
from torch import Tensor

from featcache.backbones.base import Backbone
from featcache.backbones.devices import lacks_memory
from featcache.encoding.components import output_shape
from featcache.encoding.transfer import Landing, transfer_for
from featcache.errors import BackboneError, UsageError
from featcache.imaging.windows import FILTERS, MODES, Preprocess
from featcache.threads import single_threaded
from featcache.wording import Argument

Watch = Callable[[str, float, float], None]
"""Called with the name of a stage and begin and end of a piece of its work in seconds."""

GFLOPS_A_BATCH = {"cpu": 250.0, "cuda": 10_000.0, "mps": 1_000.0}
"""Kind of device -> work of one micro-batch; on one CPU thread it takes a second or two, so that
Ctrl-C is prompt."""

LIMITS = {"cpu": (2, 256), "cuda": (32, 512), "mps": (8, 256)}
"""Kind of device -> smallest and largest micro-batch."""

LARGEST_BATCH = 65536
"""Most images in a micro-batch."""

Squares = Sequence[UInt8[np.ndarray, "s s 3"] | UInt8[Tensor, "s s 3"]]
"""Views at the input size of the encoder."""

Rows = dict[str, Float16[np.ndarray, "b ..."]]
"""`global`, and each patch variant or place of tokens, of one batch."""


def unwatched(stage: str, begin: float, end: float) -> None:
    """Do nothing."""


def micro_batch_for(gflops: float, kind: str) -> int:
    """Return the micro-batch for the GFLOPs of one image and a kind of device, never by timing."""
    budget = GFLOPS_A_BATCH.get(kind, GFLOPS_A_BATCH["cpu"])
    low, high = LIMITS.get(kind, LIMITS["cpu"])
    images = max(1, int(budget / max(gflops, 1e-3)))
    return min(max(1 << (images.bit_length() - 1), low), high)


def check_micro_batch(size: int | None) -> None:
    """Refuse a micro-batch that is none; None stands for the usual one.

    Raises:
        UsageError: If it has no image, or too many.
    """
    if size is not None and not 1 <= size <= LARGEST_BATCH:
        raise UsageError(
            Argument("micro_batch"), f" must be 1 to {LARGEST_BATCH} images, got {size}."
        )


def preprocessing(backbone: Backbone) -> Preprocess:
    """Return the preprocessing of a backbone before normalisation.

    Raises:
        BackboneError: If its mode or filter is not supported.
    """
    mode, interpolation = backbone.resize_mode, backbone.interpolation
    if mode not in MODES or interpolation not in FILTERS:
        raise BackboneError(
            f"{backbone.name} wants its images resized by '{mode}' with '{interpolation}'; "
            f"expected one of {', '.join(MODES)} with one of {', '.join(FILTERS)}."
        )
    red, green, blue = (min(255, round(255 * level)) for level in backbone.mean)
    return Preprocess(backbone.image_size, mode, interpolation, (red, green, blue))


class Encoder:
    """A backbone that encodes uint8 views in fixed batches to float16 arrays."""

    def __init__(self, backbone: Backbone, micro_batch: int, watch: Watch = unwatched) -> None:
        """Set up the transfer to the device of the backbone.

        Args:
            backbone: Frozen encoder.
            micro_batch: Views per batch; smaller batches are padded.
            watch: Called for every batch, on the thread that waited for it.

        Raises:
            BackboneError: If its preprocessing is not supported.
        """
        self.backbone = backbone
        self.micro_batch = micro_batch
        self.streams = torch.get_num_threads() if backbone.device.type == "cpu" else 0
        """Batches computed at once, one thread each; 0 for an accelerator, which queues them."""
        self.cuts = backbone.device.type == "cuda"
        """Whether windows are cut on the device; otherwise decoding threads cut them."""
        self.preprocess = preprocessing(backbone)
        self.watch = watch
        self._pool: ThreadPoolExecutor | None = None
        self._transfer = transfer_for(backbone.device)
        # Repeat mean and std along a row of pixels, so that normalisation vectorises on a CPU.
        across = backbone.image_size
        self._mean = torch.tensor(backbone.mean, device=backbone.device).repeat(across)
        self._std = torch.tensor(backbone.std, device=backbone.device).repeat(across)

    def decode_ahead(self, threads: int, views: int) -> int:
        """Return how many images to decode ahead.

        Args:
            threads: Number of decoding threads.
            views: Views per image, for all components together.
        """
        if self.cuts:  # whole images are queued, which may be large
            return 3 * threads
        # Two batches of views.
        return 2 * self.micro_batch // max(1, views) + threads

    @contextmanager
    def streaming(self) -> Iterator[None]:
        """Compute batches concurrently while the block runs; leaving it cancels queued ones."""
        if not self.streams:
            yield
            return
        with single_threaded(self.streams, "encode") as pool:
            self._pool = pool
            try:
                yield
            finally:
                self._pool = None

    def image_room(self, *shape: int) -> UInt8[np.ndarray, "..."]:
        """Allocate uninitialised memory that is fast to upload; callable from any thread.

        Raises:
            BackboneError: If there is not enough memory.
        """
        try:
            return self._transfer.room(*shape).numpy()
        except (RuntimeError, MemoryError) as error:
            raise BackboneError(
                f"There is no memory for images on their way to {self.backbone.device} "
                f"({str(error).splitlines()[0][:100]}). Free some and run the same command again."
            ) from error

    def upload(self, levels: UInt8[Tensor, "..."]) -> UInt8[Tensor, "..."]:
        """Start an upload of uint8 pixels to the device."""
        return self._transfer.upload(levels)

    def start(self, squares: Squares, variants: Sequence[str]) -> "Started":
        """Encode up to one batch of views; while streaming, this returns before they are done.

        Args:
            squares: Views, each on the host or on the device.
            variants: Patch variants to compute besides global features.

        Raises:
            BackboneError: If a batch does not fit into the device's memory.
        """
        if not self.streams:
            return _Queued(self._send(squares, variants), len(squares), self)
        if self._pool is not None:
            return _Submitted(self._pool.submit(self._rows, squares, variants))
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            rows: Future[Rows] = Future()
            rows.set_result(self._rows(squares, variants))
        finally:
            torch.set_num_threads(threads)
        return _Submitted(rows)

    def land(self, landing: Landing, count: int) -> Rows:
        """Wait for a batch and return the rows of its first `count` views."""
        values = landing.wait()
        self.watch("encode", *landing.span())
        return {name: v.numpy()[:count] for name, v in values.items()}

    def _rows(self, squares: Squares, variants: Sequence[str]) -> Rows:
        return self.land(self._send(squares, variants), len(squares))

    def _send(self, squares: Squares, variants: Sequence[str]) -> Landing:
        with self.within_memory():
            batch = self._batch(squares)
            return self._transfer.run(lambda: self._features(batch, variants))

    @contextmanager
    def within_memory(self) -> Iterator[None]:
        """Convert out-of-memory errors of the block to a message with advice.

        Raises:
            BackboneError: If memory runs out.
        """
        try:
            yield
        except (RuntimeError, MemoryError) as error:
            if not lacks_memory(error):
                raise
            raise BackboneError(
                f"{self.micro_batch} images at once do not fit into the memory of "
                f"{self.backbone.device}. Take fewer with ",
                Argument("micro_batch", max(1, self.micro_batch // 2)),
                "; a cache that holds rows keeps its own, so give another ",
                Argument("root"),
                " then.",
            ) from error

    def _batch(self, squares: Squares) -> UInt8[Tensor, "b s s 3"]:
        """Stack views on the device, padded with zeros."""
        count, shape = len(squares), (self.micro_batch, *squares[0].shape)
        on_host = [square for square in squares if not isinstance(square, Tensor)]
        if len(on_host) < count:  # some squares are on the device already
            batch = torch.zeros(shape, dtype=torch.uint8, device=self.backbone.device)
            torch.stack([self._on_device(square) for square in squares], out=batch[:count])
            return batch
        levels = self._transfer.room(*shape)
        np.stack(on_host, out=levels.numpy()[:count])
        levels[count:] = 0
        return self._transfer.upload(levels)

    def _on_device(self, square: Any) -> UInt8[Tensor, "s s 3"]:
        if isinstance(square, Tensor):
            return square
        return self.upload(torch.from_numpy(np.ascontiguousarray(square)))

    @torch.inference_mode()
    def _features(
        self, levels: UInt8[Tensor, "b s s 3"], variants: Sequence[str]
    ) -> dict[str, Float16[Tensor, "b ..."]]:
        wide = levels.flatten(2).float().div_(255).sub_(self._mean).div_(self._std)  # [b s 3s]
        pixels = wide.view(levels.shape).permute(0, 3, 1, 2)
        rows, patches = self.backbone.encode_images(pixels, variants)
        outputs = {"global": rows, **{v: patches[v] for v in variants}}
        return {name: values.half() for name, values in outputs.items()}


@runtime_checkable
class Started(Protocol):
    """A batch that has been started."""

    def done(self) -> bool:
        """Tell whether `wait` would return at once."""
        ...

    def wait(self) -> Rows:
        """Return the rows once they are computed."""
        ...


class _Submitted:
    """A batch that a thread computes."""

    def __init__(self, rows: Future[Rows]) -> None:
        self._rows = rows

    def done(self) -> bool:
        return self._rows.done()

    def wait(self) -> Rows:
        return self._rows.result()


class _Queued:
    """A batch that an accelerator may still be computing."""

    def __init__(self, landing: Landing, count: int, encoder: Encoder) -> None:
        self._landing, self._count, self._encoder = landing, count, encoder

    def done(self) -> bool:
        return self._landing.done()

    def wait(self) -> Rows:
        return self._encoder.land(self._landing, self._count)


@dataclass
class _Flight:
    started: Started
    positions: list[int]


class Lane:
    """Collects views into full batches and puts the rows in order.

    Views of one lane go through the encoder together: the central views, or the augmented views
    of one component, flattened over images and views.
    """

    def __init__(
        self,
        encoder: Encoder,
        rows: Int64[np.ndarray, " r"],
        variants: Sequence[str] = (),
        views: int = 1,
    ) -> None:
        """Allocate the rows of one shard; they stay zero for unreadable images.

        Args:
            encoder: Encoder of the views.
            rows: Rows of the listing, ascending.
            variants: Patch variants, or tokens, to compute besides global features.
            views: Views per row.
        """
        backbone = encoder.backbone
        self.rows = rows
        self._encoder = encoder
        self._variants = tuple(variants)
        # Per stream one batch is computed and one is queued, so that no stream is idle. An
        # accelerator has one queued while the results of another are copied.
        self._depth = 2 * encoder.streams or 2
        self._first = {int(row): i * views for i, row in enumerate(rows)}
        self._squares: list[Any] = []  # of `Squares`
        self._positions: list[int] = []
        self._flights: deque[_Flight] = deque()
        count = len(rows) * views
        self._out = {"global": np.zeros((count, backbone.dim), dtype=np.float16)}
        for variant in self._variants:
            shape = (count, *output_shape(backbone, variant))
            self._out[variant] = np.zeros(shape, dtype=np.float16)

    def add(self, row: int, squares: Squares) -> None:
        """Add the views of one row; full batches are encoded."""
        for i, square in enumerate(squares):
            self._squares.append(square)
            self._positions.append(self._first[row] + i)
            if len(self._squares) == self._encoder.micro_batch:
                self._start()

    def close(self) -> None:
        """Encode the remaining views, padded to a full batch."""
        if self._squares:
            self._start()

    def flying(self) -> int:
        """Count the batches that are not computed yet."""
        return sum(not flight.started.done() for flight in self._flights)

    def end(self) -> dict[str, Float16[np.ndarray, "r ..."]]:
        """Close, wait for the last batch, and return the shard's rows."""
        self.close()
        self._land(0)
        return self._out

    def _start(self) -> None:
        started = self._encoder.start(self._squares, self._variants)
        self._flights.append(_Flight(started, self._positions))
        self._squares, self._positions = [], []
        self._land(self._depth)

    def _land(self, keep: int) -> None:
        while len(self._flights) > keep:
            flight = self._flights.popleft()
            for name, values in flight.started.wait().items():
                self._out[name][flight.positions] = values
