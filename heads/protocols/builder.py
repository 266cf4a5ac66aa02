"""Building episodes from a cache and row numbers; overlaps between roles are checked here.

A method gets `Episode.view` (support, pool, text), selection gets the validation rows, and the
final evaluation the query sets. These share no image.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, cached_property

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from featcache.counts import counted
from featcache.errors import MissingComponentError, TaskError
from featcache.last_block import LastBlock
from featcache.recipes import USUAL, Scope
from featcache.store.again import command
from featcache.types import FeatureSet
from featcache.wording import Argument, Call, Part
from heads.contract.method import Need, Role
from heads.contract.rows import Rows, TaskView
from heads.episode import Episode, QuerySet, RowIndex
from heads.protocols.retrieved import Retrieved, joined
from heads.protocols.suggest import extraction
from heads.reading import in_words, read_rows


@dataclass(kw_only=True)
class EpisodeBuilder:
    """Builds the episodes of a run over one cache; query sets are read once for all of them."""

    features: FeatureSet
    needs: frozenset[Need]
    device: torch.device
    splits: Mapping[str, RowIndex]
    """Query set -> its rows; those without a label are left out."""
    class_weights: str | Sequence[float] | None = None
    """None, `balanced`, or one number a class."""
    strict_shots: bool = False
    scopes: Mapping[str, Scope] = field(default_factory=dict)
    """Role -> its rows in this run, as `featcache extract` names them."""
    text: str | None = None
    """The kind of text that the method reads; None is the data set's default, or none."""
    retrieved: Retrieved | None = None
    """Rows of a corpus."""

    def __post_init__(self) -> None:
        """Check that there are two classes or more."""
        if len(self.features.classes) < 2:
            raise TaskError(
                f"Data set '{self.features.listing.dataset}' has "
                f"{len(self.features.classes)} class; a classifier needs two or more."
            )

    @cached_property
    def queries(self) -> Mapping[str, QuerySet]:
        """Read the query sets.

        Raises:
            TaskError: If one has no labelled image.
        """
        return {split: self._query_set(split, rows) for split, rows in self.splits.items()}

    def _query_set(self, split: str, rows: RowIndex) -> QuerySet:
        labelled = rows[self.features.labels[rows] >= 0]
        if not len(labelled):
            raise TaskError(
                f"Data set '{self.features.listing.dataset}' has no labelled query image in split "
                f"'{split}'; its splits are: {', '.join(self.features.listing.splits)}."
            )
        unlabelled = len(rows) - len(labelled)
        note = f"{unlabelled} query images without a label were left out."
        return QuerySet(
            rows=self.read("query", labelled),
            index=labelled,
            notes=(note,) if unlabelled else (),
        )

    @cached_property
    def last_block(self) -> Callable[[], LastBlock]:
        """Return what reads the block that tokens go into, once for all episodes."""
        return cache(self.features.last_block)

    def build(
        self,
        support: RowIndex,
        val: RowIndex,
        *,
        seed: int,
        shots: int | None,
        pool: RowIndex | None = None,
        oracle: bool = False,
    ) -> Episode:
        """Build one episode.

        Args:
            support: Labelled rows to train on.
            val: Labelled rows to select on; may be empty.
            seed: Seed of the draw and of the batches.
            shots: Requested images a class; None is all, 0 is none.
            pool: Unlabelled rows.
            oracle: Select on the only query set.

        Raises:
            TaskError: If roles share rows, or the shots allow no training.
            MissingComponentError: If the cache lacks what the method needs.
        """
        others = {} if oracle else {"validation": val}
        others |= {} if pool is None else {"pool": pool}
        self._check_disjoint({"support": support, **others})
        for query in self.queries.values():
            self._check_disjoint({"support": support, "query": query.index, **others})
        self._check_texts()
        notes = (
            []
            if shots == 0
            else check_shots(self.features, support, shots, strict=self.strict_shots)
        )
        support_rows = self.read("support", support)
        validation = self.read("query", val) if len(val) else None
        corpus = None
        if self.retrieved is not None:
            corpus = self.retrieved.without(support_rows, validation, index=(support, val))
            if removed := len(self.retrieved.rows) - len(corpus):
                notes.append(
                    f"Seed {seed}: {counted(removed, 'row')} of corpus '{self.retrieved.name}' "
                    f"left out, as shots or validation images."
                )
        joins = corpus is not None and self.retrieved is not None and not self.retrieved.own_role
        if corpus is not None and joins:
            support_rows, corpus = joined(support_rows, corpus), None
        support_rows = replace(support_rows, weights=self._weights(support_rows))
        pool_rows = None if pool is None else self.read("pool", pool)
        notes += self.unmet("support", support_rows)
        notes += [] if pool_rows is None else self.unmet("pool", pool_rows)
        episode = Episode(
            view=TaskView(
                support=support_rows,
                pool=pool_rows,
                text=self.features.text,
                classes=self.features.classes,
                seed=seed,
                corpus=corpus,
                retrieved=len(support_rows) - len(support) if joins else 0,
                last_block=self.last_block,
            ),
            val=validation,
            queries={
                split: replace(
                    query, notes=(*query.notes, *self.repeated(query, seed, support, pool))
                )
                for split, query in self.queries.items()
            },
            support_index=support,
            val_index=val,
            notes=tuple(notes),
        )
        if not oracle:
            return episode
        (query,) = episode.queries.values()
        return replace(episode, val=query.rows, val_index=query.index)

    def read(self, role: Role, rows: RowIndex) -> Rows:
        """Read the rows of a role with everything that the method needs of them."""
        return read_rows(self.features, rows, role, self.needs, self.device, suggest=self._missing)

    def _missing(self, what: str, need: Need, rows: RowIndex | None) -> MissingComponentError:
        if self.features.key.image_size == 0:
            hint: Part = "These features were imported without images, so choose another method."
        else:
            texts = self._lacks_text()
            them = "it" if texts is None else "them"
            hint = (f"Add {them} with: ", self._extraction(need, rows, texts))
            if texts:
                what += f", and texts of kind '{self.text}' for every class"
        return MissingComponentError(f"This method needs {what}. ", hint)

    def _check_texts(self) -> None:
        """Raise if texts are missing and components too: one extraction should add both.

        A head is trained without reading queries, so their components were not missed before.
        Where only texts are missing, the bank of texts says so and names the kinds that are there.
        """
        if self._lacks_text() is None or self.features.key.image_size == 0:
            return
        absent = sorted(self._absent(), key=lambda n: (n.kind, n.recipe or ""))
        if absent:
            raise self._missing(in_words(absent[0]), absent[0], None)

    def _lacks_text(self) -> Argument | None:
        """Return the argument of an extraction that adds missing texts; None if none are."""
        bank = self.features.text
        return None if bank is None or self.text is None else bank.lacks(self.text)

    def _extraction(
        self, need: Need, rows: RowIndex | None = None, text: Argument | None = None
    ) -> Call:
        """Suggest the extraction that adds this need and whatever else is missing."""
        absent = self._absent(need.role, rows)
        call = extraction(self.features, {need, *absent}, self.scopes)
        more = {} if text is None else {text.name: text.value}
        return replace(call, arguments={**call.arguments, **more})

    def _absent(self, role: str = "", rows: RowIndex | None = None) -> set[Need]:
        """Return the needs that the cache does not meet, those of one role for these rows."""
        return {
            need
            for need in self.needs
            if need.kind != "global"
            and not need.optional
            and not self._is_met(need, rows if need.role == role else None)
        }

    def _is_met(self, need: Need, rows: RowIndex | None) -> bool:
        """Tell whether a component has these rows; without rows, whether there is one."""
        fitting = need.fitting(self.features)
        if rows is None:
            return bool(fitting)
        components = self.features.components
        return any(bool(components[name].present()[rows].all()) for name in fitting)

    def unmet(self, role: str, rows: Rows) -> Iterable[str]:
        """Yield a note for each optional need of a role that the cache does not meet."""
        if self.features.key.image_size == 0:  # imported features cannot be extended
            return
        for need in sorted(self.needs, key=lambda n: (n.kind, n.recipe or "")):
            if need.role == role and need.optional and need.key not in rows.kinds:
                usual = need.recipe in (None, USUAL.get(need.kind))
                kind = need.kind.replace("_", "-")  # as the flag has it
                what = kind if usual else f"{kind} of recipe {need.recipe}"
                yield (
                    f"Trained without {what}: they are not cached for every {role} image. "
                    f"Add them with: {command(self._extraction(need))}"
                )

    def _check_disjoint(self, roles: Mapping[str, RowIndex]) -> None:
        ids = {
            name: {self.features.listing.ids[int(r)] for r in rows} for name, rows in roles.items()
        }
        names = list(roles)
        for i, one in enumerate(names):
            for other in names[i + 1 :]:
                if shared := ids[one] & ids[other]:
                    hint: list[Part] = [
                        ", or use ",
                        Argument("selection", "cv"),
                        " or ",
                        Argument("selection", "none"),
                    ]
                    raise TaskError(
                        f"{len(shared)} images (first: {min(shared)}) are in both {one} and "
                        f"{other}; evaluate another split",
                        hint if "validation" in (one, other) else "",
                        ".",
                    )

    def repeated(
        self, query: QuerySet, seed: int, support: RowIndex, pool: RowIndex | None
    ) -> Iterator[str]:
        """Yield a note on queries that are copies of support or pool images."""
        hashes, ids = self.features.listing.hashes, self.features.listing.ids
        for role, rows in (("support", support), ("pool", pool)):
            learned = set() if rows is None else {hashes[int(r)] for r in rows}
            shared = [ids[int(r)] for r in query.index if hashes[int(r)] in learned]
            if shared:
                of = f"Seed {seed}: " if role == "support" else ""
                same = counted(
                    len(shared),
                    "query image is byte for byte an image",
                    "query images are byte for byte images",
                )
                yield f"{of}{same} of the {role}; the first is {shared[0]}."

    def _weights(self, support: Rows) -> Float[Tensor, " n"] | None:
        """Return the weight of each support row: its own times that of its class.

        Class weights leave the sum of all weights as it is; without a corpus their mean is 1.
        """
        if self.class_weights is None or support.labels is None or not len(support.labels):
            return support.weights
        classes, own = len(self.features.classes), support.weights
        counts = torch.bincount(support.labels, own, minlength=classes)
        if isinstance(self.class_weights, str):
            if self.class_weights != "balanced":
                raise TaskError(
                    f"class_weights must be 'balanced' or numbers, got '{self.class_weights}'."
                )
            each = 1 / torch.where(counts > 0, counts, 1).float()
        else:
            each = torch.tensor(self.class_weights, device=self.device, dtype=torch.float32)
            if len(each) != classes or not bool((each > 0).all()):
                raise TaskError(
                    f"class_weights must be {classes} numbers above 0, one a class; "
                    f"got {len(each)} from {float(each.min()):g}."
                )
        rows = each[support.labels]
        if own is None:
            return rows / rows.mean()
        return rows * own * (own.sum() / (rows * own).sum())


