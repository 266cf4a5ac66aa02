"""One record, everywhere: what a run prints, what it stores and what tables are made of.

The record is plain JSON and its round trip is exact. Per-query predictions travel beside it
(`Predictions`), because paired comparisons need them and a screen does not.
"""

import hashlib
import json
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal, get_args

import numpy as np
from jaxtyping import Int32

from featcache.errors import ImportedFileError, NewerFormatError
from heads.results.fields import WHOLE, Fields, Scalar

EPISODIC = "episodic"
"""The protocol whose repetitions are episodes."""

FEW_SHOT = "few_shot"
"""The protocol whose repetitions are seeds."""

FORMAT = 2
"""Raised when a field changes its meaning; older programs then refuse the file. From 2 on a stored
record is sealed."""

REPETITIONS, ANSWERED, CLASSES = 100_000, 2**24, 1_000_000
"""At most so many repetitions, answers in all (300 seeds of 50,000 queries), and classes."""

QUERY_SET = "query set"
"""What a transductive method reads: all queries at once."""

CAME_WITH_DATA = "Shots came with the data"
"""How the note of stored draws begins; older records say it nowhere else."""

IntervalOf = Literal["repetitions and queries", "repetitions", "episodes", "queries", "none"]


@dataclass(frozen=True, kw_only=True)
class Metric:
    """One measure over the repetitions of a run; accuracies are fractions in [0, 1]."""

    mean: float
    ci95: float | None
    """Half-width of the 95 % interval; None where none can be given."""
    values: tuple[float, ...]
    """One value a repetition."""
    interval: IntervalOf = "none"
    """What the interval is over; `repetitions` alone only in older records."""


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
    images: Int32[np.ndarray, "r n"] | None = None
    """Which image was asked, a position in `ids`; None in older runs."""
    ids: tuple[str, ...] = ()
    classes: tuple[str, ...] = ()
    """The class list."""


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
    """`digest_ids` of the query ids in order, of episodes also of the support, and after a dash
    `digest_labels`; older records lack the latter. Equal digests allow a paired test."""
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
    draws: str = ""
    """Digest of the images, with their labels, that each repetition learned from and chose by;
    empty where nothing was drawn, of episodes, and in older records."""
    spec: str = ""
    """Digest of the RunSpec: runs that agree in it are one; empty in older records."""
    fit: str = ""
    """Digest of the FitSpec: runs that agree in it have the same heads."""
    version: int = 1
    """Version of the method; records of an older version than today's are not ranked."""
    unreadable: int = 0
    """Images of the split that could not be read: no query, for any method, and not counted."""
    sealed: bool = field(default=True, compare=False)
    """Whether its files were checked against their seal; not part of the JSON."""
    predictions: Predictions | None = field(default=None, compare=False, repr=False)
    """Not part of the JSON."""
    beside: Mapping[str, bytes] = field(default_factory=dict, compare=False, repr=False)
    """File name -> content of further files that are stored with the run; not part of the JSON."""

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
        """As the function of that name says."""
        return shots_used(self.shots, self.support)

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
            "support": None if self.support is None else asdict(self.support),
            "draws": self.draws,
            "unreadable": self.unreadable,
            "spec": self.spec,
            "fit": self.fit,
            "version": self.version,
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
        return Result.from_dict(raw, where=where)

    @staticmethod
    def from_dict(raw: Mapping[str, Any], *, where: str = "The record") -> "Result":
        """Read a record from plain values; as `from_json`."""
        return _read(Fields(raw, where))


def shots_used(asked: int | None, support: Support | None) -> int | None:
    """Return the shots a class that were really used; None is all there are, unevenly many.

    Runs on equal images agree in it, however many were asked for.

    Args:
        asked: None is all, 0 is none.
        support: What was there; None where that is not known.
    """
    if support is None or asked == 0:
        return asked
    if support.smallest == support.largest:
        return support.largest
    return None if support.whole else asked


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


