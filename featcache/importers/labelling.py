"""Convert the labels of a table, numbers or words, to class indices and names."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from featcache.errors import ImportedFileError
from featcache.importers.contents import Array
from featcache.importers.text_arrays import as_texts
from featcache.wording import Argument

USUAL_LABELS = ("label", "labels", "class", "cls", "target", "targets")
"""Names of a column that holds the class of each row."""
MOST_CLASSES = 1_000_000
SPLITS = {"validation": "val", "valid": "val", "dev": "val", "training": "train", "testing": "test"}
"""What others call a split -> what it is called here."""


def split_name(text: str) -> str:
    """Return a split's name as it is used here.

    Example:
        >>> split_name("Validation"), split_name("train16"), split_name("sketch")
        ('val', 'train16', 'sketch')
    """
    lower = text.strip().lower()
    return SPLITS.get(lower, lower)


def check_split(path: Path, text: str) -> str:
    """Return a split's name that may name arrays.

    Args:
        path: Where it stands, for the message.
        text: The name as it came.

    Raises:
        ImportedFileError: If it has other signs than letters, digits, dot, dash and underscore.
    """
    name = split_name(text)
    if not re.fullmatch(r"[a-z0-9][a-z0-9_.-]{0,59}", name):
        raise ImportedFileError(
            f"{path} names a split '{text[:80]}'. Call splits train, val, test, or by another "
            f"short word of letters and digits."
        )
    return name


def index_labels(
    path: Path, values: Mapping[str, Sequence[Any]], names: Sequence[str] = ()
) -> dict[str, Array]:
    """Turn the labels of all splits into class indices.

    Args:
        path: Where they are from, for messages.
        values: Split -> the label of each row: all numbers, or all words.
        names: Names of the classes where labels are numbers, if any are known.

    Returns:
        <split>_labels for every split, and classnames where there are names: words in their order.

    Raises:
        ImportedFileError: If a row has no label, or numbers and words are mixed.
    """
    every = [value for of_split in values.values() for value in of_split]
    empty = sum(value is None or value == "" for value in every)
    if empty:
        raise ImportedFileError(
            f"{path} has {empty} of {len(every)} rows without a label. Leave them out, or give "
            "another column with ",
            Argument("label_column"),
            ".",
        )
    found: dict[str, Array] = {}
    if all(isinstance(value, int) and -(2**63) <= value < 2**63 for value in every):
        for split, of_split in values.items():
            found[f"{split}_labels"] = np.array(of_split, dtype=np.int64)
        if names:
            found["classnames"] = as_texts(path, names, "class names")
        return found
    if not all(isinstance(value, str) for value in every):
        raise ImportedFileError(
            f"{path} has labels that are neither all whole numbers nor all words. Give another "
            "column with ",
            Argument("label_column"),
            ".",
        )
    words = sorted(set(every))
    if len(words) > MOST_CLASSES or len(words) == len(every) > 1:
        raise ImportedFileError(
            f"{path} has {len(words)} different labels in {len(every)} rows, which are no "
            "classes. Give the column that holds them with ",
            Argument("label_column"),
            ".",
        )
    place = {word: index for index, word in enumerate(words)}
    for split, of_split in values.items():
        found[f"{split}_labels"] = np.array([place[value] for value in of_split], dtype=np.int64)
    found["classnames"] = as_texts(path, words, "class names")
    return found
