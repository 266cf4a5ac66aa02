"""`csv:FILE`: one image a row, with a path, a label and perhaps a split.

    path,label,split            columns by any of the usual names, or chosen:
    cats/1.jpg,cat,train        csv:photos.csv?path=COLUMN&label=COLUMN&split=COLUMN

Paths are relative to the file, or to `root=FOLDER`. Columns that say nothing of these three stay in
the file (`csv_further`). A one-hot table, as Roboflow writes in `_classes.csv`, has a column a
class; the folder that holds its splits (`train/_classes.csv`, `valid/_classes.csv`) is read as a
whole.
"""

from collections.abc import Mapping
from pathlib import Path

from featcache.errors import SourceError
from featcache.paths import as_text, expand
from featcache.sources.base import Dataset
from featcache.sources.layouts.own.below import Finder, path_below
from featcache.sources.layouts.own.class_names import read_names
from featcache.sources.layouts.own.csv_columns import choice
from featcache.sources.layouts.own.csv_labels import ONE_HOT, label_columns
from featcache.sources.layouts.own.csv_rows import open_table
from featcache.sources.layouts.own.files import existing_file, image_root
from featcache.sources.layouts.own.labelled import LabelledImages
from featcache.sources.layouts.split_names import split_folders
from featcache.sources.trees.folder import FolderTree
from featcache.wording import Part

OPTIONS = ("path", "label", "split", "root", "names", "delimiter")


def open_csv(path: str, options: Mapping[str, str], name: str | None = None) -> Dataset:
    """List the images of a csv or tsv file.

    Args:
        path: The file, or a folder whose split folders hold Roboflow's `_classes.csv`.
        options: Any of `OPTIONS`: names of columns; `root`, the folder of the images; `names`, a
            file of class names in label order; `delimiter`, comma, tab or semicolon.
        name: Name of the data set; the file's name without its suffix otherwise.

    Raises:
        SourceError: If the file or a row of it cannot be used; the message names the line.
    """
    names = read_names(options["names"]) if "names" in options else None
    spec = f"csv:{path}"
    if expand(path).is_dir():
        root = expand(path).resolve()
        tree = FolderTree(root)
        images = LabelledImages(ONE_HOT, names=names)
        finder = Finder(tree, ONE_HOT)
        folders = split_folders(tree, ONE_HOT)
        for folder, split in folders.items():
            add_table(images, finder, root / folder / ONE_HOT, options, spec, folder, split)
        if not folders:
            raise SourceError(
                f"{root} is a folder without train/{ONE_HOT}; name a csv file, as "
                f"csv:{path}/photos.csv."
            )
        return images.dataset(name or as_text(root.name), root, notes=finder.notes())
    file = existing_file(path, "a csv or tsv file")
    images = LabelledImages(as_text(file.name), names=names)
    finder = Finder(FolderTree(image_root(file, options)), as_text(file.name))
    add_table(images, finder, file, options, spec)
    notes = finder.notes(*_advice(spec, options))
    return images.dataset(name or as_text(file.stem), finder.tree.root, notes=notes)


def add_table(
    images: LabelledImages,
    finder: Finder,
    file: Path,
    options: Mapping[str, str],
    spec: str,
    folder: str = "",
    split: str = "",
) -> None:
    """Take the images of one table.

    Args:
        images: Collects the images.
        finder: Finds their files.
        file: The table.
        options: As `open_csv` has them.
        spec: How the reader calls the source, for messages.
        folder: What the paths are relative to, below the finder's root.
        split: Split of rows that name none.

    Raises:
        SourceError: As `open_csv`.
    """
    table = label_columns(open_table(file, options.get("delimiter", ""), spec), options, spec)
    if table.note not in images.notes:
        images.notes.append(table.note)
    root, advice = finder.tree.root / folder, _advice(spec, options)
    for row in table.rows():
        below = path_below(row.path, root, f"Line {row.line} of {file}", *advice)
        below = f"{folder}/{below}" if folder else below
        place = finder.find(below)
        if place is not None:
            images.add(below, place, row.label, row.split or split, line=row.line)


def _advice(spec: str, options: Mapping[str, str]) -> tuple[Part, ...]:
    if "root" in options:
        return (" Name as root the folder that the paths are relative to.",)
    return (" If the images lie in another folder, write ", choice(spec, "root", "FOLDER"), ".")
