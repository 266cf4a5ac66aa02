"""Manifest records and their validation.

shard    rows of a component and their file       text   embedded texts; the newest are current
drop     a damaged shard that was removed         pass   a completed pass over the data set

The first line of a manifest, the header, is in identity.py.
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from itertools import pairwise

from featcache.errors import UsageError
from featcache.keys import ComponentKey, parse_component
from featcache.store.format.shard import DTYPES, ShardFacts

FORMAT = 2
"""Version of manifest, key file and listing; increased when older programs would misread them."""
REASON = 300
"""Most characters of the reason why an image could not be read."""
PROVENANCE, PROVENANCE_TEXT = 64, 200
"""Most entries of a provenance, and exclusive limit of the characters of each."""
ROWS = 1 << 40
SIZE = 1 << 50
SHARD_NAME = re.compile(r"[0-9]{8,13}-[0-9]{8,13}(?:\.[0-9]{1,6})?\.h5")
"""First row, row after the last, and a number if the same rows were written before."""
TEXT_PREFIX = "text."
"""Start of the folder name of texts."""
TEXT_ROWS = "rows.h5"
TEXT_STRINGS = "strings.json"

_COMPONENT = re.compile(r"[a-z][a-z_]{0,30}(\.[a-z0-9_-]{1,80}){0,8}(@[0-9]{1,18})?(\.[a-z0-9]+)?")
"""What the name of a component of a later version may look like."""
_KIND = re.compile(r"[a-z]{1,20}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_TEXT_FILE = re.compile(re.escape(TEXT_ROWS))


class UnknownRecordError(ValueError):
    """A record of a kind, or of a component, that this version does not know."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardLine:
    """Record of a shard: rows of one component."""

    component: str
    file: str
    """File name in the folder of the component."""
    rows: tuple[tuple[int, int], ...]
    """Ascending ranges [start, stop) of listing rows, in the order of the shard."""
    bad: tuple[tuple[int, str], ...]
    """Ascending positions in the shard of unreadable images, with the reason; their features are
    zeros."""
    images_crc32: int
    """`rows.images_crc32` of the images of the rows."""
    facts: ShardFacts
    provenance: Mapping[str, str]
    """Versions, device, threads and settings that produced the features."""

    def row_at(self, position: int) -> int:
        """Return the listing row at a valid position of the shard."""
        for first, last in self.rows:
            if position < last - first:
                return first + position
            position -= last - first
        raise AssertionError("a position outside the shard")

    def bad_rows(self) -> dict[int, str]:
        """Return the listing rows of unreadable images, with the reason."""
        bad: dict[int, str] = {}
        ranges = iter(self.rows)
        first = last = begin = 0  # rows [first, last) are at positions from `begin`
        for position, reason in self.bad:
            while position >= begin + last - first:
                begin += last - first
                first, last = next(ranges)
            bad[first + position - begin] = reason
        return bad


@dataclass(frozen=True, slots=True, kw_only=True)
class TextLine:
    """Record of embedded texts."""

    component: str
    strings_bytes: int
    strings_sha256: str
    facts: ShardFacts
    provenance: Mapping[str, str]

    @property
    def digest(self) -> str:
        """Return the 12 hex digits that name the text set."""
        return self.component.removeprefix(TEXT_PREFIX)


