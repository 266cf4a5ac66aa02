"""The record of a run: what a command prints, what is stored and what tables are made of.

A record is plain JSON; `heads.results.reading` reads it back exactly. The answers to single queries
(`Predictions`) are stored beside it: paired comparisons need them, a screen does not.
"""

import hashlib
import json
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal

import numpy as np
from jaxtyping import Int32

from heads.augmentation import Augmentation
from heads.results.fields import Scalar

EPISODIC = "episodic"
"""The protocol whose repetitions are episodes."""

BATCHES, STREAM = "batches", "stream"
"""The protocols whose repetitions are batches of few classes, or orders of a whole split."""

FEW_SHOT = "few_shot"
"""The protocol whose repetitions are seeds."""

FORMAT = 2
"""Raised when a field changes its meaning; older programs then refuse the file. From 2 on a stored
record is sealed."""

REPETITIONS, ANSWERED, CLASSES = 100_000, 2**24, 1_000_000
"""Largest number of repetitions, of answers in all (300 seeds of 50,000 queries), of classes."""

QUERY_SET = "query set"
"""Entry of `reads` of a transductive method, which answers all queries together."""

SUPPORT = "support"
"""Entry of `config` of an imbalanced support: how many images each class was to give."""

TEXT_SET = "text_set"
"""Entry of `config` of a run on a cache with texts: the digest of the text set that it read."""

PROFILE_SHOWN = 40
"""Characters of a support that a title shows; of a longer one it shows a digest."""
QUERY_ORDER = "query order"
"""Further entry of an online method, whose answers depend on the order of the queries."""

CAME_WITH_DATA = "Shots came with the data"
"""Start of the note on stored draws; older records state it nowhere else."""

IntervalOf = Literal[
    "repetitions and queries",
    "repetitions",
    "episodes",
    "batches",
    "streams",
    "queries",
    "none",
]

LISTS: Mapping[str, IntervalOf] = {EPISODIC: "episodes", BATCHES: "batches", STREAM: "streams"}
"""Protocol -> what its repetitions are, where these are a list of independent draws of queries."""


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
    """Counts of the labelled images that a run was trained on, over all its repetitions."""

    smallest: int
    """Images of the class with the fewest."""
    largest: int
    """Images of the class with the most."""
    whole: bool
    """Whether these are all training images, so that more shots would change nothing."""
    stored: bool = False
    """Whether they came with the data, the same for every seed."""


@dataclass(frozen=True, kw_only=True)
class CorpusUse:
    """The corpus that a run learned from besides labelled images, or instead of them."""

    name: str
    digest: str
    """Digest of the corpus."""
    rows: int
    """Rows of the corpus."""
    weight: float = 1.0
    """Weight of each row beside a labelled image."""
    leaks: bool = False
    """Whether the corpus was built, on demand, with queries in it."""

    @property
    def augment(self) -> str:
        """Return the setting that asks for it: `corpus:NAME:weight=0.3`."""
        return str(Augmentation(corpus=self.name, weight=self.weight))

    @property
    def spec(self) -> str:
        """Return what determines the rows and their weights: the setting and the digest."""
        return f"{self.augment}@{self.digest}"


