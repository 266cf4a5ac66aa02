"""From a cache and some row numbers to a task: who may see which rows, checked once, here.

A method gets `Task.view` (support, pool, text). Validation goes to selection, the query to the
final evaluation; the three share no row.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from featcache.counts import counted
from featcache.errors import MissingComponentError, TaskError
from featcache.recipes import USUAL, Scope
from featcache.types import FeatureSet
from heads.core.contract import Need, RoleRows, TaskView
from heads.core.cure import command

RowIndex: TypeAlias = Int64[np.ndarray, " _"]


@dataclass(frozen=True, kw_only=True)
class Task:
    """One repetition: what the method sees, and what it is judged on."""

    view: TaskView
    val: RoleRows | None
    """Labelled rows for selection; None where there are none."""
    query: RoleRows
    support_rows: RowIndex
    val_rows: RowIndex
    query_rows: RowIndex
    notes: tuple[str, ...] = ()
    """What a reader of the result must know, a sentence each."""


class MappedRows:
    """Unit rows of one component, gathered from the map when indexed; looks like a tensor."""

    def __init__(
        self, features: FeatureSet, component: str, rows: RowIndex, device: torch.device
    ) -> None:
        self._features, self._component = features, component
        self._rows, self._device = rows, device
        self.shape = torch.Size((len(rows), *features.components[component].shape))

    def __getitem__(self, index: object) -> Tensor:
        """Gather rows by a slice, a tensor, or a tuple whose first entry picks the rows."""
        first, *rest = index if isinstance(index, tuple) else (index,)
        if isinstance(first, Tensor):
            flat = first.flatten().cpu().numpy()
            values = self._features.unit(self._component, self._rows[flat]).to(self._device)
            values = values.reshape(*first.shape, *values.shape[1:])
            if rest:  # (rows [b 1], positions [b k]): each row's own views
                return values[torch.arange(len(first), device=self._device)[:, None], 0, rest[0]]
            return values
        values = self._features.unit(self._component, self._rows[first]).to(self._device)
        return values[(slice(None), *rest)] if rest else values


@dataclass(kw_only=True)
class TaskBuilder:
    """Builds the tasks of a run over one cache; the query is read once for all of them."""

    features: FeatureSet
    needs: frozenset[Need]
    device: torch.device
    query_rows: RowIndex
    class_weights: str | Sequence[float] | None = None
    """None, `balanced`, or one number a class."""
    strict_shots: bool = False
    scopes: Mapping[str, Scope] = field(default_factory=dict)
    """Role -> the rows that it has in this run, in the words of `featcache extract`."""
    notes: list[str] = field(default_factory=list)
    """What holds for every task of the run."""
    text: str | None = None
    """The kind of text that the method reads; None is the data set's default, or none."""

    def __post_init__(self) -> None:
        if len(self.features.classes) < 2:
            raise TaskError(
                f"Data set '{self.features.listing.dataset}' has "
                f"{len(self.features.classes)} class; a classifier needs two or more."
            )
        labels = self.features.labels[self.query_rows]
        unlabelled = int((labels < 0).sum())
        if unlabelled:
            self.query_rows = self.query_rows[labels >= 0]
            self.notes.append(f"{unlabelled} query images without a label were left out.")
        if not len(self.query_rows):
            raise TaskError(
                f"Data set '{self.features.listing.dataset}' has no labelled query image in that "
                f"split; its splits are: {', '.join(self.features.listing.splits)}."
            )
        self.query = self.read("query", self.query_rows)

    def build(
        self,
        support: RowIndex,
        val: RowIndex,
        *,
        seed: int,
        shots: int | None,
        pool: RowIndex | None = None,
        oracle: bool = False,
    ) -> Task:
        """Build one task.

        Args:
            support: Labelled rows to train on.
            val: Labelled rows to select on; may be empty.
            seed: Of the draw and of the batches.
            shots: Images a class that were asked for; None is all, 0 is none.
            pool: Unlabelled rows.
            oracle: Select on the query itself.

        Raises:
            TaskError: If roles share rows, or the shots allow no training.
            MissingComponentError: If the cache lacks what the method needs.
        """
        roles = {"support": support, "query": self.query_rows}
        roles |= {} if oracle else {"validation": val}
        roles |= {} if pool is None else {"pool": pool}
        self._check_disjoint(roles)
        notes = list(self.notes)
        if shots != 0:
            notes += self._check_shots(support, shots)
        for role, rows in (("support", support), ("pool", pool)):
            if rows is not None and (shared := self._same_images(rows)):
                of = f"Seed {seed}: " if role == "support" else ""
                same = counted(
                    len(shared),
                    "query image is byte for byte an image",
                    "query images are byte for byte images",
                )
                notes.append(f"{of}{same} of the {role}; the first is {shared[0]}.")
        support_rows = self.read("support", support)
        pool_rows = None if pool is None else self.read("pool", pool)
        notes += self.unmet("support", support_rows)
        notes += [] if pool_rows is None else self.unmet("pool", pool_rows)
        validation = self.read("query", val) if len(val) else None
        view = TaskView(
            support=support_rows,
            pool=pool_rows,
            text=self.features.text,
            classes=self.features.classes,
            seed=seed,
            weights=self._weights(support_rows),
        )
        return Task(
            view=view,
            val=self.query if oracle else validation,
            query=self.query,
            support_rows=support,
            val_rows=self.query_rows if oracle else val,
            query_rows=self.query_rows,
            notes=tuple(notes),
        )

    def read(self, role: str, rows: RowIndex) -> RoleRows:
        """Read the rows of a role with everything that the method needs of them."""
        features = self.features
        x, norms = (t.to(self.device) for t in features.unit_and_length("global", rows))
        extra: dict[str, object] = {}
        lengths: dict[str, Tensor] = {}
        for need in sorted(self.needs, key=lambda n: (n.kind, n.recipe or "")):
            if need.role != role or need.kind == "global":
                continue
            component = self._component(need, rows)
            if component is None:
                continue
            if role == "support":
                unit, length = features.unit_and_length(component, rows)
                extra[_name(need)] = unit.to(self.device)
                if need.kind == "views":
                    lengths[_name(need)] = length.to(self.device)
            else:
                extra[_name(need)] = MappedRows(features, component, rows, self.device)
        labels = torch.from_numpy(features.labels[rows].astype(np.int64)).to(self.device)
        return RoleRows(
            x=x,
            norms=torch.ones_like(norms) if features.key.norms == "unit" else norms,
            labels=None if role == "pool" else labels,
            extra=extra,
            lengths=lengths,
        )

    def _component(self, need: Need, rows: RowIndex) -> str | None:
        """Find the component that meets a need for these rows."""
        fitting = self.features.fitting(need.kind, need.recipe, need.at_least)
        lacking = {}
        for name in fitting:
            lacking[name] = int((~self.features.components[name].present()[rows]).sum())
            if not lacking[name]:
                return name
        if need.optional:
            return None
        if lacking:
            name = min(lacking, key=lacking.__getitem__)
            what = f"'{name}' for {lacking[name]} of {len(rows)} {need.role} images"
        else:
            count = f" with {need.at_least} or more" if need.at_least else ""
            recipe = f" of recipe {need.recipe}" if need.recipe else ""
            what = f"{need.kind}{recipe}{count}"
        what += f", and texts of kind '{self.text}' for every class" if self._lacks_text() else ""
        raise MissingComponentError(f"This method needs {what}. {self._cure(need, rows)}")

    def _lacks_text(self) -> str:
        """Return the flag that adds the texts that are read, with its value."""
        bank = self.features.text
        return "" if bank is None or self.text is None else bank.lacks(self.text)

    def _cure(self, need: Need, rows: RowIndex | None = None) -> str:
        """Name the command that adds this and what else is missing, for `rows` of the same role."""
        features = self.features
        if features.key.image_size == 0:
            return "These features were imported without images, so choose another method."
        absent = {
            other
            for other in self.needs
            if other.kind != "global"
            and not other.optional
            and not self._is_met(other, rows if other.role == need.role else None)
        }
        words = [command(features, {need, *absent}, self.scopes), self._lacks_text()]
        return f"Add it with: {' '.join(filter(None, words))}"

    def _is_met(self, need: Need, rows: RowIndex | None) -> bool:
        """Tell whether one component has these rows, or where none are named, is there at all."""
        fitting = self.features.fitting(need.kind, need.recipe, need.at_least)
        if rows is None:
            return bool(fitting)
        components = self.features.components
        return any(bool(components[name].present()[rows].all()) for name in fitting)

    def unmet(self, role: str, rows: RoleRows) -> Iterable[str]:
        """Name the optional needs of a role that the cache does not meet, a sentence each."""
        if self.features.key.image_size == 0:  # imported: nobody can add any
            return
        for need in sorted(self.needs, key=lambda n: (n.kind, n.recipe or "")):
            if need.role == role and need.optional and rows.get(_name(need)) is None:
                usual = need.recipe in (None, USUAL.get(need.kind))
                what = need.kind if usual else f"{need.kind} of recipe {need.recipe}"
                yield (
                    f"Trained without {what}: they are not cached for every {role} image. "
                    f"{self._cure(need)}"
                )

    def _check_disjoint(self, roles: Mapping[str, RowIndex]) -> None:
        ids = {
            name: {self.features.listing.ids[int(r)] for r in rows} for name, rows in roles.items()
        }
        names = list(roles)
        for i, one in enumerate(names):
            for other in names[i + 1 :]:
                if shared := ids[one] & ids[other]:
                    cure = ", or use --selection cv or none" if "validation" in (one, other) else ""
                    raise TaskError(
                        f"{len(shared)} images (first: {min(shared)}) are in both {one} and "
                        f"{other}; evaluate another split{cure}."
                    )

    def _same_images(self, rows: RowIndex) -> list[str]:
        """Name the query images whose bytes are those of an image among some rows."""
        hashes, ids = self.features.listing.hashes, self.features.listing.ids
        known = {hashes[int(r)] for r in rows}
        return [ids[int(r)] for r in self.query_rows if hashes[int(r)] in known]

    def _check_shots(self, support: RowIndex, shots: int | None) -> Iterable[str]:
        classes = self.features.classes
        counts = np.bincount(self.features.labels[support], minlength=len(classes))
        dataset = self.features.listing.dataset
        if int((counts > 0).sum()) < 2:
            raise TaskError(
                f"Data set '{dataset}' has training images of {int((counts > 0).sum())} class; "
                f"two or more are needed. Add labelled images to its train split."
            )
        wanted = 1 if shots is None else shots
        short = {classes[c]: int(counts[c]) for c in np.flatnonzero(counts < wanted)}
        if not short:
            return []
        listed = ", ".join(f"{name} {n}" for name, n in list(short.items())[:8])
        more = f" and {len(short) - 8} more" if len(short) > 8 else ""
        if self.strict_shots:
            raise TaskError(
                f"{len(short)} of {len(classes)} classes have fewer than {wanted} training images "
                f"({listed}{more}). Lower --shots, or drop --strict-shots to use what is there."
            )
        return [
            f"{len(short)} of {len(classes)} classes have fewer than {wanted} training images and "
            f"gave all they have: {listed}{more}."
        ]

    def _weights(self, support: RoleRows) -> Float[Tensor, " n"] | None:
        """Spread class weights over support rows, mean 1."""
        if self.class_weights is None or support.labels is None or not len(support.labels):
            return None
        classes = len(self.features.classes)
        counts = torch.bincount(support.labels, minlength=classes)
        if isinstance(self.class_weights, str):
            if self.class_weights != "balanced":
                raise TaskError(
                    f"class_weights must be 'balanced' or numbers, got '{self.class_weights}'."
                )
            each = 1 / counts.clamp_min(1).float()
        else:
            each = torch.tensor(self.class_weights, device=self.device, dtype=torch.float32)
            if len(each) != classes or not bool((each > 0).all()):
                raise TaskError(
                    f"class_weights must be {classes} numbers above 0, one a class; "
                    f"got {len(each)} from {float(each.min()):g}."
                )
        rows = each[support.labels]
        return rows / rows.mean()


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
    kept: RowIndex = rows[features.labels[rows] >= 0]
    return kept


def _name(need: Need) -> str:
    """Return what a need's rows are called in `extra`."""
    return need.kind if need.recipe is None else f"{need.kind}.{need.recipe}"


def pick_device(device: str = "auto") -> torch.device:
    """Return the device to compute on; auto takes CUDA where there is one.

    Raises:
        TaskError: If torch knows no such device here.
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        chosen = torch.device(device)
        torch.zeros(1, device=chosen).cpu()  # `meta` has no numbers to give back
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0].partition(". ")[0].rstrip(".")
        raise TaskError(
            f"Device '{device}' cannot be used here ({reason}). Use --device cpu, or auto."
        ) from error
    return chosen
