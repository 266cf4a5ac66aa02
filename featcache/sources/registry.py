"""From what the user calls a data set to its images: `folder:PATH` or a name."""

import os
from dataclasses import replace
from pathlib import Path

from featcache.errors import UnknownNameError, UsageError
from featcache.paths import check_folder, expand
from featcache.sources.base import Dataset, Report
from featcache.sources.named import NamedDataset, datasets
from featcache.wording import Argument


def open_dataset(
    spec: str,
    *,
    root: Path,
    name: str | None = None,
    dataset_root: Path | None = None,
    data_root: Path | None = None,
    download: bool = True,
    report: Report | None = None,
) -> Dataset:
    """List the images of a data set, drawing or downloading them where that is needed.

    Args:
        spec: `folder:PATH`, or one of `featcache datasets`.
        root: Of the caches.
        name: What to call it instead of its own name.
        dataset_root: Where the files of a named data set already are.
        data_root: Where named data sets keep their images, as `image_folder` takes it.
        download: Whether missing files may be fetched.
        report: Told of drawing and downloading.

    Raises:
        UnknownNameError: If no data set has that name.
        SourceError: If the images cannot be listed.
    """
    if name is not None and not name.strip():
        raise UsageError("--name needs at least one letter. Got an empty name instead.")
    kind, colon, rest = spec.partition(":")
    if kind == "folder" and colon:
        if dataset_root is not None:
            raise UsageError("--dataset-root is for named data sets; folder:PATH has its own path.")
        from featcache.sources.folder import open_folder

        if not rest:
            raise UsageError("folder: needs a path, e.g. --dataset folder:photos/")
        return open_folder(Path(rest), name)
    images = image_folder(root, data_root)
    dataset = _open_named(find(spec), images, dataset_root, download, report)
    return dataset if name is None else replace(dataset, name=name)


def image_folder(root: Path, data_root: Path | None = None) -> Path:
    """Return where named data sets keep their images; caches of several roots may share it.

    Args:
        root: Of the caches.
        data_root: What the user names; else $FEATCACHE_DATA, else `root/images`.

    Raises:
        CacheError: If what the user names is no folder.
        UsageError: If it begins with the home folder of nobody.
    """
    if data_root is not None:
        return check_folder(expand(data_root).absolute(), Argument("data_root"))
    if place := os.environ.get("FEATCACHE_DATA"):
        return check_folder(expand(place).absolute(), "$FEATCACHE_DATA or ", Argument("data_root"))
    return root / "images"


def name_of(spec: str, name: str | None = None) -> str:
    """Return what a data set will be called, before its images are listed.

    Raises:
        UnknownNameError: If no data set has that name.
        SourceError: If there is no such folder.
    """
    kind, colon, rest = spec.partition(":")
    if kind == "folder" and colon:
        from featcache.sources.folder import existing_folder, name_of_folder

        return name or name_of_folder(existing_folder(Path(rest)))
    return name or find(spec).name


def is_drawn(spec: str) -> bool:
    """Tell whether it is a world that this program draws."""
    return any(d.name == spec and d.kind == "drawn" for d in datasets())


def find(name: str) -> NamedDataset:
    """Look a named data set up.

    Raises:
        UnknownNameError: If there is none of that name.
    """
    known = {d.name: d for d in datasets()}
    if name in known:
        return known[name]
    if expand(name).is_dir():
        raise UsageError(f"'{name}' is a folder, not a name; write --dataset folder:{name}")
    raise UnknownNameError(
        "data set", name, known, "For images of your own write --dataset folder:PATH."
    )


def _open_named(
    spec: NamedDataset,
    images: Path,
    dataset_root: Path | None,
    download: bool,
    report: Report | None,
) -> Dataset:
    if dataset_root is not None:  # the listing remembers where images are, for any later folder
        dataset_root = expand(dataset_root).absolute()
    if spec.kind == "drawn":
        from featcache.sources.fieldguide.world import open_world

        return open_world(spec.name, dataset_root or images, report=report)
    from featcache.sources.torchvision import open_torchvision

    # Nothing is downloaded into a folder that the user named.
    may = download and dataset_root is None
    return open_torchvision(spec, dataset_root or images, download=may, report=report)
