"""What every source of images answers with: a plain table, before any pixel is read."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from featcache.places import Place
from featcache.progress import Report as Report


@dataclass(frozen=True, slots=True)
class Sample:
    """One image and what is known of it."""

    id: str
    """Unique within the data set and stable: the path below the root, with `/`."""
    place: Place
    """Where its bytes are now."""
    label: int
    """Index into the class list, or -1 where no label is known."""
    split: str
    """The one split it belongs to: train, val, test, or a further test split such as sketch."""
    group: str = ""
    """Images of one patient, lesion or track share it, and splits made here keep them together;
    empty where an image stands alone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Dataset:
    """Images, labels, splits and the words that go with the classes."""

    name: str
    root: Path
    """The folder, the archive, or the folder in it that the ids are relative to."""
    classes: tuple[str, ...]
    """One list for all splits, in label order, as read by a person. Labels are what
    counts: two classes of a named data set may read alike."""
    samples: tuple[Sample, ...]
    """Ordered by split, label and id, or as the split file has them: never as the disk does."""
    templates: tuple[str, ...]
    """Sentences with one `{}` for the class name."""
    descriptions: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Class name -> sentences about how it looks; empty where none were written."""
    sets: Mapping[str, Mapping[str, tuple[str, ...]]] = field(default_factory=dict)
    """cupl and dclip, as far as they were given: class name -> sentences."""
    waffle: tuple[str, ...] = ()
    """Templates of random words, the same for every class; empty where nobody asked for them."""
    default_text: str = "template"
    """What a method reads when nobody says: name, template or description."""
    own_texts: tuple[str, ...] = ()
    """Which of templates, descriptions, cupl, dclip and waffle the user asked for; the others are
    the source's words."""
    spec: str = ""
    """What opens it again, with absolute paths, where the root alone does not tell how it is
    listed: csv:/photos/list.csv?label=species."""
    notes: tuple[str, ...] = ()
    """What the user should know of how this listing came about, a sentence each."""

    def splits(self) -> tuple[str, ...]:
        """Name the splits that have images, train, val and test first."""
        present = {s.split for s in self.samples}
        first = [s for s in ("train", "val", "test") if s in present]
        return (*first, *sorted(present - set(first)))
