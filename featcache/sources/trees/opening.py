"""Opening the tree of the images of a listing."""

from pathlib import Path

from featcache.sources.trees.archive import open_archive
from featcache.sources.trees.base import Tree
from featcache.sources.trees.folder import FolderTree


def tree_at(root: Path) -> Tree:
    """Open the folder, the archive or the folder in an archive that is the root of a data set.

    Raises:
        SourceError: If there is none any more, or it cannot be used.
    """
    return FolderTree(root.resolve()) if root.is_dir() else open_archive(root)
