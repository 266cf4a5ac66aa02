"""What an index says of itself: one line of sealed JSON that names everything else.

The line is untrusted until it is parsed here; a seal only shows accidents.
"""

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, TypeVar

from featcache.errors import UsageError
from featcache.keys import parse_component
from featcache.retrieval.kinds.registry import INDEX_KINDS
from featcache.retrieval.vectors import VECTOR_KINDS
from featcache.store.format.seal import seal, unseal

FORMAT = 1
NAME = re.compile(r"[A-Za-z0-9_](?:[\w.+@=-]{0,98}[\w+@=-])?", re.ASCII)
"""Names of indexes, which are names of folders."""
FOLDER = re.compile(r"arrays-[0-9a-f]{8}")
"""Folders of arrays; the description names the current one."""
DTYPES = {"<f4": 4, "<i4": 4, "<i8": 8, "|u1": 1}
"""Types of arrays -> bytes of a value."""
MOST = 1 << 48
"""Largest size of anything."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class ArrayFacts:
    """One array: a file of plain little-endian values."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    crc32: int
    sha256: str

    @property
    def bytes(self) -> int:
        """Size of the file."""
        size = DTYPES[self.dtype]
        for length in self.shape:
            size *= length
        return size


@dataclass(frozen=True, slots=True, kw_only=True)
class Covered:
    """The vectors of one cache that an index covers."""

    dataset: str
    backbone: str
    key: str
    """Digest of the feature key."""
    component: str
    parts: int
    """Vectors of a row."""
    manifest: str
    """sha256 of the manifest when the rows were read, 12 digits."""
    shards: tuple[str, ...]
    """sha256 of each shard of the component, 16 digits, oldest first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recall:
    """How many of the true neighbours an approximate index found when it was built."""

    value: float
    """In [0, 1]."""
    k: int
    queries: int
    vectors: int
    """Vectors that the index had then."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Description:
    """An index."""

    name: str
    kind: str
    of: str
    """Kind of vectors: global, patches, views or crops."""
    dim: int
    vectors: int
    covered: tuple[Covered, ...]
    parameters: Mapping[str, int]
    recall: Recall | None
    """None for flat, which finds all."""
    folder: str
    """Folder of the arrays."""
    arrays: tuple[ArrayFacts, ...]
    created: str
    """ISO 8601, UTC."""

    @property
    def size(self) -> int:
        """Bytes of all arrays."""
        return sum(a.bytes for a in self.arrays)

    def line(self) -> bytes:
        """Return the sealed line."""
        return seal({**asdict(self), "format": FORMAT, "is": "index"})[0]

    def to_json(self) -> dict[str, Any]:
        """Return one plain object."""
        return {**asdict(replace(self, parameters=dict(self.parameters))), "bytes": self.size}


def check_index_name(name: str) -> str:
    """Return a name that can be a folder's.

    Raises:
        UsageError: If it cannot.
    """
    if NAME.fullmatch(name):
        return name
    raise UsageError(
        "The name of an index takes up to 100 letters, digits and any of _ . + @ = -, beginning "
        f"with a letter, a digit or _; got {name[:120]!r}."
    )


def parse(data: bytes) -> Description:
    """Read a description, with its line feed.

    Raises:
        ValueError: If it is damaged or not one; the message is a predicate.
    """
    value, _ = unseal(data.removesuffix(b"\n"))
    if value.pop("is", None) != "index":
        raise ValueError("is no description of an index")
    if value.pop("format", None) != FORMAT:
        raise ValueError(f"has another format than {FORMAT}, which this version reads")
    try:
        return _description(value)
    except (KeyError, TypeError, UsageError) as error:
        raise ValueError("has fields that are missing or wrong") from error


def _description(value: Mapping[str, Any]) -> Description:
    names = set(Description.__dataclass_fields__)
    _require(set(value) == names)
    dim, vectors = _size(value["dim"]), _size(value["vectors"])
    _require(value["kind"] in INDEX_KINDS and value["of"] in VECTOR_KINDS)
    covered = tuple(_covered(item, value["of"]) for item in _list(value["covered"], 1, 10_000))
    arrays = tuple(_array(item) for item in _list(value["arrays"], 2, 20))
    _require(len({a.name for a in arrays}) == len(arrays))
    parameters = value["parameters"]
    _require(isinstance(parameters, dict) and len(parameters) < 20)
    return Description(
        name=_text(value["name"], NAME),
        kind=value["kind"],
        of=value["of"],
        dim=dim,
        vectors=vectors,
        covered=covered,
        parameters={_text(k): _size(v) for k, v in parameters.items()},
        recall=None if value["recall"] is None else _recall(value["recall"]),
        folder=_text(value["folder"], FOLDER),
        arrays=arrays,
        created=_text(value["created"]),
    )


def _covered(value: Mapping[str, Any], of: str) -> Covered:
    _require(set(value) == set(Covered.__dataclass_fields__))
    component = _text(value["component"])
    _require(parse_component(component).kind == of)
    return Covered(
        dataset=_text(value["dataset"]),
        backbone=_text(value["backbone"]),
        key=_text(value["key"], re.compile("[0-9a-f]{12}")),
        component=component,
        parts=_size(value["parts"]),
        manifest=_text(value["manifest"], re.compile("[0-9a-f]{12}")),
        shards=tuple(
            _text(s, re.compile("[0-9a-f]{16}")) for s in _list(value["shards"], 0, 10**7)
        ),
    )


def _array(value: Mapping[str, Any]) -> ArrayFacts:
    _require(set(value) == set(ArrayFacts.__dataclass_fields__) and value["dtype"] in DTYPES)
    shape = tuple(_size(n, 0) for n in _list(value["shape"], 1, 3))
    facts = ArrayFacts(
        name=_text(value["name"], re.compile("[a-z]{1,20}")),
        dtype=value["dtype"],
        shape=shape,
        crc32=_size(value["crc32"], 0),
        sha256=_text(value["sha256"], re.compile("[0-9a-f]{64}")),
    )
    _require(facts.bytes <= MOST)
    return facts


def _recall(value: Mapping[str, Any]) -> Recall:
    _require(set(value) == set(Recall.__dataclass_fields__))
    _require(isinstance(value["value"], int | float) and 0 <= value["value"] <= 1)
    k, queries, vectors = (_size(value[name]) for name in ("k", "queries", "vectors"))
    return Recall(value=float(value["value"]), k=k, queries=queries, vectors=vectors)


def _size(value: Any, least: int = 1) -> int:
    _require(type(value) is int and least <= value <= MOST)
    return int(value)


def _text(value: Any, pattern: re.Pattern[str] | None = None) -> str:
    _require(isinstance(value, str) and 0 < len(value) <= 1000)
    _require(pattern is None or pattern.fullmatch(value) is not None)
    value.encode()  # a lone surrogate raises a ValueError
    return str(value)


def _list(value: Any, least: int, most: int) -> list[Any]:
    _require(isinstance(value, list) and least <= len(value) <= most)
    return list(value)


def _require(condition: object) -> None:
    if not condition:
        raise TypeError