def check_shots(
    features: FeatureSet, support: RowIndex, shots: int | None, *, strict: bool = False
) -> list[str]:
    """Return a note on classes with fewer images than requested.

    Raises:
        TaskError: If fewer than two classes have any, or under `strict` if one has too few.
    """
    classes = features.classes
    counts = np.bincount(features.labels[support], minlength=len(classes))
    dataset = features.listing.dataset
    if int((counts > 0).sum()) < 2:
        raise TaskError(
            f"Data set '{dataset}' has training images of {int((counts > 0).sum())} class; "
            f"two or more are needed. Add labelled images to its train split."
        )
    requested = 1 if shots is None else shots
    short = [(classes[c], int(counts[c])) for c in np.flatnonzero(counts < requested)]
    if not short:
        return []
    listed = ", ".join(f"{name} {n}" for name, n in short[:8])
    more = f" and {len(short) - 8} more" if len(short) > 8 else ""
    if strict:
        raise TaskError(
            f"{len(short)} of {len(classes)} classes have fewer than {requested} training images "
            f"({listed}{more}). Lower ",
            Argument("shots"),
            ", or drop ",
            Argument("strict_shots"),
            " to use what is there.",
        )
    return [
        f"{len(short)} of {len(classes)} classes have fewer than {requested} training images and "
        f"gave all they have: {listed}{more}."
    ]


def query_rows(features: FeatureSet, split: str) -> RowIndex:
    """Return the rows of a split whose image could be read.

    Raises:
        TaskError: If there are images and none could be read.
    """
    rows = features.usable(split)
    if not len(rows) and (total := len(features.listing.rows(split))):
        raise TaskError(
            f"None of the {total} images of split '{split}' could be read; `featcache info "
            f"{features.listing.dataset}` says why. Repair them and extract again, or evaluate "
            f"another split."
        )
    return rows


def labelled(features: FeatureSet, split: str) -> RowIndex:
    """Return the usable rows of a split that have a label; none where there is no such split."""
    if split not in features.listing.splits:
        return np.zeros(0, dtype=np.int64)
    rows = features.usable(split)
    with_label: RowIndex = rows[features.labels[rows] >= 0]
    return with_label
