"""What a protocol plans before anything is trained: a request, the episodes and the record's facts.

A protocol is a function from a `Request` to a `Plan`. The plan says who may see which rows; reading
them, training and evaluating is the same for all (`heads.protocols.evaluation`).
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from featcache.errors import UnknownNameError
from featcache.recipes import Scope
from featcache.types import FeatureSet, TextBank
from heads import registry
from heads.contract.method import AnyMethod, Need
from heads.episode import Episode, RowIndex
from heads.protocols.augment import Augmented
from heads.protocols.builder import EpisodeBuilder, query_rows
from heads.results.record import Support, digest_ids, digest_labels
from heads.selection.members import resolved
from heads.selection.names import CALIBRATIONS, SELECTIONS
from heads.selection.settings import Settings
from heads.spec import FitSpec, RunSpec, pairs


@dataclass(frozen=True, kw_only=True)
class Request:
    """A method on a cache, and how it shall be trained and evaluated."""

    method: str
    features: FeatureSet
    shots: int | Literal["usual"] | None = "usual"
    """Images a class; None is all, `usual` what the method says (`Method.usual_shots`)."""
    seeds: Sequence[int] = (1, 2, 3)
    """One draw each."""
    splits: tuple[str, ...] = ("test",)
    """Query sets: the heads are trained once and evaluated on each."""
    selection: str = "few-shot-val"
    """How hyper-parameters are chosen, one of `SELECTIONS`."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Fields of the method's Config and Hyper; several values make a grid."""
    class_weights: str | Sequence[float] | None = None
    """None, `balanced`, or one number a class."""
    strict_shots: bool = False
    """Refuse classes with fewer images than `shots`."""
    augment: str | None = None
    """`corpus:NAME:weight=W`: rows of a corpus are learned from, too."""
    support: str | None = None
    """How many images each class gives, where not `shots` each: `long-tail:0.01`, `counts:FILE`."""

    calibrate_on: str = "auto"
    """Which images that train no head calibrate it, one of `CALIBRATIONS`: validation images that
    nothing else reads; also half of those of `full-val`; folds of the support; none."""

    @property
    def images(self) -> int | None:
        """Return the images a class; None is all.

        Raises:
            UnknownNameError: If there is no such method.
        """
        return registry.get(self.method).usual_shots if self.shots == "usual" else self.shots

    def resolve(self) -> AnyMethod:
        """Return the method.

        Raises:
            UnknownNameError: If there is no such method, selection or calibration.
        """
        method = registry.get(self.method)
        if self.selection not in SELECTIONS:
            raise UnknownNameError("selection", self.selection, SELECTIONS)
        if self.calibrate_on not in CALIBRATIONS:
            raise UnknownNameError("calibration", self.calibrate_on, CALIBRATIONS)
        return method


@dataclass(frozen=True, kw_only=True)
class Run:
    """Everything about a run that the record states besides its figures."""

    method: AnyMethod
    settings: Settings
    features: FeatureSet
    protocol: str
    selection: str
    shots: int | None
    """Images a class; None is all, 0 is none."""
    seeds: tuple[int, ...]
    extra: Mapping[str, str] = field(default_factory=dict)
    """Settings of the protocol that differ from its defaults; part of the variant."""
    stated: Mapping[str, int | str] = field(default_factory=dict)
    """Settings of the protocol that the record always states."""
    profile: str = ""
    """How many images each class gave, where they were not to be equal; part of the spec."""
    support: Support | None = None
    """Counts of the labelled training images; None where there are none."""
    draws: str = ""
    """Digest of the training and validation images of each repetition."""
    learned: str = ""
    """The same digest where nothing was drawn."""
    learns_from: tuple[str, ...] = ()
    """Splits of the training and validation images; the record counts unreadable ones in them."""
    notes: tuple[str, ...] = ()
    """What a reader of the result must know, a sentence each."""
    augmented: Augmented | None = None
    """The corpus that is learned from; None without one."""

    @property
    def needs(self) -> frozenset[Need]:
        """Return the features that are read."""
        own = self.method.needs(self.settings.config)
        return own if self.augmented is None else self.augmented.needs


