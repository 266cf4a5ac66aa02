"""`fiftyone:FOLDER`: FiftyOne's FiftyOneImageClassificationDataset.

    FOLDER/data/*.jpg     FOLDER/labels.json: {"classes": [...], "labels": {"stem": index or null}}

Without `classes` the labels are names. A null is an image without a label.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from featcache.errors import SourceError
from featcache.limits import WORDS
from featcache.paths import as_text, expand
from featcache.sources.base import Dataset
from featcache.sources.layouts.own.class_names import given_names
from featcache.sources.layouts.own.json_file import label_text, parse_json
from featcache.sources.layouts.own.labelled import LabelledImages
from featcache.sources.trees.base import Entry
from featcache.sources.trees.folder import FolderTree

OPTIONS = ()

_EXPECTED = 'data/ and labels.json, {"classes": [...], "labels": {name: index or null}}'


def open_fiftyone(path: str, options: Mapping[str, str], name: str | None = None) -> Dataset:
    """List the images of a FiftyOneImageClassificationDataset.

    Args:
        path: The folder.
        options: None are known.
        name: Name of the data set; the folder's name otherwise.

    Raises:
        SourceError: If the folder is not of that form, or an image has several labels.
    """
    root = expand(path)
    tree = FolderTree(root.resolve())
    if tree.find("labels.json") is None or not tree.has_folder("data"):
        raise SourceError(
            f"{root} is no data set of FiftyOne; expected a folder with {_EXPECTED}, and no links "
            f"out of it."
        )
    root, file = tree.root, tree.root / "labels.json"
    content = parse_json(tree.read("labels.json", WORDS), file, _EXPECTED)
    match content:
        case {"labels": dict(labels)}:
            pass
        case _:
            raise SourceError(f"{file} has no 'labels'; expected {_EXPECTED}.")
    names = _names(file, content.get("classes"))
    images = LabelledImages("labels.json", unit="entry", names=names, numbers=names is not None)
    found = tree.below("data").images()
    by_stem = _by_stem(found.images, file)
    missing = [stem for stem in labels if stem not in by_stem]
    if missing and len(missing) == len(labels):
        raise SourceError(
            f"None of the {len(missing)} images of {file} is in {root / 'data'}; expected e.g. "
            f"{missing[0]}.jpg."
        )
    for number, (stem, value) in enumerate(labels.items(), 1):
        if stem in by_stem:
            entry = by_stem[stem]
            label = _label(file, stem, value, names)
            images.add(f"data/{entry.id}", entry.place, label, line=number)
    notes = list(found.notes)
    if missing:
        notes.append(
            f"{len(missing)} images that labels.json lists are not there and were left out; the "
            f"first is {missing[0]}."
        )
    return images.dataset(name or as_text(root.name), root, notes=notes)


def _names(file: Path, classes: object) -> tuple[str, ...] | None:
    if classes is None or classes == []:
        return None
    if not isinstance(classes, list) or not all(isinstance(c, str) for c in classes):
        raise SourceError(f"'classes' of {file} is no list of names; expected {_EXPECTED}.")
    return given_names(classes, str(file))


def _by_stem(entries: tuple[Entry, ...], file: Path) -> dict[str, Entry]:
    """Return path below data/ without the suffix -> image."""
    by_stem: dict[str, Entry] = {}
    for entry in entries:
        stem = entry.id.rpartition(".")[0]
        other = by_stem.setdefault(stem, entry)
        if other is not entry:
            raise SourceError(
                f"{file} names {stem}, which is both {other.id} and {entry.id}; keep one of them."
            )
    return by_stem


def _label(file: Path, stem: str, value: Any, names: tuple[str, ...] | None) -> str | None:
    """Return a label as the builder takes it; FiftyOne puts it beside a confidence on request."""
    if isinstance(value, dict) and "label" in value:
        value = value["label"]
    try:
        text = label_text(value)
    except ValueError as error:
        raise SourceError(f"The label of {stem} in {file} is {error}; expected one.") from error
    if text is not None and names is not None and not isinstance(value, int):
        if names.count(text) != 1:
            what = "several" if text in names else "none"
            raise SourceError(
                f"The label of {stem} in {file} is '{text}', which is {what} of its classes; "
                f"expected the index of one."
            )
        return str(names.index(text))
    return text
