"""The kinds of manifest line, and the checks that let nothing strange through.

shard    rows of a component and where they are   text   embedded texts, the newest is current
drop     a shard that no longer counts            pass   a finished run over the data set

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
"""Format of manifest, key file and listing; raised when an older program would misread them."""
REASON = 300
"""Characters of the reason why an image could not be read."""
PROVENANCE, PROVENANCE_TEXT = 64, 200
"""Entries of a provenance, and characters that each must stay below."""
ROWS = 1 << 40
SIZE = 1 << 50
SHARD_NAME = re.compile(r"[0-9]{8,13}-[0-9]{8,13}(?:\.[0-9]{1,6})?\.h5")
"""first row, row after the last, and a number where the same rows were written before."""
TEXT_ROWS = "rows.h5"
TEXT_STRINGS = "strings.json"

_KIND = re.compile(r"[a-z]{1,20}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_TEXT_FILE = re.compile(re.escape(TEXT_ROWS))


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardLine:
    """Rows of one component, on disk."""

    component: str
    file: str
    """Name below the component's folder."""
    rows: tuple[tuple[int, int], ...]
    """Ascending ranges [start, stop) of listing rows, in the order of the shard."""
    bad: tuple[tuple[int, str], ...]
    """Ascending positions in the shard whose image could not be read, and why; zeros stand
    there."""
    images_crc32: int
    """`images_crc32` of the images that the rows were made of."""
    facts: ShardFacts
    provenance: Mapping[str, str]
    """What computed the numbers: versions, device, threads, whatever the writer knew."""

    def row_at(self, position: int) -> int:
        """Return the listing row at a position of the shard, which lies inside."""
        for first, last in self.rows:
            if position < last - first:
                return first + position
            position -= last - first
        raise AssertionError("a position outside the shard")

    def bad_rows(self) -> dict[int, str]:
        """Return listing rows whose image could not be read, with the reason."""
        found: dict[int, str] = {}
        ranges = iter(self.rows)
        first = last = begin = 0  # rows [first, last) stand at positions from `begin` on
        for position, reason in self.bad:
            while position >= begin + last - first:
                begin += last - first
                first, last = next(ranges)
            found[first + position - begin] = reason
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class TextLine:
    """Embedded texts, on disk."""

    component: str
    strings_bytes: int
    strings_sha256: str
    facts: ShardFacts
    provenance: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class PassLine:
    """A run that ended as it was meant to."""

    time: float
    """Seconds since 1970, at the end."""
    components: tuple[str, ...]
    images: int
    seconds: float
    complete: bool
    """False where only part of the images was asked for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DropLine:
    """A shard, or texts, found damaged; from here on they count as missing."""

    component: str
    file: str
    rows: tuple[tuple[int, int], ...]
    """Ranges [start, stop) of listing rows that it held; none for texts."""


Line = ShardLine | TextLine | PassLine | DropLine
KINDS: dict[str, type[Line]] = {
    "shard": ShardLine,
    "text": TextLine,
    "pass": PassLine,
    "drop": DropLine,
}


def to_json(line: Line) -> dict[str, object]:
    """Return what is written of a line."""
    kind = next(name for name, cls in KINDS.items() if isinstance(line, cls))
    return {"kind": kind, **asdict(line)}


def from_json(value: Mapping[str, object]) -> Line:
    """Read a line back, checking type, range and name of every field.

    Raises:
        ValueError: With a predicate ("has no field 'x'") about the first thing that is wrong.
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
            raise ValueError(f"is of an unknown kind '{other}'")
    fields.finish()
    return line


def check_provenance(value: object) -> dict[str, str]:
    """Return a provenance as it is written.

    Raises:
        ValueError: If it has more than 64 entries, or one that is no text or too long.
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
    found = []
    least = 0
    for entry in entries:
        if not isinstance(entry, list) or len(entry) != 2:
            raise ValueError("has a wrong entry in 'bad'")
        position = _integer(entry[0], least, rows - 1, "bad")
        if not isinstance(entry[1], str) or len(entry[1]) > REASON:
            raise ValueError("has a wrong reason in 'bad'")
        found.append((position, entry[1]))
        least = position + 1
    return tuple(found)


def _drop(fields: "_Fields") -> DropLine:
    component = _component(fields.take("component"))
    rows = _ranges(fields.items("rows"))
    if kind_of(component) != "text":
        return DropLine(component=component, file=fields.file(), rows=rows)
    if rows:
        raise ValueError("has rows of texts")
    return DropLine(component=component, file=fields.text("file", _TEXT_FILE), rows=())


class _Fields:
    """Fields of one object, each taken once."""

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
    if not isinstance(name, str) or len(name) > 200 or not kind_of(name):
        raise ValueError("names a component that cannot be one")
    return name


@lru_cache(maxsize=1024)
def kind_of(name: str) -> str:
    """Return the kind of the component that a folder's name stands for; empty for no component."""
    try:
        component: ComponentKey = parse_component(name)
    except UsageError:
        return ""
    return component.kind if component.folder == name else ""
