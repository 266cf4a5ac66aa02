"""Data set of a source: images, labels, splits and texts, before any image is decoded."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from featcache.escapes import shown_notes
from featcache.places import Place
from featcache.progress import Report as Report


class Sample(NamedTuple):
    """One image of a data set with its label and split; a tuple, because there are millions."""

    id: str
    """Unique name in the data set that does not change: the path below the root, with `/`."""
    place: Place
    """Location of its bytes."""
    label: int
    """Index into `Dataset.classes`; -1 if unknown."""
    split: str
    """Its split: train, val, test, or a further test split such as sketch."""
    group: str = ""
    """Patient, lesion or track; splits that are made here keep a group together. Empty if the image
    has none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Dataset:
    """Images of a data set with labels, splits, class names and texts."""

    name: str
    root: Path
    """The folder, the archive, or the folder in it that the ids are relative to."""
    classes: tuple[str, ...]
    """Readable class names in label order, for all splits; two classes may have one name."""
    samples: tuple[Sample, ...]
    """In the order of split, label and id, or of the split file; never in that of the disk."""
    templates: tuple[str, ...]
    """Sentences with one `{}` for the class name."""
    descriptions: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Class name -> sentences that describe it; may be empty."""
    sets: Mapping[str, Mapping[str, tuple[str, ...]]] = field(default_factory=dict)
    """cupl, dclip -> class name -> sentences; those that were given."""
    waffle: tuple[str, ...] = ()
    """Templates of random words, the same for every class; empty if not requested."""
    prompts: tuple[str, ...] = ()
    """Sentences of no class; empty if not given."""
    default_text: str = "template"
    """Kind of texts that methods read by default: name, template or description."""
    own_texts: tuple[str, ...] = ()
    """Those of templates, descriptions, cupl, dclip, waffle and prompts that the user gave; the
    others are from the source."""
    spec: str = ""
    """Prefix, absolute path and options that list the images again, e.g.
    csv:/photos/list.csv?label=species; empty if the root suffices."""
    notes: tuple[str, ...] = ()
    """Sentences for the user about how the images were listed; escaped, as errors are."""

    def __post_init__(self) -> None:
        """Escape the notes, which quote names of files."""
        object.__setattr__(self, "notes", shown_notes(self.notes))

    def splits(self) -> tuple[str, ...]:
        """Return the splits that have images; train, val and test first."""
        present = {s.split for s in self.samples}
        first = [s for s in ("train", "val", "test") if s in present]
        return (*first, *sorted(present - set(first)))


@dataclass(frozen=True, slots=True, kw_only=True)
class FurtherColumns:
    """What the list of a data set says of its images besides class and split."""

    columns: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """Column -> id of an image -> what its first row says."""
    left_out: str = ""
    """Which columns of the list are left out and why, as a sentence; empty if none are."""
