"""Images in parquet files: bytes that are decoded with the rows around them, and kept for a while.

A column can only be decoded from the beginning of its row group on. Images are asked for in their
order most of the time, so one position a file is kept, and what was passed on the way, up to
`KEPT` bytes.
"""

import errno
import os
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from threading import Lock
from typing import Any

from featcache.errors import SourceError
from featcache.limits import Limit
from featcache.paths import as_text, check_bytes
from featcache.sources.layouts.own.container import Container
from featcache.sources.layouts.own.parquet_file import check_pages, open_parquet, reading

KEPT = 256 << 20
"""Bytes of decoded images that are kept, over all files of a data set."""

OPEN = 4
"""Files that are kept open at their position."""

_Key = tuple[Path, int, int]
"""File, row group, row in it."""


class ParquetReader:
    """Reads the images of the parquet files of one data set; from any thread."""

    def __init__(self, leaf: str) -> None:
        """Open nothing yet.

        Args:
            leaf: The column of bytes: `image.bytes`, or `image` where it is no struct.
        """
        self._leaf = leaf
        self._lock = Lock()
        self._kept: OrderedDict[_Key, bytes | None] = OrderedDict()
        self._bytes = 0
        self._positions: OrderedDict[Path, _Position] = OrderedDict()

    def image(self, container: Container, group: int, row: int) -> bytes:
        """Return the bytes of one image.

        Args:
            container: The file.
            group: The row group.
            row: Row in that group.

        Raises:
            OSError: If the file is gone or damaged, or the row holds no bytes.
            SourceError: If the file has changed since its labels were read.
        """
        path = container.path
        with self._lock:
            key = (path, group, row)
            if key not in self._kept:
                try:
                    self._decode(path, group, row)
                except SourceError as error:
                    self._positions.pop(path, None)
                    container.check_same()
                    raise OSError(errno.EIO, str(error), as_text(path)) from error
                try:
                    container.check_same()
                except BaseException:
                    self._forget(path)
                    raise
            else:
                self._kept.move_to_end(key)
            data = self._kept[key]
        if data is None:
            raise OSError(
                errno.ENODATA, "holds no bytes of an image", f"{as_text(path)}, row {row}"
            )
        return data

    def _decode(self, path: Path, group: int, row: int) -> None:
        """Go on to a row, or begin its group anew, keeping what is passed."""
        position = self._positions.pop(path, None)
        if position is None or position.group != group or position.next > row:
            position = _Position(path, group, self._leaf, position.file if position else None)
        self._positions[path] = position
        while len(self._positions) > OPEN:
            self._positions.popitem(last=False)
        while position.next <= row:
            self._keep((path, group, position.next), position.take())

    def _forget(self, path: Path) -> None:
        """Drop what was decoded from a file."""
        self._positions.pop(path, None)
        for key in [key for key in self._kept if key[0] == path]:
            self._bytes -= len(self._kept.pop(key) or b"")

    def _keep(self, key: _Key, data: bytes | None) -> None:
        if (before := self._kept.pop(key, None)) is not None:
            self._bytes -= len(before)
        self._kept[key] = data
        self._bytes += len(data or b"")
        while self._bytes > KEPT and len(self._kept) > 1:
            _, old = self._kept.popitem(last=False)
            self._bytes -= len(old or b"")


class _Position:
    """A place in one row group of an open file."""

    def __init__(self, path: Path, group: int, leaf: str, file: Any) -> None:
        self.path, self.group, self.next = path, group, 0
        self.file = open_parquet(path) if file is None else file
        with reading(path):
            check_pages(path, self.file, group, leaf)
        self._values = self._read(leaf)

    def take(self) -> bytes | None:
        """Return the bytes at this place and go on."""
        with reading(self.path):
            try:
                value = next(self._values)
            except StopIteration:
                raise ValueError(f"row group {self.group} ends before row {self.next}") from None
        self.next += 1
        return value

    def _read(self, leaf: str) -> Iterator[bytes | None]:
        column, _, field = leaf.rpartition(".")
        # One at a time: each may have as many bytes as a file of one image.
        batches = self.file.iter_batches(
            batch_size=1, row_groups=[self.group], columns=[leaf], use_threads=False
        )
        for batch in batches:
            values = batch.column(0).field(field) if column else batch.column(0)
            yield from (value.as_py() for value in values)


class ParquetPlace:
    """One image in a parquet file."""

    __slots__ = ("_container", "_group", "_reader", "_row", "_within")

    def __init__(
        self, reader: ParquetReader, container: Container, group: int, row: int, within: int
    ) -> None:
        """Take an image.

        Args:
            reader: Shared by the images of a data set.
            container: The file, shared by its images.
            group: The row group.
            row: Row in that group.
            within: Row in the file.
        """
        self._reader, self._container, self._within = reader, container, within
        self._group, self._row = group, row

    @property
    def container(self) -> Path:
        """The parquet file."""
        return self._container.path

    @property
    def within(self) -> str:
        """The row."""
        return f"row {self._within}"

    def stat(self) -> os.stat_result:
        """Return the state of the parquet file when its labels were read."""
        return self._container.state

    def size(self) -> int:
        """Return the bytes of the image, which are decoded for that and kept to be read."""
        return len(self._reader.image(self._container, self._group, self._row))

    def read(self, limit: Limit) -> bytes:
        """Read the image; errors as the protocol has them."""
        data = self._reader.image(self._container, self._group, self._row)
        check_bytes(self, len(data), limit)
        return data

    def __str__(self) -> str:
        return f"{as_text(self.container)}, {self.within}"
