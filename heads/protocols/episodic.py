"""The episodic protocol: hundreds of small tasks from one split, each with a few classes.

A method is trained on the support of each episode alone and answers its queries. Episodes have no
validation images, so the defaults are used unless `cv` (folds of the support) is requested. Figures
are means over episodes with Student's t intervals; two runs on the same list are compared episode
by episode.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from jaxtyping import Int64

from featcache.backbones.devices import pick_device
from featcache.errors import UnknownNameError, UsageError
from featcache.progress import Report
from featcache.recipes import Scope
from featcache.types import FeatureSet, Listing, TextBank
from featcache.wording import Argument
from heads import registry
from heads.contract.rows import Rows, TaskView
from heads.episode import Episode, QuerySet
from heads.protocols import episodes as lists
from heads.protocols.builder import EpisodeBuilder
from heads.protocols.episodes import Episodes
from heads.protocols.evaluation import (
    Trained,
    captured_warnings,
    check_size,
    synchronise,
    training_notes,
)
from heads.protocols.plan import Run
from heads.protocols.recording import int32, reads_of, record, training_reads, zero_shot_answers
from heads.results.record import EPISODIC, Predictions, Result, Support
from heads.selection.chosen import Chosen
from heads.selection.names import EPISODE_SELECTIONS
from heads.selection.select import has_choice, select
from heads.selection.settings import configure

Answers: TypeAlias = Int64[np.ndarray, " n"]
MODES = EPISODE_SELECTIONS
NOT_IN_EPISODES = {"pool": "an unlabelled pool", "corpus": "a corpus"}
"""Role -> rows that an episode does not have."""
WAYS, SHOTS, QUERIES, EPISODES = 5, 5, 15, 400
BLOCK = 100
"""Episodes that are read and trained at a time, so that memory stays bounded."""


def run(method_name: str, **arguments: Any) -> Result:
    """Train a method on every episode and return the record; arguments as `train`."""
    return train(method_name, **arguments).result


def train(
    method_name: str,
    *,
    features: FeatureSet,
    ways: int | None = None,
    shots: int | None = None,
    queries: int | None = None,
    episodes: int | None = None,
    split: str | None = None,
    seed: int | None = None,
    episode_list: Path | None = None,
    selection: str = "none",
    settings: Mapping[str, Any] | None = None,
    device: str = "auto",
    progress: Report | None = None,
) -> Trained:
    """Train and evaluate a method on many small tasks.

    Args:
        method_name: A method's name.
        features: The cache, opened.
        ways: Classes of an episode, 5 where not given.
        shots: Support images a class, 5 where not given.
        queries: Query images a class, 15 where not given.
        episodes: Number of episodes, 400 where not given.
        split: Where support and queries come from, test where not given.
        seed: Seed of the draw, 1 where not given.
        episode_list: A stored list, in place of all of the above.
        selection: How hyper-parameters are chosen, one of `MODES`.
        settings: Fields of the method's Config and Hyper.
        device: auto, cpu, cuda, cuda:1, ...
        progress: Told of every finished run.

    Returns:
        The record; the heads of episodes are not kept.

    Raises:
        UnknownNameError: If the method, split, setting or selection is unknown.
        UsageError: If a list comes with other numbers, or the method needs a pool or a corpus.
        TaskError: If the split allows no such episodes.
        MissingComponentError: If the cache lacks what the method needs.
        TrainingError: If an episode could not be trained.
    """
    method = registry.get(method_name)
    if selection not in MODES:
        raise UnknownNameError(
            "selection of episodes", selection, MODES, "They have no validation images."
        )
    configured = configure(method, settings)
    needs = method.needs(configured.config)
    roles = {need.role for need in needs}
    if lacking := [what for role, what in NOT_IN_EPISODES.items() if role in roles]:
        raise UsageError(
            f"Method '{method_name}' learns from {lacking[0]}, and an episode has none; "
            f"train it without ",
            Argument("protocol", "episodic"),
            ".",
        )
    counts = {"ways": ways, "shots": shots, "queries": queries, "episodes": episodes, "seed": seed}
    drawn = _episodes(features, counts, split, episode_list)
    configured = configure(method, settings, shots=drawn.shots)
    learns = any(need.role == "support" for need in needs)
    description = Run(
        method=method,
        settings=configured,
        features=features,
        protocol=EPISODIC,
        selection=selection if has_choice(method, configured, selection) else "none",
        shots=drawn.shots if learns else 0,
        seeds=(drawn.seed,),
        stated={"ways": drawn.ways, "queries": drawn.queries, "episodes": len(drawn)},
        support=Support(smallest=drawn.shots, largest=drawn.shots, whole=False) if learns else None,
    )
    check_size(len(drawn), drawn.ways * drawn.queries)
    builder = EpisodeBuilder(
        features=features,
        needs=needs,
        device=pick_device(device),
        text=getattr(configured.config, "text", None),
        splits={drawn.split: drawn.query(0)},  # for the checks; queries are read in blocks
        scopes={"support": Scope(drawn.split), "query": Scope(drawn.split)},
    )
    (first,) = builder.queries.values()
    reader = _Reader(features, builder, drawn, transductive=method.transductive)
    done = _Done()
    with captured_warnings() as unconverged:
        for start in range(0, len(drawn), BLOCK):
            numbers = range(start, min(start + BLOCK, len(drawn)))
            shifted = None if progress is None else _Shifted(progress, numbers, len(drawn))
            done.block(reader, description, numbers, shifted)
    result = record(
        description,
        [one.values for one in done.chosen],
        done.predictions(drawn, features.listing),
        split=drawn.split,
        ids=drawn.digest(features.listing),
        seconds=done.seconds,
        reads=reads_of(method, training_reads(reader.episodes_of(range(1))[0].view), first.rows),
        notes=[
            *first.notes,
            *reader.notes,
            *_notes(features, drawn, description),
            *training_notes(method, done.chosen),
            *unconverged,
        ],
        over="episodes",
    )
    beside = {lists.FILE: drawn.to_json(features.listing).encode()}
    return Trained(results=(replace(result, beside=beside),), heads=((),))


def _episodes(
    features: FeatureSet, given: Mapping[str, int | None], split: str | None, path: Path | None
) -> Episodes:
    """Draw a list of episodes, or read the given one."""
    if path is None:
        usual = {"ways": WAYS, "shots": SHOTS, "queries": QUERIES, "episodes": EPISODES, "seed": 1}
        numbers = {n: usual[n] if v is None else v for n, v in given.items()}
        return lists.draw(features, split or "test", **numbers)
    if others := [n for n, v in {**given, "split": split}.items() if v is not None]:
        raise UsageError(
            f"{path} determines the episodes, so ",
            Argument(others[0]),
            " has no effect; leave one of the two out.",
        )
    return lists.read(path, features)


@dataclass
class _Shifted:
    """Report of one block as progress of the whole."""

    progress: Report
    block: range
    episodes: int

    def __call__(self, what: str, done: int, total: int) -> None:
        share = done * len(self.block) // max(total, 1)
        self.progress(what, self.block.start + share, self.episodes)


class _Done:
    """The results of the episodes so far."""

    def __init__(self) -> None:
        self.chosen: list[Chosen] = []
        self.seconds = {"fit": 0.0, "evaluate": 0.0}
        self._predicted: list[Answers] = []
        self._zero_shot: list[Answers] = []

    def block(self, reader: "_Reader", run: Run, numbers: range, progress: Report | None) -> None:
        """Train some episodes and answer their queries."""
        started = time.perf_counter()
        episodes = reader.episodes_of(numbers)
        chosen = select(run.method, run.settings, episodes, run.selection, progress=progress)
        synchronise()
        fitted = time.perf_counter()
        for e, one in zip(numbers, chosen, strict=True):
            query, classes = reader.query(e), reader.episodes.classes[e]
            self._predicted.append(classes[int32(one.head.predict(query))])
            answered = zero_shot_answers(reader.text(e), query)
            if answered is not None:
                self._zero_shot.append(classes[answered])
            # the tensors of all heads would fill the memory
            self.chosen.append(replace(one, head=replace(one.head, params={}, fixed={})))
        self.seconds["fit"] += fitted - started
        self.seconds["evaluate"] += time.perf_counter() - fitted

    def predictions(self, episodes: Episodes, listing: Listing) -> Predictions:
        """Return the answers in positions of the whole class list."""
        rows = np.stack([episodes.query(e) for e in range(len(episodes))])
        used, at = np.unique(rows, return_inverse=True)
        return Predictions(
            predicted=np.stack(self._predicted).astype(np.int32),
            labels=episodes.classes.repeat(episodes.queries, axis=1).astype(np.int32),
            zero_shot=np.stack(self._zero_shot).astype(np.int32) if self._zero_shot else None,
            images=at.reshape(len(rows), -1).astype(np.int32),
            ids=tuple(listing.ids[int(r)] for r in used),
            classes=tuple(listing.classes),
        )


class _Reader:
    """Builds the tasks of a list."""

    def __init__(
        self,
        features: FeatureSet,
        builder: EpisodeBuilder,
        episodes: Episodes,
        *,
        transductive: bool,
    ) -> None:
        self.features, self.builder, self.episodes = features, builder, episodes
        self.transductive = transductive
        self.notes: list[str] = []

    def episodes_of(self, numbers: range) -> list[Episode]:
        """Read the support of some episodes, each image once."""
        episodes = self.episodes
        rows = np.unique(np.concatenate([episodes.support(e) for e in numbers]))
        read = self.builder.read("support", rows)
        self.notes += self.builder.unmet("support", read)
        at = {e: np.searchsorted(rows, episodes.support(e)) for e in numbers}
        return [self._episode(e, read.take(torch.from_numpy(at[e]), read=False)) for e in numbers]

    def _episode(self, e: int, support: Rows) -> Episode:
        episodes, features = self.episodes, self.features
        view = TaskView(
            support=replace(support, labels=self._labels(episodes.shots)),
            pool=None,
            text=self.text(e),
            classes=tuple(features.classes[c] for c in episodes.classes[e]),
            seed=episodes.seed * 1_000_003 + e,
            last_block=self.builder.last_block,
        )
        # queries are read when they are scored, except for methods that see them in selection
        query = QuerySet(rows=self.query(e), index=episodes.query(e)) if self.transductive else None
        return Episode(
            view=view,
            val=None,
            queries={} if query is None else {episodes.split: query},
            support_index=episodes.support(e),
            val_index=np.zeros(0, dtype=np.int64),
        )

    def query(self, e: int) -> Rows:
        """Read the queries of an episode."""
        rows = self.builder.read("query", self.episodes.query(e))
        return replace(rows, labels=self._labels(self.episodes.queries))

    def text(self, e: int) -> TextBank | None:
        """Return the texts of an episode's classes, in its order."""
        text = self.features.text
        if text is None:
            return None
        return text.of_classes(torch.from_numpy(self.episodes.classes[e]))

    def _labels(self, each: int) -> torch.Tensor:
        device = self.builder.device
        return torch.arange(self.episodes.ways, device=device).repeat_interleave(each)


def _notes(features: FeatureSet, episodes: Episodes, run: Run) -> list[str]:
    notes = []
    if run.selection == "none" and has_choice(run.method, run.settings, "few-shot-val"):
        notes.append(
            "Episodes have no validation images: hyper-parameters stand at their defaults "
            "or as they were set."
        )
    if small := lists.left_out(features, episodes):
        listed = ", ".join(small[:8]) + (f" and {len(small) - 8} more" if len(small) > 8 else "")
        notes.append(
            f"Classes with fewer than {episodes.shots} + {episodes.queries} images in split "
            f"'{episodes.split}' are in no episode: {listed}."
        )
    return notes
