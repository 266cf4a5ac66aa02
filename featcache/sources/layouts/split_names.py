"""What a split is called: the usual names in files, folders and columns."""

import re
from collections.abc import Mapping

from featcache.sources.trees.base import Tree
from featcache.text.templates import clean_name

SPLIT_NAMES = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
    "testing": "test",
}
"""Name of a split in lower case, as a folder of class folders may have it -> train, val or test."""

USUAL = {**SPLIT_NAMES, "dev": "val", "development": "val", "eval": "test", "evaluation": "test"}
"""The same for lists, columns and shards, where no name can be that of a class."""


def split_of(name: str, usual: Mapping[str, str] = USUAL) -> str:
    """Return the split that a name means: train, val, test, or a further one by that name.

    Args:
        name: Name of a folder, or a value of a column.
        usual: Name in lower case -> train, val or test.

    Example:
        >>> split_of("Validation"), split_of("sketch set")
        ('val', 'sketch-set')
    """
    own = re.sub(r"[^\w.-]+", "-", clean_name(name)).strip("-.") or "further"
    return usual.get(name.strip().lower(), own)


def split_in(name: str) -> str:
    """Return the usual split that a file's name mentions; empty where it mentions none or several.

    Example:
        >>> split_in("train-00000-of-00017"), split_in("0000")
        ('train', '')
    """
    words = (word.lower() for word in re.split(r"[^A-Za-z]+", name))
    mentioned = {USUAL[word] for word in words if word in USUAL}
    return mentioned.pop() if len(mentioned) == 1 else ""


def split_folders(tree: Tree, file: str) -> dict[str, str]:
    """Return folder -> split of the split folders in a tree that hold a file of that name."""
    return {
        folder: USUAL[folder.lower()]
        for folder in tree.names()
        if folder.lower() in USUAL and tree.find(f"{folder}/{file}") is not None
    }
