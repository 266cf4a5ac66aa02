"""One record, everywhere: what a run prints, what it stores and what tables are made of.

The record is plain JSON and its round trip is exact. Per-query predictions travel beside it
(`Predictions`), because paired comparisons need them and a screen does not.
"""

import hashlib
import json
import math
import re
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
from jaxtyping import Int32

from featcache.errors import ImportedFileError, NewerFormatError

EPISODIC = "episodic"
"""The protocol whose repetitions are episodes."""

FORMAT = 1
"""Raised when a field changes its meaning; older programs then refuse the file."""

QUERY_SET = "query set"
"""What a transductive method reads: all queries at once."""

CAME_WITH_DATA = "Shots came with the data"
"""How the note of stored draws begins; older records say it nowhere else."""

Scalar: TypeAlias = str | int | float | bool | None
"""What a setting can be in JSON."""

IntervalOf = Literal["repetitions", "episodes", "queries", "none"]


@dataclass(frozen=True, kw_only=True)
class Metric:
    """One measure over the repetitions of a run; accuracies are fractions in [0, 1]."""

    mean: float
    ci95: float | None
    """Half-width of the 95 % interval; None where none can be given."""
    values: tuple[float, ...]
    """One value a repetition."""
    interval: IntervalOf = "none"
    """What the interval is over: repetitions or episodes (Student's t), or queries (bootstrap)."""


