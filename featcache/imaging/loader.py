"""One image -> all that the encoder is shown of it; this is what the decoding threads do.

Where a device cuts windows itself, the image goes there whole and only distorted views are drawn
here.
"""

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import UInt8

from featcache.imaging.decode import (
    Claim,
    Pixels,
    Room,
    UnreadableImageError,
    decode,
    plain_room,
    read_bytes,
    read_image,
)
from featcache.imaging.decode_work import BYTES, Memory
from featcache.imaging.randomness import view_stream
from featcache.imaging.views import Square, ViewSpec, distorts, show, window_of
from featcache.imaging.windows import Box, Preprocess, Window
from featcache.places import Place

WHOLE_BYTES = 1 << 23
"""Largest image that goes up whole; the windows of larger ones are cut here: memory from which a
device uploads is locked, and torch keeps what it once had."""


@runtime_checkable
class ImageSource(Protocol):
    """Where an image comes from."""

    @property
    def id(self) -> str:
        """What messages call it."""
        ...

    def load(self, *, max_pixels: int, room: Room, claim: Claim) -> tuple[Pixels, str]:
        """Return its pixels, upright, and the hash of its content that names its randomness.

        Args:
            max_pixels: Largest image to decode.
            room: Where the pixels shall lie, if they are not in memory already.
            claim: Told how many bytes decoding takes before it takes them; may wait for them.

        Raises:
            UnreadableImageError: If it cannot be used.
        """
        ...


@dataclass(frozen=True, slots=True)
class FileSource:
    """An image in a file or a part of one, and what its bytes were when it was listed."""

    id: str
    place: Place
    sha256: str = ""
    """Empty where nobody has listed it: then its bytes may be any."""

    def load(self, *, max_pixels: int, room: Room, claim: Claim) -> tuple[Pixels, str]:
        """Read the bytes once and decode them; arguments and errors as the protocol has them."""
        if self.sha256:
            pixels = read_image(
                self.place, self.sha256, max_pixels=max_pixels, room=room, claim=claim
            )
            return pixels, self.sha256
        data = read_bytes(self.place, max_pixels=max_pixels, claim=claim)
        return BytesSource(self.id, data).load(max_pixels=max_pixels, room=room, claim=claim)


@dataclass(frozen=True, slots=True)
class BytesSource:
    """The bytes of a file that somebody has read already."""

    id: str
    data: bytes

    def load(self, *, max_pixels: int, room: Room, claim: Claim) -> tuple[Pixels, str]:
        """Decode the bytes; arguments and errors as the protocol has them."""
        pixels = decode(self.data, max_pixels=max_pixels, room=room, claim=claim)
        return pixels, hashlib.sha256(self.data).hexdigest()


@dataclass(frozen=True, slots=True)
class PixelSource:
    """Pixels that were decoded elsewhere, or the reason why there are none."""

    id: str
    pixels: Pixels | None
    """In one piece, and not too many."""
    reason: str = ""

    def load(self, *, max_pixels: int, room: Room, claim: Claim) -> tuple[Pixels, str]:
        """Return the pixels as they are; arguments and errors as the protocol has them.

        The hash is that of height, width and grey levels: no file is known.
        """
        if self.pixels is None:
            raise UnreadableImageError(self.reason)
        height, width, _ = self.pixels.shape
        content = hashlib.sha256(f"rgb {height} {width} ".encode())
        content.update(self.pixels.data)
        return self.pixels, content.hexdigest()


@dataclass(frozen=True, slots=True)
class Job:
    """An image and what is wanted of it."""

    source: ImageSource
    shown: tuple[ViewSpec, ...]
    """What the encoder is to be shown."""
    boxed: tuple[ViewSpec, ...] = ()
    """Crops whose boxes are kept; boxes may be wanted where the crops themselves are not."""

    @property
    def wanted(self) -> tuple[ViewSpec, ...]:
        """Both, each kind once."""
        return tuple(dict.fromkeys((*self.shown, *self.boxed)))


@dataclass(frozen=True, slots=True)
class LoadedImage:
    """What came of a job: nothing that it did not request."""

    squares: Mapping[ViewSpec, Sequence[Square]] = field(default_factory=dict)
    """Ready for the encoder."""
    pixels: Pixels | None = None
    """Whole, if the device cuts windows out of it."""
    windows: Mapping[ViewSpec, Sequence[Window]] = field(default_factory=dict)
    """Which ones."""
    boxes: Mapping[ViewSpec, Sequence[Box]] = field(default_factory=dict)
    """What each view shows of the upright picture."""
    reasons: Mapping[ViewSpec, str] = field(default_factory=dict)
    """Why there are no views of a kind; a stripe may have crops and no central view."""


@dataclass(frozen=True, kw_only=True)
class ImageLoader:
    """Reads, decodes and cuts."""

    preprocess: Preprocess
    max_pixels: int
    room: Room | None = None
    """Memory from which a device uploads images that it cuts itself; None: windows are cut
    here."""
    memory: Memory = field(init=False)
    """Memory budget that all threads share."""

    def __post_init__(self) -> None:
        """Allow the largest image, or several smaller ones."""
        object.__setattr__(self, "memory", Memory(BYTES * self.max_pixels))

    def __call__(self, job: Job) -> LoadedImage:
        """Turn one image into all that is wanted of it; reasons stand for what cannot be."""
        with self.memory.share() as claim:
            return self._draw(job, claim)

    def _draw(self, job: Job, claim: Claim) -> LoadedImage:
        squares, windows, boxes, reasons = {}, {}, {}, {}
        source, preprocess = job.source, self.preprocess
        is_cut = not all(distorts(shown.recipe) for shown in job.shown)
        room = self._room if is_cut else plain_room
        try:
            pixels, sha256 = source.load(max_pixels=self.max_pixels, room=room, claim=claim)
        except UnreadableImageError as error:
            return LoadedImage(reasons=dict.fromkeys(job.wanted, str(error)))
        height, width, _ = pixels.shape
        goes_up = self.room is not None and pixels.nbytes <= WHOLE_BYTES
        for wanted in job.wanted:
            recipe = wanted.recipe
            streams = [
                view_stream(wanted.seed, recipe, sha256, view) for view in range(wanted.count)
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
                    show(pixels, window, preprocess, recipe, view, stream)
                    for view, (window, stream) in enumerate(zip(seen, streams, strict=True))
                ]
        return LoadedImage(squares, pixels if windows else None, windows, boxes, reasons)

    def _room(self, *shape: int) -> UInt8[np.ndarray, "..."]:
        if self.room is None or math.prod(shape) > WHOLE_BYTES:
            return plain_room(*shape)
        return self.room(*shape)


def file_sources(
    ids: Sequence[str], hashes: Sequence[str], places: Mapping[str, Place]
) -> dict[int, FileSource]:
    """Join rows with places; a row whose image is gone has none."""
    pairs = zip(ids, hashes, strict=True)
    return {i: FileSource(n, places[n], h) for i, (n, h) in enumerate(pairs) if n in places}
