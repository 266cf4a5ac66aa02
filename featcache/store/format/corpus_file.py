"""The file of a corpus: its arrays behind a sealed description, readable as safetensors.

    length of the header, header, arrays            header = {"__metadata__": {"corpus": ...}, ...}

The description is one sealed line (seal.py). It determines the rest of the header and holds the
checksums of the arrays, so that every byte of the file is checked.
"""

import hashlib
import json
import math
import os
import re
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Float32, Int32, Int64

from featcache.errors import CacheError, CorruptCacheError, NewerFormatError
from featcache.limits import METADATA
from featcache.store.format.files import canonical, open_plain, unreadable
from featcache.store.format.seal import seal, unseal

FORMAT = 1
"""Version of the file; increased when older programs would misread it."""
HEADER = 1 << 20
"""Most bytes of the header."""
CLASSES = 1_000_000
"""Most classes."""
CURE = "Build it again with `featcache corpus build --again`, or let `featcache repair` delete it."
CHUNK = 1 << 24
"""Bytes that are checked at once."""

_HEX12, _HEX64 = re.compile(r"[0-9a-f]{12}"), re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, kw_only=True)
class CorpusArrays:
    """The arrays of a corpus, one entry a row."""

    values: Float[np.ndarray, "n d"]
    """Vectors as their cache has them, float16 or float32, not normalised."""
    labels: Int64[np.ndarray, " n"]
    cosines: Float32[np.ndarray, " n"]
    """Cosine with the nearest text or image of the class."""
    source: Int32[np.ndarray, " n"]
    """Position among the sources."""
    row: Int64[np.ndarray, " n"]
    """Row of the listing of the source."""
    part: Int32[np.ndarray, " n"]
    """Which patch, view or crop of the image; 0 for global features."""


@dataclass(frozen=True, kw_only=True)
class SourceRecord:
    """One cache that a corpus was built from."""

    dataset: str
    key: str
    """Digest of its feature key."""
    component: str
    splits: tuple[str, ...]
    """Splits that were searched; empty for all rows."""
    state: str
    """12 hex digits of the rows that were searched and their shards."""
    vectors: int
    """Vectors that were searched."""

    @property
    def text(self) -> str:
        """Name with its splits: fieldguide-2, or fieldguide:train."""
        return f"{self.dataset}:{'+'.join(self.splits)}" if self.splits else self.dataset


@dataclass(frozen=True, kw_only=True)
class CorpusRecord:
    """Description of a corpus."""

    name: str
    dataset: str
    """Data set whose classes the labels are."""
    key: str
    """Digest of the feature key."""
    by: str
    """class, anchor or image."""
    of: str
    """Kind of its vectors: global, patches, views or crops."""
    rows: int
    dim: int
    dtype: str
    """float16 or float32."""
    classes: int
    classes_digest: str
    """12 hex digits of the class names in label order."""
    queries_digest: str
    """12 hex digits of the query and validation images that it was compared with."""
    leaks: bool
    """Whether it was built from query or validation images."""
    sources: tuple[SourceRecord, ...]
    facts: Mapping[str, Any]
    """How it was built, and what was left out; plain JSON."""
    crc32: int = 0
    """Checksums of the arrays."""
    sha256: str = "0" * 64
    provenance: Mapping[str, str] = field(default_factory=dict)

    @property
    def digest(self) -> str:
        """12 hex digits of everything but the provenance."""
        value = {**asdict(self), "provenance": None}
        return hashlib.sha256(canonical(value)).hexdigest()[:12]

    @property
    def bytes(self) -> int:
        """Bytes of the arrays."""
        return sum(size for *_, size in _layout(self))


def encode(record: CorpusRecord, arrays: CorpusArrays) -> tuple[CorpusRecord, list[bytes]]:
    """Return the description with the checksums of the arrays, and the file in pieces."""
    pieces = [_plain(arrays, name) for name, *_ in _layout(record)]
    crc, sha = 0, hashlib.sha256()
    for piece in pieces:
        crc = zlib.crc32(piece, crc)
        sha.update(piece)
    record = replace(record, crc32=crc, sha256=sha.hexdigest())
    line, _ = seal({"kind": "corpus", "format": FORMAT, **asdict(record)})
    return record, [_header(line.decode(), record), *pieces]


def read_record(path: Path) -> CorpusRecord:
    """Read and check the description of a corpus, without its arrays.

    Raises:
        CacheError: If the file is larger than what is read at most.
        CorruptCacheError: If the file is missing or damaged.
        NewerFormatError: If a later version wrote it.
        UnreadableCacheError: If it could not be read.
    """
    with _reading(path) as handle:
        return _read_header(path, handle)[0]


