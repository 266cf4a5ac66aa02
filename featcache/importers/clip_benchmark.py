"""Features that CLIP_benchmark keeps for its linear probe.

    features/<model>-<pretrained>-<dataset>/features_{train,val,test}.pt  [N, d]
                                            targets_{train,val,test}.pt   [N]

Rows are normalised unless its user said otherwise, which is not stored; they come in the order of
its loader, without names. Its label order is that of its own data sets.
"""

from pathlib import Path

from featcache.errors import ImportedFileError
from featcache.importers.contents import Array, Contents
from featcache.importers.places import check_folder, check_total, inside
from featcache.importers.torch_arrays import array_in

SPLITS = ("train", "val", "test")


def read_clip_benchmark(folder: Path) -> Contents:
    """Read a folder of features and targets.

    Args:
        folder: features/<model>-<pretrained>-<dataset>.

    Raises:
        ImportedFileError: If a file is missing, damaged, or does not fit its neighbour.
    """
    check_folder(folder, "features_train.pt, targets_train.pt, features_test.pt, targets_test.pt")
    paths: dict[str, Path] = {}
    for split in SPLITS:
        rows, labels = (inside(folder, f"{kind}_{split}.pt") for kind in ("features", "targets"))
        if rows is None and labels is None:
            continue
        if rows is None or labels is None:
            there, lacking = (labels, "features") if rows is None else (rows, "targets")
            raise ImportedFileError(
                f"{folder} has {there.name if there else split} and no {lacking}_{split}.pt: the "
                f"run that wrote it did not finish. Let it finish, or take the file out."
            )
        paths |= {f"{split}_features": rows, f"{split}_labels": labels}
    if "train_features" not in paths:
        raise ImportedFileError(
            f"{folder} has no features_train.pt and targets_train.pt, so nothing can be trained. "
            f"Give the folder of one model and data set below CLIP_benchmark's features folder."
        )
    check_total(folder, paths.values())
    arrays: dict[str, Array] = {n: array_in(p) for n, p in paths.items()}
    parts = sum("_cache_" in file.name for file in folder.glob("*.pt"))
    notes = [f"{parts} parts of an unfinished run (*_cache_*.pt) were left out."] if parts else []
    notes.append("Labels are in the order of CLIP_benchmark's data set, which may be its own.")
    return Contents(
        format="clip-benchmark",
        path=folder,
        arrays=arrays,
        files=paths,
        notes=tuple(notes),
        draws="sampled",
    )
