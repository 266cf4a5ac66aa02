"""One file -> all that the encoder is shown of it; this is what the decoding threads do.

Where a device cuts windows itself, the picture goes there whole and only distorted views are drawn
here.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from featcache.imaging.decode import (
    Claim,
    Picture,
    Room,
    UnreadableImageError,
    plain_room,
    read_image,
)
from featcache.imaging.decode_work import BYTES, Memory
from featcache.imaging.randomness import view_stream
from featcache.imaging.views import Square, distorts, show, window_of
from featcache.imaging.windows import Box, Preprocess, Window
from featcache.pipeline.components import Pictures

WHOLE_BYTES = 1 << 23
"""Of a picture that goes up whole; the windows of larger ones are cut here: memory from which a
device uploads is locked, and torch keeps what it once had."""


@dataclass(frozen=True, slots=True)
class Source:
    """Where the image of a row is, and what its bytes were when it was listed."""

    id: str
    path: Path
    sha256: str


@dataclass(frozen=True, slots=True)
class Job:
    """An image and what is wanted of it."""

    source: Source
    shown: tuple[Pictures, ...]
    """What the encoder is to be shown."""
    boxed: tuple[Pictures, ...] = ()
    """Crops whose boxes are kept; boxes may be wanted where the crops themselves are not."""

    @property
    def wanted(self) -> tuple[Pictures, ...]:
        """Both, each kind once."""
        return tuple(dict.fromkeys((*self.shown, *self.boxed)))


@dataclass(frozen=True, slots=True)
class Drawn:
    """What came of a job: nothing that it did not ask for."""

    squares: Mapping[Pictures, Sequence[Square]] = field(default_factory=dict)
    """Ready for the encoder."""
    picture: Picture | None = None
    """Whole, if the device cuts windows out of it."""
    windows: Mapping[Pictures, Sequence[Window]] = field(default_factory=dict)
    """Which ones."""
    boxes: Mapping[Pictures, Sequence[Box]] = field(default_factory=dict)
    """What each view shows of the upright picture."""
    reasons: Mapping[Pictures, str] = field(default_factory=dict)
    """Why there are no pictures of a kind; a stripe may have crops and no central view."""


@dataclass(frozen=True, kw_only=True)
class Drawer:
    """Reads, decodes and cuts."""

    preprocess: Preprocess
    max_pixels: int
    room: Room | None = None
    """Memory from which a device uploads pictures that it cuts itself; None: windows are cut
    here."""
    memory: Memory = field(init=False)
    """Memory budget that all threads share."""

    def __post_init__(self) -> None:
        """Allow the largest picture, or several smaller ones."""
        object.__setattr__(self, "memory", Memory(BYTES * self.max_pixels))

    def __call__(self, job: Job) -> Drawn:
        """Turn one file into all that is wanted of it; reasons stand for what cannot be."""
        with self.memory.share() as claim:
            return self._draw(job, claim)

    def _draw(self, job: Job, claim: Claim) -> Drawn:
        squares, windows, boxes, reasons = {}, {}, {}, {}
        source, preprocess = job.source, self.preprocess
        is_cut = not all(distorts(shown.recipe) for shown in job.shown)
        room = self._room if is_cut else plain_room
        try:
            picture = read_image(
                source.path, source.sha256, max_pixels=self.max_pixels, room=room, claim=claim
            )
        except UnreadableImageError as error:
            return Drawn(reasons=dict.fromkeys(job.wanted, str(error)))
        height, width, _ = picture.shape
        goes_up = self.room is not None and picture.nbytes <= WHOLE_BYTES
        for wanted in job.wanted:
            recipe = wanted.recipe
            streams = [
                view_stream(wanted.seed, recipe, source.sha256, view)
                for view in range(wanted.count)
            ]
            try:
                seen = [window_of(recipe, width, height, preprocess, s) for s in streams]
            except UnreadableImageError as error:
                reasons[wanted] = str(error)
                continue
            if wanted in job.boxed:
                boxes[wanted] = [window.box for window in seen]
            if wanted not in job.shown:
                continue
            if goes_up and not distorts(recipe):
                windows[wanted] = seen
            else:
                squares[wanted] = [
                    show(picture, window, preprocess, recipe, view, stream)
                    for view, (window, stream) in enumerate(zip(seen, streams, strict=True))
                ]
        return Drawn(squares, picture if windows else None, windows, boxes, reasons)

    def _room(self, *shape: int) -> UInt8[np.ndarray, "..."]:
        if self.room is None or math.prod(shape) > WHOLE_BYTES:
            return plain_room(*shape)
        return self.room(*shape)


def sources_of(
    ids: Sequence[str], hashes: Sequence[str], paths: Mapping[str, Path]
) -> dict[int, Source]:
    """Join rows with files; a row whose image is gone has none."""
    pairs = zip(ids, hashes, strict=True)
    return {i: Source(n, paths[n], h) for i, (n, h) in enumerate(pairs) if n in paths}