@dataclass(frozen=True, kw_only=True)
class Support:
    """The labelled images that a run really learned from, over all its repetitions."""

    smallest: int
    """Images of the class that gave fewest."""
    largest: int
    """Images of the class that gave most."""
    whole: bool
    """Whether these are all that the data set has, so that asking for more gives no other."""
    stored: bool = False
    """Whether they came with the data, the same for every seed."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Predictions:
    """What a run answered, query by query; classes are positions in the class list."""

    predicted: Int32[np.ndarray, "r n"]
    """One row a repetition."""
    labels: Int32[np.ndarray, "r n"]
    zero_shot: Int32[np.ndarray, "r n"] | None = None
    """The zero-shot answers on the same queries, where the data set has texts."""


@dataclass(frozen=True, kw_only=True)
class Result:
    """What came of a method on a data set; `metrics` are made by `heads.results.metrics`."""

    method: str
    variant: str = ""
    """Settings that differ from the defaults, as on the command line; empty for none."""
    dataset: str
    backbone: str
    split: str
    """Where the queries came from: test, or the name of a shifted test set."""
    shots: int | None
    """Support images a class; None is all (JSON: "all"), 0 for zero-shot."""
    seeds: tuple[int, ...]
    protocol: str
    selection: str
    """How hyper-parameters were chosen; `oracle` looked at the queries."""
    config: Mapping[str, Scalar] = field(default_factory=dict)
    chosen: tuple[Mapping[str, float], ...] = ()
    """Hyper-parameters at which each repetition was evaluated; one entry where all are equal."""
    metrics: Mapping[str, Metric]
    """top1, macro_f1 and balanced_accuracy at least."""
    zero_shot_top1: float | None
    """On the same queries; None where the data set has no texts."""
    seconds: Mapping[str, float]
    """fit and evaluate, wall clock."""
    run: str
    """Name of the run; `new_run_id` makes one."""
    key: str
    """Digest of the FeatureKey."""
    versions: Mapping[str, str]
    classes: int
    queries: int
    """Query rows of one repetition."""
    ids: str
    """`digest_ids` of the query ids in order, of episodes also of the support: equal digests allow
    a paired test."""
    created: str
    """UTC, ISO 8601."""
    source: str = ""
    """Where the method's equations come from, as the method says it; empty in older records."""
    texts: str = ""
    """Digest of the texts behind `zero_shot_top1`, and after a colon of others that the method was
    set to read; empty without texts and in older records."""
    reads: tuple[str, ...] = ()
    """What it read beyond one feature an image: `support views.rrc50`, `pool`, `query crops`;
    QUERY_SET where all queries were answered together."""
    notes: tuple[str, ...] = ()
    """What a reader of the table must know: short classes, stored draws, views that lack."""
    support: Support | None = None
    """None where nothing labelled was read, and in older records."""
    unreadable: int = 0
    """Images of the split that could not be read: no query, for any method, and not counted."""
    sealed: bool = field(default=True, compare=False)
    """Whether its files were checked against their seal; not part of the JSON."""
    predictions: Predictions | None = field(default=None, compare=False, repr=False)
    """Not part of the JSON."""
    beside: Mapping[str, str] = field(default_factory=dict, compare=False, repr=False)
    """File name -> text of further files that are stored with the run; not part of the JSON."""

    @property
    def oracle(self) -> bool:
        """Tell whether the hyper-parameters were chosen on the queries themselves."""
        return self.selection == "oracle"

    @property
    def transductive(self) -> bool:
        """Tell whether all queries were answered together."""
        return QUERY_SET in self.reads

    @property
    def stored_draw(self) -> bool:
        """Tell whether the shots came with the data, so that no seed changed them."""
        if self.support is not None:
            return self.support.stored
        return any(note.startswith(CAME_WITH_DATA) for note in self.notes)

    @property
    def marks(self) -> tuple[str, ...]:
        """Name what a reader must not miss beside the run's name: see docs/results.md."""
        marks = {
            "oracle": self.oracle,
            "transductive": self.transductive,
            "stored draw": self.stored_draw,
            "unsealed": not self.sealed,
        }
        return tuple(mark for mark, holds in marks.items() if holds)

    @property
    def shots_used(self) -> int | None:
        """Return the shots a class that were really used; None is all there are, unevenly many.

        Runs on equal images agree in it, however many were asked for.
        """
        if self.support is None or not self.shots and self.shots is not None:
            return self.shots
        if self.support.smallest == self.support.largest:
            return self.support.largest
        return None if self.support.whole else self.shots

    @property
    def shots_text(self) -> str:
        """Say what was really used: `16 shots`, `16 shots (9-16 a class)`, `all shots (...)`."""
        named = {None: "all shots", 0: "no shots", 1: "1 shot"}
        text = named.get(self.shots_used, f"{self.shots_used} shots")
        uneven = self.support is not None and self.support.smallest != self.support.largest
        if self.support is None or not uneven:
            return text
        return f"{text} ({self.support.smallest}-{self.support.largest} a class)"

    @property
    def repetitions(self) -> int:
        """Count the repetitions; seeds with the same draw are one."""
        return len(self.metrics["top1"].values)

    @property
    def ways(self) -> int | None:
        """Count the classes of an episode; None for other protocols."""
        ways = self.config.get("ways") if self.protocol == EPISODIC else None
        return ways if isinstance(ways, int) else None

    def as_dict(self) -> dict[str, Any]:
        """Return the record as JSON-ready values, in the documented order."""
        return {
            "format": FORMAT,
            "method": self.method,
            "variant": self.variant,
            "dataset": self.dataset,
            "backbone": self.backbone,
            "split": self.split,
            "shots": "all" if self.shots is None else self.shots,
            "seeds": list(self.seeds),
            "protocol": self.protocol,
            "selection": self.selection,
            "config": dict(self.config),
            "chosen": [dict(point) for point in self.chosen],
            "metrics": {
                name: {
                    "mean": metric.mean,
                    "ci95": metric.ci95,
                    "values": list(metric.values),
                    "interval": metric.interval,
                }
                for name, metric in self.metrics.items()
            },
            "zero_shot_top1": self.zero_shot_top1,
            "seconds": dict(self.seconds),
            "run": self.run,
            "key": self.key,
            "versions": dict(self.versions),
            "classes": self.classes,
            "queries": self.queries,
            "ids": self.ids,
            "created": self.created,
            "source": self.source,
            "texts": self.texts,
            "reads": list(self.reads),
            "notes": list(self.notes),
        }

    def to_json(self) -> str:
        """Write the record as one line of JSON; floats keep every bit."""
        return json.dumps(self.as_dict(), ensure_ascii=False, allow_nan=False)

    @staticmethod
    def from_json(text: str, *, where: str = "The record") -> "Result":
        """Read a record back, checking every field.

        Args:
            text: One JSON object.
            where: Names the file in messages.

        Raises:
            ImportedFileError: If the text is not a record.
            NewerFormatError: If a later version of this program wrote it.
        """
        try:
            raw = json.loads(text, parse_constant=_refuse_constant)
        except (ValueError, RecursionError) as error:
            raise ImportedFileError(
                f"{where} is not JSON ({error}); delete that run and train it again."
            ) from error
        if not isinstance(raw, dict):
            raise ImportedFileError(f"{where} should be a JSON object, got {_kind(raw)}.")
        return _read(_Fields(raw, where))


