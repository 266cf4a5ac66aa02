"""Features of cross_modal_adaptation: dicts of raw float32 rows, with the paths of the images.

    features/image/<encoder>_<layer>/<dataset>/<view>/shot_{K}-seed_{s}.pth
        {train: {features [N, d], labels, paths}, val: {...}}
    features/image/<encoder>_<layer>/<dataset>/.../test.pth  {features, labels, paths}

Rows are not normalised. Layer 0 is the joint space; of any other layer the file holds activations,
which are no features of an image. A view name that promises several views is not to be trusted:
the released code keeps the last one only, so the rows are counted.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from featcache.errors import ImportedFileError
from featcache.importers.contents import Array, Contents
from featcache.importers.places import check_folder, check_total, inside
from featcache.importers.text_arrays import as_texts
from featcache.importers.torch_arrays import check_array, check_entries
from featcache.importers.torch_files import read_torch
from featcache.wording import Argument

DRAW = re.compile(r"shot_([1-9][0-9]{0,5})-seed_([0-9]{1,9})\.pth")
ENTRIES = ("features", "labels", "paths")


def read_cross_modal(folder: Path, *, seed: int = 1) -> Contents:
    """Read the few-shot sets of one seed, and the test features above them.

    Args:
        folder: The folder of one view, with shot_16-seed_1.pth.
        seed: Which draw: a cache holds one.

    Raises:
        ImportedFileError: If a file is missing, damaged, or of another layer.
    """
    check_folder(folder, "shot_16-seed_1.pth")
    _check_layer(folder)
    draws = [m for f in folder.iterdir() if (m := DRAW.fullmatch(f.name))]
    names = {int(m[1]): m[0] for m in draws if int(m[2]) == seed}
    if not names:
        seeds = ", ".join(sorted({m[2] for m in draws}, key=int)) or "none"
        raise ImportedFileError(
            f"{folder} has no shot_<K>-seed_{seed}.pth; the seeds there are: {seeds}. Choose one "
            "with ",
            Argument("seed"),
            ", or give the folder of one view, as .../none.",
        )
    paths = {k: path for k in sorted(names) if (path := inside(folder, names[k])) is not None}
    test = _test_file(folder)
    check_total(folder, [*paths.values(), test])
    arrays: dict[str, Array] = {}
    files: dict[str, Path] = {}
    for shots, path in paths.items():
        content = check_entries(path, read_torch(path), ("train", "val"))
        _put(arrays, files, f"train{shots}", path, content["train"])
        _put(arrays, files, "val", path, content["val"])  # that of the most shots stays
    _put(arrays, files, "test", test, read_torch(test))
    notes = [f"val is the few-shot draw of {files['val_features'].name}."]
    return Contents(
        format="cross-modal",
        path=folder,
        arrays=arrays,
        files=files,
        notes=tuple(notes),
        whole=("test",),
    )


def _check_layer(folder: Path) -> None:
    """Refuse activations: the layer stands behind the encoder, two folders above the view."""
    encoder = folder.resolve().parent.parent.name
    match = re.fullmatch(r".+_([0-9]{1,3})", encoder)
    if match and int(match[1]):
        raise ImportedFileError(
            f"{folder} belongs to layer {int(match[1])} of '{encoder}': activations before the "
            f"last blocks, which are not in the space of the texts. Give the folder of layer 0."
        )


def _test_file(folder: Path) -> Path:
    for place in (folder, folder.resolve().parent):
        path = inside(place, "test.pth")
        if path is not None:
            return path
    raise ImportedFileError(
        f"There is no test.pth in {folder} or in the folder above it, so nothing could be "
        f"measured. Put it beside the few-shot files."
    )


def _put(
    arrays: dict[str, Array],
    files: dict[str, Path],
    prefix: str,
    path: Path,
    value: Any,
) -> None:
    content: Mapping[str, Any] = check_entries(path, value, ENTRIES)
    for kind in ("features", "labels"):
        arrays[f"{prefix}_{kind}"] = check_array(path, content[kind], f"{prefix} {kind}")
    paths = content["paths"]
    if not isinstance(paths, list | tuple):
        raise ImportedFileError(
            f"{path} should hold a list of texts as the paths of {prefix}, got "
            f"{type(paths).__name__}. Save them as a list of str."
        )
    arrays[f"{prefix}_paths"] = as_texts(path, paths, f"paths of {prefix}")
    files |= {f"{prefix}_{kind}": path for kind in ENTRIES}
