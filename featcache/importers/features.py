"""Import the result of a reader: add names and texts of a data set, check, store."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from featcache.errors import FeatcacheError, ImportedFileError
from featcache.importers.class_texts import read_class_texts
from featcache.importers.contents import Array, Contents, digest_of
from featcache.importers.known import known_dataset
from featcache.importers.naming import with_names
from featcache.importers.storing import check_names, store_table
from featcache.importers.table import Table, check_contents
from featcache.importers.widths import check_widths
from featcache.progress import Report
from featcache.store.cache import Cache
from featcache.wording import Part

if TYPE_CHECKING:
    import featcache.bank

SAME_SHARE = 0.5
"""Largest share of training rows that may be test rows."""
COMPARED = 32
"""Leading values of each row that are compared."""


def import_features(
    read: Callable[[], Contents],
    root: Path,
    name: str,
    backbone: str,
    *,
    dataset: str | None = None,
    texts: Path | None = None,
    weights: str | None = None,
    report: Report | None = None,
    say: Callable[[Part], None] = lambda _: None,
) -> Cache:
    """Import features into a cache; importing them again restores damaged or lost parts.

    Args:
        read: Reader of the format, e.g. `lambda: read_tip_adapter(folder)`.
        root: Folder of all caches.
        name: Name for the data set.
        backbone: Name of the backbone of the features, e.g. ViT-B/32.
        dataset: Named data set that gives class names and templates; None keeps the names of the
            files, or numbers the classes.
        texts: File with one vector per class.
        weights: Weights of the backbone for encoding class names; None for its default ones. They
            are used only if they are on this machine.
        report: Called with the number of stored rows.
        say: Called with messages about other caches and repairs.

    Raises:
        ImportedFileError: If the features are invalid; the message names the file.
        UnknownNameError: If there is no such data set.
        CacheError: If the cache cannot be written.
    """
    check_names(root, name, backbone)
    known = None if dataset is None else known_dataset(dataset)
    contents = read()
    if known is not None:
        contents = with_names(contents, known)
    if texts is not None:
        contents = _with_texts(contents, texts)
    check_widths(contents, backbone)
    contents = replace(contents, sha256=digest_of(contents.arrays))
    table = check_contents(contents)
    table = replace(table, notes=(*table.notes, *_repeated(contents)))
    bank = None
    if table.text is None and table.templates:
        bank, note = _encode(table, backbone, weights)
        table = replace(table, notes=(*table.notes, note))
    return store_table(table, contents.path, root, name, backbone, report, say, bank=bank)


def _with_texts(contents: Contents, path: Path) -> Contents:
    if "text_features" in contents.arrays:
        raise ImportedFileError(
            f"{contents.file_of('text_features')} has class texts already. Leave out {path}, or "
            f"take the others out."
        )
    rows = next(a for n, a in contents.arrays.items() if n.endswith("_features"))
    found = read_class_texts(path, rows.shape[-1])
    if "classnames" in contents.arrays:
        found.pop("classnames", None)
    files = {**contents.files, **dict.fromkeys(found, path)}
    return replace(contents, arrays={**contents.arrays, **found}, files=files)


def _repeated(contents: Contents) -> list[str]:
    """Refuse training features copied from the test split; return notes on single common rows."""
    test = contents.arrays.get("test_features")
    if test is None:
        return []
    seen = set(_starts(test))
    notes = []
    for name, rows in contents.arrays.items():
        if not name.startswith("train") or not name.endswith("_features"):
            continue
        same = sum(start in seen for start in _starts(rows))
        if same > SAME_SHARE * len(rows):
            raise ImportedFileError(
                f"{same} of {len(rows)} training rows of {contents.file_of(name)} are rows of "
                f"{contents.file_of('test_features')}: both are the same features, so that every "
                f"result would be of images seen in training. Give the features of the training "
                f"images."
            )
        if same:
            notes.append(f"{same} of {len(rows)} rows of {name} are also in the test split.")
    return notes


def _starts(rows: Array) -> list[bytes]:
    first = np.ascontiguousarray(rows[:, :COMPARED].astype(np.float16))
    return [row.tobytes() for row in first]


def _encode(
    table: Table, backbone: str, weights: str | None
) -> "tuple[featcache.bank.TextBank | None, str]":
    """Encode the class names if the weights of the backbone are on this machine, and note it."""
    from featcache.importers.texts import encode_names

    try:
        bank = encode_names(table.classes, table.templates, backbone, weights)
    except FeatcacheError as error:
        return None, (
            f"Class names are stored, but not encoded, so that methods that read texts will not "
            f"run: {error}"
        )
    assert bank.template_rows is not None
    if bank.template_rows.shape[-1] != table.rows.shape[1]:
        raise ImportedFileError(
            f"The texts of {backbone} are {bank.template_rows.shape[-1]} wide and the features "
            f"{table.rows.shape[1]}. Name the backbone that the features are of."
        )
    return bank, f"Class texts were encoded by {backbone} from {len(table.templates)} templates."
