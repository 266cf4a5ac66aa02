"""Class lists and split files of the named data sets, as the package ships them.

`NAME.tsv` has one line a class, in label order, below a header. Its columns:

    folder   the class folder, or the word that lists beside the images use for the class
    name     the readable name, as CoOp writes it where CoOp has the data set
    openai   OpenAI's name, where it is a different list
    parent   the labels of the class in the parent data set, separated by commas

`splits/NAME.txt.gz` is CoOp's split file: for every split a line `train 13500`, then as many lines
`label path`. NOTICE names the sources of the lists and their licences.
"""

import gzip
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources

from featcache.errors import SourceError

COLUMNS = ("folder", "name", "openai", "parent")


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassTable:
    """The classes of a data set; the position in each list is the label."""

    names: tuple[str, ...]
    """Readable names as they stand in the source, underscores included; may repeat."""
    openai: tuple[str, ...]
    """OpenAI's names in the same order; those of `names` where there are no others."""
    folders: tuple[str, ...] = ()
    """Class folders, with `/` where they are nested; empty where the images lie in none."""
    parent: tuple[tuple[int, ...], ...] = ()
    """Labels in the parent data set; empty where there is none."""

    def __len__(self) -> int:
        return len(self.names)


@cache
def class_table(name: str) -> ClassTable:
    """Read the classes of one data set.

    Args:
        name: Name of the list, such as eurosat.

    Raises:
        SourceError: If there is no such list, or its lines do not fit its header.

    Example:
        >>> class_table("eurosat").names[:2], class_table("eurosat").folders[9]
        (('Annual Crop Land', 'Forest'), 'SeaLake')
    """
    file = resources.files("featcache.sources.lists").joinpath(f"{name}.tsv")
    if not file.is_file():
        raise SourceError(f"There is no list of classes {name}.tsv in this package.")
    header, *lines = file.read_text("utf-8").splitlines()
    columns = header.split("\t")
    rows = [line.split("\t") for line in lines]
    if not set(columns) <= set(COLUMNS) or any(len(row) != len(columns) for row in rows):
        raise SourceError(f"{name}.tsv: expected columns of {', '.join(COLUMNS)}, got {header!r}.")
    table = {column: tuple(row[i] for row in rows) for i, column in enumerate(columns)}
    return ClassTable(
        names=table.get("name", ()),
        openai=table.get("openai", table.get("name", ())),
        folders=table.get("folder", ()),
        parent=tuple(tuple(map(int, p.split(","))) for p in table.get("parent", ())),
    )


@cache
def packaged_split(name: str) -> Mapping[str, tuple[tuple[str, int], ...]]:
    """Read a split file of CoOp's that is part of the package.

    Args:
        name: Name of the data set.

    Returns:
        Split -> (path below the image folder, label), in the order of the file.

    Raises:
        SourceError: If it is damaged.

    Example:
        >>> packaged_split("eurosat")["train"][0]
        ('AnnualCrop/AnnualCrop_1381.jpg', 0)
    """
    file = resources.files("featcache.sources.lists").joinpath("splits", f"{name}.txt.gz")
    lines = iter(gzip.decompress(file.read_bytes()).decode("utf-8").splitlines())
    splits: dict[str, tuple[tuple[str, int], ...]] = {}
    for line in lines:
        split, _, count = line.partition(" ")
        entries = []
        for _ in range(int(count)):
            label, _, path = next(lines, "").partition(" ")
            if not label.isdecimal():
                raise SourceError(f"splits/{name}.txt.gz is damaged; install the package again.")
            entries.append((path, int(label)))
        splits[split] = tuple(entries)
    return splits
