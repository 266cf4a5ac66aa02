r"""The file `hashes.tsv`: hashes of images, each with the state its file had when it was hashed.

    crc32 TAB sha256 TAB size TAB mtime TAB ctime TAB inode TAB id [TAB part] LF

`part` names the image within an archive or a table. The checksum is of the rest of the line: one
that is not what was written is forgotten. Lines stay bytes, in the order in which the images were
listed, and are only looked into where an image is: a data set has millions of them.
"""

import os
import zlib
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from featcache.paths import open_descriptor

LINE_BYTES = 1024
"""Bytes read for each image of the data set; a line has about 150."""

_REST, _STATE = 9, 74
"""Where the part under the checksum begins, which is the sha256, and where the state begins."""
_FIELDS = 6
"""Fields before the id."""
_DIGITS = b"0123456789abcdef"


def state_of(found: os.stat_result) -> str:
    """Return the state of a file that changes with its content: size, mtime, ctime and inode.

    Times are in nanoseconds.
    """
    return f"{found.st_size}\t{found.st_mtime_ns}\t{found.st_ctime_ns}\t{found.st_ino}"


def differ_in_inode_only(one: str, other: str) -> bool:
    """Tell whether two states have the same size and times and another inode."""
    (mine, _, inode), (others, _, another) = one.rpartition("\t"), other.rpartition("\t")
    return mine == others and inode != another


class Remembered:
    r"""Lines of the file, looked up by the images that they are of.

    The line of an image mostly follows that of the image before it, so an index of all names is
    only made once that is not so. Threads may share it: at worst, the index is made twice.

    Example:
        >>> name = name_of("cat/1.jpg", "")
        >>> lines = Remembered([line_of("0" * 64, "5\t1\t1\t7", name)])
        >>> state_in(lines.line(0, name), name)
        '5\t1\t1\t7'
    """

    def __init__(self, lines: Sequence[bytes] = ()) -> None:
        """Take the lines as they are; each is checked when it is looked up."""
        self.lines = list(lines)
        self._ahead = 0
        """How much further on a line was than its image."""
        self._index: dict[bytes, int] | None = None

    def line(self, i: int, name: bytes) -> bytes:
        """Return the line of an image; empty if there is none, or it is damaged.

        Args:
            i: Which image of the data set it is.
            name: As `name_of` returns it.
        """
        at = i + self._ahead
        if not (0 <= at < len(self.lines) and self.lines[at].endswith(name)):
            if self._index is None:
                self._index = {_name_in(line): at for at, line in enumerate(self.lines)}
            at = self._index.get(name, -1)
            if at < 0:
                return b""
            self._ahead = at - i
        line = self.lines[at]
        return line if _is_sound(line) else b""


def name_of(image_id: str, within: str) -> bytes:
    """Return the end of an image's line: its id and which part of its file it is, if one."""
    names = f"\t{image_id}\t{within}" if within else f"\t{image_id}"
    return names.encode("utf-8", "surrogateescape")


def line_of(sha256: str, state: str, name: bytes) -> bytes:
    """Return the line of an image, without the line end.

    Args:
        sha256: Of its bytes, in hex.
        state: As `state_of` returns it.
        name: As `name_of` returns it.
    """
    return _checked(f"{sha256}\t{state}".encode() + name)


def can_be_remembered(image_id: str, within: str) -> bool:
    """Tell whether names are free of what separates fields and lines."""
    return not any(mark in name for name in (image_id, within) for mark in "\t\n")


def sha256_in(line: bytes) -> str:
    """Return the hash in a line that `Remembered.line` returned."""
    return line[_REST : _STATE - 1].decode()


def state_in(line: bytes, name: bytes) -> str:
    """Return the state in a line that `Remembered.line` returned for this name."""
    return line[_STATE : -len(name)].decode("utf-8", "surrogateescape")


def read_remembered(path: Path, root: Path, most: int) -> Remembered:
    """Read the file; an empty one if it cannot be read, or is of another root.

    Args:
        path: The file.
        root: What the ids are relative to.
        most: Number of images of the data set.
    """
    try:
        with os.fdopen(open_descriptor(path, links=False), "rb") as file:
            # A stranger's may be of any size: of one that is larger than our own would be, the
            # rest is forgotten.
            lines = file.read(LINE_BYTES * (most + 1)).split(b"\n")
    except OSError:
        return Remembered()
    if lines[0] != _root_line(root):
        return Remembered()
    end = -1 if not lines[-1] else None
    return Remembered(lines[1:end])


def write_remembered(path: Path, root: Path, lines: Sequence[bytes]) -> None:
    """Write the file in one step; errors are ignored, because they only cost time."""
    aside = path.with_name(f".{path.name}.tmp-{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with aside.open("wb") as file:
            file.writelines(b"%s\n" % line for line in (_root_line(root), *lines))
        aside.replace(path)
    except OSError:
        _forget(aside)


def forget_unfinished(path: Path) -> None:
    """Delete what writers that were killed left beside the file; another's is only written anew."""
    for left in path.parent.glob(f".{path.name}.tmp-*"):
        _forget(left)


def _root_line(root: Path) -> bytes:
    return _checked(f"root\t{str(root)!a}".encode())


def _checked(rest: bytes) -> bytes:
    return b"%08x\t%s" % (zlib.crc32(rest), rest)


def _is_sound(line: bytes) -> bool:
    """Tell whether a line is what was written, and has a hash where one belongs."""
    digest = line[_REST : _STATE - 1]
    return (
        line[:_REST] == b"%08x\t" % zlib.crc32(line[_REST:])
        and len(digest) == _STATE - 1 - _REST
        and not digest.translate(None, _DIGITS)
    )


def _name_in(line: bytes) -> bytes:
    fields = line.split(b"\t", _FIELDS)
    return b"\t" + fields[_FIELDS] if len(fields) > _FIELDS else b""


def _forget(path: Path) -> None:
    with suppress(OSError):
        path.unlink(missing_ok=True)
