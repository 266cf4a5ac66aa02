"""`coco:FILE`: a COCO file in which every image has one category.

    {"images": [{"id", "file_name"}], "categories": [{"id", "name"}],
     "annotations": [{"image_id", "category_id"}]}

Boxes and masks are not read. Several annotations of an image count as one where they agree; where
they do not, the file is for detection and is refused. The folder that holds the splits of
Roboflow's COCO export (`train/_annotations.coco.json`) is read as a whole.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from featcache.errors import SourceError
from featcache.paths import as_text, expand
from featcache.sources.base import Dataset
from featcache.sources.layouts.own.below import Finder, path_below
from featcache.sources.layouts.own.csv_columns import choice
from featcache.sources.layouts.own.files import existing_file, image_root
from featcache.sources.layouts.own.json_file import read_json
from featcache.sources.layouts.own.labelled import LabelledImages
from featcache.sources.layouts.split_names import split_folders
from featcache.sources.trees.folder import FolderTree
from featcache.text.templates import clean_name

OPTIONS = ("root",)

BESIDE_IMAGES = "_annotations.coco.json"
"""Name of Roboflow's lists."""

_EXPECTED = "a COCO file with images, categories and annotations"


@dataclass(frozen=True, slots=True)
class _Image:
    path: str
    label: str | None
    place: int
    """In the list of images, from 0."""


def open_coco(path: str, options: Mapping[str, str], name: str | None = None) -> Dataset:
    """List the images of a COCO file.

    Args:
        path: The file, or a folder whose split folders hold Roboflow's `_annotations.coco.json`.
        options: `root`, the folder that the file names are relative to; the file's own otherwise.
        name: Name of the data set; the file's name without its suffix otherwise.

    Raises:
        SourceError: If the file cannot be used, or an image has several categories.
    """
    if expand(path).is_dir():
        root = expand(path).resolve()
        tree = FolderTree(root)
        files = {root / f / BESIDE_IMAGES: s for f, s in split_folders(tree, BESIDE_IMAGES).items()}
        if not files:
            raise SourceError(
                f"{root} is a folder without train/{BESIDE_IMAGES}; name a COCO file, as "
                f"coco:{path}/annotations.json."
            )
    else:
        file = existing_file(path, _EXPECTED)
        root, files = image_root(file, options), {file: ""}
    first = next(iter(files))
    images = LabelledImages(as_text(first.name), unit="image", numbers=False)
    finder = Finder(FolderTree(root), as_text(first.name))
    advice = (" If the images lie elsewhere, write ", choice(f"coco:{path}", "root", "FOLDER"), ".")
    for file, split in files.items():
        folder = as_text(file.parent.name) if split else ""
        for image in _read(file):
            where = f"images[{image.place}] of {file}"
            below = path_below(image.path, root / folder, where, *advice)
            below = f"{folder}/{below}" if folder else below
            place = finder.find(below)
            if place is not None:
                images.add(below, place, image.label, split, line=image.place)
    own_name = as_text(root.name) if len(files) > 1 or files[first] else as_text(first.stem)
    return images.dataset(name or own_name, root, notes=finder.notes(*advice))


def _read(path: Path) -> list[_Image]:
    content = read_json(path, _EXPECTED)
    if not isinstance(content, dict):
        raise _refused(path, "it is no JSON object")
    categories: dict[int, str] = {}
    for i, entry in enumerate(_list(path, content, "categories")):
        match entry:
            case {"id": int(number), "name": str(text)} if number not in categories:
                categories[number] = text
            case _:
                raise _refused(path, f"categories[{i}] has no id of its own, or no name")
    label: dict[int | str, int] = {}
    for i, entry in enumerate(_list(path, content, "annotations")):
        match entry:
            case {"image_id": int() | str() as image, "category_id": int(category)}:
                pass
            case _:
                raise _refused(path, f"annotations[{i}] has no image_id and category_id")
        if category not in categories:
            raise _refused(path, f"annotations[{i}] names the unknown category {category}")
        if label.setdefault(image, category) != category:
            a, b = categories[label[image]], categories[category]
            raise SourceError(
                f"{path} gives image {image} the categories '{a}' and '{b}'; expected one an "
                f"image. Multi-label and detection data are not supported."
            )
    _check_names(path, categories, set(label.values()))
    found: dict[int | str, _Image] = {}
    for i, entry in enumerate(_list(path, content, "images")):
        match entry:
            case {"id": int() | str() as image, "file_name": str(file)} if image not in found:
                name = categories[label[image]] if image in label else None
                found[image] = _Image(file, name, i)
            case _:
                raise _refused(path, f"images[{i}] has no id of its own, or no file_name")
    stray = next((image for image in label if image not in found), None)
    if stray is not None:
        raise _refused(path, f"an annotation names image {stray}, which is not in images")
    return list(found.values())


def _check_names(path: Path, categories: Mapping[int, str], used: set[int]) -> None:
    """Refuse two categories of one name: labels are names here, and would make them one class.

    Raises:
        SourceError: If images have both.
    """
    first: dict[str, int] = {}
    for number in sorted(used):
        other = first.setdefault(clean_name(categories[number]), number)
        if other != number:
            raise SourceError(
                f"{path} has images of the categories {other} and {number}, which are both called "
                f"'{categories[number]}'; give them names that differ."
            )


def _list(path: Path, content: Mapping[str, Any], key: str) -> list[Any]:
    value = content.get(key)
    if not isinstance(value, list):
        raise _refused(path, f"it has no list '{key}'")
    return value


def _refused(path: Path, why: str) -> SourceError:
    return SourceError(f"{path} is no COCO file that can be used: {why}. Expected {_EXPECTED}.")
