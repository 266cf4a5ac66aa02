"""Upload whole images to the device once and cut all their windows there.

Images are collected until they fill a canvas, so that a few operations cut the windows of all.
Pixels do not depend on which images share a canvas.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

import torch
from jaxtyping import UInt8
from torch import Tensor

from featcache.encoding.encoder import Encoder
from featcache.imaging.decode import Pixels
from featcache.imaging.loader import LoadedImage
from featcache.imaging.resample import resample
from featcache.imaging.views import Square, ViewSpec
from featcache.imaging.windows import Preprocess, Window

CANVAS_BYTES = 1 << 27
"""Limit in bytes of the padded images, and of the squares cut from them; a single image may exceed
it."""

Given = tuple[int, ViewSpec, Sequence[Square] | Sequence[Tensor]]
"""A row, its views, and their squares [s s 3] on the host or on the device."""


@dataclass(frozen=True, slots=True)
class _Waiting:
    row: int
    pixels: Pixels
    windows: Mapping[ViewSpec, Sequence[Window]]


class Cutter:
    """Collects loaded images and yields their squares."""

    def __init__(self, encoder: Encoder, preprocess: Preprocess) -> None:
        """Start with an empty canvas on the device of the encoder."""
        self._encoder, self._preprocess = encoder, preprocess
        self._waiting: list[_Waiting] = []
        self._height = self._width = self._windows = 0

    def add(self, row: int, loaded: LoadedImage) -> Iterator[Given]:
        """Add the loaded image of a row; yield squares of this and earlier rows that are ready."""
        for spec, squares in loaded.squares.items():
            yield row, spec, squares
        if loaded.pixels is None:
            return
        height, width, _ = loaded.pixels.shape
        height, width = max(height, self._height), max(width, self._width)
        if 3 * height * width * (len(self._waiting) + 1) > CANVAS_BYTES:
            yield from self.flush()
            height, width, _ = loaded.pixels.shape
        self._height, self._width = height, width
        self._waiting.append(_Waiting(row, loaded.pixels, loaded.windows))
        self._windows += sum(len(windows) for windows in loaded.windows.values())
        if (
            len(self._waiting) == self._encoder.micro_batch
            or 3 * self._preprocess.side**2 * self._windows > CANVAS_BYTES
        ):
            yield from self.flush()

    def flush(self) -> Iterator[Given]:
        """Cut the windows of all collected images."""
        waiting, self._waiting = self._waiting, []
        if not waiting:
            return
        with self._encoder.within_memory():
            squares = iter(self._cut(waiting))
        self._height = self._width = self._windows = 0
        for one in waiting:
            for spec, windows in one.windows.items():
                yield one.row, spec, list(islice(squares, len(windows)))

    def _cut(self, waiting: Sequence[_Waiting]) -> UInt8[Tensor, "k s s 3"]:
        canvas = torch.empty(
            (len(waiting), self._height, self._width, 3),
            dtype=torch.uint8,
            device=self._encoder.backbone.device,
        )
        for i, one in enumerate(waiting):
            height, width, _ = one.pixels.shape
            canvas[i, :height, :width] = self._encoder.upload(torch.from_numpy(one.pixels))
        windows = [
            (i, window)
            for i, one in enumerate(waiting)
            for several in one.windows.values()
            for window in several
        ]
        return resample(
            canvas,
            [i for i, _ in windows],
            [window for _, window in windows],
            self._preprocess.side,
            self._preprocess.interpolation,
        )