@dataclass(frozen=True, kw_only=True)
class Certainty:
    """How far the probabilities of the heads can be trusted; one value a repetition."""

    kind: str
    """split (validation images calibrated), cross (folds of the support), empty (no sets)."""
    rows: int
    """Fewest calibration rows of a head; 0 without prediction sets."""
    temperature: tuple[float, ...]
    ece_before: tuple[float, ...]
    """Expected calibration error of softmax(logits), in [0, 1]."""
    ece: tuple[float, ...]
    """The same with the temperature."""
    rule: str = ""
    """Rule of the prediction sets."""
    asked: float = 0.0
    """Coverage that they were to have."""
    covered: tuple[float, ...] = ()
    """Fraction of queries whose label is in their set; () without enough calibration rows."""
    size: tuple[float, ...] = ()
    """Mean number of classes of a set."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Predictions:
    """What a run answered, query by query; classes are positions in the class list."""

    predicted: Int32[np.ndarray, "r n"]
    """One row a repetition."""
    labels: Int32[np.ndarray, "r n"]
    """-1 behind the end of a batch that is smaller than others, and so in the other arrays."""
    zero_shot: Int32[np.ndarray, "r n"] | None = None
    """The zero-shot answers on the same queries, where the data set has texts."""
    images: Int32[np.ndarray, "r n"] | None = None
    """The image of each query, a position in `ids`; None in older runs."""
    ids: tuple[str, ...] = ()
    classes: tuple[str, ...] = ()
    """The class list."""


@dataclass(frozen=True, kw_only=True)
class Result:
    """The record of one method on one data set; `heads.results.metrics` computes `metrics`."""

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
    """Query rows of one repetition; of batches, those of the largest."""
    ids: str
    """`digest_ids` of the query ids in order, of episodes also of the support, and after a dash
    `digest_labels`; older records lack the latter. Equal digests allow a paired test."""
    created: str
    """UTC, ISO 8601."""
    source: str = ""
    """Source of the method's equations, as in `Method.source`; empty in older records."""
    texts: str = ""
    """Digest of the texts behind `zero_shot_top1`, and after a colon of others that the method was
    set to read; empty without texts and in older records."""
    reads: tuple[str, ...] = ()
    """What it read beyond one feature an image: `support views.rrc50`, `pool`, `query crops`;
    QUERY_SET where all queries were answered together, and QUERY_ORDER where in their order."""
    notes: tuple[str, ...] = ()
    """What a reader of the table must know: short classes, stored draws, missing views."""
    support: Support | None = None
    """None where nothing labelled was read, and in older records."""
    corpus: CorpusUse | None = None
    """Rows with pseudo-labels that it learned from, too; None where there were none."""
    certainty: Certainty | None = None
    """None of heads that nothing calibrated, and in older records. Stated, not counted: answers
    are labels."""
    draws: str = ""
    """Digest of the images, with their labels, that each repetition learned from and chose by;
    empty where nothing was drawn, of episodes, and in older records."""
    spec: str = ""
    """Digest of the RunSpec, equal for equal runs; empty in older records."""
    fit: str = ""
    """Digest of the FitSpec, equal for runs with the same heads; empty in older records."""
    version: int = 1
    """Version of the method; records of an older version than today's are not ranked."""
    unreadable: int = 0
    """Images of the split that could not be read; they are no queries and are not counted."""
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
    def leaks(self) -> bool:
        """Tell whether it learned from a corpus with queries in it."""
        return self.corpus is not None and self.corpus.leaks

    @property
    def transductive(self) -> bool:
        """Tell whether queries were answered together, or after one another with a memory."""
        return QUERY_SET in self.reads

    @property
    def stored_draw(self) -> bool:
        """Tell whether the shots came with the data, so that no seed changed them."""
        if self.support is not None:
            return self.support.stored
        return any(note.startswith(CAME_WITH_DATA) for note in self.notes)

    @property
    def marks(self) -> tuple[str, ...]:
        """Return the warnings shown beside the run's name; docs/results.md explains them."""
        marks = {
            "oracle": self.oracle,
            "transductive": self.transductive and QUERY_ORDER not in self.reads,
            "online": QUERY_ORDER in self.reads,
            "stored draw": self.stored_draw,
            "augmented": self.corpus is not None,
            "leaking corpus": self.leaks,
            "unsealed": not self.sealed,
        }
        return tuple(mark for mark, holds in marks.items() if holds)

    @property
    def shots_used(self) -> int | None:
        """Return `shots_used` of this record."""
        return shots_used(self.shots, self.support)

    @property
    def shots_text(self) -> str:
        """Say how many shots were used: `16 shots`, `16 shots (9-16 a class)`, `all shots`."""
        named = {None: "all shots", 0: "no shots", 1: "1 shot"}
        text = named.get(self.shots_used, f"{self.shots_used} shots")
        uneven = self.support is not None and self.support.smallest != self.support.largest
        if self.support is not None and uneven:
            text += f" ({self.support.smallest}-{self.support.largest} a class)"
        return f"{text}, support {self.profile_text}" if self.profile else text

    @property
    def profile(self) -> str:
        """Return how many images each class was to give; empty where `shots` each."""
        said = self.config.get(SUPPORT) if self.protocol == FEW_SHOT else None
        return said if isinstance(said, str) else ""

    @property
    def profile_text(self) -> str:
        """Return the profile in a few words: its text, or a digest of a long list of counts."""
        if len(self.profile) <= PROFILE_SHOWN:
            return self.profile
        return f"counts {digest_ids([self.profile])[:6]}"

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
                name: {**vars(metric), "values": list(metric.values)}
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
            "corpus": None if self.corpus is None else asdict(self.corpus),
            "certainty": None if self.certainty is None else asdict(self.certainty),
            "draws": self.draws,
            "unreadable": self.unreadable,
            "spec": self.spec,
            "fit": self.fit,
            "version": self.version,
        }

    def to_json(self) -> str:
        """Write the record as one line of JSON; floats keep every bit."""
        return json.dumps(self.as_dict(), ensure_ascii=False, allow_nan=False)


def shots_used(requested: int | None, support: Support | None) -> int | None:
    """Return the shots a class that were used; None is all images, where classes differ in size.

    Runs on the same images agree in it, whatever number was requested.

    Args:
        requested: Images a class; None is all, 0 is none.
        support: Counts of the images used; None where they are not known.
    """
    if support is None or requested == 0:
        return requested
    if support.smallest == support.largest:
        return support.largest
    return None if support.whole else requested


def new_run_id(method: str, created: datetime | None = None) -> str:
    """Make the name of a run from its time, its method and six random hex digits."""
    moment = (created or datetime.now(UTC)).strftime("%Y%m%dT%H%M%S")
    return f"{moment}-{method}-{secrets.token_hex(3)}"


def now() -> str:
    """Return the time for `created`: UTC, ISO 8601, to the microsecond."""
    return datetime.now(UTC).isoformat()


def digest_ids(ids: Iterable[str]) -> str:
    """Return 16 hex digits for an ordered list of image ids.

    The length of each id is hashed before it, so that different lists never concatenate equally.
    """
    state = hashlib.sha256()
    for name in ids:
        raw = name.encode("utf-8", "surrogateescape")
        state.update(f"{len(raw)}:".encode() + raw)
    return state.hexdigest()[:16]


def digest_labels(labels: Int32[np.ndarray, "r n"]) -> str:
    """Return 16 hex digits for the labels of the queries; equal repetitions are hashed once."""
    rows = labels[:1] if (labels == labels[:1]).all() else labels
    return hashlib.sha256(f"{rows.shape}".encode() + rows.astype("<i4").tobytes()).hexdigest()[:16]