@dataclass(frozen=True, kw_only=True)
class Held:
    """Labelled rows that train no head of one repetition; no image is in both."""

    warm: RowIndex
    """Fit the temperature; they may have selected the head."""
    rest: RowIndex
    """Calibrate it: they selected nothing."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The episodes of a run, not yet read."""

    run: Run
    episodes: Callable[[EpisodeBuilder], list[Episode]]
    splits: tuple[str, ...]
    learned_rows: tuple[tuple[RowIndex, RowIndex | None], ...]
    """Support and pool of each episode."""
    validation: tuple[RowIndex, ...] = ()
    """Rows that select the head of each episode; () where none do."""
    calibrate_on: str = "auto"
    """One of `CALIBRATIONS`."""
    held: tuple[Held, ...] = ()
    """What calibrates the head of each episode; () where nothing or folds do."""
    scopes: Mapping[str, Scope] = field(default_factory=dict)
    class_weights: str | Sequence[float] | None = None
    strict_shots: bool = False

    @property
    def groups(self) -> tuple[tuple[str, ...], ...]:
        """Return the query sets that share their heads.

        A transductive method and the selection `oracle` see the queries: one training each.
        """
        if self.run.method.transductive or self.run.selection == "oracle":
            return tuple((split,) for split in self.splits)
        return (self.splits,)

    def on(self, splits: Sequence[str]) -> "Plan":
        """Return the same plan with other query sets."""
        return replace(self, splits=tuple(splits))

    def query_notes(self, builder: EpisodeBuilder, split: str) -> list[tuple[str, ...]]:
        """Return the notes on a query set, repetition by repetition."""
        query = builder.queries[split]
        return [
            (*query.notes, *builder.repeated(query, seed, support, pool))
            for seed, (support, pool) in zip(self.run.seeds, self.learned_rows, strict=True)
        ]

    def spec(self, split: str) -> RunSpec:
        """Return what determines the run on one of its query sets."""
        listing, features = self.run.features.listing, self.run.features
        rows = query_rows(features, split)
        rows = rows[features.labels[rows] >= 0]
        ids = digest_ids(listing.ids[int(r)] for r in rows)
        labels = digest_labels(features.labels[rows][None].astype("int32"))
        return RunSpec(fit=self.fit_spec(split), split=split, queries=f"{ids}-{labels}")

    def fit_spec(self, split: str) -> FitSpec:
        """Return what determines the heads that are evaluated on a query set."""
        run = self.run
        listing = run.features.listing
        sees_queries = len(self.groups) == len(self.splits) > 1 or run.method.transductive
        sees_queries = sees_queries or run.selection == "oracle"
        return FitSpec(
            method=run.method.name,
            version=run.method.version,
            key=run.features.key.digest(),
            dataset=listing.dataset,
            protocol=run.protocol,
            selection=run.selection,
            learns_from=run.draws or run.learned,
            classes=digest_ids(listing.classes),
            settings=pairs(dict(run.settings.given)),
            texts=digest_of_texts(run.features.text),
            reads=self._reads(),
            shots=run.shots,
            seeds=run.seeds,
            extra=pairs(
                {
                    **run.extra,
                    **({"queries": split} if sees_queries else {}),
                    **({"support": run.profile} if run.profile else {}),
                    **({} if self.calibrate_on == "auto" else {"calibrate_on": self.calibrate_on}),
                    **_members(run.method, run.settings),
                }
            ),
            augment="" if run.augmented is None else run.augmented.use.spec,
        )

    def _reads(self) -> tuple[str, ...]:
        """Name the components that meet the needs of the method, best first."""
        features = self.run.features
        found = set()
        for need in self.run.needs:
            if need.kind != "global":
                fitting = need.fitting(features)
                found.add(f"{need.role} {fitting[0] if fitting else '-'}")
        return tuple(sorted(found))


def _members(method: AnyMethod, settings: Settings) -> dict[str, str]:
    """Return the members of a method made of others, with their versions."""
    if method.composition is None:
        return {}
    inside = resolved(method.composition, settings.config, settings.shots)
    return {"members": ",".join(f"{one.text}@{inner.version}" for one, inner, _ in inside)}


def digest_of_texts(bank: TextBank | None) -> str:
    """Return 16 hex digits for the texts of all kinds that methods could read; empty for none."""
    kinds = () if bank is None else bank.readable()
    if bank is None or not kinds:
        return ""
    texts = ":".join(bank.digest(kind) for kind in kinds)
    return hashlib.sha256(texts.encode()).hexdigest()[:16]


def splits_of(features: FeatureSet, splits: tuple[str, ...]) -> dict[str, RowIndex]:
    """Return the rows of query sets whose images could be read.

    Raises:
        UnknownNameError: If the data set has no such split.
        TaskError: If no image of one could be read.
    """
    return {split: query_rows(features, split) for split in splits}
