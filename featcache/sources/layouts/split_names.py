"""What a split is called: the usual names in files, folders and columns."""

import re

from featcache.sources.layouts.class_folders import SPLIT_NAMES
from featcache.sources.trees.base import Tree
from featcache.text.templates import clean_name

USUAL = {**SPLIT_NAMES, "dev": "val", "development": "val", "eval": "test", "evaluation": "test"}
"""Name of a split in lower case -> train, val or test."""


def split_of(name: str) -> str:
    """Return the split that a name stands for: train, val, test, or a further one by that name.

    Example:
        >>> split_of("Validation"), split_of("sketch set")
        ('val', 'sketch-set')
    """
    own = re.sub(r"[^\w.-]+", "-", clean_name(name)).strip("-.") or "further"
    return USUAL.get(name.strip().lower(), own)


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
