"""`npz:FILE`: arrays of images and labels, as MedMNIST has them.

    {train,val,test}_images [n h w] or [n h w 3], uint8    {train,val,test}_labels [n] or [n 1]

An image is read as PNG bytes that hold its pixels without loss and are the same everywhere. The
files say nothing of class names: `names=FILE` brings them, one a line in label order.
"""

import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from featcache.errors import SourceError
from featcache.imaging.png import png_bytes, png_size
from featcache.limits import PIXELS, ROWS, Limit
from featcache.paths import as_text, check_bytes
from featcache.sources.base import Dataset
from featcache.sources.layouts.own.class_names import read_names
from featcache.sources.layouts.own.files import existing_file
from featcache.sources.layouts.own.labelled import LabelledImages
from featcache.sources.layouts.own.npz_member import Member, RowReader, read_members, read_whole

OPTIONS = ("names",)

_EXPECTED = "train_images [n h w] or [n h w 3] of uint8 and train_labels [n]; val and test likewise"


class PixelPlace:
    """One image of an array of images; its bytes are a PNG file."""

    __slots__ = ("_index", "_member", "_reader")

    def __init__(self, member: Member, reader: RowReader, index: int) -> None:
        """Take an image of an array.

        Args:
            member: The array, [n h w] or [n h w 3].
            reader: Reads it; shared by its images.
            index: Index of the image in the array.
        """
        self._member, self._reader, self._index = member, reader, index

    @property
    def container(self) -> Path:
        """The .npz file."""
        return self._member.path

    @property
    def within(self) -> str:
        """The array and the index in it."""
        return f"{self._member.name}[{self._index}]"

    def stat(self) -> os.stat_result:
        """Return the state of the .npz file when its labels were read."""
        return self._member.container.state

    def size(self) -> int:
        """Return the bytes of the PNG file."""
        height, width, *channels = self._member.shape[1:]
        return png_size(height, width, channels[0] if channels else 1)

    def read(self, limit: Limit) -> bytes:
        """Return the image as PNG; errors as the protocol has them."""
        check_bytes(self, self.size(), limit)
        row = self._reader.row(self._index)
        return png_bytes(np.frombuffer(row, np.uint8).reshape(self._member.shape[1:]))

    def __str__(self) -> str:
        return f"{as_text(self._member.path)}/{self.within}"


def open_npz(path: str, options: Mapping[str, str], name: str | None = None) -> Dataset:
    """List the images of an .npz file.

    Args:
        path: The file.
        options: `names`, a text file of class names in label order.
        name: Name of the data set; the file's name without its suffix otherwise.

    Raises:
        SourceError: If the file is not of that form, or an image has several labels.
    """
    file = existing_file(path, "an .npz file of images")
    arrays = read_members(file)
    names = read_names(options["names"]) if "names" in options else None
    images = LabelledImages(as_text(file.name), unit="image", names=names)
    splits = [key.removesuffix("_images") for key in arrays if key.endswith("_images")]
    if not splits:
        have = ", ".join(list(arrays)[:8]) or "nothing"
        raise SourceError(f"{file} holds {have}; expected {_EXPECTED}.")
    for split in splits:
        pixels, labels = arrays[f"{split}_images"], arrays.get(f"{split}_labels")
        if labels is None:
            raise SourceError(f"{file} has {split}_images but no {split}_labels.")
        _check_images(pixels)
        reader = RowReader(pixels)
        for i, label in enumerate(_labels(labels, len_of=pixels)):
            place = PixelPlace(pixels, reader, i)
            images.add(f"{pixels.name}/{i}", place, str(label), split, line=i)
    return images.dataset(name or as_text(file.stem), file)


def _check_images(pixels: Member) -> None:
    shape = pixels.shape
    is_image = len(shape) == 3 or (len(shape) == 4 and shape[3] == 3)
    if not is_image or pixels.dtype != np.uint8 or not pixels.row_bytes:
        raise SourceError(
            f"Array '{pixels.name}' of {pixels.path} is {pixels.dtype} {list(shape)}; expected "
            f"{_EXPECTED}."
        )
    if shape[1] * shape[2] > PIXELS.value():
        raise SourceError(
            f"Images of {pixels.path} have {shape[1] * shape[2]} pixels, more than the limit of "
            f"{PIXELS.value()}; {PIXELS.variable} raises it."
        )


def _labels(labels: Member, *, len_of: Member) -> list[int]:
    shape = labels.shape
    if len(shape) == 2 and shape[1] > 1:
        raise SourceError(
            f"Array '{labels.name}' of {labels.path} has {shape[1]} labels an image; expected one. "
            f"Multi-label data are not supported."
        )
    if labels.dtype.kind not in "iub" or len(shape) not in (1, 2) or shape[:1] != len_of.shape[:1]:
        raise SourceError(
            f"Array '{labels.name}' of {labels.path} is {labels.dtype} {list(shape)} for images "
            f"{list(len_of.shape)}; expected one whole number an image."
        )
    data = read_whole(labels, ROWS.value() * labels.dtype.itemsize)
    return [int(value) for value in data.view(labels.dtype)]
