"""Features of CoOp's linear probe: train.npz, val.npz and test.npz of one data set.

feature_list [N, d] float64, not normalised        label_list [N] int64
"""

from pathlib import Path

from featcache.errors import ImportedFileError
from featcache.importers.arrays import read_arrays
from featcache.importers.contents import Array, Contents
from featcache.importers.places import check_folder, check_total, inside

SPLITS = ("train", "val", "test")
KINDS = {"feature_list": "features", "label_list": "labels"}


def read_lpclip(folder: Path) -> Contents:
    """Read the files of one data set.

    Args:
        folder: <out>/<Dataset>, as CoOp's lpclip/feat_extractor.py writes it.

    Raises:
        ImportedFileError: If a file is missing, damaged, or holds other arrays.
    """
    check_folder(folder, "train.npz, val.npz and test.npz")
    paths = {s: path for s in SPLITS if (path := inside(folder, f"{s}.npz")) is not None}
    if "train" not in paths:
        raise ImportedFileError(
            f"{folder} has no train.npz, so nothing can be trained. Give the folder of one data "
            f"set, with train.npz and test.npz."
        )
    check_total(folder, paths.values())
    arrays: dict[str, Array] = {}
    files: dict[str, Path] = {}
    for split, path in paths.items():
        found = read_arrays(path)
        if set(found) != set(KINDS):
            raise ImportedFileError(
                f"{path} should hold feature_list and label_list, got "
                f"{', '.join(sorted(found)[:8]) or 'nothing'}. For other .npz files there is an "
                f"import of their own."
            )
        for theirs, ours in KINDS.items():
            arrays[f"{split}_{ours}"] = found[theirs]
            files[f"{split}_{ours}"] = path
    return Contents(format="lpclip", path=folder, arrays=arrays, files=files, draws="sampled")
