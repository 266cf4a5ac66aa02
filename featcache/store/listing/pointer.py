"""The pointer to the current set of a listing: a small sealed file, stored twice."""

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from featcache.errors import CacheError, CorruptCacheError, NewerFormatError, UnreadableCacheError
from featcache.store.format.files import cure_for, read_limited, refuse_link
from featcache.store.format.records import FORMAT
from featcache.store.format.seal import seal, unseal

CURRENT, CURRENT_COPY = "current.json", "current.copy.json"
FILES = ("listing.json", "ids.utf8", "offsets.npy", "hashes.bin", "labels.npy", "splits.npy")
POINTER_LIMIT = 1 << 20
"""Most bytes of a pointer; it has about 600."""
CURE = "Run `featcache repair`, which restores a listing from its copy."


@dataclass(frozen=True, slots=True)
class FileFacts:
    """Size and checksum of one file."""

    bytes: int
    crc32: int


@dataclass(frozen=True, slots=True)
class Pointer:
    """Name, number of images and files of the current set."""

    set: str
    images: int
    files: Mapping[str, FileFacts]


def read_pointer(folder: Path, file: str = CURRENT) -> Pointer | None:
    """Read a pointer; None if no listing was ever written.

    Raises:
        CorruptCacheError: If the file is damaged.
        NewerFormatError: If a later version wrote it.
    """
    path = folder / file
    data = _read_pointer(path)
    if data is None:
        return None
    try:
        if not data.endswith(b"\n"):
            raise ValueError("does not end with a line feed")
        value, _ = unseal(data[:-1])
    except ValueError as error:
        raise CorruptCacheError(f"{path} {error}. ", CURE) from error
    version = value.get("format")
    if isinstance(version, int) and version > FORMAT:
        raise NewerFormatError(
            f"The listing in {folder} has format {version}, this program reads format {FORMAT}. "
            f"Update it with: pip install --upgrade featcache"
        )
    pointer = _pointer(value)
    if pointer is None:
        raise CorruptCacheError(f"{path} has fields that are missing or wrong. ", CURE)
    return pointer


def _read_pointer(path: Path) -> bytes | None:
    refuse_link(path.parent)
    try:
        return read_limited(path, POINTER_LIMIT)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (CorruptCacheError, UnreadableCacheError):
        raise
    except CacheError as error:
        raise CorruptCacheError(f"{path} is too large for a pointer. ", CURE) from error
    except OSError as error:
        raise CorruptCacheError(
            f"{path} cannot be read ({error.strerror}). ", cure_for(error, CURE)
        ) from error


def _pointer(value: Mapping[str, object]) -> Pointer | None:
    match value:
        case {
            "kind": "listing",
            "format": int(version),
            "set": str(name),
            "images": int(images),
            "files": dict(listed),
        } if version == FORMAT and re.fullmatch(r"set-[0-9a-f]{12}", name) and images >= 0:
            files = {}
            for file in FILES:
                match listed.get(file):
                    case {"bytes": int(size), "crc32": int(crc)} if size >= 0:
                        files[file] = FileFacts(size, crc)
                    case _:
                        return None
            return Pointer(name, images, files) if len(listed) == len(files) else None
    return None


def to_line(pointer: Pointer) -> bytes:
    """Return the content of the pointer file."""
    return seal({"kind": "listing", "format": FORMAT, **asdict(pointer)})[0]


def holds(path: Path, line: bytes) -> bool:
    """Tell whether a pointer file has this content."""
    try:
        return _read_pointer(path) == line
    except CorruptCacheError:
        return False