def read_corpus_file(
    path: Path, told: Callable[[int], None] | None = None
) -> tuple[CorpusRecord, CorpusArrays]:
    """Read a corpus; every byte is checked. Errors as `read_record`.

    Args:
        path: The file.
        told: Called with the bytes read so far.
    """
    with _reading(path) as handle:
        record, begin = _read_header(path, handle)
        crc, sha, done = 0, hashlib.sha256(), 0
        arrays = {}
        for name, dtype, shape, size in _layout(record):
            data = bytearray(size)
            view = memoryview(data)
            for start in range(0, size, CHUNK):
                piece = view[start : start + CHUNK]
                if os.preadv(handle, [piece], begin + done) != len(piece):
                    raise _wrong(path, "is shorter than it says")
                crc = zlib.crc32(piece, crc)
                sha.update(piece)
                done += len(piece)
                if told is not None:
                    told(done)
            arrays[name] = np.frombuffer(data, dtype=np.dtype(dtype)).reshape(shape)
    if (crc, sha.hexdigest()) != (record.crc32, record.sha256):
        raise _wrong(path, "is not what was written")
    _check_arrays(path, record, arrays)
    return record, CorpusArrays(**arrays)


def _read_header(path: Path, handle: int) -> tuple[CorpusRecord, int]:
    """Return the description and the position of the first array."""
    size, most = os.fstat(handle).st_size, METADATA.value()
    if size > most:
        raise CacheError(
            f"{path} has {size} bytes, more than the {most} that are read at most. Delete it, or "
            f"set {METADATA.variable} to more bytes."
        )
    length = int.from_bytes(os.pread(handle, 8, 0), "little")
    if size < 8 or length > min(HEADER, size - 8):
        raise _wrong(path, "has no header")
    header = os.pread(handle, length, 8)
    try:
        value = json.loads(header)
        text = value["__metadata__"]["corpus"]
        described, _ = unseal(text.removesuffix("\n").encode("ascii"))
        _refuse_format(path, described)
        record = _record(described)
        if _header(text, record) != length.to_bytes(8, "little") + header:
            raise ValueError("has a header that its description does not agree with")
    except (KeyError, TypeError, AttributeError, RecursionError, UnicodeError) as error:
        raise _wrong(path, "has no description of a corpus") from error
    except ValueError as error:
        words = "has a header that is no JSON"
        is_json = isinstance(error, json.JSONDecodeError)
        raise _wrong(path, words if is_json else str(error)) from error
    if size != 8 + length + record.bytes:
        raise _wrong(path, f"has {size} bytes, and should have {8 + length + record.bytes}")
    return record, 8 + length


def _record(value: Mapping[str, Any]) -> CorpusRecord:
    """Parse a description.

    Raises:
        ValueError: If a field is missing or wrong; the message is a predicate.
    """
    fields = dict(value)
    if fields.pop("kind", None) != "corpus" or fields.pop("format", None) != FORMAT:
        raise ValueError("is not the file of a corpus")
    _check_fields(fields, _RECORD)
    sources = []
    for one in fields["sources"]:
        if not isinstance(one, dict):
            raise ValueError("has a source that is no object")
        _check_fields(one, _SOURCE)
        if not all(isinstance(split, str) for split in one["splits"]):
            raise ValueError("has a wrong 'splits'")
        sources.append(SourceRecord(**{**one, "splits": tuple(one["splits"])}))
    try:
        canonical(fields["facts"])
    except ValueError as error:
        raise ValueError("has a number in 'facts' that is not finite") from error
    return CorpusRecord(**{**fields, "sources": tuple(sources)})


def _check_fields(fields: Mapping[str, Any], kinds: Mapping[str, Callable[[Any], bool]]) -> None:
    if unknown := set(fields) ^ set(kinds):
        raise ValueError(f"lacks the field '{min(unknown)[:40]}', or must not have it")
    for name, is_right in kinds.items():
        if not is_right(fields[name]):
            raise ValueError(f"has a wrong '{name}'")


def _is_text(value: object) -> bool:
    return isinstance(value, str) and len(value) <= 1000


def _is_count(value: object) -> bool:
    return type(value) is int and 0 <= value < 1 << 40


def _is_digest(value: object) -> bool:
    return isinstance(value, str) and _HEX12.fullmatch(value) is not None


def _is_provenance(value: object) -> bool:
    return isinstance(value, dict) and all(_is_text(text) for text in value.values())