def new_run_id(method: str, created: datetime | None = None) -> str:
    """Name a run by its time, its method and six random digits: sorts by time, never collides."""
    moment = (created or datetime.now(UTC)).strftime("%Y%m%dT%H%M%S")
    return f"{moment}-{method}-{secrets.token_hex(3)}"


def now() -> str:
    """Return the time for `created`: UTC, ISO 8601, to the microsecond."""
    return datetime.now(UTC).isoformat()


def digest_ids(ids: Iterable[str]) -> str:
    """Return 16 hex digits for an ordered list of image ids.

    Each id is preceded by its length, so that no two lists read the same.
    """
    state = hashlib.sha256()
    for name in ids:
        raw = name.encode("utf-8", "surrogateescape")
        state.update(f"{len(raw)}:".encode() + raw)
    return state.hexdigest()[:16]


def _read(f: "_Fields") -> Result:
    version = f.integer("format")
    if version > FORMAT:
        raise NewerFormatError(
            f"{f.where} has format {version}, this program reads up to {FORMAT}. "
            f"Upgrade featcache to read it."
        )
    shots = f.raw.get("shots")
    result = Result(
        method=f.name("method"),
        variant=f.text("variant"),
        dataset=f.text("dataset"),
        backbone=f.text("backbone"),
        split=f.text("split"),
        shots=None if shots == "all" else f.integer("shots", least=0),
        seeds=tuple(f.check(s, int, "seeds") for s in f.sequence("seeds")),
        protocol=f.text("protocol"),
        selection=f.text("selection"),
        config={k: f.scalar(v, "config") for k, v in f.mapping("config").items()},
        chosen=tuple(f.numbers(point, "chosen") for point in f.sequence("chosen")),
        metrics={
            k: _read_metric(f.inside("metrics", k, v)) for k, v in f.mapping("metrics").items()
        },
        zero_shot_top1=f.optional_number("zero_shot_top1"),
        seconds=f.numbers(f.mapping("seconds"), "seconds"),
        run=f.name("run"),
        key=f.text("key"),
        versions={
            k: f.whole(f.check(v, str, "versions"), "versions")
            for k, v in f.mapping("versions").items()
        },
        classes=f.integer("classes", least=1),
        queries=f.integer("queries", least=0),
        ids=f.text("ids"),
        created=f.text("created"),
        source=f.text("source") if "source" in f.raw else "",
        texts=f.text("texts") if "texts" in f.raw else "",
        reads=f.texts("reads") if "reads" in f.raw else (),
        notes=f.texts("notes"),
    )
    if "top1" not in result.metrics:
        raise f.wrong("metrics", "an entry 'top1'", sorted(result.metrics))
    if len({len(m.values) for m in result.metrics.values()}) != 1:
        raise f.wrong("metrics", "as many values for every metric", "different numbers")
    return result


