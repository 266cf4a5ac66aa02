"""Locating a named data set below a folder: in its usual places, or in the folder itself."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from featcache.errors import SourceError
from featcache.sources.layouts.named.base import Layout, Location
from featcache.sources.named import LookAlike, NamedDataset, Scheme
from featcache.sources.trees.base import Tree
from featcache.sources.trees.opening import tree_at


@dataclass(frozen=True, slots=True)
class FoundListing:
    """Location of a data set, and the lists that can be read there."""

    location: Location
    layouts: tuple[Layout, ...]


def find_listing(spec: NamedDataset, scheme: Scheme, data_root: Path) -> FoundListing | None:
    """Find a data set below a folder, in the folder itself, or in an archive.

    Args:
        spec: Data set from `datasets()`.
        scheme: One of its ways to split.
        data_root: Where data sets are kept, the folder of this one, or a zip or tar of it.

    Returns:
        None if it is not there.

    Raises:
        SourceError: If a known look-alike is there.
    """
    if not data_root.exists():
        return None
    classes, root = spec.table(), tree_at(data_root)
    others = [other for other in spec.looks_like if other.path]
    for location in locations(spec, root):
        layouts = tuple(x for x in scheme.list_ if x.is_here(location, classes))
        if layouts:
            _refuse_look_alike(spec, location.images, others)
            return FoundListing(location, layouts)
    for location in locations(spec, root):
        _refuse_look_alike(spec, location.images, others)
    return None


def locations(spec: NamedDataset, root: Tree) -> Iterator[Location]:
    """Yield the possible locations of a data set: its usual places, then the root itself."""
    for place in (*spec.places, ""):
        if place and not root.has_folder(place):
            continue
        base = root.below(place) if place else root
        for folder in dict.fromkeys((*spec.image_folders, "")):
            if not folder or base.has_folder(folder):
                images = base.below(folder) if folder else base
                yield Location(images, (base, images, root))


def files_here(spec: NamedDataset, data_root: Path) -> dict[str, str]:
    """Return which published splits of a data set can be read below a folder.

    Args:
        spec: Data set from `datasets()`.
        data_root: Where data sets are kept, or the folder of this one.

    Returns:
        Name of the scheme -> folder of the images; empty where nothing is there.
    """
    here = {}
    for name, scheme in spec.splits.items():
        found = find_listing(spec, scheme, data_root)
        if found is not None:
            here[name] = str(found.location.images.root)
    return here


def _refuse_look_alike(spec: NamedDataset, tree: Tree, others: Sequence[LookAlike]) -> None:
    for other in others:
        if tree.has_folder(other.path) or tree.find(other.path) is not None:
            raise SourceError(
                f"{tree.root} has {other.path}, so it is not {spec.name}: {other.say}"
            )