_SOURCE: Mapping[str, Callable[[Any], bool]] = {
    "dataset": _is_text,
    "key": _is_digest,
    "component": _is_text,
    "splits": lambda value: isinstance(value, list),
    "state": _is_digest,
    "vectors": _is_count,
}
_RECORD: Mapping[str, Callable[[Any], bool]] = {
    "name": _is_text,
    "dataset": _is_text,
    "key": _is_digest,
    "by": lambda value: isinstance(value, str) and value in ("class", "anchor", "image"),
    "of": lambda value: isinstance(value, str) and value in ("global", "patches", "views", "crops"),
    "rows": lambda value: _is_count(value) and value > 0,
    "dim": lambda value: _is_count(value) and value > 0,
    "dtype": lambda value: isinstance(value, str) and value in ("float16", "float32"),
    "classes": lambda value: _is_count(value) and 0 < value <= CLASSES,
    "classes_digest": _is_digest,
    "queries_digest": _is_digest,
    "leaks": lambda value: isinstance(value, bool),
    "sources": lambda value: isinstance(value, list) and bool(value),
    "facts": lambda value: isinstance(value, dict),
    "crc32": lambda value: _is_count(value) and value < 1 << 32,
    "sha256": lambda value: isinstance(value, str) and _HEX64.fullmatch(value) is not None,
    "provenance": _is_provenance,
}


def _layout(record: CorpusRecord) -> list[tuple[str, str, tuple[int, ...], int]]:
    """Return name, numpy type, shape and bytes of every array, in the order of the file."""
    n = record.rows
    value = "<f2" if record.dtype == "float16" else "<f4"
    arrays: list[tuple[str, str, tuple[int, ...]]] = [
        ("labels", "<i8", (n,)),
        ("row", "<i8", (n,)),
        ("cosines", "<f4", (n,)),
        ("source", "<i4", (n,)),
        ("part", "<i4", (n,)),
        ("values", value, (n, record.dim)),
    ]
    return [(*a, math.prod(a[2]) * int(a[1][2])) for a in arrays]


def _header(line: str, record: CorpusRecord) -> bytes:
    names = {"<i8": "I64", "<i4": "I32", "<f4": "F32", "<f2": "F16"}
    entries: dict[str, object] = {"__metadata__": {"corpus": line}}
    begin = 0
    for name, dtype, shape, size in _layout(record):
        offsets = [begin, begin + size]
        entries[name] = {"dtype": names[dtype], "shape": list(shape), "data_offsets": offsets}
        begin += size
    text = canonical(entries)
    text += b" " * (-len(text) % 8)  # arrays begin at a multiple of eight bytes
    return len(text).to_bytes(8, "little") + text


def _plain(arrays: CorpusArrays, name: str) -> bytes:
    array: np.ndarray = getattr(arrays, name)
    return np.ascontiguousarray(array.astype(array.dtype.newbyteorder("<"))).tobytes()


def _check_arrays(path: Path, record: CorpusRecord, arrays: Mapping[str, np.ndarray]) -> None:
    """Check ranges: a description that was forged with its checksums may come from a stranger."""
    limits = {"labels": record.classes, "source": len(record.sources), "row": None, "part": None}
    for name, most in limits.items():
        if (arrays[name] < 0).any() or (most is not None and (arrays[name] >= most).any()):
            raise _wrong(path, f"has {name} that are out of range")
    norms = _norms(arrays["values"])
    if not (
        np.isfinite(arrays["cosines"]).all() and np.isfinite(norms).all() and (norms > 0).all()
    ):
        raise _wrong(path, "has vectors whose length is zero or not finite")


def _norms(values: Float[np.ndarray, "n d"]) -> Float32[np.ndarray, " n"]:
    """Return lengths in float32, in which vectors are normalised: they can overflow or vanish."""
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        found = [
            np.sqrt(np.square(values[i : i + 4096].astype(np.float32)).sum(axis=1))
            for i in range(0, len(values), 4096)
        ]
    return np.concatenate(found)


def _refuse_format(path: Path, value: Mapping[str, object]) -> None:
    version = value.get("format")
    if value.get("kind") == "corpus" and type(version) is int and version > FORMAT:
        raise NewerFormatError(
            f"{path} has format {version}, this version reads format {FORMAT} of corpora only. "
            f"Update it with: pip install --upgrade featcache"
        )


def _wrong(path: Path, predicate: str) -> CorruptCacheError:
    return CorruptCacheError(f"{path} {predicate}. {CURE}")


@contextmanager
def _reading(path: Path) -> Iterator[int]:
    try:
        handle = open_plain(path)
    except OSError as error:
        raise unreadable(path, error, CURE) from error
    try:
        yield handle
    except OSError as error:
        raise unreadable(path, error, CURE) from error
    finally:
        os.close(handle)
