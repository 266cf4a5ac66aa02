"""Notes on the classes of a data set: one class only, or classes without images."""

from collections.abc import Collection, Iterator, Mapping, Sequence

MOST_NAMED = 5
"""Classes that a note names."""


def class_notes(classes: Sequence[str], present: Mapping[str, Collection[int]]) -> Iterator[str]:
    """Yield the notes, a sentence each.

    Args:
        classes: Names in label order.
        present: Split -> labels of its images; only these splits are looked at.

    Example:
        >>> list(class_notes(["ant", "bee"], {"train": {0, 1}, "test": {1}}))
        ['No test images for: ant.']
    """
    if len(classes) == 1:
        yield "There is one class only; a head needs two."
    for split, what in (("train", "training"), ("test", "test")):
        if split not in present:
            continue
        without = [name for label, name in enumerate(classes) if label not in present[split]]
        if without:
            more = f" and {len(without) - MOST_NAMED} more" if len(without) > MOST_NAMED else ""
            yield f"No {what} images for: {', '.join(without[:MOST_NAMED])}{more}."
