"""Class names, templates and split sizes of named data sets, for imports."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from featcache.errors import UnknownNameError
from featcache.sources.named import datasets, resolve
from featcache.text.templates import clean_name


@dataclass(frozen=True, kw_only=True)
class Known:
    """What an import needs to know of a named data set."""

    name: str
    names: tuple[str, ...]
    """Readable class names in label order."""
    folders: tuple[str, ...] = ()
    """Class folders in the same order."""
    templates: tuple[str, ...] = ()
    counts: Mapping[str, Collection[int]] = field(default_factory=dict)
    """Split -> possible numbers of images, one for each way to split the data set."""


def known_dataset(name: str) -> Known:
    """Look up a named data set that has class names.

    Raises:
        UnknownNameError: If there is none of that name.
    """
    listed = {data.name: data for data in datasets() if data.kind == "listed"}
    name = resolve(name)
    if name not in listed:
        raise UnknownNameError("data set", name, listed, hint="`featcache datasets` shows all.")
    data = listed[name]
    table = data.table()
    counts: dict[str, set[int]] = {}
    for scheme in data.splits.values():
        for split, count in scheme.counts.items():
            counts.setdefault(split, set()).add(count)
    return Known(
        name=name,
        names=tuple(map(clean_name, table.names)),
        folders=table.folders,
        templates=data.texts(),
        counts=counts,
    )