def digest_labels(labels: Int32[np.ndarray, "r n"]) -> str:
    """Return 16 hex digits for the labels of the queries; repetitions that agree are one."""
    rows = labels[:1] if (labels == labels[:1]).all() else labels
    return hashlib.sha256(f"{rows.shape}".encode() + rows.astype("<i4").tobytes()).hexdigest()[:16]


def _read(f: Fields) -> Result:
    version = f.integer("format", least=1)
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
        shots=None if shots == "all" else f.integer("shots", 0, 10**9),
        seeds=tuple(
            f.count(seed, "seeds", -WHOLE, WHOLE) for seed in f.sequence("seeds", REPETITIONS)
        ),
        protocol=f.text("protocol"),
        selection=f.text("selection"),
        config={k: f.scalar(v, "config") for k, v in f.mapping("config").items()},
        chosen=tuple(f.numbers(point, "chosen") for point in f.sequence("chosen", REPETITIONS)),
        metrics={
            k: _read_metric(f.inside("metrics", k, v)) for k, v in f.mapping("metrics").items()
        },
        zero_shot_top1=f.optional_number("zero_shot_top1", 0.0, 1.0),
        seconds=f.numbers(f.mapping("seconds"), "seconds", 0.0, 1e9),
        run=f.name("run"),
        key=f.text("key"),
        versions={
            k: f.whole(f.check(v, str, "versions"), "versions")
            for k, v in f.mapping("versions").items()
        },
        classes=f.integer("classes", 1, CLASSES),
        queries=f.integer("queries", 1, ANSWERED),
        ids=f.text("ids"),
        created=f.text("created"),
        source=f.text("source") if "source" in f.raw else "",
        texts=f.text("texts") if "texts" in f.raw else "",
        reads=f.texts("reads") if "reads" in f.raw else (),
        notes=f.texts("notes"),
        support=_read_support(f),
        draws=f.text("draws") if "draws" in f.raw else "",
        unreadable=f.integer("unreadable", 0, WHOLE) if "unreadable" in f.raw else 0,
        spec=f.text("spec") if "spec" in f.raw else "",
        fit=f.text("fit") if "fit" in f.raw else "",
        version=f.integer("version", 1, WHOLE) if "version" in f.raw else 1,
    )
    if "top1" not in result.metrics:
        raise f.wrong("metrics", "an entry 'top1'", sorted(result.metrics))
    if len({len(m.values) for m in result.metrics.values()}) != 1:
        raise f.wrong("metrics", "as many values for every metric", "different numbers")
    if result.repetitions * result.queries > ANSWERED:
        raise f.wrong("queries", f"at most {ANSWERED} in all repetitions", result.queries)
    if result.protocol == FEW_SHOT and len(result.seeds) != result.repetitions:
        raise f.wrong("seeds", "one a repetition", f"{len(result.seeds)}")
    return result


def _read_support(f: Fields) -> Support | None:
    raw = f.raw.get("support")
    if raw is None:
        return None
    inner = f.inside("", "support", raw)
    support = Support(
        smallest=inner.integer("smallest", 0, ANSWERED),
        largest=inner.integer("largest", 1, ANSWERED),
        whole=inner.check(raw.get("whole"), bool, "whole"),
        stored=inner.check(raw.get("stored"), bool, "stored"),
    )
    if support.smallest > support.largest:
        raise inner.wrong("smallest", f"at most {support.largest}", support.smallest)
    return support


def _read_metric(f: Fields) -> Metric:
    values = tuple(f.number(v, "values", 0.0, 1.0) for v in f.sequence("values", REPETITIONS))
    if not values:
        raise f.wrong("values", "one number a repetition", "none")
    interval = f.text("interval")
    if interval not in get_args(IntervalOf):
        raise f.wrong("interval", f"one of {', '.join(get_args(IntervalOf))}", interval)
    return Metric(
        mean=f.number(f.raw.get("mean"), "mean", 0.0, 1.0),
        ci95=f.optional_number("ci95", 0.0, 1000.0),
        values=values,
        interval=interval,  # type: ignore[arg-type]  # one of them, checked above
    )


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is not a number")


def _kind(value: object) -> str:
    return type(value).__name__
