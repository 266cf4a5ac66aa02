"""Where the images of a listing are now, after the caches or the named data sets were moved."""

from collections.abc import Iterator
from pathlib import Path, PurePath

from featcache.paths import as_text, file_in, from_text
from featcache.sources.named import datasets, resolve
from featcache.sources.registry import IMAGES, image_folder
from featcache.store.format.identity import KEY_FILE


def current_root(where: str, dataset: str, root: Path, data_root: Path | None = None) -> str:
    """Return the present folder of images that were moved together with other files.

    Images move with the caches if they were in `images` below them, and a named data set moves
    with all others. Any other folder has to be named by the user.

    Args:
        where: Folder of the images according to a listing.
        dataset: Name of the data set.
        root: Folder of all caches.
        data_root: Folder of named data sets, as `image_folder` takes it.

    Returns:
        The new folder, or `where` if the images did not move in one of these ways.
    """
    return _with_caches(where, root) or _with_data_sets(where, dataset, root, data_root) or where


def _with_caches(where: str, root: Path) -> str:
    """Return the folder below the present folder of caches; empty if there is none.

    If images are in both places, the new one is used only if caches are beside the old images:
    then all caches were copied. Users have folders called `images`, too.
    """
    parts = PurePath(where).parts
    for inside in _after(parts, {IMAGES}):
        now = root.joinpath(IMAGES, *map(from_text, parts[inside:]))
        if parts[inside:] and _is_there(now):
            home = from_text(where).parents[len(parts) - inside]
            was_copied = any(home.glob(f"*/*/{KEY_FILE}"))
            return as_text(now) if was_copied or not may_be_there(where) else ""
    return ""


def _with_data_sets(where: str, dataset: str, root: Path, data_root: Path | None) -> str:
    """Return the folder of a named data set below the present data root; empty if there is none.

    If images are in both places, the user has to say that they are the same.
    """
    if may_be_there(where):
        return ""
    spec = next((d for d in datasets() if d.name == resolve(dataset)), None)
    if spec is None:
        return ""
    parts = PurePath(where).parts
    for inside in _after(parts, {spec.name, *(PurePath(p).parts[0] for p in spec.places if p)}):
        now = image_folder(root, data_root).joinpath(*map(from_text, parts[inside - 1 :]))
        if _is_there(now):
            return as_text(now.resolve())
    return ""


def _after(parts: tuple[str, ...], names: set[str]) -> Iterator[int]:
    """Yield the positions after parts of these names, the last one first."""
    yield from (i + 1 for i in reversed(range(len(parts))) if parts[i] in names)


def _is_there(root: Path) -> bool:
    """Tell whether a folder, an archive or the archive around a folder is there."""
    return root.is_dir() or file_in(root) is not None


def may_be_there(where: str) -> bool:
    """Tell whether images are at a path, whose parent folders may be closed to this user."""
    try:
        return _is_there(from_text(where))
    except OSError:
        return True
