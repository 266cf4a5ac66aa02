"""`folder:PATH`: class folders on disk."""

from pathlib import Path

from featcache.errors import SourceError
from featcache.paths import as_text, expand
from featcache.sources.base import Dataset
from featcache.sources.layouts.class_folders import LAYOUT, list_class_folders
from featcache.sources.prefixes.kind import Kind
from featcache.sources.trees.folder import FolderTree


def open_folder(path: Path | str, name: str | None = None, *, seed: int = 0) -> Dataset:
    """List the images below a folder, with classes, labels and splits.

    Args:
        path: The folder.
        name: What the data set is called; the folder's base name otherwise.
        seed: Another one makes other splits, where they are made here.

    Raises:
        SourceError: If the folder is in neither layout, or two class folders read the same.
    """
    root = existing_folder(Path(path))
    return list_class_folders(FolderTree(root), name or _name(root), prefix="folder", seed=seed)


def existing_folder(path: Path) -> Path:
    """Return the resolved folder.

    Raises:
        SourceError: If there is none.
        UsageError: If it begins with an unknown `~user`.
    """
    path = expand(path)
    if path.is_dir():
        return path.resolve()
    what = f"{path} is a file, not a folder" if path.exists() else f"There is no folder {path}"
    raise SourceError(f"{what}; {LAYOUT}.")


def _name(root: Path) -> str:
    return as_text(root.name) or "images"


FOLDER = Kind(
    prefix="folder",
    example="folder:photos/",
    name_of=lambda path: _name(existing_folder(Path(path))),
    open=open_folder,
)
