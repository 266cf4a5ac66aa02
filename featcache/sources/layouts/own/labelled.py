"""Collecting the labelled images of a list into a data set."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from featcache.counts import counted
from featcache.errors import SourceError
from featcache.limits import ROWS
from featcache.places import Place
from featcache.sources.base import Dataset, Sample
from featcache.sources.layouts.class_notes import class_notes
from featcache.sources.layouts.own.class_names import class_order
from featcache.sources.layouts.split_names import split_of
from featcache.sources.layouts.splits import Grouped, make_splits
from featcache.sources.trees.base import Entry
from featcache.sources.trees.names import id_of
from featcache.text.templates import DEFAULT_TEMPLATES

SEED = 0
"""Seed of the splits that are made here."""


@dataclass(frozen=True, slots=True)
class _Row:
    place: Place
    label: str | None
    split: str
    line: int


@dataclass(slots=True)
class LabelledImages:
    """The images of one list, in its order, checked against each other.

    Labels are kept as written; `dataset` makes classes of them. Few-shot draws depend on the order
    of the images, which stays that of the list: reading in this order is sequential, too.
    """

    what: str
    """The list, for messages: photos.csv."""
    unit: str = "line"
    """What a number of the list counts: line, row, task."""
    names: Sequence[str] | None = None
    """Class names in label order, where they are given apart."""
    numbers: bool = True
    """Whether labels of digits count as numbers."""
    notes: list[str] = field(default_factory=list)
    _rows: dict[str, _Row] = field(default_factory=dict)
    _first: dict[str, str] = field(default_factory=dict)
    _again: int = 0
    _most: int = field(default_factory=ROWS.value)

    def __len__(self) -> int:
        return len(self._rows)

    def add(
        self, path: str, place: Place, label: str | None, split: str = "", *, line: int = 0
    ) -> None:
        """Take one image.

        Args:
            path: Below the root, or another name that no other image has.
            place: Where its bytes are.
            label: As written: a name, or digits; None or empty where it is not known.
            split: As written; empty where the list has none.
            line: Where the list has it, for messages.

        Raises:
            SourceError: If the path was there with another label or split, or there are too many.
        """
        if label is not None:
            label = sys.intern(label.strip()) or None
        row = _Row(place, label, sys.intern(split.strip()), line)
        image_id = id_of(path)
        known = self._rows.get(image_id)
        if known is not None:
            self._check_same(image_id, known, row)
            self._again += 1
            return
        if len(self._rows) >= self._most:
            raise SourceError(
                f"{self.what} lists more than {self._most} images; {ROWS.variable} raises the "
                f"limit."
            )
        self._rows[image_id] = row
        if label is not None and label not in self._first:
            self._first[label] = self._at(line)

    def dataset(
        self,
        name: str,
        root: Path,
        *,
        templates: Sequence[str] = DEFAULT_TEMPLATES,
        notes: Sequence[str] = (),
    ) -> Dataset:
        """Make classes, splits and samples of what was taken.

        Args:
            name: Name of the data set.
            root: What the ids are relative to.
            templates: Sentences with one `{}`.
            notes: What else the user should know.

        Raises:
            SourceError: If there is no image, no label, or the labels do not fit together.
        """
        if not self._rows:
            raise SourceError(f"{self.what} lists no image; expected at least one.")
        if not self._first:
            raise SourceError(
                f"{self.what} has no label for any of its {len(self._rows)} images; a head needs "
                f"labelled ones."
            )
        classes, index = class_order(self._first, self.what, self.names, numbers=self.numbers)
        labels = [-1 if row.label is None else index[row.label] for row in self._rows.values()]
        splits, said = self._splits(labels)
        rank = {split: i for i, split in enumerate(("train", "val", "test"))}
        samples = [
            Sample(image_id, row.place, label, split)
            for (image_id, row), label, split in zip(
                self._rows.items(), labels, splits, strict=True
            )
        ]
        samples.sort(key=lambda s: (rank.get(s.split, len(rank)), s.split))  # keeps the order
        return Dataset(
            name=name,
            root=root,
            classes=classes,
            samples=tuple(samples),
            templates=tuple(templates),
            notes=(*self.notes, *notes, *said, *self._own_notes(classes, labels, splits)),
        )

    def _check_same(self, image_id: str, known: _Row, row: _Row) -> None:
        for what, before, now in (
            ("class", known.label, row.label),
            ("split", known.split, row.split),
        ):
            if before != now:
                raise SourceError(
                    f"{self.what} gives {image_id} the {what} '{before or ''}' "
                    f"({self._at(known.line)}) and '{now or ''}' ({self._at(row.line)}); an image "
                    f"has one {what}. Remove one of the two."
                )

    def _splits(self, labels: Sequence[int]) -> tuple[list[str], list[str]]:
        """Return the split of each image, and what was done for that."""
        written = {row.split for row in self._rows.values()}
        if len(written) > 1 and "" in written:
            row = next(row for row in self._rows.values() if not row.split)
            raise SourceError(
                f"{self.what} has no split at {self._at(row.line)}, though others have one; write "
                f"train, val or test for every image, or for none."
            )
        named = {split: split_of(split) if split else "train" for split in written}
        splits = [named[row.split] for row in self._rows.values()]
        present = set(splits)
        if "train" not in present:
            return splits, ["There is no train split; a head needs one."]
        if {"val", "test"} <= present:
            return splits, []
        ids = list(self._rows)
        grouped: Grouped = {split: {} for split in present}
        for image_id, row, label, split in zip(
            ids, self._rows.values(), labels, splits, strict=True
        ):
            if label >= 0:  # an image without a label serves training only
                entry = Entry(image_id, row.place, ())
                grouped[split].setdefault(str(label), []).append(entry)
        said = make_splits(grouped, SEED)
        moved = {
            entry.id: split
            for split in ("val", "test")
            if split not in present
            for entries in grouped[split].values()
            for entry in entries
        }
        made = [moved.get(i, split) for i, split in zip(ids, splits, strict=True)]
        return made, said

    def _own_notes(
        self, classes: Sequence[str], labels: Sequence[int], splits: Sequence[str]
    ) -> list[str]:
        notes = []
        if self._again:
            images = counted(self._again, "image")
            notes.append(f"{self.what} lists {images} again with the same class; taken once.")
        unlabelled = sum(label < 0 for label in labels)
        if unlabelled:
            notes.append(f"{counted(unlabelled, 'image')} of {self.what} without a label.")
        if self.names is None and self.numbers and all(c.isdecimal() for c in classes):
            notes.append("Labels are numbers, and the classes are called by them.")
        present: dict[str, set[int]] = {split: set() for split in splits}
        for split, label in zip(splits, labels, strict=True):
            present[split].add(label)
        notes += class_notes(classes, present)
        return notes

    def _at(self, line: int) -> str:
        return f"{self.unit} {line}"