@dataclass(frozen=True, slots=True, kw_only=True)
class PassLine:
    """Record of a pass that ended normally."""

    time: float
    """End of the pass in seconds since 1970."""
    components: tuple[str, ...]
    images: int
    seconds: float
    complete: bool
    """False if only part of the images was requested."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DropLine:
    """Record of a damaged shard, or of texts, that count as missing from here on."""

    component: str
    file: str
    rows: tuple[tuple[int, int], ...]
    """Ranges [start, stop) of the listing rows of the shard; empty for texts."""


Line = ShardLine | TextLine | PassLine | DropLine
KINDS: dict[str, type[Line]] = {
    "shard": ShardLine,
    "text": TextLine,
    "pass": PassLine,
    "drop": DropLine,
}


def to_json(line: Line) -> dict[str, object]:
    """Return a record as a JSON object."""
    kind = next(name for name, cls in KINDS.items() if isinstance(line, cls))
    return {"kind": kind, **asdict(line)}


def from_json(value: Mapping[str, object]) -> Line:
    """Parse a record and check name, type and range of every field.

    Raises:
        UnknownRecordError: If a later version may have written it.
        ValueError: If a field is wrong; the message is a predicate ("has no field 'x'").
    """
    fields = _Fields(value)
    line: Line
    match fields.text("kind", _KIND):
        case "shard":
            line = _shard(fields)
        case "text":
            line = TextLine(
                component=fields.component(text=True),
                strings_bytes=fields.integer("strings_bytes", 2, SIZE),
                strings_sha256=fields.text("strings_sha256", _SHA256),
                facts=fields.facts(),
                provenance=fields.provenance(),
            )
        case "pass":
            line = PassLine(
                time=fields.number("time"),
                components=tuple(_component(c) for c in fields.items("components")),
                images=fields.integer("images", 0, ROWS),
                seconds=fields.number("seconds"),
                complete=fields.boolean("complete"),
            )
        case "drop":
            line = _drop(fields)
        case "header":
            raise ValueError("is a second header")
        case other:
            raise UnknownRecordError(f"is of an unknown kind '{other}'")
    fields.finish()
    return line


def check_provenance(value: object) -> dict[str, str]:
    """Return a provenance as it is stored.

    Raises:
        ValueError: If it has more than 64 entries, or an entry is not a text or too long.
    """
    if not isinstance(value, Mapping) or len(value) > PROVENANCE:
        raise ValueError("has a wrong 'provenance'")
    for name, text in value.items():
        if (
            not (isinstance(name, str) and isinstance(text, str))
            or max(len(name), len(text)) >= PROVENANCE_TEXT
        ):
            raise ValueError("has a wrong 'provenance'")
    return dict(value)


def _shard(fields: "_Fields") -> ShardLine:
    facts = fields.facts()
    line = ShardLine(
        component=fields.component(),
        file=fields.file(),
        rows=_ranges(fields.items("rows")),
        bad=_bad(fields.items("bad"), facts.shape[0]),
        images_crc32=fields.integer("images_crc32", 0, (1 << 32) - 1),
        facts=facts,
        provenance=fields.provenance(),
    )
    if sum(last - first for first, last in line.rows) != facts.shape[0]:
        raise ValueError("has rows that do not fill the shard")
    if len(facts.shape) < 2:
        raise ValueError("has a shape without a row axis")
    return line


def _bad(entries: Sequence[object], rows: int) -> tuple[tuple[int, str], ...]:
    bad = []
    least = 0
    for entry in entries:
        if not isinstance(entry, list) or len(entry) != 2:
            raise ValueError("has a wrong entry in 'bad'")
        position = _integer(entry[0], least, rows - 1, "bad")
        if not isinstance(entry[1], str) or len(entry[1]) > REASON:
            raise ValueError("has a wrong reason in 'bad'")
        bad.append((position, entry[1]))
        least = position + 1
    return tuple(bad)


def _drop(fields: "_Fields") -> DropLine:
    component = _component(fields.take("component"))
    rows = _ranges(fields.items("rows"))
    if kind_of(component) != "text":
        return DropLine(component=component, file=fields.file(), rows=rows)
    if rows:
        raise ValueError("has rows of texts")
    return DropLine(component=component, file=fields.text("file", _TEXT_FILE), rows=())


class _Fields:
    """The fields of one JSON object; each is read once."""

    def __init__(self, value: object) -> None:
        if not isinstance(value, dict):
            raise ValueError("has a list or a number where an object should be")
        self._rest: dict[str, object] = dict(value)

    def take(self, name: str) -> object:
        if name not in self._rest:
            raise ValueError(f"has no field '{name}'")
        return self._rest.pop(name)

    def text(self, name: str, pattern: re.Pattern[str]) -> str:
        value = self.take(name)
        if not isinstance(value, str) or pattern.fullmatch(value) is None:
            raise ValueError(f"has a wrong '{name}'")
        return value

    def integer(self, name: str, low: int, high: int) -> int:
        return _integer(self.take(name), low, high, name)

    def number(self, name: str) -> float:
        value = self.take(name)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ValueError(f"has a wrong '{name}'")
        if not math.isfinite(value) or value < 0:
            raise ValueError(f"has a wrong '{name}'")
        return float(value)

    def boolean(self, name: str) -> bool:
        value = self.take(name)
        if not isinstance(value, bool):
            raise ValueError(f"has a wrong '{name}'")
        return value

    def items(self, name: str) -> list[object]:
        value = self.take(name)
        if not isinstance(value, list):
            raise ValueError(f"has a wrong '{name}'")
        return value

    def component(self, *, text: bool = False) -> str:
        name = _component(self.take("component"))
        if (kind_of(name) == "text") is not text:
            raise ValueError(f"has the component '{name}', which does not belong to its kind")
        return name

    def file(self) -> str:
        return self.text("file", SHARD_NAME)

    def facts(self) -> ShardFacts:
        inner = _Fields(self.take("facts"))
        shape = tuple(_integer(s, 1, SIZE, "shape") for s in inner.items("shape"))
        if not 1 <= len(shape) <= 4:
            raise ValueError("has a wrong 'shape'")
        dtype = inner.take("dtype")
        if dtype not in DTYPES:
            raise ValueError("has a wrong 'dtype'")
        facts = ShardFacts(
            offset=inner.integer("offset", 0, SIZE),
            shape=shape,
            dtype=dtype,
            bytes=inner.integer("bytes", 1, SIZE),
            crc32=inner.integer("crc32", 0, (1 << 32) - 1),
            sha256=inner.text("sha256", _SHA256),
        )
        inner.finish()
        if not facts.fits():
            raise ValueError("has rows that lie outside its file")
        return facts

    def provenance(self) -> dict[str, str]:
        return check_provenance(self.take("provenance"))

    def finish(self) -> None:
        if self._rest:
            raise ValueError(f"has an unknown field '{min(self._rest)[:40]}'")


def _integer(value: object, low: int, high: int, name: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise ValueError(f"has a wrong '{name}'")
    return value


def _range(value: object) -> tuple[int, int]:
    if not isinstance(value, list) or len(value) != 2:
        raise ValueError("has a wrong range in 'rows'")
    start = _integer(value[0], 0, ROWS, "rows")
    return start, _integer(value[1], start + 1, ROWS, "rows")


def _ranges(values: Sequence[object]) -> tuple[tuple[int, int], ...]:
    ranges = tuple(_range(value) for value in values)
    if any(b[0] < a[1] for a, b in pairwise(ranges)):
        raise ValueError("has rows that do not ascend")
    return ranges


def _component(name: object) -> str:
    if not isinstance(name, str) or len(name) > 200:
        raise ValueError("names a component that cannot be one")
    if not kind_of(name):
        error = UnknownRecordError if _COMPONENT.fullmatch(name) else ValueError
        raise error("names a component that cannot be one")
    return name


@lru_cache(maxsize=1024)
def kind_of(name: str) -> str:
    """Return the kind of the component with this folder name; empty if it is not a component."""
    try:
        component: ComponentKey = parse_component(name)
    except UsageError:
        return ""
    return component.kind if component.folder == name else ""
