"""Images whose class is the folder they lie in.

Two layouts, distinguished by whether there is a `train` folder with class folders in it:

    <class>/*.jpg            one level of class folders; splits are made here
    <split>/<class>/*.jpg    splits as they come; a missing val or test is split off train
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from featcache.counts import counted
from featcache.errors import SourceError
from featcache.paths import as_text
from featcache.sources.base import Dataset
from featcache.sources.layouts.class_notes import class_notes
from featcache.sources.layouts.split_names import SPLIT_NAMES, split_of
from featcache.sources.layouts.splits import Grouped, make_splits, samples
from featcache.sources.trees.base import Entry, FoundImages, Tree
from featcache.text.templates import DEFAULT_TEMPLATES, clean_name
from featcache.wording import Argument, Placeholder

LAYOUT = "expected PATH/<class>/*.jpg, or PATH/train/<class>/*.jpg with val and test beside it"


def list_class_folders(tree: Tree, name: str, *, prefix: str, seed: int = 0) -> Dataset:
    """List the images of a tree, with classes, labels and splits.

    Args:
        tree: Tree with folders of classes or splits at its root.
        name: What the data set is called.
        prefix: How the user names this kind of tree: `folder` as in `folder:PATH`.
        seed: Another one makes other splits, where they are made here.

    Raises:
        SourceError: If the tree is in neither layout, or two class folders read the same.
    """
    found = tree.images()
    if not found.images and prefix == "folder" and _has_shards(tree):
        raise SourceError(
            f"{tree.root} has no images but .tar files; {LAYOUT}. Read shards of webdataset with ",
            Argument("dataset", f"wds:{as_text(tree.root)}"),
            ", and one archive of class folders with ",
            Argument("dataset", Placeholder("tar:FILE")),
            ".",
        )
    files, notes = _Layout(tree.root, prefix).group(found)
    notes += make_splits(files, seed)
    names = _class_names(tree.root, files)
    folders = sorted(names, key=lambda folder: names[folder])
    classes = tuple(names[folder] for folder in folders)
    present = {
        split: {label for label, folder in enumerate(folders) if files[split].get(folder)}
        for split in files
    }
    return Dataset(
        name=name,
        root=tree.root,
        classes=classes,
        samples=tuple(samples(files, folders)),
        templates=DEFAULT_TEMPLATES,
        notes=(*notes, *_empty_notes(found, files), *class_notes(classes, present), *found.notes),
    )


def _has_shards(tree: Tree) -> bool:
    """Tell whether there are tar files in a tree, or in the folders at its root."""
    top = list(tree.names())
    below = (tree.names(name) for name in top if tree.has_folder(name))
    return any(name.lower().endswith(".tar") for name in chain(top, *below))


@dataclass(frozen=True, slots=True)
class _Layout:
    """Which of the two layouts a tree has."""

    root: Path
    prefix: str

    def group(self, found: FoundImages) -> tuple[Grouped, list[str]]:
        """Group the images by split and class; return notes on files that were left out, too."""
        root = self.root
        paths = {image.folders for image in found.images}
        folders = {path[0] for path in paths if path}
        deep = {path[0] for path in paths if len(path) > 1}
        if _has_splits(paths):
            return _by_split(found.images, _splits(root, folders))
        named = sorted(folder for folder in folders if folder.lower() in SPLIT_NAMES)
        if not folders:
            what = "images directly in it but no class folders" if found.images else "no images"
            left_out = f" {found.notes[0]}" if found.notes else ""
            raise SourceError(f"{root} has {what}; {LAYOUT}.{left_out}")
        if deep.intersection(named) or len(named) == len(folders):
            have = ", ".join(f"{folder}/" for folder in named)
            raise SourceError(
                f"{root} has {have} but no train folder with class folders; {LAYOUT}."
            )
        inner = [path for path in paths if len(path) > 2]
        above = sorted({p[0] for p in inner if SPLIT_NAMES.get(p[1].lower()) == "train"})
        if above:
            raise SourceError(
                f"{root} holds data sets of their own: {', '.join(above[:4])} with a train folder "
                f"inside. Name one of them: {self.prefix}:{root / above[0]}."
            )
        return _by_class(found.images, root)


def _splits(root: Path, folders: Iterable[str]) -> dict[str, str]:
    """Return folder -> split: train, val, test, or a further one by the folder's own name.

    Raises:
        SourceError: If two of them mean the same split.
    """
    splits: dict[str, str] = {}
    owner: dict[str, str] = {}
    for folder in sorted(folders):
        split = split_of(folder, SPLIT_NAMES)
        if owner.setdefault(split, folder) != folder:
            raise SourceError(
                f"{root} has both '{owner[split]}' and '{folder}', which both mean the split "
                f"'{split}'; keep or rename one of them."
            )
        splits[folder] = split
    return splits


def _by_class(images: Iterable[Entry], root: Path) -> tuple[Grouped, list[str]]:
    classes: dict[str, list[Entry]] = {}
    loose = 0
    for image in images:
        if image.folders:
            classes.setdefault(image.folders[0], []).append(image)
        else:
            loose += 1
    return {"train": classes}, [_left_out(loose, as_text(root.name))] if loose else []


def _by_split(images: Iterable[Entry], splits: Mapping[str, str]) -> tuple[Grouped, list[str]]:
    files: Grouped = {}
    loose: dict[str, int] = {}
    for image in images:
        if len(image.folders) < 2:
            folder = image.folders[0] if image.folders else "PATH"
            loose[folder] = loose.get(folder, 0) + 1
            continue
        folder, class_folder = image.folders[:2]
        files.setdefault(splits[folder], {}).setdefault(class_folder, []).append(image)
    return files, [_left_out(count, folder) for folder, count in loose.items()]


def _left_out(count: int, folder: str) -> str:
    images = counted(count, "image")
    return f"{images} directly in {folder}/ without a class folder: left out."


def _class_names(root: Path, files: Grouped) -> dict[str, str]:
    """Return class folder -> readable name, over all splits.

    Raises:
        SourceError: If two folders read the same, or differ only by case.
    """
    names: dict[str, str] = {}
    seen: dict[str, str] = {}
    for folder in [folder for split in files.values() for folder in split]:
        name = clean_name(folder)
        if not name or not name.isprintable():
            raise SourceError(f"Class folder {folder!r} in {root} has no readable name; rename it.")
        other = seen.setdefault(name.casefold(), folder)
        if other != folder:
            raise SourceError(
                f"Class folders '{other}' and '{folder}' in {root} would both be the class "
                f"'{name}'; rename or join them."
            )
        names[folder] = name
    return names


def _empty_notes(found: FoundImages, files: Grouped) -> list[str]:
    """Report class folders without images in any split; they are no classes."""
    known = {folder for split in files.values() for folder in split}
    depth = 2 if _has_splits({image.folders for image in found.images}) else 1
    empty = sorted({f[depth - 1] for f in found.empty if len(f) == depth} - known)
    if not empty:
        return []
    more = f" and {len(empty) - 5} more" if len(empty) > 5 else ""
    return [f"Class folders without any image, which are no classes: {', '.join(empty[:5])}{more}."]


def _has_splits(paths: Iterable[tuple[str, ...]]) -> bool:
    """Tell whether the first level of folders are splits.

    Args:
        paths: Folders that images lie in, each as the names on the way.
    """
    return any(SPLIT_NAMES.get(path[0].lower()) == "train" for path in paths if len(path) > 1)
