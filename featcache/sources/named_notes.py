"""Notes on differences between a named data set and its complete copy."""

from collections import Counter
from collections.abc import Iterator, Sequence

from featcache.counts import counted
from featcache.sources.layouts.named.base import ListedImage, Location
from featcache.sources.lists import ClassTable
from featcache.sources.named import NamedDataset, Scheme
from featcache.text.templates import clean_name

MOST_NAMED = 3
"""How many missing images or classes a note names."""


def notes_of(
    spec: NamedDataset,
    scheme: Scheme,
    classes: ClassTable,
    location: Location,
    images: Sequence[ListedImage],
    missing: Sequence[str],
) -> Iterator[str]:
    """Yield the notes, a sentence each.

    Args:
        spec: The data set.
        scheme: How it is split.
        classes: Its classes.
        location: Where it lies.
        images: Those that are listed and there.
        missing: Those that are listed and not there, by path.
    """
    if scheme.note:
        yield scheme.note
    total = sum(scheme.counts.values())
    if len(images) != total:
        yield f"{counted(len(images), 'image')} of {spec.name} are there; a whole copy has {total}."
    if missing:
        yield f"{counted(len(missing), 'listed image')} not there: {_some(missing)}."
    there = {image.label for image in images}
    without = [clean_name(name) for label, name in enumerate(classes.names) if label not in there]
    if without:
        yield f"No image of {_some(without)}."
    yield from _per_class(scheme, classes, images)
    left_out = len(location.found.images) - len(images)
    if left_out > 0:
        yield f"{counted(left_out, 'image')} beside them not in the list: left out."
    yield from location.found.notes


def _per_class(scheme: Scheme, classes: ClassTable, images: Sequence[ListedImage]) -> Iterator[str]:
    """Report classes whose number of images differs from the published one."""
    counts = Counter((image.split, image.label) for image in images)
    there = sorted({image.label for image in images})
    for split, wanted in scheme.per_class.items():
        other = [
            f"{clean_name(classes.names[label])} ({counts[split, label]})"
            for label in there
            if counts[split, label] != wanted
        ]
        if other:
            yield (
                f"Every class has {wanted} {split} images in a whole copy; here not: "
                f"{_some(other)}."
            )


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else ""
    return ", ".join(names[:MOST_NAMED]) + more