def _read_metric(f: "_Fields") -> Metric:
    values = tuple(f.number(v, "values") for v in f.sequence("values"))
    if not values:
        raise f.wrong("values", "one number a repetition", "none")
    interval = f.text("interval")
    if interval not in get_args(IntervalOf):
        raise f.wrong("interval", f"one of {', '.join(get_args(IntervalOf))}", interval)
    return Metric(
        mean=f.number(f.raw.get("mean"), "mean"),
        ci95=f.optional_number("ci95"),
        values=values,
        interval=interval,  # type: ignore[arg-type]  # one of them, checked above
    )


class _Fields:
    """A JSON object whose fields are checked as they are taken."""

    def __init__(self, raw: Mapping[str, Any], where: str) -> None:
        self.raw, self.where = raw, where

    def inside(self, field_name: str, key: str, value: object) -> "_Fields":
        if not isinstance(value, dict):
            raise self.wrong(f"{field_name}.{key}", "an object", value)
        return _Fields(value, f"{self.where}, {field_name}.{key},")

    def wrong(self, field_name: str, expected: str, got: object) -> ImportedFileError:
        shown = repr(got)
        shown = shown if len(shown) <= 60 else shown[:57] + "..."
        return ImportedFileError(
            f"{self.where} is not a run record: '{field_name}' should be {expected}, got {shown}."
        )

    def check(self, value: object, kind: type[Any], field_name: str) -> Any:
        # bool is an int to Python, and nowhere in a record
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            raise self.wrong(field_name, f"of type {kind.__name__}", value)
        return value

    def harmless(self, value: str, field_name: str) -> str:
        # what a terminal obeys instead of showing, and what no file can hold
        if re.search(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]", value):
            raise self.wrong(field_name, "text without control characters", value)
        return value

    def whole(self, value: str, field_name: str) -> str:
        if re.search(r"[\ud800-\udfff]", value):  # JSON spells them, no file holds them
            raise self.wrong(field_name, "text of whole characters", value)
        return value

    def text(self, field_name: str) -> str:
        value = str(self.check(self.raw.get(field_name), str, field_name))
        return self.harmless(value, field_name)

    def texts(self, field_name: str) -> tuple[str, ...]:
        each = (self.check(t, str, field_name) for t in self.sequence(field_name))
        return tuple(self.harmless(text, field_name) for text in each)

    def name(self, field_name: str) -> str:
        value = self.text(field_name)
        # names become parts of paths
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,120}", value):
            raise self.wrong(field_name, "a name of letters, digits, '.', '_', '+', '-'", value)
        return value

    def integer(self, field_name: str, least: int | None = None) -> int:
        value = int(self.check(self.raw.get(field_name), int, field_name))
        if least is not None and value < least:
            raise self.wrong(field_name, f"at least {least}", value)
        return value

    def number(self, value: object, field_name: str) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self.wrong(field_name, "a number", value)
        try:
            number = float(value)
        except OverflowError as error:
            raise self.wrong(field_name, "a finite number", "a huge integer") from error
        if not math.isfinite(number):
            raise self.wrong(field_name, "a finite number", value)
        return number

    def optional_number(self, field_name: str) -> float | None:
        value = self.raw.get(field_name)
        return None if value is None else self.number(value, field_name)

    def numbers(self, value: object, field_name: str) -> dict[str, float]:
        items: dict[str, Any] = self.check(value, dict, field_name)
        return {
            self.whole(k, field_name): self.number(v, f"{field_name}.{k}") for k, v in items.items()
        }

    def scalar(self, value: object, field_name: str) -> Scalar:
        if isinstance(value, str):
            return self.whole(value, field_name)
        if value is None or isinstance(value, int | float | bool):
            return value
        raise self.wrong(field_name, "text, numbers or true/false", value)

    def sequence(self, field_name: str) -> list[Any]:
        return list(self.check(self.raw.get(field_name), list, field_name))

    def mapping(self, field_name: str) -> dict[str, Any]:
        value = self.check(self.raw.get(field_name), dict, field_name)
        return {self.whole(k, field_name): v for k, v in value.items()}


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is not a number")


def _kind(value: object) -> str:
    return type(value).__name__
