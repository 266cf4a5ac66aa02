"""`zip:PATH` and `tar:PATH`: class folders in an archive, read in place."""

from functools import partial
from pathlib import Path

from featcache.paths import as_text, expand
from featcache.sources.base import Dataset
from featcache.sources.layouts.class_folders import list_class_folders
from featcache.sources.layouts.split_names import SPLIT_NAMES
from featcache.sources.prefixes.kind import Kind
from featcache.sources.trees.archive import open_archive, split_archive
from featcache.sources.trees.base import FoundImages, Tree

_SUFFIXES = (".zip", ".tar")


def open_archived(path: str, name: str, *, kind: str) -> Dataset:
    """List the images of an archive as `folder:` lists those of its unpacked files.

    Archives often hold everything below one folder; that folder is then the root.

    Args:
        path: The archive, or a folder in it as `photos.zip/summer`.
        name: What the data set is called.
        kind: zip or tar.

    Raises:
        SourceError: If it is no such archive, holds what is refused, or is in no known layout.
    """
    tree: Tree = open_archive(expand(path), kind)
    top = single_top(tree.images())
    return list_class_folders(tree.below(top) if top else tree, name, prefix=kind)


def name_of_archive(path: str) -> str:
    """Name a data set by its archive, or by the folder in it.

    Raises:
        SourceError: If there is no such archive.
    """
    file, inside = split_archive(expand(path))
    name = as_text(Path(inside).name if inside else file.name)
    for suffix in _SUFFIXES:
        if name.lower().endswith(suffix) and not inside:
            name = name[: -len(suffix)]
    return name or "images"


def single_top(found: FoundImages) -> str:
    """Return the folder that holds all class or split folders; empty where that is the root."""
    folders = [image.folders for image in found.images]
    depth = 0
    while folders and all(len(f) > depth + 1 for f in folders):
        tops = {f[depth] for f in folders}
        if len(tops) > 1 or min(tops).lower() in SPLIT_NAMES:
            break
        depth += 1
    return "/".join(folders[0][:depth]) if folders else ""


def _kind(prefix: str) -> Kind:
    return Kind(
        prefix=prefix,
        example=f"{prefix}:photos.{prefix}",
        name_of=name_of_archive,
        open=partial(open_archived, kind=prefix),
    )


ZIP, TAR = _kind("zip"), _kind("tar")
