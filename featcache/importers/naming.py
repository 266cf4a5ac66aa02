"""Match the labels of imported features with the classes of a named data set."""

from dataclasses import replace

import numpy as np
from jaxtyping import Int64

from featcache.errors import ImportedFileError
from featcache.importers.contents import Array, Contents
from featcache.importers.known import Known
from featcache.importers.text_arrays import as_texts


def with_names(contents: Contents, known: Known) -> Contents:
    """Give features the class names and templates of a named data set.

    Args:
        contents: Arrays from a reader. If they include class names, labels are renumbered by name;
            otherwise labels must be those of the data set already.
        known: Data set.

    Raises:
        ImportedFileError: If the classes or the number of rows are not those of the data set.
    """
    _check_counts(contents, known)
    arrays = dict(contents.arrays)
    if "classnames" in arrays:
        place = _places(contents, known)
        for name in [n for n in arrays if n.endswith("_labels")]:
            arrays[name] = _moved(arrays[name], place)
        if "text_features" in arrays and len(arrays["text_features"]) == len(place):
            theirs = arrays["text_features"]
            ours = np.zeros((len(known.names), *theirs.shape[1:]), dtype=theirs.dtype)
            ours[place] = theirs
            arrays["text_features"] = ours
    else:
        _check_classes(contents, known)
    arrays["classnames"] = as_texts(contents.path, known.names, "class names")
    return replace(contents, arrays=arrays, templates=known.templates)


def _check_counts(contents: Contents, known: Known) -> None:
    for split in contents.whole:
        rows, counts = contents.arrays.get(f"{split}_features"), known.counts.get(split)
        if rows is not None and counts and len(rows) not in counts:
            raise ImportedFileError(
                f"{contents.file_of(f'{split}_features')} has {len(rows)} rows for {split}, and "
                f"'{known.name}' has {' or '.join(map(str, sorted(counts)))} images there: these "
                f"are features of other images. Import them without the name of the data set, or "
                f"give the right files."
            )


def _places(contents: Contents, known: Known) -> Int64[np.ndarray, " c"]:
    """Return, for each class name of the files, its label in the data set."""
    theirs = [_spelling(str(name)) for name in contents.arrays["classnames"]]
    lists = [[_spelling(n) for n in names] for names in (known.folders, known.names)]
    if theirs in lists:  # names may repeat: ImageNet has two of some
        return np.arange(len(theirs), dtype=np.int64)
    places = {name: label for names in lists for label, name in enumerate(names)}
    given = zip(contents.arrays["classnames"], theirs, strict=True)
    lost = [str(name) for name, spelled in given if spelled not in places]
    found = [places[name] for name in theirs if name in places]
    if lost or len(set(found)) < len(found):
        what = (
            f"classes that '{known.name}' does not have: {', '.join(lost[:5])} "
            f"({len(lost)} of {len(theirs)})"
            if lost
            else f"two classes by one name of '{known.name}'"
        )
        raise ImportedFileError(
            f"{contents.file_of('classnames')} names {what}. Import it without the name of the "
            f"data set."
        )
    return np.array(found, dtype=np.int64)


def _moved(labels: Array, place: Int64[np.ndarray, " c"]) -> Array:
    """Renumber labels; invalid ones are kept unchanged and refused later."""
    is_plain = labels.dtype.kind in "iu" and labels.ndim == 1 and labels.size > 0
    if not is_plain or int(labels.min()) < 0 or int(labels.max()) >= len(place):
        return labels
    moved: Int64[np.ndarray, " r"] = place[labels]
    return moved


def _spelling(name: str) -> str:
    return " ".join(name.replace("_", " ").lower().split())


def _check_classes(contents: Contents, known: Known) -> None:
    """Refuse labels beyond the classes of the data set, or training labels that miss the last."""
    last = len(known.names) - 1
    for name, labels in contents.arrays.items():
        if not name.endswith("_labels") or labels.dtype.kind not in "iu" or not labels.size:
            continue
        highest = int(labels.max())
        if highest > last or (name.startswith("train") and highest < last):
            raise ImportedFileError(
                f"{contents.file_of(name)} has labels up to {highest}, and '{known.name}' has "
                f"{last + 1} classes, 0 to {last}: these are labels of another data set. Import it "
                f"without the name of the data set, or under the right one."
            )
