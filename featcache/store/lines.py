"""The kinds of manifest line, and the checks that let nothing strange through.

header   format and key of the cache            text   embedded texts, the newest is current
shard    rows of a component and where they are  drop   a shard that no longer counts
pass     a finished run over the data set
"""

import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass

from featcache.errors import UsageError
from featcache.keys import parse_component
from featcache.store.shard import DTYPES, ShardFacts

FORMAT = 1
"""Of manifest, key file and listing; raised when an older program would misread them."""
ROWS = 1 << 40
SIZE = 1 << 50
SHARD_NAME = re.compile(r"[0-9]{8,13}-[0-9]{8,13}(?:\.[0-9]{1,6})?\.h5")
"""first row, row after the last, and a number where the same rows were written before."""
TEXT_ROWS = "rows.h5"
TEXT_STRINGS = "strings.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """First line of every manifest."""

    format: int
    key: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardLine:
    """Rows of one component, on disk."""

    component: str
    file: str
    """Name below the component's folder."""
    rows: tuple[tuple[int, int], ...]
    """Ascending ranges [start, stop) of listing rows, in the order of the shard."""
    bad: tuple[int, ...]
    """Positions in the shard whose image could not be read; zeros stand there."""
    facts: ShardFacts
    versions: Mapping[str, str]
    """Of the libraries that computed the numbers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TextLine:
    """Embedded texts, on disk."""

    component: str
    strings_bytes: int
    strings_sha256: str
    facts: ShardFacts
    versions: Mapping[str, str]


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


Line = ShardLine | TextLine | PassLine | DropLine
KINDS: dict[str, type[Header | Line]] = {
    "header": Header,
    "shard": ShardLine,
    "text": TextLine,
    "pass": PassLine,
    "drop": DropLine,
}


def to_json(line: Header | Line) -> dict[str, object]:
    """Return what is written of a line."""
    kind = next(name for name, cls in KINDS.items() if isinstance(line, cls))
    return {"kind": kind, **asdict(line)}


def from_json(value: Mapping[str, object]) -> Header | Line:
    """Read a line back, checking type, range and name of every field.

    Raises:
        ValueError: With a predicate ("has no field 'x'") about the first thing that is wrong.
    """
    fields = _Fields(value)
    match fields.text("kind", r"[a-z]{1,20}"):
        case "header":
            line: Header | Line = Header(
                format=fields.integer("format", 1, 1 << 30), key=fields.text("key", r"[0-9a-f]{12}")
            )
        case "shard":
            line = _shard(fields)
        case "text":
            line = TextLine(
                component=fields.component(text=True),
                strings_bytes=fields.integer("strings_bytes", 2, SIZE),
                strings_sha256=fields.text("strings_sha256", r"[0-9a-f]{64}"),
                facts=fields.facts(),
                versions=fields.versions(),
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
        case other:
            raise ValueError(f"is of an unknown kind '{other}'")
    fields.finish()
    return line


def _shard(fields: "_Fields") -> ShardLine:
    facts = fields.facts()
    line = ShardLine(
        component=fields.component(),
        file=fields.file(),
        rows=tuple(_range(r) for r in fields.items("rows")),
        bad=tuple(_integer(b, 0, facts.shape[0] - 1, "bad") for b in fields.items("bad")),
        facts=facts,
        versions=fields.versions(),
    )
    edges = [edge for pair in line.rows for edge in pair]
    if edges != sorted(edges) or sum(b - a for a, b in line.rows) != facts.shape[0]:
        raise ValueError("has rows that do not ascend or do not fill the shard")
    if len(facts.shape) < 2:
        raise ValueError("has a shape without a row axis")
    if list(line.bad) != sorted(set(line.bad)):
        raise ValueError("has bad positions that do not ascend")
    return line


def _drop(fields: "_Fields") -> DropLine:
    component = _component(fields.take("component"))
    if component.startswith("text."):
        return DropLine(component=component, file=fields.text("file", re.escape(TEXT_ROWS)))
    return DropLine(component=component, file=fields.file())


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

    def text(self, name: str, pattern: str) -> str:
        value = self.take(name)
        if not isinstance(value, str) or re.fullmatch(pattern, value) is None:
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
        if name.startswith("text.") is not text:
            raise ValueError(f"has the component '{name}', which does not belong to its kind")
        return name

    def file(self) -> str:
        return self.text("file", SHARD_NAME.pattern)

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
            sha256=inner.text("sha256", r"[0-9a-f]{64}"),
        )
        inner.finish()
        if not facts.fits():
            raise ValueError("has rows that lie outside its file")
        return facts

    def versions(self) -> dict[str, str]:
        value = self.take("versions")
        if not isinstance(value, dict) or len(value) > 64:
            raise ValueError("has wrong 'versions'")
        if not all(isinstance(v, str) and len(v) < 200 for v in value.values()):
            raise ValueError("has wrong 'versions'")
        return value

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


def _component(name: object) -> str:
    try:
        if isinstance(name, str) and len(name) <= 200 and parse_component(name).folder == name:
            return name
    except UsageError:
        pass
    raise ValueError("names a component that cannot be one")
